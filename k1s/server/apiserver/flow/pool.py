"""The server's seats: who may take one now, and who is next when one gets free.

Owns: Pool. Called by: flow/app. Never does: classify, answer.

Every level keeps its minimum; what it may lend is taken by whoever comes first. Upstream adjusts what is lent every ten seconds;
here nothing ticks: a seat that gets free goes first to levels that are below their own nominal limit, then to borrowers.
"""

from __future__ import annotations

from collections.abc import Mapping

from k1s.server.apiserver.flow.level import Level, Waiter
from k1s.server.apiserver.flow.shares import Limits


class Pool:
    """`levels` by name; those that were deleted stay until the last of their requests has gone."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.levels: dict[str, Level] = {}
        self._room = total
        # Seats that are taken or kept for a level's own requests.
        self._committed = 0
        self._waiting = 0

    def configure(self, found: Mapping[str, tuple[str, bool, Limits, tuple[int, int, int]]]) -> None:
        """Take up what the PriorityLevelConfigurations say now."""
        for name, settings in found.items():
            level = self.levels.get(name)
            if level is None:
                level = self.levels[name] = Level(name)
            level.configure(*settings)
        for name in [name for name, level in self.levels.items() if name not in found]:
            level = self.levels[name]
            if level.idle:
                del self.levels[name]
            else:
                level.minimum = level.nominal = 0
                level.maximum = self.total
        limited = [level for level in self.levels.values() if not level.exempt]
        # Rounding up may promise a few seats more than there are.
        self._room = max(self.total, sum(level.minimum for level in limited))
        self._committed = sum(max(level.seats, level.minimum) for level in limited)
        self.dispatch()

    def admit(self, level: Level, width: int) -> bool:
        """Take seats if there are any and nobody was here before."""
        if not level.exempt and (level.waiting or not self._fits(level, width)):
            return False
        self._take(level, width)
        return True

    def _take(self, level: Level, width: int) -> None:
        if not level.exempt:
            after = level.seats + width
            if after > level.minimum:
                self._committed += after - (level.seats if level.seats > level.minimum else level.minimum)
        level.seats += width
        level.executing += 1
        level.dispatched += 1

    def leave(self, level: Level, width: int) -> None:
        level.seats -= width
        level.executing -= 1
        if not level.exempt:
            excess = level.seats + width - level.minimum
            if excess > 0:
                self._committed -= width if width < excess else excess
        if self._waiting:
            self.dispatch()

    def wait(self, level: Level, hand: tuple[int, ...], width: int) -> Waiter | None:
        waiter = level.enqueue(hand, width)
        if waiter is not None:
            self._waiting += 1
        return waiter

    def give_up(self, level: Level, waiter: Waiter) -> None:
        if waiter.queued:
            level.remove(waiter)
            self._waiting -= 1

    def dispatch(self) -> None:
        """Seat everybody there is room for."""
        while self._waiting:
            found: tuple[tuple[bool, float], Level, Waiter] | None = None
            for level in self.levels.values():
                if not level.waiting:
                    continue
                waiter = level.next()
                if not self._fits(level, waiter.width):
                    continue
                rank = (level.seats >= level.nominal, level.seats / (level.nominal or 1))
                if found is None or rank < found[0]:
                    found = rank, level, waiter
            if found is None:
                return
            _, level, waiter = found
            level.take(waiter)
            self._waiting -= 1
            if not waiter.seated.done():
                self._take(level, waiter.width)
                waiter.seated.set_result(None)

    def _fits(self, level: Level, width: int) -> bool:
        after = level.seats + width
        if level.exempt or not level.seats or after <= level.minimum:
            return True
        growth = after - max(level.seats, level.minimum)
        return after <= level.maximum and self._committed + growth <= self._room
