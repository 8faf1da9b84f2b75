"""A client that knows two ways to the API: one is cut, hangs or comes back, and its watches and requests go on."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from k1s.agent.load_balancer import LoadBalancer, probe
from k1s.api.catalog import builtin
from k1s.base import http_server, pki
from k1s.base.clock import REAL_CLOCK
from k1s.base.http import Request
from k1s.base.relay import joined
from k1s.client.informer import WatchInformers
from k1s.client.rest import RestClient
from k1s.client.servers import ServerAway, TransportError
from k1s.client.transport import HttpTransport, LocalTransport, client_tls
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.storage.memory import MemoryStore

CONFIG_MAP = builtin("ConfigMap")
ADMIN = UserInfo("admin", ("system:masters", "system:authenticated"))


class Everybody:
    async def authenticate(self, request: Request) -> UserInfo:
        return ADMIN

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        return None


@dataclass
class Door:
    """A TCP proxy in front of the server: what a server of its own would be to the client."""

    behind: int
    port: int = 0
    deaf: bool = False
    opened: int = 0
    server: asyncio.Server | None = None
    transports: set[asyncio.Transport] = field(default_factory=set)
    # A writer that nobody holds closes its transport, whoever uses that by then.
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        transport = writer.transport
        self.transports.add(transport)
        self.writers.append(writer)
        if self.deaf:
            return
        here, there = joined()
        here.connection_made(transport)
        await asyncio.get_running_loop().create_connection(lambda: there, "127.0.0.1", self.behind)
        there.transport.pause_reading()
        transport.set_protocol(here)
        if reader._buffer:
            here.data_received(bytes(reader._buffer))
        there.transport.resume_reading()

    async def shut(self) -> None:
        """As kill -9 of the server: connections are reset, the port is closed."""
        assert self.server is not None
        self.server.close()
        for transport in self.transports:
            transport.abort()
        self.transports.clear()
        await asyncio.sleep(0)


@dataclass
class Rig:
    doors: tuple[Door, Door]
    balancer: LoadBalancer
    transport: HttpTransport
    client: RestClient
    inside: RestClient

    async def put(self, name: str) -> None:
        await self.inside.create(CONFIG_MAP, {"metadata": {"name": name, "namespace": "default"}}, "default")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    now = time.time()
    ca, key = pki.create_ca("test-ca", now), pki.new_key()
    leaf = pki.issue(ca, key, pki.Subject("k1s", sans=("127.0.0.1",)), usage="server", now=now)
    (tmp_path / "crt").write_bytes(leaf)
    (tmp_path / "key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    store = MemoryStore()
    await store.open()
    server = ApiServer(store, authenticator=Everybody(), authorizer=Everybody())
    ready = asyncio.Event()
    running = asyncio.create_task(server.run(ready.set))
    await ready.wait()
    listener = await http_server.listen(server.handle, host="127.0.0.1", port=0, tls=context)
    doors = (Door(listener.port), Door(listener.port))
    for door in doors:
        await door.open()
    tls = client_tls(ca_data=ca.certificate.decode())
    balancer = LoadBalancer([door.url for door in doors], REAL_CLOCK, lambda url: probe(url, tls))
    transport = HttpTransport(balancer, tls, timeout=1.0)
    inside = RestClient(LocalTransport(server.handle, ADMIN))
    made = Rig(doors, balancer, transport, RestClient(transport, "test"), inside)
    try:
        yield made
    finally:
        await balancer.close()
        await transport.close()
        for door in doors:
            await door.shut()
        await listener.close(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()


async def until(probe: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, "not in time"
        await asyncio.sleep(0.01)


async def test_a_watch_moves_on_at_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second = rig.doors
    informers = WatchInformers(rig.client)
    config_maps = informers.informer(CONFIG_MAP)
    running = asyncio.create_task(informers.run())
    await asyncio.wait_for(config_maps.synced(), 5)
    await rig.put("one")
    await until(lambda: config_maps.get("one", "default") is not None)
    assert second.opened == 0, "one server is enough while it works"
    await first.shut()
    await rig.put("two")
    await until(lambda: config_maps.get("two", "default") is not None, 3)
    assert rig.balancer.choose() == second.url
    # It is not left again for the first one when that is back.
    await first.open()
    before = first.opened
    await rig.put("three")
    await until(lambda: config_maps.get("three", "default") is not None)
    assert (await rig.client.get(CONFIG_MAP, "three", "default")) and first.opened == before
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    lines = [record.getMessage() for record in caplog.records if record.name == "k1s.agent.servers"]
    assert len(lines) == 1 and lines[0].endswith(f"going on with {second.url}")


async def test_what_could_not_be_sent_goes_to_the_next_server(rig: Rig) -> None:
    await rig.doors[0].shut()
    made = await rig.client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "default"}}, "default")
    assert made["metadata"]["name"] == "a"


async def test_a_server_that_hangs_is_left_after_the_time_limit(rig: Rig) -> None:
    rig.doors[0].deaf = True
    with pytest.raises(TransportError, match="timed out"):
        await rig.client.list(CONFIG_MAP)
    assert await rig.client.list(CONFIG_MAP) == []
    assert rig.balancer.choose() == rig.doors[1].url


async def test_watches_leave_a_server_that_another_request_found_hanging(rig: Rig) -> None:
    informers = WatchInformers(rig.client)
    config_maps = informers.informer(CONFIG_MAP)
    running = asyncio.create_task(informers.run())
    await asyncio.wait_for(config_maps.synced(), 5)
    for transport in rig.doors[0].transports:
        transport.pause_reading()
    rig.balancer.failed(rig.doors[0].url, "timed out")
    assert await rig.client.list(CONFIG_MAP) == []
    await rig.put("one")
    await until(lambda: config_maps.get("one", "default") is not None, 3)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_outage_is_two_lines_and_everything_catches_up(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    informers = WatchInformers(rig.client)
    watched = [informers.informer(builtin(kind)) for kind in ("ConfigMap", "Secret", "Pod", "Service", "Node", "Namespace")]
    running = asyncio.create_task(informers.run())
    for informer in watched:
        await asyncio.wait_for(informer.synced(), 5)
    for door in rig.doors:
        await door.shut()
    with pytest.raises(TransportError):
        await rig.client.list(CONFIG_MAP)
    await until(lambda: rig.balancer.away)
    with pytest.raises(ServerAway):
        await rig.client.list(CONFIG_MAP)
    await rig.put("meanwhile")
    await asyncio.sleep(2)
    await rig.doors[1].open()
    back = time.monotonic()
    await until(lambda: watched[0].get("meanwhile", "default") is not None, 5)
    assert time.monotonic() - back < 4
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    lines = [
        record.getMessage() for record in caplog.records if record.levelno >= logging.INFO and record.name.startswith("k1s.")
    ]
    assert len(lines) == 2, lines
    assert sum("no server can be reached" in line for line in lines) == 1 and sum("is back after" in line for line in lines) == 1


async def test_a_server_of_another_cluster_is_never_believed(rig: Rig, tmp_path: Path) -> None:
    now = time.time()
    ca, key = pki.create_ca("other-ca", now), pki.new_key()
    (tmp_path / "x.crt").write_bytes(pki.issue(ca, key, pki.Subject("k1s", sans=("127.0.0.1",)), usage="server", now=now))
    (tmp_path / "x.key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "x.crt", tmp_path / "x.key")
    asked = []

    async def handle(request: Request) -> None:
        asked.append(request)

    impostor = await http_server.listen(handle, host="127.0.0.1", port=0, tls=context)
    rig.balancer._given.insert(0, f"https://127.0.0.1:{impostor.port}")
    rig.balancer._current = rig.balancer._given[0]
    assert await rig.client.list(CONFIG_MAP) == []
    assert rig.balancer.choose() == rig.doors[0].url and not asked
    await impostor.close(0.1)
