"""Many streams over one connection, each with its own flow control: what a node's tunnel is made of.

Owns: Mux (the streams of one connection, no I/O of its own) and `pump`, which moves bytes between a Mux and a connection.
Called by: server/tunnel, agent/tunnel. Never does: choose targets, authenticate, ping.
The frames are described in base/mux_frames, a stream is base/mux_stream.

A stream that nobody reads stops after its window, WINDOW bytes, and holds up no other: streams that have something to send take
turns, a frame each. An idle Mux does nothing at all; that the peer has vanished is the connection's to notice (TCP keepalive).
Bounds: `streams` at once, each as base/mux_stream bounds it; CONTROL_BYTES of small frames, beyond which reading stops.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable

from k1s.base.http import ByteStream, ConnectionClosed
from k1s.base.mux_frames import MAX_ID, MAX_TEXT, FrameReader, Kind, MuxError, frame, reset
from k1s.base.mux_stream import MuxStream

MAX_STREAMS = 256
CONTROL_BYTES = 64 * 1024
_TAKE = 128 * 1024


class Mux:
    """`accept` is called with each stream that the other side opens; without it this side is the one that opens.

    `wake` is called when there is something to `take`.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        accept: Callable[[MuxStream], None] | None = None,
        *,
        streams: int = MAX_STREAMS,
    ) -> None:
        self._wake, self._accept, self._most = wake, accept, streams
        self._frames = FrameReader()
        self._streams: dict[int, MuxStream] = {}
        self._last = 0
        self._control = bytearray()
        self._ready: deque[MuxStream] = deque()
        self.closed = False

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def congested(self) -> bool:
        """So many small frames wait to be sent that no more should be caused by reading."""
        return len(self._control) > CONTROL_BYTES

    def open(self, target: str) -> MuxStream:
        """A new stream; await its `opened`. Raises OSError if there can be none."""
        if self.closed or self._last >= MAX_ID:
            raise ConnectionResetError(errno.ECONNRESET, "the tunnel is closed")
        if len(self._streams) >= self._most:
            raise OSError(errno.EMFILE, f"the tunnel has {self._most} streams already")
        self._last += 1
        stream = self._streams[self._last] = MuxStream(self, self._last, target)
        self.send(frame(Kind.OPEN, stream.id, target.encode()[:MAX_TEXT]))
        return stream

    def feed(self, data: bytes) -> None:
        """Take in what arrived. Raises MuxError."""
        for kind, number, payload in self._frames.feed(data):
            if kind is Kind.OPEN:
                self._opened_by_peer(number, payload)
                continue
            stream = self._streams.get(number)
            if stream is not None:
                stream.receive(kind, payload)
            elif number > self._last or number == 0:
                raise MuxError(f"{kind.name} for stream {number}, which does not exist")

    def take(self, limit: int = _TAKE) -> bytes:
        """What is to be sent next, about `limit` bytes at most; empty if nothing is."""
        out: list[bytes | memoryview] = [bytes(self._control)]
        self._control.clear()
        size = 0
        while self._ready and size < limit:
            stream = self._ready.popleft()
            size += stream.emit(out)
        return b"".join(out)

    def close(self, error: OSError | None = None) -> None:
        """The connection is gone: every stream ends with it."""
        self.closed = True
        streams, self._streams = self._streams, {}
        self._ready.clear()
        self._control.clear()
        for stream in streams.values():
            stream.lost(error or ConnectionResetError(errno.ECONNRESET, "the tunnel broke"))

    def _opened_by_peer(self, number: int, payload: bytes) -> None:
        if self._accept is None or number <= self._last:
            raise MuxError(f"stream {number} cannot be opened")
        self._last = number
        # Streams that the opener has closed may still be draining here.
        if len(self._streams) >= 2 * self._most:
            self.send(reset(number, errno.EMFILE, "too many streams"))
            return
        try:
            target = payload.decode()
        except UnicodeDecodeError:
            raise MuxError("a target is not UTF-8") from None
        stream = self._streams[number] = MuxStream(self, number, target)
        self._accept(stream)

    # For streams

    def send(self, data: bytes) -> None:
        self._control += data
        self._wake()

    def enqueue(self, stream: MuxStream) -> None:
        self._ready.append(stream)
        self._wake()

    def forget(self, stream: MuxStream) -> None:
        self._streams.pop(stream.id, None)


async def pump(mux: Mux, wire: ByteStream, woken: asyncio.Event) -> None:
    """Move bytes both ways until the connection ends; `woken` is what the Mux's `wake` sets. Raises MuxError.

    Closes the Mux; the wire is the caller's to close.
    """
    relieved = asyncio.Event()

    async def send() -> None:
        while True:
            data = mux.take()
            if data:
                await wire.write(data)
                relieved.set()
            else:
                await woken.wait()
                woken.clear()

    async def receive() -> None:
        while data := await wire.read():
            mux.feed(data)
            while mux.congested:
                relieved.clear()
                await relieved.wait()

    tasks = [asyncio.create_task(send(), name="mux-send"), asyncio.create_task(receive(), name="mux-receive")]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if isinstance(error, MuxError):
                raise error
            if error is not None and not isinstance(error, OSError | ConnectionClosed):
                raise error
    finally:
        mux.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
