"""What nodes' tunnels cost: `python bench/tunnel.py [TUNNELS]`. One line a figure; loopback only, no root needed.

Two processes: the server's side (listener, Tunnels, Dialer) with a target behind each way, and an agent's side with real
tunnels and a node's HTTPS listener. Memory and CPU of idle tunnels are the server's own; throughput is one HTTPS answer of 200 MB
through the tunnel against the same answer directly, in turns; the round trip is a small request on a new connection each.
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvloop

from k1s.agent.tunnel.targets import Targets
from k1s.agent.tunnel.wire import open_wire
from k1s.base import http_server, pki
from k1s.base.http import Request, Response, Stream
from k1s.base.mux import Mux, pump
from k1s.base.relay import streams_over
from k1s.base.sockets import Streams
from k1s.client.transport import client_tls
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.dial import direct
from k1s.server.apiserver.forward import Connect, Target, read_head
from k1s.server.tunnel import Tunnels

_BYTES = 200 * 1024 * 1024
_IDLE_SECONDS = 20.0
_ROUNDS = 3


def rss_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def certificates(home: Path, count: int) -> None:
    now = time.time()
    ca, key = pki.create_ca("bench", now), pki.new_key()
    names = [("server", pki.Subject("k1s", sans=("127.0.0.1",)), "server")]
    names += [(f"node-{n}", pki.Subject(f"system:node:{n}", ("system:nodes",)), "client") for n in range(count)]
    (home / "ca").write_bytes(ca.certificate)
    (home / "key").write_bytes(key)
    for name, subject, usage in names:
        (home / name).write_bytes(pki.issue(ca, key, subject, usage=usage, now=now))


def server_tls(home: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "server", home / "key")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cafile=home / "ca")
    return context


async def agent(home: Path, port: int, count: int) -> None:
    """The agents: one process for all of them."""

    async def zeros() -> Any:
        block = bytes(1024 * 1024)
        for _ in range(_BYTES // len(block)):
            yield block

    async def handle(request: Request) -> Any:
        return Stream(zeros()) if request.path == "/zeros" else Response(200, b"ok", "text/plain")

    listener = await http_server.listen(handle, host="127.0.0.1", port=0, tls=server_tls(home))
    config = SimpleNamespace(kubelet_port=listener.port, service_cidr="10.43.0.0/16")
    targets = Targets(SimpleNamespace(node_ips=("192.0.2.1",), node_name="n", pods=[], config=config))  # type: ignore[arg-type]
    tasks: set[asyncio.Task[None]] = set()

    def accept(stream: Any) -> None:
        task = asyncio.create_task(targets.serve(stream))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number in range(count):
        tls = client_tls(ca_file=home / "ca", cert_file=home / f"node-{number}", key_file=home / "key")
        wire, woken = await open_wire(f"https://127.0.0.1:{port}", tls, ()), asyncio.Event()
        tasks.add(asyncio.create_task(pump(Mux(woken.set, accept), wire, woken)))
    print(listener.port, flush=True)
    await asyncio.get_running_loop().create_future()


async def ask(connect: Connect, target: Target) -> float:
    """Seconds of one request and its whole answer."""
    began = time.perf_counter()
    reader, writer = await connect(target)
    writer.write(f"GET {target.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    await read_head(reader)
    while await reader.read(256 * 1024):
        pass
    writer.close()
    return time.perf_counter() - began


async def measure(home: Path, count: int) -> None:
    async def authenticate(request: Request) -> UserInfo:
        assert request.peer is not None
        return UserInfo(request.peer.common_name, request.peer.organizations)

    tunnels = Tunnels(authenticate)
    listener = await http_server.listen(tunnels.handle, host="127.0.0.1", port=0, tls=server_tls(home))
    before = rss_kib()
    command = [sys.executable, __file__, "--agents", str(home), str(listener.port), str(count)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        await asyncio.sleep(2)
        print(f"{len(tunnels)} idle tunnels: {(rss_kib() - before) / count:.0f} KiB each", flush=True)
        cpu = time.process_time()
        await asyncio.sleep(_IDLE_SECONDS)
        print(f"idle: {(time.process_time() - cpu) / _IDLE_SECONDS * 100:.3f} % of a core", flush=True)
        await rates(tunnels, Target("127.0.0.1", port, "/zeros", client_tls(ca_file=home / "ca"), node="0"))
    finally:
        process.kill()
        await process.wait()


async def rates(tunnels: Tunnels, target: Target) -> None:
    async def through(to: Target) -> Streams:
        stream = await tunnels.stream(to.node, to.host, to.port)
        return await streams_over(stream, to.tls, to.host)

    ways: list[tuple[str, Connect]] = [("directly", direct), ("through the tunnel", through)]
    for name, path, count in (("answer of 200 MB", "/zeros", 1), ("small request", "/", 50)):
        to = Target(target.host, target.port, path, target.tls, node=target.node)
        taken: dict[str, list[float]] = {way: [] for way, _ in ways}
        for _ in range(_ROUNDS):
            for way, connect in ways:
                taken[way] += [await ask(connect, to) for _ in range(count)]
        for way, seconds in taken.items():
            median = statistics.median(seconds)
            rate = f", {_BYTES / 1e6 / median:.0f} MB/s" if count == 1 else ""
            print(f"{name} {way}: median {median * 1000:.1f} ms{rate}", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--agents"]:
        uvloop.run(agent(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as home:
        certificates(Path(home), count)
        uvloop.run(measure(Path(home), count))


if __name__ == "__main__":
    main()
