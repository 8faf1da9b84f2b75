"""DNS over TCP: frames in, frames out.

Owns: the listeners and connections. Called by: dns.server. Never does: know an answer.
Source: RFC 7766 (many questions on one connection, answers in any order, clients close).

Bounds: 128 connections, the next is closed at once; each is closed after 10 s without a question; 32 questions of one wait
for answers at a time, and a client that does not read its answers is not read from.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

MOST_CONNECTIONS, MOST_UNANSWERED, IDLE_SECONDS = 128, 32, 10.0
# Time for one connection per turn of the loop; what is left comes in the next.
_BATCH_SECONDS = 0.005

# (question, address family, what sends the answer) -> False for what deserves no answer
Answerer = Callable[[bytes, str, Callable[[bytes], None]], bool]


class Connections:
    """All listeners and their connections."""

    def __init__(self, answer: Answerer) -> None:
        self.answer = answer
        self.open: set[_Connection] = set()
        self._servers: list[asyncio.Server] = []

    async def listen(self, address: str, port: int) -> int:
        """The port, which was chosen if 0 was asked for."""
        loop = asyncio.get_running_loop()
        family = "2" if ":" in address else "1"
        server = await loop.create_server(lambda: _Connection(self, family), address, port, backlog=MOST_CONNECTIONS)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def close(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in list(self.open):
            connection.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, owner: Connections, family: str) -> None:
        self._owner, self._family = owner, family
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._unanswered = 0
        self._full = False
        self._scheduled = False
        self._active = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        if len(self._owner.open) >= MOST_CONNECTIONS:
            self._transport.abort()
            return
        self._owner.open.add(self)
        self._active = asyncio.get_running_loop().time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.open.discard(self)
        self._transport = None
        self._buffer.clear()
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _watch(self) -> None:
        """Close when nothing has been asked for a while, also in the middle of a question."""
        loop = asyncio.get_running_loop()
        rest = self._active + IDLE_SECONDS - loop.time()
        if rest <= 0 and not (self._unanswered and not self._full):
            self.abort()
        else:
            self._timer = loop.call_later(max(rest, 1.0), self._watch)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._take()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._take()

    def _take(self) -> None:
        """Answer what has come in whole; stop reading while too much is open."""
        self._scheduled = False
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        while True:
            if time.monotonic() > began + _BATCH_SECONDS:
                self._schedule()
                break
            if self._transport is None or self._full or self._unanswered >= MOST_UNANSWERED or len(self._buffer) < 2:
                break
            length = int.from_bytes(self._buffer[:2])
            if len(self._buffer) < 2 + length:
                break
            question = bytes(self._buffer[2 : 2 + length])
            del self._buffer[: 2 + length]
            self._active = loop.time()
            self._unanswered += 1
            if not self._owner.answer(question, self._family, self._send):
                self._transport.close()
                return
        self._steer()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take)

    def _steer(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        busy = self._full or self._scheduled or self._unanswered >= MOST_UNANSWERED
        if busy and transport.is_reading():
            transport.pause_reading()
        elif not busy and not transport.is_reading():
            transport.resume_reading()

    def _send(self, answer: bytes) -> None:
        waiting = self._unanswered >= MOST_UNANSWERED
        self._unanswered -= 1
        if self._transport is None or self._transport.is_closing():
            return
        self._active = asyncio.get_running_loop().time()
        self._transport.write(len(answer).to_bytes(2) + answer)
        if waiting:
            self._schedule()
