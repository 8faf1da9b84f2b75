"""How long a container that ended waits before it runs again.

Owns: kubelet's crash loop delays: at once, then 10 s doubling to 5 min from the moment it ended; forgotten after 10 min of
running. Called by: worker. Never does: sleep. Bounds: one entry per container of the pod.
"""

from __future__ import annotations

from dataclasses import dataclass

INITIAL = 10.0
MAXIMUM = 300.0
RESET = 600.0


@dataclass(slots=True)
class _Entry:
    delay: float
    updated: float


class CrashBackoff:
    """One per pod worker."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def blocked_until(self, name: str, finished_at: float) -> float | None:
        """When a container that ended at `finished_at` may start; None: now."""
        entry = self._entries.get(name)
        if entry is None or finished_at - entry.updated > RESET:
            return None
        return finished_at + entry.delay

    def delay(self, name: str) -> float:
        entry = self._entries.get(name)
        return entry.delay if entry is not None else 0.0

    def restarted(self, name: str, finished_at: float, now: float) -> None:
        """It is being started again; the next restart waits longer."""
        entry = self._entries.get(name)
        if entry is None or finished_at - entry.updated > RESET:
            self._entries[name] = _Entry(INITIAL, now)
        else:
            self._entries[name] = _Entry(min(entry.delay * 2, MAXIMUM), now)

    def adopt(self, name: str, restarts: int, started_at: float) -> None:
        """A container that was restarted before this agent came: it does not begin anew with short delays."""
        if restarts > 0 and name not in self._entries:
            self._entries[name] = _Entry(min(INITIAL * 2 ** min(restarts - 1, 10), MAXIMUM), started_at)

    def forget(self, name: str) -> None:
        self._entries.pop(name, None)


def go_duration(seconds: float) -> str:
    """As Go prints a duration: 10s, 1m20s, 5m0s."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
