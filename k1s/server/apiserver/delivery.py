"""When watchers write: in rounds, so that many watchers and many events cost what they must and no more.

Owns: Delivery. Called by: watcher (add), watch_cache (one for all caches). Never does: know what is written.

A round writes to every watcher that has something queued. After it comes a pause as long as the round took, so that writing
takes at most about half of the event loop's time; what happens meanwhile goes out together in the next round: one TLS record
and one system call a watcher instead of one an event. With few watchers a round takes microseconds, and so does the pause.
Bounds: SLICE watchers are written to before others get their turn; a pause is at most MAX_PAUSE.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

SLICE = 64
MAX_PAUSE = 0.015


class Flushable(Protocol):
    def flush(self) -> None: ...


class Delivery:
    def __init__(self) -> None:
        self._waiting: deque[Flushable] = deque()
        self._round: deque[Flushable] = deque()
        self._timer: asyncio.Handle | None = None
        self._not_before = 0.0
        self._spent = 0.0

    def add(self, watcher: Flushable) -> None:
        """Flush it in the next round."""
        self._waiting.append(watcher)
        if self._timer is None:
            self._schedule()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._not_before:
            self._timer = loop.call_soon(self._write)
        else:
            self._timer = loop.call_at(self._not_before, self._write)

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not self._round:
            self._round, self._waiting = self._waiting, self._round
            self._spent = 0.0
        round_ = self._round
        try:
            for _ in range(min(SLICE, len(round_))):
                round_.popleft().flush()
        finally:
            # One watcher's fault must not stop the others.
            self._go_on(loop, began)

    def _go_on(self, loop: asyncio.AbstractEventLoop, began: float) -> None:
        now = loop.time()
        self._spent += now - began
        self._timer = None
        if self._round:
            self._timer = loop.call_soon(self._write)
            return
        self._not_before = now + min(self._spent, MAX_PAUSE)
        if self._waiting:
            self._schedule()
