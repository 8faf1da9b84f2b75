"""Hands a request on to another HTTP server and its answer back: a node's agent, a pod, a Service.

Owns: the wire of one forwarded request, upgrades included. Called by: kubelet_proxy, subresources/proxy, aggregation/proxy.
Never does: choose the target or the way to it (dial.py), keep connections, retry. One connection per request: these are rare
and often long.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from k1s.api import errors
from k1s.base.http import Answer, ByteStream, ConnectionClosed, RawUpgrade, Request, Response, Stream
from k1s.server.apiserver.dial_failure import reason

CONNECT_SECONDS = 10.0
MAX_HEAD_BYTES = 64 * 1024
_BLOCK = 64 * 1024
# RFC 9110, 7.6.1: these belong to one connection. Credentials for us are not for the target.
_HOP_HEADERS = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade")
)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_OURS = frozenset(("authorization", "host", "content-length", "expect"))

_REDIRECTED = b"the backend attempted to redirect this request, which is not permitted"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to go: `path` is raw (percent-encoded, with its query); `tls` None is plain HTTP. `node`: whose agent it is."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    headers: Sequence[tuple[str, str]] = field(default_factory=tuple)
    node: str = ""

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Connect = Callable[[Target], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@dataclass(slots=True)
class Head:
    status: int
    headers: list[tuple[str, str]]

    def get(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


async def forward(request: Request, target: Target, connect: Connect, *, redirects: bool = True) -> Answer:
    """`connect` is Dialer.connect. `redirects`: whether the target may send the client elsewhere.

    Raises ApiError 503 if the target cannot be reached or does not speak HTTP.
    """
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await connect(target)
    except (OSError, asyncio.IncompleteReadError) as error:
        raise errors.service_unavailable(f"error trying to reach service: {reason(target.address, error)}") from error
    try:
        await _send(request, target, writer)
        head = await read_head(reader)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        writer.close()
        raise errors.service_unavailable(f"error trying to reach service: {error or type(error).__name__}") from error
    except BaseException:
        writer.close()
        raise
    if head.status == 101:
        passed = [(name, value) for name, value in head.headers if name.lower() not in ("connection", "upgrade")]
        return RawUpgrade(head.get("upgrade"), _Splice(reader, writer).serve, passed)
    if not redirects and 300 <= head.status <= 399 and head.get("location"):
        writer.close()
        return Response(502, _REDIRECTED, "text/plain; charset=utf-8")
    kept = [
        (k, v) for k, v in head.headers if k.lower() not in _HOP_HEADERS and k.lower() not in ("content-length", "content-type")
    ]
    if request.method == "HEAD" or head.status in (204, 304):
        writer.close()  # nobody will ask for the body that there is not
    return Stream(_body(reader, writer, head, request.method), head.status, head.get("content-type"), kept)


async def _send(request: Request, target: Target, writer: asyncio.StreamWriter) -> None:
    upgrade = request.headers.get("Upgrade", "")
    lines = [f"{request.method} {target.path} HTTP/1.1", f"Host: {target.address}"]
    for name, value in request.headers.items():
        if name not in _HOP_HEADERS and name not in _OURS and not name.startswith("impersonate-"):
            lines.append(f"{name}: {value}")
    lines += [f"{name}: {value}" for name, value in target.headers]
    lines += ["Connection: Upgrade", f"Upgrade: {upgrade}"] if upgrade else ["Connection: close"]
    length = request.headers.get("Content-Length")
    chunked = length is None and "chunked" in request.headers.get("Transfer-Encoding", "").lower()
    if length is not None:
        lines.append(f"Content-Length: {int(length)}")
    elif chunked:
        lines.append("Transfer-Encoding: chunked")
    text = "\r\n".join(lines)
    if len(text.splitlines()) != len(lines):
        raise errors.bad_request("a header holds a line break")
    writer.write(text.encode("utf-8", "surrogateescape") + b"\r\n\r\n")
    if length is not None or chunked:
        async for chunk in request.body.chunks():
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
    await writer.drain()


async def read_head(reader: asyncio.StreamReader) -> Head:
    while True:
        raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = raw.split("\r\n")
        parts = status_line.split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1."):
            raise ValueError(f"malformed HTTP response {status_line[:60]!r}")
        status = int(parts[1])
        # 1xx other than 101 announce another head.
        if status >= 200 or status == 101:
            pairs = (line.partition(":") for line in lines if line)
            return Head(status, [(name.strip(), value.strip()) for name, _, value in pairs])


async def _body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: Head, method: str) -> AsyncIterator[bytes]:
    """The answer's body as it comes; a body that is cut off raises, so that our client sees the cut too."""
    try:
        if method == "HEAD" or head.status in (204, 304):
            return
        if "chunked" in head.get("transfer-encoding").lower():
            async for chunk in chunked(reader):
                yield chunk
            return
        length = head.get("content-length")
        left = int(length) if length else -1
        while left:
            data = await reader.read(_BLOCK if left < 0 else min(_BLOCK, left))
            if not data:
                if left > 0:
                    raise ConnectionResetError("the answer was cut off")
                return
            left -= len(data) if left > 0 else 0
            yield data
    finally:
        writer.close()


async def chunked(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """What the chunks hold. Raises ConnectionResetError, IncompleteReadError where they are no chunks (RFC 9112, 7.1)."""
    while True:
        try:
            line = await reader.readuntil(b"\r\n")
        except asyncio.LimitOverrunError as error:
            raise ConnectionResetError("malformed chunked encoding") from error
        digits = line.split(b";", 1)[0].strip()
        # int() knows signs, too: a negative size would be read as "everything there is, into memory".
        if not _CHUNK_SIZE.fullmatch(digits):
            raise ConnectionResetError("malformed chunked encoding")
        size = int(digits, 16)
        if size == 0:
            return
        left = size
        while left:
            data = await reader.read(min(_BLOCK, left))
            if not data:
                raise ConnectionResetError("the answer was cut off")
            left -= len(data)
            yield data
        await reader.readexactly(2)


class _Splice:
    """Joins our client's upgraded connection with the target's, until both directions have ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def serve(self, client: ByteStream) -> None:
        inwards = asyncio.create_task(self._inwards(client), name="forward-in")
        outwards = asyncio.create_task(self._outwards(client), name="forward-out")
        try:
            # An upgraded connection is over when either side hangs up.
            await asyncio.wait({inwards, outwards}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (inwards, outwards):
                task.cancel()
            await asyncio.wait({inwards, outwards})
            self._writer.close()

    async def _inwards(self, client: ByteStream) -> None:
        try:
            while data := await client.read():
                self._writer.write(data)
                await self._writer.drain()
        except (ConnectionError, ConnectionClosed):
            return

    async def _outwards(self, client: ByteStream) -> None:
        try:
            while data := await self._reader.read(_BLOCK):
                await client.write(data)
        except (ConnectionError, ConnectionClosed):
            return
