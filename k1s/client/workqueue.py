"""A queue of keys that need work.

Owns: WorkQueue: a key waits at most once, is worked on by at most one worker, and if it is added while being worked on it
comes again afterwards; delayed adds through one heap and one sleeping task; a growing delay per failing key.
Called by: client/controller, the agent's pod workers. Never does: the work.
Bound: the number of distinct keys, each in the queue once and in the heap once (the earliest time wins).
Source: the behaviour of client-go's util/workqueue.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque

from k1s.base.backoff import Backoff, KeyedBackoff
from k1s.base.clock import Clock

# 5 ms, doubled up to five minutes. (Upstream stops at 1000 s: too long to wait for someone who just fixed the cause.)
RETRY = Backoff(0.005, 300.0)


class WorkQueueClosed(Exception):
    """The queue has been closed; there is nothing more to get."""


class WorkQueue:
    def __init__(self, clock: Clock, backoff: Backoff = RETRY) -> None:
        self._clock, self._backoff = clock, KeyedBackoff(backoff)
        self._ready: deque[str] = deque()
        # Keys that need work; those in _active but not in _active's shadow wait for `done`.
        self._dirty: dict[str, int] = {}
        self._added: dict[str, float] = {}
        self._active: set[str] = set()
        self._due: dict[str, float] = {}
        self._delay_causes: dict[str, int] = {}
        self._heap: list[tuple[float, str]] = []
        self._getters: deque[asyncio.Future[None]] = deque()
        self._sleeper: asyncio.Task[None] | None = None
        self._sleeping_until = 0.0
        self._closed = False
        self.adds = 0

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: str, cause: int = 0) -> None:
        """`key` needs work now. `cause` is the revision that says so; the latest wins."""
        if self._closed:
            return
        known = key in self._dirty
        self._dirty[key] = max(self._dirty.get(key, 0), cause)
        if known:
            return
        self.adds += 1
        self._added[key] = self._clock.monotonic()
        if key not in self._active:
            self._push(key)

    def add_after(self, key: str, delay: float, cause: int = 0) -> None:
        """`key` needs work in `delay` seconds; an earlier time that is planned already stays."""
        if delay <= 0:
            self.add(key, cause)
            return
        if self._closed:
            return
        due = self._clock.monotonic() + delay
        if cause:
            self._delay_causes[key] = max(self._delay_causes.get(key, 0), cause)
        planned = self._due.get(key)
        if planned is not None and planned <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._due):
            self._heap = [(at, k) for k, at in self._due.items()]
            heapq.heapify(self._heap)
        self._arm()

    def retry(self, key: str, cause: int = 0) -> float:
        """Add `key` again after its next backoff delay, which is returned."""
        delay = self._backoff.next(key)
        self.add_after(key, delay, cause)
        return delay

    def failures(self, key: str) -> int:
        return self._backoff.failures(key)

    def forget(self, key: str) -> None:
        """`key` succeeded: its next failure starts from the shortest delay."""
        self._backoff.forget(key)

    async def get(self) -> tuple[str, int, float]:
        """The next key, its cause, and how long it waited. The caller must call `done(key)`. Raises WorkQueueClosed."""
        while not self._ready:
            if self._closed:
                raise WorkQueueClosed
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                # A wake-up that reached a cancelled getter belongs to the next one.
                if getter.done() and not getter.cancelled():
                    self._wake()
                raise
            finally:
                if getter in self._getters:
                    self._getters.remove(getter)
        key = self._ready.popleft()
        cause = self._dirty.pop(key)
        self._active.add(key)
        return key, cause, self._clock.monotonic() - self._added.pop(key)

    def done(self, key: str) -> None:
        """The work on `key` has ended; if it was added meanwhile it is ready again."""
        self._active.discard(key)
        if key in self._dirty:
            self._push(key)

    def close(self) -> None:
        """Wake every `get`; drop what waits."""
        self._closed = True
        self._ready.clear()
        self._dirty.clear()
        self._due.clear()
        self._heap.clear()
        if self._sleeper is not None:
            self._sleeper.cancel()
        while self._getters:
            self._wake()

    def _push(self, key: str) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _arm(self) -> None:
        """Have the one sleeper wake at the earliest due time."""
        if not self._heap:
            return
        due = self._heap[0][0]
        if self._sleeper is not None and not self._sleeper.done():
            if self._sleeping_until <= due:
                return
            self._sleeper.cancel()
        self._sleeping_until = due
        self._sleeper = asyncio.get_running_loop().create_task(self._sleep(due), name="workqueue-timer")

    async def _sleep(self, due: float) -> None:
        while True:
            await self._clock.sleep(max(due - self._clock.monotonic(), 0.0))
            now = self._clock.monotonic()
            while self._heap and self._heap[0][0] <= now:
                at, key = heapq.heappop(self._heap)
                if self._due.get(key) == at:
                    del self._due[key]
                    self.add(key, self._delay_causes.pop(key, 0))
            if not self._heap:
                return
            due = self._sleeping_until = self._heap[0][0]
