"""Large list answers, kept while nothing changes: several clients that list the same share one body.

Owns: ListBodies, a small LRU by bytes. Called by: handlers/list. Never does: know what is in a body (the key holds the revision).
Bound: MAX_BYTES in all, and MAX_SECONDS after its last use a body is dropped at the next chance.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from k1s.base.clock import Clock

MAX_BYTES = 64 * 1024 * 1024
MAX_SECONDS = 10.0


class ListBodies:
    def __init__(self, clock: Clock, max_bytes: int = MAX_BYTES) -> None:
        self._clock, self._max_bytes = clock, max_bytes
        self._bodies: OrderedDict[Hashable, tuple[bytes, float]] = OrderedDict()
        self.bytes = 0

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

    def trim(self) -> None:
        """Drop what is too old or too much."""
        now = self._clock.monotonic()
        while self._bodies:
            key, (body, used) = next(iter(self._bodies.items()))
            if self.bytes <= self._max_bytes and now - used <= MAX_SECONDS:
                return
            del self._bodies[key]
            self.bytes -= len(body)
