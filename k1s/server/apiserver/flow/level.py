"""One priority level: its seats, and the fair queues in front of them.

Owns: Level, Waiter, `deal` (shuffle sharding). Called by: flow/pool. Never does: decide whether a seat is free (pool).
Source: KEP-1040. Fairness is start-time fair queuing: each request gets the moment in virtual time at which its queue's turn
comes, a list that takes many seats pushes its queue's next turn further away, and the earliest turn goes first.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass

from k1s.server.apiserver.flow.shares import Limits

# Retry-After grows while a level refuses many, as upstream's droppedRequestsTracker; seconds.
_MOST_RETRY = 32


@dataclass(slots=True, eq=False)
class Waiter:
    """One request in a queue; `seated` is done once it may run."""

    seated: asyncio.Future[None]
    width: int
    queue: int
    turn: float
    queued: bool = True


def deal(schema: str, flow: str, queues: int, hand: int) -> tuple[int, ...]:
    """The few queues a flow may use: two flows rarely share all of theirs, so a flood leaves the others a way."""
    seed = int.from_bytes(hashlib.sha256(f"{schema}\0{flow}".encode("utf-8", "replace")).digest()[:16], "big")
    deck = list(range(queues))
    out = []
    for _ in range(min(hand, queues)):
        seed, index = divmod(seed, len(deck))
        out.append(deck.pop(index))
    return tuple(out)


class Level:
    """`seats` are taken, by `executing` requests; `waiting` stand in queues."""

    __slots__ = (
        "_dropped",
        "_ends",
        "_queues",
        "_second",
        "_virtual",
        "dispatched",
        "executing",
        "exempt",
        "hand",
        "length",
        "maximum",
        "minimum",
        "name",
        "nominal",
        "queues",
        "rejected",
        "retry_after",
        "seats",
        "timed_out",
        "uid",
        "waiting",
        "waiting_seats",
    )

    def __init__(self, name: str) -> None:
        self.name, self.uid, self.exempt = name, "", False
        self.nominal = self.minimum = self.maximum = 0
        # queues 0: what finds no seat is refused at once.
        self.queues = self.hand = self.length = 0
        self.seats = self.executing = self.waiting = self.waiting_seats = 0
        self.dispatched = self.rejected = self.timed_out = 0
        self.retry_after = 1
        self._queues: dict[int, deque[Waiter]] = {}
        self._ends: dict[int, float] = {}
        self._virtual = 0.0
        self._second, self._dropped = 0.0, 0

    def configure(self, uid: str, exempt: bool, limits: Limits, queuing: tuple[int, int, int]) -> None:
        """`queuing`: queues, hand size, length limit. What waits already stays where it is."""
        self.uid, self.exempt = uid, exempt
        self.nominal, self.minimum, self.maximum = limits.nominal, limits.minimum, limits.maximum
        self.queues, self.hand, self.length = queuing

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.executing

    @property
    def active_queues(self) -> int:
        return len(self._queues)

    def enqueue(self, hand: tuple[int, ...], width: int) -> Waiter | None:
        """Into the queue of the hand that has least to do; None if that one is full."""
        queue = min(hand, key=self._work)
        line = self._queues.get(queue)
        if line is not None and len(line) >= self.length:
            return None
        if line is None:
            line = self._queues[queue] = deque()
        turn = max(self._virtual, self._ends.get(queue, 0.0))
        self._ends[queue] = turn + width
        waiter = Waiter(asyncio.get_running_loop().create_future(), width, queue, turn)
        line.append(waiter)
        self.waiting += 1
        self.waiting_seats += width
        return waiter

    def next(self) -> Waiter:
        """The one whose turn it is; the level must have somebody waiting."""
        return min((line[0] for line in self._queues.values()), key=lambda waiter: waiter.turn)

    def take(self, waiter: Waiter) -> None:
        """It leaves its queue to run."""
        self._virtual = waiter.turn
        self.remove(waiter)

    def remove(self, waiter: Waiter) -> None:
        line = self._queues[waiter.queue]
        line.remove(waiter)
        waiter.queued = False
        if not line:
            del self._queues[waiter.queue]
        self.waiting -= 1
        self.waiting_seats -= waiter.width
        if not self.waiting:
            self._virtual = 0.0
            self._ends.clear()

    def drop(self, now: float) -> int:
        """Count a refusal; the seconds after which its client may come again."""
        self.rejected += 1
        if now - self._second >= 1.0:
            if self._dropped >= 3 * self.retry_after:
                self.retry_after = min(self.retry_after * 2, _MOST_RETRY)
            elif self._dropped < self.retry_after:
                self.retry_after = max(self.retry_after // 2, 1)
            if now - self._second > self.retry_after:
                self.retry_after = 1
            self._second, self._dropped = now, 0
        self._dropped += 1
        return self.retry_after

    def _work(self, queue: int) -> int:
        line = self._queues.get(queue)
        return sum(waiter.width for waiter in line) if line is not None else 0
