"""A node's certificate is worth something as long as its name belongs to its key."""

from __future__ import annotations

import ssl
import time
from typing import Any

import pytest

from k1s.api import node_identity
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base import pki
from k1s.base.http import PeerCertificate, Request
from k1s.server.apiserver.authn.app import Authenticator
from k1s.server.apiserver.authn.node_keys import NodeKeys

NODE = ("system:node:n1", ("system:nodes",))


def record(informers: Any, fingerprint: str, uid: str = "") -> None:
    informers.informer(builtin("Secret")).put(node_identity.new_record("n1", fingerprint, uid))


async def ask(informers: Any, name: str, groups: tuple[str, ...], key: str = "k") -> str:
    request = Request("GET", "/api", peer=PeerCertificate(name, groups, "f", key))
    return (await Authenticator([], nodes=NodeKeys(informers)).authenticate(request)).name


async def shut_out(informers: Any, text: str, key: str = "k", *, removed: bool = False, code: int = 403) -> None:
    """`removed`: in words that make a machine end its pods."""
    with pytest.raises(ApiError) as caught:
        await ask(informers, *NODE, key=key)
    assert caught.value.code == code
    heard = ApiError.from_status(caught.value.status())
    assert node_identity.says_removed(heard) == removed
    assert node_identity.says_unknown(heard) == (code == 403 and not removed)
    assert text in caught.value.message


def freed(informers: Any) -> None:
    secrets = informers.informer(builtin("Secret"))
    found = secrets.get(node_identity.record_name("n1"), node_identity.NAMESPACE)
    data = {**found["data"], **node_identity.freed(found, 1e9)["data"]}
    secrets.put({**found, "data": {k: v for k, v in data.items() if v is not None}})


def claimed(informers: Any, key: str) -> None:
    secrets = informers.informer(builtin("Secret"))
    found = secrets.get(node_identity.record_name("n1"), node_identity.NAMESPACE)
    secrets.put({**found, "data": node_identity.claimed(found, key)})


async def test_a_node_whose_name_is_its_own(informers: Any) -> None:
    record(informers, "k")
    assert await ask(informers, *NODE) == "system:node:n1"
    informers.put("Node", "n1", metadata={"uid": "u"})
    record(informers, "k", "u")
    assert await ask(informers, *NODE) == "system:node:n1"


async def test_nodes_that_are_shut_out(informers: Any) -> None:
    await shut_out(informers, "does not know this machine")  # a database that was lost, or from before it joined
    record(informers, "other")
    await shut_out(informers, "does not know this machine")  # a database from when another one had the name
    await shut_out(informers, "does not know this machine", key="")
    record(informers, "k", "u")
    await shut_out(informers, "is being removed", code=503)  # its Node was there and has gone: or is it the cache?
    informers.put("Node", "n1", metadata={"uid": "u"})
    assert await ask(informers, *NODE) == "system:node:n1"


async def test_only_who_had_the_name_is_told_that_it_was_removed(informers: Any) -> None:
    record(informers, "k", "u")
    freed(informers)
    await shut_out(informers, 'node "n1" was removed from this cluster', removed=True)
    await shut_out(informers, "does not know this machine", key="")
    await shut_out(informers, "does not know this machine", key="other")
    claimed(informers, "second")
    assert await ask(informers, *NODE, key="second") == "system:node:n1"
    await shut_out(informers, "belongs to another machine now", removed=True)
    freed(informers)
    await shut_out(informers, "was removed", removed=True)
    await shut_out(informers, "was removed", key="second", removed=True)
    claimed(informers, "k")  # the first one is back
    assert await ask(informers, *NODE) == "system:node:n1"
    await shut_out(informers, "belongs to another machine now", key="second", removed=True)
    for number in range(20):
        claimed(informers, f"key-{number}")
    await shut_out(informers, "belongs to another machine now", key="key-18", removed=True)
    await shut_out(informers, "does not know this machine")  # so many are remembered, no more


async def test_others_are_not_asked(informers: Any) -> None:
    assert await ask(informers, "system:admin", ("system:masters",)) == "system:admin"
    # Without the group it is no node for anybody.
    assert await ask(informers, "system:node:n1", ()) == "system:node:n1"


def test_the_fingerprint_of_a_certificates_key_is_that_of_its_request() -> None:
    ca = pki.create_ca("ca", time.time())
    key = pki.new_key()
    pem = pki.issue(ca, key, pki.Subject("x"), usage="client", now=time.time())
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    assert pki.key_fingerprint(der) == pki.read_certificate(pem).key_fingerprint
    assert pki.key_fingerprint(der) == pki.read_csr(pki.make_csr(key, pki.Subject("y"))).key_fingerprint
    with pytest.raises(pki.PkiError):
        pki.key_fingerprint(b"\x30\x00")


def test_other_errors_do_not_say_removed() -> None:
    assert not node_identity.says_removed(ApiError(403, "Forbidden", "was removed"))
    assert not node_identity.says_removed(ApiError(403, "Forbidden", "x", {"causes": [{"reason": "FieldValueRequired"}]}))
