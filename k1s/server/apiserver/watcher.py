"""One watch: what it wants to see, and the bounded queue in front of it.

Owns: Watcher, the async iterator behind a watch's Stream. Called by: resource_cache (offer), delivery (flush), handlers/watch.
Never does: wait for its client: a watcher whose queue is full is dropped, its connection cut, and its client resumes from the
last version it saw.

What comes is queued; delivery says when it is written. While the task that serves the stream sleeps and the connection takes
data, it is written right there (`write_to`); else the task is woken and writes at the client's pace.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import islice

from k1s.base.http import Sink
from k1s.server.apiserver.delivery import Delivery
from k1s.server.apiserver.entries import Change, Entry, frame
from k1s.server.apiserver.selection import Selection

# Events, and their bytes, that may wait for one slow client; then the watch ends.
QUEUE_LIMIT = 4096
QUEUE_BYTES = 16 * 1024 * 1024
# Frames that are joined into one write.
CHUNK_FRAMES = 256

# (type, entry) -> the watch line; None for the plain JSON that all watchers share.
Render = Callable[[str, Entry], bytes]
# A piece of what happened before the watch; None once there is no more of that.
Past = Callable[[], Awaitable[bytes | None]]


class Watcher:
    """Iterate over it to get chunks of the stream; `aclose` takes it out of its cache."""

    __slots__ = (
        "_bytes",
        "_closed",
        "_delivery",
        "_due",
        "_initial",
        "_on_close",
        "_past",
        "_queue",
        "_sink",
        "_tail",
        "_wake",
        "bookmark",
        "deadline",
        "dropped",
        "fault",
        "form",
        "last_sent",
        "render",
        "selection",
        "sent",
        "shape",
    )

    def __init__(
        self,
        selection: Selection,
        delivery: Delivery,
        *,
        render: Render | None,
        bookmark: Callable[[int, bool], bytes] | None,
        on_close: Callable[[Watcher], None],
    ) -> None:
        self.selection = selection
        self.render = render
        # Watchers with the same form are told the same bytes; None: what this one is told depends on what it was told before.
        self.form: str | None = "" if render is None else None
        self.shape: str | None = None
        # (revision, end of initial events) -> a BOOKMARK line, or None if the client does not want them.
        self.bookmark = bookmark
        self.dropped = False
        # A Status as the line that ends the watch.
        self.fault: Callable[[bytes], bytes] = partial(frame, "ERROR")
        # Events so far, for metrics.
        self.sent = 0
        self.deadline = math.inf
        # The newest revision the client knows of: a bookmark that says nothing new is not sent.
        self.last_sent = 0
        self._delivery = delivery
        self._on_close = on_close
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._due = False
        self._initial: Iterator[bytes] | None = None
        self._tail: bytes | None = None
        self._past: Past | None = None
        self._wake: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._closed = False

    def begin(self, entries: list[Entry], tail: bytes | None) -> None:
        """Tell these first, as added, then `tail` (the bookmark that ends them)."""
        self._initial = self._lines(entries) if entries else None
        self._tail = tail

    def resume(self, past: Past) -> None:
        """Tell first what `past` gives; it adds the watcher to its cache at its end."""
        self._past = past

    def write_to(self, sink: Sink) -> None:
        """Where events may go without waking whoever iterates."""
        self._sink = sink

    def _lines(self, entries: list[Entry]) -> Iterator[bytes]:
        for entry in entries:
            yield self.line("ADDED", entry)

    def line(self, type_: str, entry: Entry) -> bytes:
        if self.render is None:
            return frame(type_, entry.raw)
        line = self.render(type_, entry)
        # The columns of a table come with its first line; after that all tables of a shape are alike.
        self.form = self.shape
        return line

    def told(self, change: Change) -> bytes | None:
        """The line of a change, if it is one for us."""
        seen = self.selection.seen(change)
        if seen is None:
            return None
        self.last_sent = change.revision
        return self.line(*seen)

    def offer(self, change: Change, shared: dict[str, bytes]) -> None:
        """Take a change, if it is one for us. `shared` holds the change's lines that other watchers made already."""
        seen = self.selection.seen(change)
        if seen is None:
            return
        type_, entry = seen
        if self.form is not None and entry is change.entry:
            key = type_ + self.form
            line = shared.get(key)
            if line is None:
                line = shared[key] = self.line(type_, entry)
        else:
            line = self.line(type_, entry)
        self.last_sent = change.revision
        self.push(line)

    def push(self, line: bytes) -> None:
        if self._closed:
            return
        self._bytes += len(line)
        self.sent += 1
        # One event may be as large as it likes: only what piles up counts.
        if self._queue and (len(self._queue) >= QUEUE_LIMIT or self._bytes > QUEUE_BYTES):
            self.dropped = True
            self._queue.clear()
            self.end()
            if self._sink is not None:
                self._sink.abort()
            return
        self._queue.append(line)
        if not self._due:
            self._due = True
            self._delivery.add(self)

    def flush(self) -> None:
        """Write what is queued, or wake who does."""
        self._due = False
        wake, sink = self._wake, self._sink
        if wake is None or wake.done():
            return  # whoever iterates is under way, and sees the queue when it comes back
        if sink is not None and self._queue and sink.ready():
            sink.write(self._chunk())
            if not self._queue:
                return
        self._signal()

    def remind(self, revision: int) -> None:
        """Send a bookmark if the client does not know of `revision` yet."""
        idle = not self._queue and self._initial is None and self._past is None
        if self.bookmark is not None and self.last_sent < revision and idle:
            self.last_sent = revision
            self.push(self.bookmark(revision, False))

    def time_is_up(self, revision: int) -> None:
        """End, with a last bookmark: the client resumes from here, even if nothing has happened for long."""
        if self.bookmark is not None:
            self.push(self.bookmark(revision, False))
        self.end()

    def end(self) -> None:
        """No more events; what is queued is still sent."""
        if not self._closed:
            self._closed = True
            self._on_close(self)
            self._signal()

    def _signal(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> bytes:
        if self._initial is not None:
            lines = list(islice(self._initial, CHUNK_FRAMES))
            if lines:
                return b"".join(lines)
            self._initial = None
        if self._tail is not None:
            tail, self._tail = self._tail, None
            return tail
        while self._past is not None and not self._closed:
            piece = await self._past()
            if piece is not None:
                return piece
            self._past = None
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        return self._chunk()

    def _chunk(self) -> bytes:
        queue = self._queue
        if len(queue) == 1:
            self._bytes = 0
            return queue.popleft()
        chunk = b"".join([queue.popleft() for _ in range(min(len(queue), CHUNK_FRAMES))])
        self._bytes -= len(chunk)
        return chunk

    async def aclose(self) -> None:
        self._queue.clear()
        self._initial = self._past = self._sink = None
        self.end()
