"""Upgraded connections on aiohttp's sockets: WebSocket messages and raw bytes.

Owns: OpenWebSocket and RawStream, base.http's protocols over what aiohttp gives. Called by: base/http_server.
Never does: the handshake (http_server), know what passes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from k1s.base.http import ConnectionClosed

if TYPE_CHECKING:
    from aiohttp import web

# A raw connection stops reading from the socket while this much is waiting for its handler.
RAW_BUFFER_BYTES = 256 * 1024


class OpenWebSocket:
    """base.http.WebSocket over aiohttp's."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    @property
    def subprotocol(self) -> str:
        return self._socket.ws_protocol or ""

    async def receive(self) -> str | bytes:
        from aiohttp import WSMsgType

        message = await self._socket.receive()
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            data: str | bytes = message.data
            return data
        raise ConnectionClosed(str(message.type))

    async def send(self, data: str | bytes) -> None:
        try:
            if isinstance(data, str):
                await self._socket.send_str(data)
            else:
                await self._socket.send_bytes(data)
        except (ConnectionError, RuntimeError) as error:
            raise ConnectionClosed(str(error)) from error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._socket.close(code=code, message=reason.encode()[:120])


class RawStream:
    """base.http.ByteStream on an upgraded connection; also the `payload parser` that aiohttp feeds."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._transport: asyncio.Transport = protocol.transport
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._paused = False
        self._arrived = asyncio.Event()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._chunks.append(bytes(data))
        self._size += len(data)
        if self._size > RAW_BUFFER_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._arrived.set()
        return False, b""

    def feed_eof(self) -> None:
        self._ended = True
        self._arrived.set()

    async def read(self) -> bytes:
        while not self._chunks:
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        if self._paused and self._size <= RAW_BUFFER_BYTES // 2 and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        return chunk

    async def write(self, data: bytes) -> None:
        if self._protocol.transport is None:
            raise ConnectionClosed("the client has gone")
        self._transport.write(data)
        try:
            await self._protocol._drain_helper()
        except ConnectionError as error:
            raise ConnectionClosed(str(error)) from error

    async def close(self) -> None:
        if self._protocol.transport is not None:
            self._transport.close()
