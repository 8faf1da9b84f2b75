"""The load client, a process of its own: `python -m bench.load` reads a job (JSON) on stdin and prints its outcome (JSON).

Owns: closed-loop clients (each waits for its answer before it asks again) on uvloop, one TLS connection each, requests encoded
before the clock starts, answers counted by reader. Called by: plane. Never does: decide what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.figures import percentile
from bench.reader import BadResponse, ResponseReader
from bench.target import Target

BUFFER_BYTES = 256 * 1024
CONNECT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """`count` requests, or as many as fit in `seconds`. `body` may hold `{n}`, replaced by the request's number, 8 digits."""

    target: Target
    clients: int
    method: str
    path: str
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    count: int = 0
    seconds: float = 10.0


@dataclass(slots=True)
class Outcome:
    requests: int
    seconds: float
    rate: float
    errors: int
    first_error: str
    body_bytes: int
    p50_ms: float
    p99_ms: float
    cpu_percent: float


class _Requests:
    """Hands out encoded requests until the count or the time is used up."""

    def __init__(self, job: Job) -> None:
        target = job.target
        lines = [f"{job.method} {job.path} HTTP/1.1", f"Host: {target.host}:{target.port}", "Accept: application/json"]
        lines += [f"{name}: {value}" for name, value in {**target.headers(), **job.headers}.items()]
        self._before, mark, self._after = job.body.encode().partition(b"{n}")
        self._counted = bool(mark)
        if job.body:
            length = len(self._before) + len(self._after) + (8 if mark else 0)
            lines += ["Content-Type: application/json", f"Content-Length: {length}"]
        self._head = "\r\n".join(lines).encode() + b"\r\n\r\n" + self._before
        self._fixed = self._head + self._after
        self._limit = job.count or sys.maxsize
        self._issued = 0
        self.deadline = float("inf")

    def next(self, now: float) -> bytes | None:
        if self._issued >= self._limit or now >= self.deadline:
            return None
        self._issued += 1
        if not self._counted:
            return self._fixed
        return b"%b%08d%b" % (self._head, self._issued, self._after)


class _Client(asyncio.BufferedProtocol):
    """One connection with one request under way."""

    def __init__(self, requests: _Requests, connected: asyncio.Future[None], done: Callable[[], None], result: _Tally) -> None:
        self._requests = requests
        self._connected = connected
        self._done = done
        self._tally = result
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._reader = ResponseReader()
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._connected.set_result(None)

    def ask(self) -> None:
        now = time.perf_counter()
        request = self._requests.next(now)
        if request is None or self._transport is None:
            self._end()
            return
        self._sent = now
        self._transport.write(request)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        try:
            finished = self._reader.feed(self._view[:nbytes])
        except (BadResponse, ValueError) as error:
            self._tally.failed(repr(error))
            self._end()
            return
        if finished:
            self._tally.seconds.append(time.perf_counter() - self._sent)
            if self._reader.status < 300:
                self._tally.good += 1
            else:
                self._tally.failed(f"status {self._reader.status}")
            self.ask()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._tally.failed(f"connection lost: {exc}")
            self._end()

    def _end(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            self._tally.body_bytes += self._reader.body_bytes
            transport.close()
            self._done()


class _Tally:
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.good = 0
        self.errors = 0
        self.first_error = ""
        self.body_bytes = 0

    def failed(self, why: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or why


async def run(job: Job) -> Outcome:
    """All connections are open before the clock starts."""
    loop = asyncio.get_running_loop()
    requests, tally, context = _Requests(job), _Tally(), job.target.context()
    left, finished = job.clients, asyncio.Event()

    def done() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            finished.set()

    clients = []
    for _ in range(job.clients):
        connected = loop.create_future()
        _, client = await loop.create_connection(
            lambda connected=connected: _Client(requests, connected, done, tally),
            job.target.host,
            job.target.port,
            ssl=context,
        )
        async with asyncio.timeout(CONNECT_SECONDS):
            await connected
        clients.append(client)
    began, cpu = time.perf_counter(), time.process_time()
    requests.deadline = began + job.seconds if not job.count else float("inf")
    for client in clients:
        client.ask()
    await finished.wait()
    spent = time.perf_counter() - began
    return Outcome(
        requests=len(tally.seconds),
        seconds=spent,
        rate=tally.good / spent,
        errors=tally.errors,
        first_error=tally.first_error,
        body_bytes=tally.body_bytes,
        p50_ms=percentile(tally.seconds or [0.0], 0.5) * 1000,
        p99_ms=percentile(tally.seconds or [0.0], 0.99) * 1000,
        cpu_percent=100 * (time.process_time() - cpu) / spent,
    )


def main() -> None:
    import uvloop

    wanted: dict[str, Any] = json.load(sys.stdin)
    job = Job(**{**wanted, "target": Target(**wanted["target"])})
    json.dump(asdict(uvloop.run(run(job))), sys.stdout)


if __name__ == "__main__":
    main()
