"""A server whose host's address changes while it runs."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.api.errors import ApiError
from k1s.base import pki
from k1s.base.clock import REAL_CLOCK
from k1s.net import netns
from k1s.server import addresses
from k1s.server.addresses import AddressFollower
from k1s.server.certificates import ServerCertificates
from k1s.server.config import ServerConfig

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def host() -> Iterator[str]:
    with netlab.namespace() as name, netns.entered(netlab.path_of(name)):
        netlab.run("ip", "-n", name, "link", "add", "up0", "type", "bridge")
        netlab.run("ip", "-n", name, "link", "set", "up0", "up")
        give(name, "192.0.2.1")
        yield name


def give(host: str, address: str) -> None:
    netlab.run("ip", "-n", host, "addr", "flush", "dev", "up0", "scope", "global")
    netlab.run("ip", "-n", host, "addr", "add", f"{address}/24", "dev", "up0")
    netlab.run("ip", "-n", host, "route", "add", "default", "via", "192.0.2.254")


class Told:
    """What the follower wrote; fails as often as it is told to."""

    def __init__(self) -> None:
        self.endpoints: list[str] = []
        self.failures = 0
        self.changed = asyncio.Event()

    async def ensure_endpoints(self, client: Any, informers: Any, address: str, port: int) -> None:
        assert port == 6443
        if self.failures:
            self.failures -= 1
            raise ApiError(500, "InternalError", "try again")
        self.endpoints.append(address)
        self.changed.set()

    async def next(self) -> None:
        await asyncio.wait_for(self.changed.wait(), 5)
        self.changed.clear()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    made = Told()
    monkeypatch.setattr(addresses, "ensure_endpoints", made.ensure_endpoints)
    return made


@pytest.fixture
async def certificates(host: str, told: Told, tmp_path: Path) -> AsyncIterator[ServerCertificates]:
    config = ServerConfig(data_dir=tmp_path, write_kubeconfig=str(tmp_path / "k1s.yaml"))
    made = ServerCertificates(config, REAL_CLOCK, addresses=("host", "192.0.2.1"))
    made.ensure()
    nothing: Any = None
    follower = AddressFollower(made, nothing, nothing, REAL_CLOCK, names=("host",), address="192.0.2.1", port=6443)
    ready = asyncio.Event()
    task = asyncio.create_task(follower.run(ready.set))
    await ready.wait()
    yield made
    task.cancel()


def names(context: ssl.SSLContext) -> set[str]:
    """Whom the live context says the server is, to a client that connects now."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(incoming, outgoing)
    answering_in, answering_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    answering = context.wrap_bio(answering_in, answering_out, server_side=True)
    for _ in range(5):
        for side in (asking, answering):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
        answering_in.write(outgoing.read())
        incoming.write(answering_out.read())
    der = asking.getpeercert(True)
    assert der is not None
    return set(pki.read_certificate(ssl.DER_cert_to_PEM_cert(der).encode()).subject.sans)


async def test_another_address(host: str, certificates: ServerCertificates, told: Told) -> None:
    context = certificates.server_context()
    assert {"192.0.2.1", "host"} <= names(context)
    give(host, "192.0.2.9")
    await told.next()
    assert told.endpoints == ["192.0.2.9"]
    assert {"192.0.2.9", "host"} <= names(context)
    assert "192.0.2.1" not in names(context)


async def test_a_host_without_an_address_keeps_the_one_it_had(host: str, certificates: ServerCertificates, told: Told) -> None:
    context = certificates.server_context()
    netlab.run("ip", "-n", host, "addr", "flush", "dev", "up0")
    await asyncio.sleep(0.2)
    give(host, "192.0.2.1")
    await asyncio.sleep(0.2)
    assert told.endpoints == []
    assert "192.0.2.1" in names(context)


async def test_an_address_that_is_still_there_stays(host: str, certificates: ServerCertificates, told: Told) -> None:
    netlab.run("ip", "-n", host, "link", "add", "vpn0", "type", "bridge")
    netlab.run("ip", "-n", host, "addr", "add", "198.51.100.7/24", "dev", "vpn0")
    netlab.run("ip", "-n", host, "link", "set", "vpn0", "up")
    netlab.run("ip", "-n", host, "route", "replace", "default", "via", "198.51.100.1")
    await asyncio.sleep(0.3)
    assert told.endpoints == []
    netlab.run("ip", "-n", host, "addr", "flush", "dev", "up0")
    await told.next()
    assert told.endpoints == ["198.51.100.7"]


async def test_what_cannot_be_written_is_tried_again(host: str, certificates: ServerCertificates, told: Told) -> None:
    told.failures = 1
    give(host, "192.0.2.9")
    await told.next()
    assert told.endpoints == ["192.0.2.9"]
