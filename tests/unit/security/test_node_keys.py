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


async def shut_out(informers: Any, key: str = "k", text: str = 'node "n1" was removed') -> None:
    with pytest.raises(ApiError) as caught:
        await ask(informers, *NODE, key=key)
    assert caught.value.code == 403
    assert node_identity.says_removed(ApiError.from_status(caught.value.status()))
    assert text in caught.value.message


async def test_a_node_whose_name_is_its_own(informers: Any) -> None:
    record(informers, "k")
    assert await ask(informers, *NODE) == "system:node:n1"
    informers.put("Node", "n1", metadata={"uid": "u"})
    record(informers, "k", "u")
    assert await ask(informers, *NODE) == "system:node:n1"


async def test_nodes_that_are_shut_out(informers: Any) -> None:
    await shut_out(informers)  # no record: forgotten
    record(informers, "other")
    await shut_out(informers, text="belongs to another machine now")
    await shut_out(informers, key="", text="belongs to another machine now")
    record(informers, "k", "u")
    await shut_out(informers)  # its Node was there and has gone, the record will follow
    informers.put("Node", "n1", metadata={"uid": "u"})
    assert await ask(informers, *NODE) == "system:node:n1"


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
