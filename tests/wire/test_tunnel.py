"""Tunnels on real sockets with real certificates: an API server, a node's agent that opens them, and targets behind it."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k1s.agent.load_balancer import LoadBalancer
from k1s.agent.tunnel import app as agent_tunnel
from k1s.agent.tunnel.targets import TargetRefused, Targets
from k1s.agent.tunnel.wire import ServerUnreachable, TunnelRefused, open_wire
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError, unauthorized
from k1s.base import http_server, pki
from k1s.base.clock import REAL_CLOCK
from k1s.base.http import ByteStream, Headers, RawUpgrade, Request, Response
from k1s.base.tunnel import PATH
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport, client_tls
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.forward import Target
from k1s.server.apiserver.subresources.streams import Streams
from k1s.server.tunnel import Tunnels
from k1s.storage.memory import MemoryStore

ADMIN = UserInfo("admin", ("system:masters", "system:authenticated"))
# Nothing routes there: what reaches it went through the tunnel.
NOWHERE = "198.51.100.7"
POD = "127.9.0.5"


class ByCertificate:
    def __init__(self) -> None:
        self.removed: set[str] = set()

    async def authenticate(self, request: Request) -> UserInfo:
        if request.peer is None:
            raise unauthorized()
        if request.peer.common_name in self.removed:
            raise ApiError(403, "Forbidden", "the node was removed")
        return UserInfo(request.peer.common_name, request.peer.organizations)

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        return None


@dataclass
class Rig:
    home: Path
    ca: pki.Pair
    server: ApiServer
    tunnels: Tunnels
    client: RestClient
    authenticator: ByCertificate
    url: str
    kubelet_tls: ssl.SSLContext
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def tls(self, name: str, *groups: str) -> ssl.SSLContext:
        """A client context with a certificate for that user."""
        key = pki.new_key()
        certificate = pki.issue(self.ca, key, pki.Subject(name, groups), usage="client", now=time.time())
        files = [self.home / f"{name}.{kind}" for kind in ("crt", "key")]
        for file, data in zip(files, (certificate, key), strict=True):
            file.write_bytes(data)
        return client_tls(ca_data=self.ca.certificate.decode(), cert_file=files[0], key_file=files[1])

    async def node(self, name: str, kubelet_port: int) -> None:
        await self.client.create(builtin("Node"), {"metadata": {"name": name}, "spec": {"podCIDRs": ["127.9.0.0/24"]}})
        addresses = [{"type": "InternalIP", "address": NOWHERE}]
        status = {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}}}
        await self.client.patch(builtin("Node"), name, "", {"status": status}, subresource="status")

    def agent(self, name: str, kubelet_port: int, *urls: str) -> agent_tunnel.Tunnels:
        async def probe(url: str) -> bool:
            return True

        agent = fake_agent(name, kubelet_port)
        balancer = LoadBalancer(urls or (self.url,), REAL_CLOCK, probe)
        tunnels = agent_tunnel.Tunnels(agent, balancer, self.tls(f"system:node:{name}", "system:nodes"))
        self.tasks.append(asyncio.create_task(tunnels.run()))
        return tunnels

    async def stop_agents(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def proxied(self, name: str) -> str:
        """What a node's agent says of its health, asked through the API."""
        return (await self.client.raw("GET", f"/api/v1/nodes/{name}/proxy/healthz")).decode()


async def until(probe: Callable[[], bool]) -> None:
    for _ in range(250):
        if probe():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("not within 5 s")


def fake_agent(name: str, kubelet_port: int) -> Any:
    pod = SimpleNamespace(status={"podIP": POD}, pod={"spec": {}})
    host = {"hostNetwork": True, "containers": [{"ports": [{"containerPort": 9100}]}]}
    host_pod = SimpleNamespace(status={"podIP": NOWHERE}, pod={"spec": host})
    return SimpleNamespace(
        node_name=name,
        node_ips=(NOWHERE,),
        pods=[pod, host_pod],
        clock=REAL_CLOCK,
        address_handlers=[],
        config=SimpleNamespace(kubelet_port=kubelet_port, service_cidr="10.43.0.0/16,fd00:43::/112"),
    )


@asynccontextmanager
async def kubelet(rig: Rig, answer: Any = None, name: str = "n1") -> AsyncIterator[int]:
    """A node's agent's listener: its certificate names the node and its address."""
    key = pki.new_key()
    leaf = pki.issue(rig.ca, key, pki.Subject("kubelet", sans=(name, NOWHERE)), usage="server", now=time.time())
    (rig.home / "kubelet.crt").write_bytes(leaf)
    (rig.home / "kubelet.key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(rig.home / "kubelet.crt", rig.home / "kubelet.key")

    async def echo(stream: ByteStream) -> None:
        while data := await stream.read():
            await stream.write(data.upper())

    async def handle(request: Request) -> Any:
        if request.headers.get("Upgrade"):
            return RawUpgrade("echo", echo)
        size = request.path.removeprefix("/big/")
        return Response(200, b"x" * int(size) if size.isdigit() else b"ok", "text/plain")

    listener = await http_server.listen(answer or handle, host="127.0.0.1", port=0, tls=context)
    try:
        yield listener.port
    finally:
        await listener.close(0.1)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    now = time.time()
    ca, key = pki.create_ca("test-ca", now), pki.new_key()
    leaf = pki.issue(ca, key, pki.Subject("k1s", sans=("127.0.0.1", "localhost")), usage="server", now=now)
    for name, data in (("ca.pem", ca.certificate), ("server.pem", leaf), ("server.key", key)):
        (tmp_path / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=ca.certificate.decode())
    kubelet_tls = client_tls(ca_data=ca.certificate.decode())
    store, by_certificate = MemoryStore(), ByCertificate()
    await store.open()
    tunnels = Tunnels(by_certificate.authenticate)
    server = ApiServer(
        store, authenticator=by_certificate, authorizer=by_certificate, handlers=Streams(lambda: kubelet_tls).handlers(),
        paths={PATH: tunnels.handle}, open_paths=(PATH,), tunnels=tunnels,
    )  # fmt: skip
    tunnels.attach(server.informers, server.metrics)
    ready = asyncio.Event()
    running = asyncio.create_task(server.run(ready.set))
    await ready.wait()
    listener = await http_server.listen(server.handle, host="127.0.0.1", port=0, tls=context)
    client = RestClient(LocalTransport(server.handle, ADMIN))
    made = Rig(tmp_path, ca, server, tunnels, client, by_certificate, f"https://127.0.0.1:{listener.port}", kubelet_tls)
    try:
        yield made
    finally:
        await made.stop_agents()
        await listener.close(0.1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()


async def test_an_agent_is_reached_through_its_tunnel(rig: Rig) -> None:
    async with kubelet(rig) as port:
        await rig.node("n1", port)
        rig.agent("n1", port)
        # Asked before the tunnel stands: the request waits for it.
        assert await rig.proxied("n1") == "ok"
        body = await rig.client.raw("GET", "/api/v1/nodes/n1/proxy/big/5000000")
        assert len(body) == 5_000_000
        request = Request(
            "GET", "/api/v1/nodes/n1/proxy/exec", headers=Headers([("Upgrade", "echo"), ("Connection", "Upgrade")]),
            raw_path="/api/v1/nodes/n1/proxy/exec", context={"user": ADMIN},
        )  # fmt: skip
        answer = await rig.server.handle(request)
        assert isinstance(answer, RawUpgrade)
        ours = Talk()
        serving = asyncio.create_task(answer.serve(ours))
        await ours.incoming.put(b"hello")
        assert await asyncio.wait_for(ours.outgoing.get(), 5) == b"HELLO"
        await ours.incoming.put(b"")
        await asyncio.wait_for(serving, 5)


class Talk:
    """A client's upgraded connection in memory."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.outgoing: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self.incoming.get()

    async def write(self, data: bytes) -> None:
        await self.outgoing.put(data)

    async def close(self) -> None:
        return None


async def test_many_requests_at_once(rig: Rig) -> None:
    async with kubelet(rig) as port:
        await rig.node("n1", port)
        rig.agent("n1", port)
        await rig.tunnels.appeared("n1")
        assert b"\nk1s_tunnels 1\n" in rig.server.exposition()
        bodies = await asyncio.gather(
            *(rig.client.raw("GET", f"/api/v1/nodes/n1/proxy/big/{size * 10_000}") for size in range(1, 41))
        )
        assert [len(body) for body in bodies] == [size * 10_000 for size in range(1, 41)]
        await asyncio.sleep(0.05)
        assert len(rig.tunnels._tunnels["n1"].mux) == 0, "streams are over when their requests are"


async def test_a_certificate_that_does_not_fit_is_noticed_through_the_tunnel(rig: Rig) -> None:
    async with kubelet(rig) as port:
        await rig.node("n1", port)
        rig.agent("n1", port)
        await rig.tunnels.appeared("n1")
        target = Target(NOWHERE, port, "/", rig.kubelet_tls, "somebody-else", node="n1")
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.wait_for(rig.server.dialer.connect(target), 3)


async def test_a_client_that_goes_away_leaves_no_stream_behind(rig: Rig) -> None:
    """Also when the target neither sends anything nor notices."""
    ended = asyncio.Event()

    async def deaf(stream: ByteStream) -> None:
        await ended.wait()

    async def handle(request: Request) -> Any:
        return RawUpgrade("deaf", deaf)

    async with kubelet(rig, handle) as port:
        await rig.node("n1", port)
        rig.agent("n1", port)
        await rig.tunnels.appeared("n1")
        mux = rig.tunnels._tunnels["n1"].mux
        for tls in (rig.kubelet_tls, None):
            _, writer = await rig.server.dialer.connect(Target(NOWHERE, port, "/", tls, node="n1"))
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: deaf\r\n\r\n")
            await asyncio.sleep(0.1)
            assert len(mux) == 1
            writer.close()
            await until(lambda: len(mux) == 0)
        ended.set()


async def test_no_descriptor_is_left_behind(rig: Rig) -> None:
    """TLS through a tunnel takes a pair of sockets: whatever becomes of the request, they are closed."""
    async with kubelet(rig) as port:
        await rig.node("n1", port)
        rig.agent("n1", port)
        assert await rig.proxied("n1") == "ok"
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            assert await rig.proxied("n1") == "ok"
            with pytest.raises(ssl.SSLCertVerificationError):
                await rig.server.dialer.connect(Target(NOWHERE, port, "/", rig.kubelet_tls, "other", node="n1"))
            with pytest.raises(ConnectionRefusedError):
                await rig.server.dialer.connect(Target(POD, 1, "/", rig.kubelet_tls))
            given_up = asyncio.create_task(rig.server.dialer.connect(Target(NOWHERE, port, "/", rig.kubelet_tls, node="n1")))
            await asyncio.sleep(0.002)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            if not given_up.cancelled():
                given_up.result()[1].close()
        await until(lambda: len(rig.tunnels._tunnels["n1"].mux) == 0)
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_pods_of_the_node_are_reached(rig: Rig) -> None:
    async def handle(request: Request) -> Response:
        return Response(200, b"pod", "text/plain")

    listener = await http_server.listen(handle, host=POD, port=0, tls=None)
    await rig.node("n1", 1)
    rig.agent("n1", 1)
    await rig.tunnels.appeared("n1")
    reader, writer = await rig.server.dialer.connect(Target(POD, listener.port, "/"))
    assert writer.get_extra_info("socket") is None, "a stream of the tunnel"
    writer.write(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"pod")
    writer.close()
    await listener.close(0.1)


async def test_what_the_target_says_is_final(rig: Rig) -> None:
    await rig.node("n1", 1)  # nobody listens there
    rig.agent("n1", 1)
    await rig.tunnels.appeared("n1")
    began = time.monotonic()
    with pytest.raises(ApiError, match=r"error trying to reach service: dial tcp 198\.51\.100\.7:1: .*refused") as caught:
        await rig.proxied("n1")
    assert caught.value.code == 503 and time.monotonic() - began < 1.5


async def test_without_a_tunnel_a_request_fails_clearly(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from k1s.server.apiserver import dial

    monkeypatch.setattr(dial, "TUNNEL_SECONDS", 0.2)

    async def refused(target: Target) -> Any:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(dial, "direct", refused)
    await rig.node("n1", 10250)
    with pytest.raises(ApiError, match=r"error trying to reach service: dial tcp 198\.51\.100\.7:10250: .*refused"):
        await asyncio.wait_for(rig.proxied("n1"), 2)
    assert not rig.tunnels._awaited


async def test_a_node_does_not_pass_for_another(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are for each node to choose, in its status and in its certificate: only the name counts."""
    async with kubelet(rig, name="n2") as port:
        await rig.node("n1", port)
        rig.agent("n1", port)
        await until(lambda: rig.tunnels.has("n1"))
        with pytest.raises(ApiError, match=r"x509: Hostname mismatch.*'n1'"):
            await asyncio.wait_for(rig.proxied("n1"), 5)


async def test_the_other_way_is_tried(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tunnel whose agent is frozen does not answer: the direct way begins beside it."""
    from k1s.server.apiserver import dial

    monkeypatch.setattr(dial, "STAGGER", 0.1)
    async with kubelet(rig) as port:
        await rig.node("n1", port)
        await rig.client.patch(
            builtin("Node"), "n1", "", {"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}},
            subresource="status",
        )  # fmt: skip
        wire = await open_wire(rig.url, rig.tls("system:node:n1", "system:nodes"), ())
        await rig.tunnels.appeared("n1")
        rig.kubelet_tls.check_hostname = False
        assert await asyncio.wait_for(rig.proxied("n1"), 3) == "ok"
        await asyncio.sleep(0.05)
        assert len(rig.tunnels._tunnels["n1"].mux) == 0, "the stream that was not needed is given up"
        await wire.close()


async def test_only_a_nodes_own_certificate_opens_a_tunnel(rig: Rig) -> None:
    others = (("admin", "system:masters"), ("system:node:n1", "system:masters"), ("system:node:", "system:nodes"))
    for name, group in others:
        with pytest.raises(TunnelRefused, match="only a node's own certificate"):
            await open_wire(rig.url, rig.tls(name, group), ())
    with pytest.raises(TunnelRefused, match="Unauthorized"):
        await open_wire(rig.url, rig.kubelet_tls, ())
    rig.authenticator.removed.add("system:node:gone")
    with pytest.raises(TunnelRefused, match="removed"):
        await open_wire(rig.url, rig.tls("system:node:gone", "system:nodes"), ())
    assert len(rig.tunnels) == 0


async def test_a_newer_tunnel_replaces_the_older(rig: Rig) -> None:
    tls = rig.tls("system:node:n1", "system:nodes")
    older = await open_wire(rig.url, tls, ())
    newer = await open_wire(rig.url, tls, ())
    assert await asyncio.wait_for(older.read(), 5) == b""
    assert rig.tunnels.nodes() == ["n1"]
    with pytest.raises(TunnelRefused) as refused:
        await open_wire(rig.url, tls, [newer.server])
    assert refused.value.known
    await older.close()
    await newer.close()


async def test_two_names_of_one_server_make_one_tunnel(rig: Rig) -> None:
    other = rig.url.replace("127.0.0.1", "localhost")
    tunnels = rig.agent("n1", 1, rig.url, other)
    # Both may have asked at the same moment: then the newer one has replaced the older, once.
    await asyncio.sleep(1.5)
    first = rig.tunnels._tunnels["n1"]
    await asyncio.sleep(1)
    assert rig.tunnels._tunnels["n1"] is first and sum(tunnels._open.values()) == 1
    # When it ends, one of the two loops opens the next.
    await first.wire.close()
    await until(lambda: rig.tunnels._tunnels.get("n1") not in (None, first))


async def test_a_tunnel_goes_with_its_node(rig: Rig) -> None:
    await rig.node("n1", 1)
    wire = await open_wire(rig.url, rig.tls("system:node:n1", "system:nodes"), ())
    await rig.tunnels.appeared("n1")
    await rig.client.delete(builtin("Node"), "n1")
    assert await asyncio.wait_for(wire.read(), 5) == b""
    assert len(rig.tunnels) == 0
    await wire.close()


async def test_a_server_that_stops_ends_its_tunnels(rig: Rig) -> None:
    tls = rig.tls("system:node:n1", "system:nodes")
    wire = await open_wire(rig.url, tls, ())
    await rig.tunnels.appeared("n1")
    rig.server.dialer.close()
    assert await asyncio.wait_for(wire.read(), 5) == b""
    with pytest.raises(ConnectionError, match="shutting down"):
        await open_wire(rig.url, tls, ())
    await wire.close()


async def test_a_server_that_opens_no_tunnels_is_not_taken_for_lost(rig: Rig) -> None:
    """A proxy in between that does not pass upgrades on, for one: requests work, so the balancer hears nothing of it."""
    with pytest.raises(ServerUnreachable):
        await open_wire("https://127.0.0.1:1", rig.kubelet_tls, ())
    for said in (b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"):

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = said) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            writer.close()

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(rig.home / "server.pem", rig.home / "server.key")
        proxy = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        with pytest.raises(TunnelRefused):
            await open_wire(f"https://127.0.0.1:{proxy.sockets[0].getsockname()[1]}", rig.kubelet_tls, ())
        proxy.close()


async def test_rubbish_in_a_tunnel_ends_it_and_nothing_else(rig: Rig) -> None:
    wire = await open_wire(rig.url, rig.tls("system:node:n1", "system:nodes"), ())
    await wire.write(b"\xff" * 64)
    assert await asyncio.wait_for(wire.read(), 5) == b""
    await wire.close()
    await asyncio.sleep(0)
    assert len(rig.tunnels) == 0 and (await rig.client.raw("GET", "/livez")) == b"ok"


async def test_the_machine_moves(rig: Rig) -> None:
    tunnels = rig.agent("n1", 1)
    await rig.tunnels.appeared("n1")
    first = rig.tunnels._tunnels["n1"]
    await until(lambda: bool(tunnels._wires))
    for handler in tunnels._agent.address_handlers:
        handler("192.0.2.99")
    await until(lambda: rig.tunnels._tunnels.get("n1") not in (None, first))


@pytest.mark.parametrize(
    ("target", "dialled"),
    [
        (f"{NOWHERE}:10250", ("127.0.0.1", 10250)),
        ("127.0.0.1:10250", ("127.0.0.1", 10250)),
        (f"{POD}:8080", (POD, 8080)),
        (f"{NOWHERE}:9100", (NOWHERE, 9100)),
        ("10.43.0.1:443", ("10.43.0.1", 443)),
        ("[fd00:43::a]:443", ("fd00:43::a", 443)),
        ("127.0.0.1:22", None),
        ("127.0.0.1:9100", None),
        (f"{NOWHERE}:22", None),
        ("[::1]:22", None),
        ("127.9.0.6:8080", None),
        ("8.8.8.8:53", None),
        ("169.254.169.254:80", None),
        ("localhost:10250", None),
        ("::ffff:127.0.0.1:22", None),
        ("10.44.0.1", None),
        (f"{POD}:0", None),
        (f"{POD}:65536", None),
        ("", None),
    ],
)
def test_an_agent_is_no_open_proxy(target: str, dialled: tuple[str, int] | None) -> None:
    targets = Targets(fake_agent("n1", 10250))
    if dialled is None:
        with pytest.raises(TargetRefused):
            targets.resolve(target)
    else:
        assert targets.resolve(target) == dialled
