"""SPDY/3.1 as Kubernetes streams use it: many byte streams over one upgraded connection.

Owns: framing, header compression, the life of streams. Called by: agent/serving (as the server of kubectl and client-go),
cri/streaming (as the client of the runtime's streaming server). Never does: know what a stream means.

Source: SPDY protocol draft 3.1. Like the library that Kubernetes uses on its side, neither end sends WINDOW_UPDATE frames or
heeds them; back-pressure is the connection's. A stream whose reader is slow stops the whole connection's reading.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from k1s.base.http import ByteStream, ConnectionClosed

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_FLAG_FIN = 0x01
_VERSION = 3
MAX_FRAME_BYTES = 1 << 20
# The connection is not read while one stream holds more than this.
STREAM_BUFFER_BYTES = 256 * 1024
MAX_STREAMS = 256
_WRITE_CHUNK = 32 * 1024

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length content-location "
    "content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match "
    "if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range "
    "referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get "
    "status"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal "
    "Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, "
    "Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,"
    "text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    """The compression dictionary of section 2.6.10.1: length-prefixed words, then bare text."""
    words = [*_WORDS.split(), "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
    return b"".join(struct.pack(">I", len(word)) + word.encode() for word in words) + _TAIL.encode()


class SpdyError(Exception):
    """The other side broke the protocol; the connection cannot go on."""


class SpdyStream:
    """One stream. `headers` are those it was opened with, names in lower case."""

    def __init__(self, connection: SpdyConnection, stream_id: int, headers: Mapping[str, str]) -> None:
        self.id = stream_id
        self.headers = dict(headers)
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._remote_ended = False
        self._local_ended = False
        self._changed = asyncio.Event()

    async def read(self) -> bytes:
        """The next bytes; b"" once the other side has ended the stream."""
        while not self._chunks:
            if self._remote_ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        if self._size <= STREAM_BUFFER_BYTES:
            self._connection.drained.set()
        return chunk

    async def write(self, data: bytes) -> None:
        """Send; waits while the connection is congested. Raises ConnectionClosed when it has gone."""
        if self._local_ended:
            raise ConnectionClosed(f"stream {self.id} is closed")
        for start in range(0, len(data), _WRITE_CHUNK):
            await self._connection.send_data(self.id, data[start : start + _WRITE_CHUNK], fin=False)

    async def end(self) -> None:
        """Half-close: no more data from this side. Idempotent."""
        if not self._local_ended:
            self._local_ended = True
            await self._connection.send_data(self.id, b"", fin=True)
            self._connection.forget_if_closed(self)

    async def reset(self) -> None:
        """Abandon the stream in both directions."""
        self._local_ended = True
        self.finish()
        await self._connection.send_control(_RST_STREAM, 0, struct.pack(">II", self.id, 5))
        self._connection.forget_if_closed(self)

    @property
    def closed(self) -> bool:
        return self._local_ended and self._remote_ended

    @property
    def congested(self) -> bool:
        return self._size > STREAM_BUFFER_BYTES

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        self._changed.set()

    def finish(self) -> None:
        self._remote_ended = True
        self._changed.set()
        self._connection.drained.set()


class SpdyConnection:
    """One side of a connection. `run` reads until the end; `on_stream` is awaited for each stream the other side opens."""

    def __init__(
        self, transport: ByteStream, *, client: bool, on_stream: Callable[[SpdyStream], Awaitable[None]] | None = None
    ) -> None:
        dictionary = _dictionary()
        self._transport = transport
        self._on_stream = on_stream
        self._deflate = zlib.compressobj(zlib.Z_BEST_SPEED, zlib.DEFLATED, 15, 8, zlib.Z_DEFAULT_STRATEGY, dictionary)
        self._inflate = zlib.decompressobj(15, zdict=dictionary)
        self._next_id = 1 if client else 2
        self._streams: dict[int, SpdyStream] = {}
        # Header blocks share one compression state, so they must leave in the order they were compressed.
        self._write_lock = asyncio.Lock()
        self._buffer = bytearray()
        self.drained = asyncio.Event()
        self._ended = False

    async def run(self) -> None:
        """Read frames until the other side goes away. Raises SpdyError when it breaks the protocol."""
        try:
            while True:
                head = await self._exactly(8)
                if head is None:
                    return
                first, second = struct.unpack(">II", head)
                length = second & 0xFFFFFF
                if length > MAX_FRAME_BYTES:
                    raise SpdyError(f"frame of {length} bytes")
                payload = await self._exactly(length)
                if payload is None:
                    return
                flags = second >> 24
                if first & 0x80000000:
                    if not await self._control(first & 0xFFFF, flags, payload):
                        return
                else:
                    await self._data(first & 0x7FFFFFFF, flags, payload)
        finally:
            self._ended = True
            for stream in self._streams.values():
                stream.finish()

    async def open(self, headers: Mapping[str, str]) -> SpdyStream:
        """Open a stream towards the other side. Raises ConnectionClosed when it has gone: nobody would ever end the stream."""
        async with self._write_lock:
            if self._ended:
                raise ConnectionClosed("the other side has ended the connection")
            stream = SpdyStream(self, self._next_id, headers)
            self._next_id += 2
            self._streams[stream.id] = stream
            block = self._compress(headers)
            await self._send(_SYN_STREAM, 0, struct.pack(">IIBB", stream.id, 0, 0, 0) + block)
        return stream

    async def close(self) -> None:
        """Say goodbye and close the connection. Idempotent."""
        try:
            await self.send_control(_GOAWAY, 0, struct.pack(">II", 0, 0))
        except ConnectionClosed:
            return
        finally:
            await self._transport.close()

    async def send_data(self, stream_id: int, data: bytes, *, fin: bool) -> None:
        head = struct.pack(">II", stream_id, (_FLAG_FIN if fin else 0) << 24 | len(data))
        async with self._write_lock:
            await self._transport.write(head + data)

    async def send_control(self, kind: int, flags: int, payload: bytes) -> None:
        async with self._write_lock:
            await self._send(kind, flags, payload)

    def forget_if_closed(self, stream: SpdyStream) -> None:
        if stream.closed:
            self._streams.pop(stream.id, None)

    async def _send(self, kind: int, flags: int, payload: bytes) -> None:
        head = struct.pack(">HHI", 0x8000 | _VERSION, kind, flags << 24 | len(payload))
        await self._transport.write(head + payload)

    async def _exactly(self, count: int) -> bytes | None:
        while len(self._buffer) < count:
            data = await self._transport.read()
            if not data:
                return None
            self._buffer += data
        out = bytes(self._buffer[:count])
        del self._buffer[:count]
        return out

    async def _data(self, stream_id: int, flags: int, payload: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if payload:
            stream.feed(payload)
        if flags & _FLAG_FIN:
            stream.finish()
            self.forget_if_closed(stream)
        while stream.congested and not stream.closed:
            self.drained.clear()
            await self.drained.wait()

    async def _control(self, kind: int, flags: int, payload: bytes) -> bool:
        """Handle a control frame; False means that the other side is leaving."""
        if kind == _SYN_STREAM:
            await self._opened(flags, payload)
        elif kind in (_SYN_REPLY, _HEADERS):
            self._decompress(payload[4:])
            self._finish_if(flags, payload)
        elif kind == _RST_STREAM:
            stream = self._streams.pop(struct.unpack(">I", payload[:4])[0] & 0x7FFFFFFF, None)
            if stream is not None:
                stream.finish()
        elif kind == _PING:
            # Each side echoes the other's pings; its own come back and mean nothing more.
            if (struct.unpack(">I", payload[:4])[0] ^ self._next_id) & 1:
                await self.send_control(_PING, 0, payload[:4])
        elif kind == _GOAWAY:
            return bool(self._streams)
        return True

    async def _opened(self, flags: int, payload: bytes) -> None:
        if len(payload) < 10:
            raise SpdyError("short SYN_STREAM")
        stream_id = struct.unpack(">I", payload[:4])[0] & 0x7FFFFFFF
        headers = self._decompress(payload[10:])
        if len(self._streams) >= MAX_STREAMS:
            await self.send_control(_RST_STREAM, 0, struct.pack(">II", stream_id, 3))
            return
        stream = SpdyStream(self, stream_id, headers)
        self._streams[stream_id] = stream
        async with self._write_lock:
            await self._send(_SYN_REPLY, 0, struct.pack(">I", stream_id) + self._compress({}))
        if flags & _FLAG_FIN:
            stream.finish()
        if self._on_stream is not None:
            await self._on_stream(stream)

    def _finish_if(self, flags: int, payload: bytes) -> None:
        stream = self._streams.get(struct.unpack(">I", payload[:4])[0] & 0x7FFFFFFF)
        if stream is not None and flags & _FLAG_FIN:
            stream.finish()

    def _compress(self, headers: Mapping[str, str]) -> bytes:
        out = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                out.append(struct.pack(">I", len(text)) + text)
        return self._deflate.compress(b"".join(out)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def _decompress(self, block: bytes) -> dict[str, str]:
        try:
            raw = self._inflate.decompress(block, MAX_FRAME_BYTES)
            (count,) = struct.unpack_from(">I", raw, 0)
            position, texts = 4, []
            for _ in range(min(count, 1024) * 2):
                (length,) = struct.unpack_from(">I", raw, position)
                texts.append(raw[position + 4 : position + 4 + length].decode())
                position += 4 + length
        except (zlib.error, struct.error, UnicodeDecodeError) as error:
            raise SpdyError(f"bad header block: {error}") from error
        return dict(zip(texts[::2], texts[1::2], strict=True))
