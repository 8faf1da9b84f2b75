"""Large list answers, kept while nothing changes: several clients that list the same share one body.

Owns: ListBodies, a small LRU by bytes. Called by: handlers/list. Never does: know what is in a body (the key holds the revision).
Bound: MAX_BYTES in all; a body is dropped about MAX_SECONDS after its last use.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable

from k1s.base.clock import Clock

MAX_BYTES = 32 * 1024 * 1024
MAX_SECONDS = 10.0


class ListBodies:
    def __init__(self, clock: Clock, max_bytes: int = MAX_BYTES) -> None:
        self._clock, self._max_bytes = clock, max_bytes
        self._bodies: OrderedDict[Hashable, tuple[bytes, float]] = OrderedDict()
        self.bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def get(self, key: Hashable) -> bytes | None:
        found = self._bodies.get(key)
        if found is None:
            return None
        self._bodies[key] = (found[0], self._clock.monotonic())
        self._bodies.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, body: bytes) -> None:
        if len(body) > self._max_bytes or key in self._bodies:
            return
        self._bodies[key] = (body, self._clock.monotonic())
        self.bytes += len(body)
        self.trim()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MAX_SECONDS, self._tick)

    def _tick(self) -> None:
        # Runs only while there is something to drop.
        self.trim()
        self._timer = asyncio.get_running_loop().call_later(MAX_SECONDS, self._tick) if self._bodies else None

    def trim(self) -> None:
        """Drop what is too old or too much."""
        now = self._clock.monotonic()
        while self._bodies:
            key, (body, used) = next(iter(self._bodies.items()))
            if self.bytes <= self._max_bytes and now - used <= MAX_SECONDS:
                return
            del self._bodies[key]
            self.bytes -= len(body)
