"""The one timer of all watches: bookmarks about every minute, and the end of each watch's time.

Owns: Timers. Called by: app (run), handlers/watch (end_after). Never does: tick while nobody watches.
"""

from __future__ import annotations

import asyncio
import math

from k1s.base.clock import Clock
from k1s.server.apiserver.watch_cache import WatchCache
from k1s.server.apiserver.watcher import Watcher

BOOKMARK_SECONDS = 60.0


class Timers:
    def __init__(self, hub: WatchCache, clock: Clock) -> None:
        self._hub, self._clock = hub, clock
        self._next = math.inf
        self._kick = asyncio.Event()
        self._bookmarks_at = 0.0

    def end_after(self, watcher: Watcher, seconds: float) -> None:
        """End a watch after so many seconds."""
        now = self._clock.monotonic()
        watcher.deadline = now + seconds
        due = min(watcher.deadline, now + BOOKMARK_SECONDS) if watcher.bookmark is not None else watcher.deadline
        if due < self._next:
            self._kick.set()

    async def run(self) -> None:
        self._bookmarks_at = self._clock.monotonic() + BOOKMARK_SECONDS
        while True:
            self._next = self._pass(self._clock.monotonic())
            await self._wait(self._next - self._clock.monotonic())

    def _pass(self, now: float) -> float:
        """Do what is due; return when something is due again."""
        due, marking = math.inf, False
        remind = now >= self._bookmarks_at
        if remind:
            self._bookmarks_at = now + BOOKMARK_SECONDS
        revision = self._hub.revision
        for cache in self._hub.caches():
            for watcher in list(cache.watchers):
                if watcher.deadline <= now:
                    watcher.time_is_up(revision)
                    continue
                due = min(due, watcher.deadline)
                if watcher.bookmark is not None:
                    marking = True
                    if remind:
                        watcher.remind(revision)
        return min(due, self._bookmarks_at) if marking else due

    async def _wait(self, seconds: float) -> None:
        kicked = asyncio.ensure_future(self._kick.wait())
        waits: set[asyncio.Future[object]] = {kicked}  # type: ignore[arg-type]
        if seconds != math.inf:
            waits.add(asyncio.ensure_future(self._clock.sleep(max(seconds, 0.0))))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in waits:
                waiting.cancel()
        self._kick.clear()
