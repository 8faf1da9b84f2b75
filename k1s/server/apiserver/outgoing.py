"""HTTP requests that the API server itself makes of others: webhooks, conversion, discovery of extension servers.

Owns: Outgoing: one request and its whole answer, over a connection that is kept for the next one.
Called by: aggregation, conversion, webhooks. Never does: choose the target (services.py), pass a client's request on (forward).
Bounds: IDLE_TOTAL connections are kept, IDLE_EACH of one target, for IDLE_SECONDS; beyond that they are closed after use.
An answer has at most the caller's `limit` bytes and comes within its `seconds`.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

from k1s.server.apiserver.dial_failure import reason
from k1s.server.apiserver.forward import Connect, Head, Target, chunked, read_head

IDLE_TOTAL = 32
IDLE_EACH = 4
IDLE_SECONDS = 60.0
MAX_ANSWER = 8 * 1024 * 1024
_BLOCK = 64 * 1024

_Key = tuple[str, int, ssl.SSLContext | None, str]


class CallFailed(Exception):
    """No answer came; the text says why, as Go's HTTP client would."""


@dataclass(slots=True)
class Answered:
    status: int
    headers: Head
    body: bytes


@dataclass(slots=True, eq=False)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: bool = False
    expiry: asyncio.TimerHandle | None = field(default=None)


class Outgoing:
    """`connect` is Dialer.connect."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._idle: dict[_Key, list[_Connection]] = {}
        self._count = 0

    async def call(
        self,
        target: Target,
        *,
        method: str = "GET",
        body: bytes = b"",
        seconds: float = 10.0,
        limit: int = MAX_ANSWER,
    ) -> Answered:
        """Raises CallFailed."""
        try:
            async with asyncio.timeout(seconds):
                return await self._call(target, method, body, limit)
        except TimeoutError:
            raise CallFailed("context deadline exceeded") from None

    async def _call(self, target: Target, method: str, body: bytes, limit: int) -> Answered:
        key = (target.host, target.port, target.tls, target.server_name)
        connection = self._take(key) or await self._open(target)
        while True:
            try:
                head = await _ask(connection, target, method, body)
                break
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
                connection.writer.close()
                # The other side may close a kept connection at any moment: that is no failure of this request.
                begun = isinstance(error, asyncio.IncompleteReadError) and bool(error.partial)
                if not connection.used or begun:
                    raise CallFailed(str(error) or "EOF") from error
                connection = await self._open(target)
            except BaseException:
                connection.writer.close()
                raise
        keep = False
        try:
            data, complete = await _read(connection.reader, head, limit)
            keep = complete and head.get("connection").lower() != "close"
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            raise CallFailed(str(error) or "unexpected EOF") from error
        finally:
            if keep:
                self._put(key, connection)
            else:
                connection.writer.close()
        return Answered(head.status, head, data)

    async def _open(self, target: Target) -> _Connection:
        try:
            return _Connection(*await self._connect(target))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise CallFailed(reason(target.address, error)) from error

    def _take(self, key: _Key) -> _Connection | None:
        kept = self._idle.get(key)
        while kept:
            connection = kept.pop()
            self._count -= 1
            if connection.expiry is not None:
                connection.expiry.cancel()
            if not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            connection.writer.close()
        self._idle.pop(key, None)
        return None

    def _put(self, key: _Key, connection: _Connection) -> None:
        kept = self._idle.setdefault(key, [])
        if self._count >= IDLE_TOTAL or len(kept) >= IDLE_EACH:
            connection.writer.close()
            if not kept:
                del self._idle[key]
            return
        connection.used = True
        connection.expiry = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._expire, key, connection)
        kept.append(connection)
        self._count += 1

    def _expire(self, key: _Key, connection: _Connection) -> None:
        kept = self._idle.get(key, [])
        if connection in kept:
            kept.remove(connection)
            self._count -= 1
            connection.writer.close()
        if not kept:
            self._idle.pop(key, None)

    def close(self) -> None:
        """Close what is kept."""
        for kept in self._idle.values():
            for connection in kept:
                if connection.expiry is not None:
                    connection.expiry.cancel()
                connection.writer.close()
        self._idle.clear()
        self._count = 0


async def _ask(connection: _Connection, target: Target, method: str, body: bytes) -> Head:
    name = target.server_name or target.host
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {name}:{target.port}"]
    lines += [f"{key}: {value}" for key, value in target.headers]
    if body or method in ("POST", "PUT"):
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if not any(key.lower() == "accept" for key, _ in target.headers):
        lines.append("Accept: application/json")
    text = "\r\n".join(lines)
    if len(text.splitlines()) != len(lines):
        raise CallFailed("a header holds a line break")
    connection.writer.write(text.encode() + b"\r\n\r\n" + body)
    await connection.writer.drain()
    return await read_head(connection.reader)


async def _read(reader: asyncio.StreamReader, head: Head, limit: int) -> tuple[bytes, bool]:
    """The body, and whether the connection can be used again. Raises CallFailed when it is longer than `limit`."""
    if head.status in (204, 304):
        return b"", True
    pieces: list[bytes] = []
    size = 0
    if "chunked" in head.get("transfer-encoding").lower():
        async for piece in chunked(reader):
            size += len(piece)
            _check(size, limit)
            pieces.append(piece)
        return b"".join(pieces), True
    length = head.get("content-length")
    if length:
        _check(int(length), limit)
        return await reader.readexactly(int(length)), True
    while piece := await reader.read(_BLOCK):
        size += len(piece)
        _check(size, limit)
        pieces.append(piece)
    return b"".join(pieces), False


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise CallFailed(f"the answer is longer than {limit} bytes")
