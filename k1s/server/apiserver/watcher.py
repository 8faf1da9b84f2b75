"""One watch: what it wants to see, and the bounded queue in front of it.

Owns: Watcher, the async iterator behind a watch's Stream. Called by: resource_cache (push), handlers/watch (reads).
Never does: wait for its client: a watcher whose queue is full is dropped, and its client resumes from the last version it saw.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from k1s.server.apiserver.entries import Change, Entry, frame
from k1s.server.apiserver.selection import Selection

# Events, and their bytes, that may wait for one slow client; then the watch ends.
QUEUE_LIMIT = 4096
QUEUE_BYTES = 16 * 1024 * 1024
# Frames that are joined into one write.
CHUNK_FRAMES = 256

# (type, entry) -> the watch line; None for the plain JSON that all watchers share.
Render = Callable[[str, Entry], bytes]


class Watcher:
    """Iterate over it to get chunks of the stream; `aclose` takes it out of its cache."""

    __slots__ = (
        "_bytes",
        "_closed",
        "_initial",
        "_on_close",
        "_queue",
        "_tail",
        "_wake",
        "bookmark",
        "deadline",
        "dropped",
        "last_sent",
        "render",
        "selection",
    )

    def __init__(
        self,
        selection: Selection,
        *,
        render: Render | None,
        bookmark: Callable[[int, bool], bytes] | None,
        on_close: Callable[[Watcher], None],
    ) -> None:
        self.selection = selection
        self.render = render
        # (revision, end of initial events) -> a BOOKMARK line, or None if the client does not want them.
        self.bookmark = bookmark
        self.dropped = False
        self.deadline = math.inf
        # The newest revision the client knows of: a bookmark that says nothing new is not sent.
        self.last_sent = 0
        self._on_close = on_close
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._initial: Iterator[bytes] | None = None
        self._tail: bytes | None = None
        self._wake: asyncio.Future[None] | None = None
        self._closed = False

    def begin(self, entries: list[Entry], tail: bytes | None) -> None:
        """Tell these first, as added, then `tail` (the bookmark that ends them)."""
        self._initial = self._lines(entries) if entries else None
        self._tail = tail

    def _lines(self, entries: list[Entry]) -> Iterator[bytes]:
        for entry in entries:
            yield self.line("ADDED", entry)

    def line(self, type_: str, entry: Entry) -> bytes:
        return self.render(type_, entry) if self.render is not None else frame(type_, entry.raw)

    def offer(self, change: Change, shared: dict[str, bytes]) -> None:
        """Take a change, if it is one for us. `shared` holds the change's lines that other watchers made already."""
        seen = self.selection.seen(change)
        if seen is None:
            return
        type_, entry = seen
        if self.render is None and entry is change.entry:
            line = shared.get(type_)
            if line is None:
                line = shared[type_] = frame(type_, entry.raw)
        else:
            line = self.line(type_, entry)
        self.last_sent = change.revision
        self.push(line)

    def push(self, line: bytes) -> None:
        if self._closed:
            return
        self._bytes += len(line)
        # One event may be as large as it likes: only what piles up counts.
        if self._queue and (len(self._queue) >= QUEUE_LIMIT or self._bytes > QUEUE_BYTES):
            self.dropped = True
            self._queue.clear()
            self.end()
            return
        self._queue.append(line)
        self._signal()

    def remind(self, revision: int) -> None:
        """Send a bookmark if the client does not know of `revision` yet."""
        if self.bookmark is not None and self.last_sent < revision and not self._queue and self._initial is None:
            self.last_sent = revision
            self.push(self.bookmark(revision, False))

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
        queue = self._queue
        while not queue:
            if self._closed:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        if len(queue) == 1:
            self._bytes = 0
            return queue.popleft()
        chunk = b"".join(queue.popleft() for _ in range(min(len(queue), CHUNK_FRAMES)))
        self._bytes -= len(chunk)
        return chunk

    async def aclose(self) -> None:
        self._queue.clear()
        self._initial = None
        self.end()
