"""What a controller has asked for and not yet seen in its cache.

Owns: Expectations, per key: creations by count, deletions by UID. A controller that has unmet expectations must not act on
its (stale) cache, or it would create or delete too much. Called by: replica sets, jobs, daemon sets.
Never does: I/O. Bound: keys of existing owners (`forget` when the owner is gone); expectations expire after five minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from k1s.base.clock import Clock

EXPIRY_SECONDS = 300.0


@dataclass(slots=True)
class _Pending:
    since: float
    creations: int = 0
    deletions: set[str] = field(default_factory=set)


class Expectations:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pending: dict[str, _Pending] = {}

    def expect_creations(self, key: str, count: int) -> None:
        """Before the create calls: so many new objects of `key` will appear in the cache."""
        self._entry(key).creations += count

    def expect_deletions(self, key: str, uids: Iterable[str]) -> None:
        """Before the delete calls: these objects will be seen deleted or being deleted."""
        self._entry(key).deletions.update(uids)

    def created(self, key: str) -> None:
        """An object appeared, or its creation failed."""
        pending = self._pending.get(key)
        if pending is not None and pending.creations > 0:
            pending.creations -= 1
            self._drop_if_met(key, pending)

    def deleted(self, key: str, uid: str) -> None:
        """An object is (being) deleted, or its deletion failed."""
        pending = self._pending.get(key)
        if pending is not None:
            pending.deletions.discard(uid)
            self._drop_if_met(key, pending)

    def wait(self, key: str) -> float:
        """0 if the cache shows everything asked for, else the seconds until the expectations expire."""
        pending = self._pending.get(key)
        if pending is None:
            return 0.0
        left = pending.since + EXPIRY_SECONDS - self._clock.monotonic()
        if left <= 0:
            del self._pending[key]
            return 0.0
        return left

    def forget(self, key: str) -> None:
        self._pending.pop(key, None)

    def _entry(self, key: str) -> _Pending:
        pending = self._pending.setdefault(key, _Pending(0.0))
        pending.since = self._clock.monotonic()
        return pending

    def _drop_if_met(self, key: str, pending: _Pending) -> None:
        if not pending.creations and not pending.deletions:
            del self._pending[key]
