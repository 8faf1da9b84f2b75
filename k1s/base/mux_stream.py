"""One stream of a Mux: an asyncio transport with a window in each direction.

Owns: MuxStream. Called by: base/mux (frames in and out), base/relay and whoever else is its protocol. Never does: I/O.

Bounds: WINDOW bytes received and not read; HIGH_WATER plus one write not sent; a close that cannot be finished is an abort after
LINGER_SECONDS.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from typing import Any, Protocol

from k1s.base.mux_frames import MAX_DATA, Kind, MuxError, frame, head, reset

WINDOW = 256 * 1024
HIGH_WATER = 64 * 1024
LINGER_SECONDS = 30.0


class Hub(Protocol):
    """What a stream asks of its Mux."""

    def send(self, data: bytes) -> None: ...
    def enqueue(self, stream: MuxStream) -> None: ...
    def forget(self, stream: MuxStream) -> None: ...


class MuxStream(asyncio.Transport):
    """One stream. `start(protocol)` makes it that protocol's transport; what came before waits in the window."""

    def __init__(self, mux: Hub, number: int, target: str) -> None:
        super().__init__()
        self.id, self.target = number, target
        self._mux = mux
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self._protocol: Any = None
        # Sending
        self._buffer: deque[memoryview] = deque()
        self._size = 0
        self._credit = WINDOW
        self._queued = self._full = False
        self._ending = self._end_sent = False
        # Receiving
        self._arrived: deque[bytes] = deque()
        self._window = WINDOW
        self._owed = 0
        self._paused = False
        self._ended = self._eof_told = self._peer_closed = False
        # The end
        self._closing = self._over = False
        self._linger: asyncio.TimerHandle | None = None

    def start(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)
        self._loop.call_soon(self._deliver)

    def accept(self) -> None:
        """The target is connected (the accepting side)."""
        if not self._over:
            self._mux.send(frame(Kind.OPENED, self.id))

    def refuse(self, number: int, reason: str) -> None:
        """The target cannot be had, or the stream is given up; the other side gets an OSError of this errno."""
        if not self._over:
            self._mux.send(reset(self.id, number, reason))
            self._finish(None)

    # asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing or self._over

    def is_reading(self) -> bool:
        return not self._paused and not self._ended and not self.is_closing()

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return HIGH_WATER // 4, HIGH_WATER

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: Any) -> None:
        if not data or self._over or self._closing or self._ending or self._peer_closed:
            return
        self._buffer.append(memoryview(bytes(data)))
        self._size += len(data)
        if self._size > HIGH_WATER and not self._full and self._protocol is not None:
            self._full = True
            self._protocol.pause_writing()
        self._schedule()

    def write_eof(self) -> None:
        self._ending = True
        self._schedule()

    def close(self) -> None:
        """What was written is sent first."""
        if self._closing or self._over:
            return
        self._closing = True
        self._discard()
        self._linger_on()
        self._schedule()

    def abort(self) -> None:
        self.refuse(errno.ECONNRESET, "aborted")

    # From the Mux

    def receive(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.DATA:
            self._take_in(payload)
        elif kind is Kind.CREDIT:
            self._credit += int.from_bytes(payload, "big")
            self._schedule()
        elif kind is Kind.OPENED:
            if not self.opened.done():
                self.opened.set_result(None)
        elif kind is Kind.RESET:
            number = int.from_bytes(payload[:2], "big") or errno.ECONNRESET
            self.lost(OSError(number, payload[2:].decode(errors="replace") or os.strerror(number)))
        else:
            self._ended = True
            if kind is Kind.CLOSE:
                self._peer_closed = True
                self._buffer.clear()
                self._size = 0
                self._linger_on()
            self._deliver()

    def emit(self, out: list[bytes | memoryview]) -> int:
        """This stream's turn: one frame, or how it ends. The bytes added."""
        self._queued = False
        if self._over:
            return 0
        sent = self._emit_data(out) if self._buffer and self._credit > 0 else 0
        if not self._buffer:
            if self._closing:
                out.append(frame(Kind.CLOSE, self.id))
                self._finish(None)
                return sent + 8
            if self._ending and not self._end_sent:
                self._end_sent = True
                out.append(frame(Kind.END, self.id))
                sent += 8
        if self._full and self._size <= HIGH_WATER // 4:
            self._full = False
            self._protocol.resume_writing()
        self._schedule()
        return sent

    def lost(self, error: OSError) -> None:
        """Over, not by us."""
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # seen: nobody may be waiting any more
        self._finish(error)

    # Inside

    def _emit_data(self, out: list[bytes | memoryview]) -> int:
        room = min(MAX_DATA, self._credit)
        size = 0
        parts: list[memoryview] = []
        while self._buffer and size < room:
            part = self._buffer.popleft()
            if size + len(part) > room:
                cut = room - size
                self._buffer.appendleft(part[cut:])
                part = part[:cut]
            parts.append(part)
            size += len(part)
        out.append(head(Kind.DATA, self.id, size))
        out += parts
        self._credit -= size
        self._size -= size
        return size

    def _schedule(self) -> None:
        """Take a place in the Mux's queue if there is something to send now."""
        if self._queued or self._over:
            return
        ends = not self._buffer and (self._closing or (self._ending and not self._end_sent))
        if ends or (self._buffer and self._credit > 0):
            self._queued = True
            self._mux.enqueue(self)

    def _take_in(self, data: bytes) -> None:
        self._window -= len(data)
        if self._window < 0 or self._ended:
            raise MuxError(f"stream {self.id} got more than it asked for")
        if self._closing:
            self._read(len(data))
        elif self._arrived or self._paused or self._protocol is None:
            self._arrived.append(data)
        else:
            self._protocol.data_received(data)
            self._read(len(data))

    def _read(self, size: int) -> None:
        self._owed += size
        if self._owed >= WINDOW // 2 and not self._ended and not self._over:
            self._mux.send(frame(Kind.CREDIT, self.id, self._owed.to_bytes(4, "big")))
            self._window += self._owed
            self._owed = 0

    def _deliver(self) -> None:
        """Give the protocol what waits, then the end."""
        while self._arrived and not self._paused and not self.is_closing() and self._protocol is not None:
            data = self._arrived.popleft()
            self._protocol.data_received(data)
            self._read(len(data))
        if not self._ended or self._arrived or self._paused or self._over or self._protocol is None:
            return
        if not self._eof_told and not self._closing:
            self._eof_told = True
            if not self._protocol.eof_received():
                self.close()
        if self._peer_closed:
            self._finish(None)

    def _discard(self) -> None:
        size = sum(map(len, self._arrived))
        self._arrived.clear()
        self._read(size)

    def _linger_on(self) -> None:
        if self._linger is None:
            self._linger = self._loop.call_later(LINGER_SECONDS, self.abort)

    def _finish(self, error: OSError | None) -> None:
        if self._over:
            return
        self._over = True
        if self._linger is not None:
            self._linger.cancel()
        self._buffer.clear()
        self._arrived.clear()
        self._mux.forget(self)
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)
