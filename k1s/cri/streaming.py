"""The client side of a runtime's streaming server: exec and attach with a stdin that can end.

Owns: the SPDY session to the URL that Runtime.exec and Runtime.attach give. Called by: agent/serving.
Never does: talk to the user's side. SPDY rather than WebSocket, because v4 over WebSocket cannot half-close stdin
(see docs/adr/0002).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

from k1s.base.http import ConnectionClosed
from k1s.base.spdy import SpdyConnection, SpdyStream
from k1s.cri.errors import RuntimeFailure

CONNECT_SECONDS = 10.0
_MAX_HEAD_BYTES = 16 * 1024


class _SocketStream:
    """base.http.ByteStream over asyncio's stream pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(64 * 1024)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise ConnectionClosed(str(error)) from error

    async def close(self) -> None:
        self._writer.close()


@dataclass(slots=True)
class RuntimeSession:
    """The streams of one exec or attach; None where it was not asked for. `close` gives everything back."""

    connection: SpdyConnection
    error: SpdyStream
    stdin: SpdyStream | None
    stdout: SpdyStream | None
    stderr: SpdyStream | None
    resize: SpdyStream | None
    _reader: asyncio.Task[None]

    async def close(self) -> None:
        await self.connection.close()
        self._reader.cancel()
        await asyncio.wait({self._reader})


async def open_session(url: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> RuntimeSession:
    """Connect to a streaming URL of the runtime (plain HTTP on loopback). Raises RuntimeFailure."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(
                f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
                "X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise RuntimeFailure(f"the runtime's streaming server cannot be reached: {error}") from error
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    if " 101 " not in status + " ":
        body = await reader.read(_MAX_HEAD_BYTES)
        writer.close()
        raise RuntimeFailure(f"the runtime refused to stream: {status}: {body.decode(errors='replace').strip()}")
    connection = SpdyConnection(_SocketStream(reader, writer), client=True)
    task = asyncio.create_task(connection.run(), name="cri-streaming")

    async def stream(kind: str, wanted: bool) -> SpdyStream | None:
        return await connection.open({"streamtype": kind}) if wanted else None

    # The order is client-go's; the runtime waits until it has all of them.
    try:
        error_stream = await connection.open({"streamtype": "error"})
        return RuntimeSession(
            connection=connection,
            error=error_stream,
            stdin=await stream("stdin", stdin),
            stdout=await stream("stdout", stdout),
            stderr=await stream("stderr", stderr and not tty),
            resize=await stream("resize", tty),
            _reader=task,
        )
    except ConnectionClosed as error:
        task.cancel()
        await asyncio.wait({task})
        writer.close()
        raise RuntimeFailure(f"the runtime closed the stream: {error}") from error
