"""Many watchers on one resource and one writer, a process of its own: `python -m bench.watch_load` reads a job on stdin.

Owns: the connections, and when each watcher that is looked at saw each write. Called by: watchers. Never does: decide what is
measured. Only some of the watchers decrypt what they get (their delays are the figure); the others throw the bytes away, or the
client would take the cores from the server. A delay runs from the sending of the write, so the commit is in it.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from bench.figures import percentile
from bench.target import Target

BUFFER_BYTES = 256 * 1024
_SEQUENCE = re.compile(rb'"seq":"(\d+)"')


@dataclass(frozen=True, slots=True)
class WatchJob:
    target: Target
    path: str
    name: str
    watchers: int
    looked_at: int
    writes_per_second: float
    seconds: float
    value_bytes: int = 1000


@dataclass(slots=True)
class WatchOutcome:
    writes: int
    events: int
    expected: int
    p50_ms: float
    p99_ms: float
    write_p50_ms: float
    writes_per_second: float
    cpu_percent: float


class Connection(asyncio.BufferedProtocol):
    """TLS by hand, so that a connection can stop decrypting."""

    buffer = bytearray(BUFFER_BYTES)
    view = memoryview(buffer)

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=host)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.deaf = False
        self.received = b""
        self.heard: asyncio.Event = asyncio.Event()
        self.on_data: Any = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self._shake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.deaf:
            return
        self.incoming.write(self.view[:nbytes])
        if not self.ready.done():
            self._shake()
        if self.ready.done():
            self._read()

    def _shake(self) -> None:
        try:
            self.tls.do_handshake()
            self.ready.set_result(None)
        except ssl.SSLWantReadError:
            pass
        self._flush()

    def _read(self) -> None:
        try:
            while data := self.tls.read(65536):
                if self.on_data is not None:
                    self.on_data(data)
                else:
                    self.received += data
                    self.heard.set()
        except ssl.SSLWantReadError:
            pass
        self._flush()

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self._flush()

    def _flush(self) -> None:
        data = self.outgoing.read()
        if data:
            self.transport.write(data)


async def _open(job: WatchJob, context: ssl.SSLContext) -> Connection:
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(lambda: Connection(context, job.target.host), job.target.host, job.target.port)
    await asyncio.wait_for(made.ready, 30)
    return made


def _head(job: WatchJob, method: str, path: str, more: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {job.target.host}", "Accept: application/json"]
    lines += [f"{name}: {value}" for name, value in job.target.headers().items()]
    return ("\r\n".join(lines) + f"\r\n{more}\r\n").encode()


async def run(job: WatchJob) -> WatchOutcome:
    context = job.target.context()
    assert context is not None, "watchers are measured over TLS"
    sent: dict[int, float] = {}
    delays: list[float] = []
    connections: list[Connection] = []
    every = max(1, job.watchers // job.looked_at)

    def hear(data: bytes) -> None:
        now = time.perf_counter()
        for found in _SEQUENCE.findall(data):
            began = sent.get(int(found))
            if began is not None:
                delays.append(now - began)

    for number in range(job.watchers):
        made = await _open(job, context)
        made.send(_head(job, "GET", f"{job.path}?watch=1&resourceVersion=0&timeoutSeconds=600"))
        await asyncio.wait_for(made.heard.wait(), 30)
        assert made.received.startswith(b"HTTP/1.1 200"), made.received[:300]
        if number % every == 0:
            made.on_data = hear
        else:
            made.deaf = True
        connections.append(made)
    writer = await _open(job, context)
    write_seconds: list[float] = []
    writes, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < job.seconds:
        due = began + writes / job.writes_per_second
        if due > time.perf_counter():
            await asyncio.sleep(due - time.perf_counter())
        data = {"seq": str(writes), "value": "x" * job.value_bytes}
        body = json.dumps({"metadata": {"name": job.name}, "data": data}, separators=(",", ":")).encode()
        writer.received = b""
        sent[writes] = time.perf_counter()
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.send(_head(job, "PUT", f"{job.path}/{job.name}", head) + body)
        while b"\r\n\r\n" not in writer.received or not writer.received.endswith(b"}"):
            writer.heard.clear()
            await asyncio.wait_for(writer.heard.wait(), 30)
        assert writer.received.startswith(b"HTTP/1.1 200"), writer.received[:300]
        write_seconds.append(time.perf_counter() - sent[writes])
        writes += 1
    spent = time.perf_counter() - began
    await asyncio.sleep(0.5)
    used = time.process_time() - cpu
    looked_at = sum(1 for c in connections if c.on_data is not None and not c.lost)
    for one in connections:
        one.transport.abort()
    return WatchOutcome(
        writes=writes,
        events=len(delays),
        expected=writes * looked_at,
        p50_ms=percentile(delays or [0.0], 0.5) * 1000,
        p99_ms=percentile(delays or [0.0], 0.99) * 1000,
        write_p50_ms=percentile(write_seconds, 0.5) * 1000,
        writes_per_second=writes / spent,
        cpu_percent=100 * used / spent,
    )


def main() -> None:
    import uvloop

    wanted: dict[str, Any] = json.load(sys.stdin)
    job = WatchJob(**{**wanted, "target": Target(**wanted["target"])})
    json.dump(asdict(uvloop.run(run(job))), sys.stdout)


if __name__ == "__main__":
    main()
