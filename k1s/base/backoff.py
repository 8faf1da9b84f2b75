"""Growing delays for retries.

Owns: exponential backoff per key with a cap and a reset. Called by: workqueues, pod workers, supervisors.
Never does: sleeping (the caller owns the clock).
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay before try n (0-based) is min(initial * factor**n, maximum), plus up to `jitter` of itself. Seconds."""

    initial: float
    maximum: float
    factor: float = 2.0
    jitter: float = 0.0

    def delay(self, failures: int, *, rng: random.Random | None = None) -> float:
        """Seconds to wait after `failures` failures in a row (>= 1)."""
        # The exponent is bounded so that the float cannot overflow after days of failures.
        base = min(self.initial * self.factor ** min(max(failures - 1, 0), 64), self.maximum)
        if self.jitter:
            base += base * self.jitter * (rng or random).random()
        return base


class KeyedBackoff:
    """Counts failures per key. The table holds only keys that are failing now; `forget` on success."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures: dict[Hashable, int] = {}

    def next(self, key: Hashable) -> float:
        """Record a failure of `key` and return the delay before its next try, in seconds."""
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        return self._backoff.delay(failures)

    def failures(self, key: Hashable) -> int:
        return self._failures.get(key, 0)

    def forget(self, key: Hashable) -> None:
        self._failures.pop(key, None)
