"""What webhooks answered, for as long as it may be believed.

Owns: AnswerCache. Called by: authn/webhook, authz/webhook. Never does: ask.
Bound: `size` answers; the least recently used goes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from k1s.base.clock import Clock

T = TypeVar("T")


class AnswerCache(Generic[T]):
    def __init__(self, clock: Clock, size: int) -> None:
        self._clock, self._size = clock, size
        self._answers: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    def get(self, key: bytes) -> T | None:
        found = self._answers.get(key)
        if found is None:
            return None
        until, answer = found
        if until <= self._clock.monotonic():
            del self._answers[key]
            return None
        self._answers.move_to_end(key)
        return answer

    def put(self, key: bytes, answer: T, seconds: float) -> None:
        if seconds <= 0:
            return
        self._answers[key] = (self._clock.monotonic() + seconds, answer)
        self._answers.move_to_end(key)
        if len(self._answers) > self._size:
            self._answers.popitem(last=False)

    def clear(self) -> None:
        self._answers.clear()
