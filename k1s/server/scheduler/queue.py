"""Which pod is next: active, backing off, or waiting for something to change.

Owns: the three places a pod can be in. Called by: app, cycle. Never does: I/O, timers of its own (the caller sleeps).
Bounds: one entry per pending pod. Order: priority, then age. Source: scheduler/backend/queue: backoff 1 s doubling to 10 s,
unschedulable pods are looked at again when an event could help them, at the latest after five minutes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from k1s.api import meta
from k1s.base.backoff import Backoff

Object = dict[str, Any]

BACKOFF = Backoff(initial=1.0, maximum=10.0)
UNSCHEDULABLE_SECONDS = 300.0


@dataclass(slots=True)
class QueuedPod:
    """A pending pod. `failed_by`: the plugins that turned it down last time; events wake it by their names."""

    pod: Object
    key: str
    uid: str
    added: float
    attempts: int = 0
    failed_by: frozenset[str] = frozenset()
    backoff_until: float = 0.0
    ready_at: float = 0.0
    state: str = field(default="active")  # active | backoff | waiting | busy

    @property
    def priority(self) -> int:
        return int(self.pod["spec"].get("priority") or 0)


class SchedulingQueue:
    """All times are monotonic seconds given by the caller."""

    def __init__(self) -> None:
        self._pods: dict[str, QueuedPod] = {}
        self._active: list[tuple[int, float, int, str]] = []
        self._sequence = 0
        # Counts events: one that came while a pod was being looked at could have helped it.
        self._moves = 0
        self._busy_since: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._pods)

    def set(self, pod: Object, now: float) -> bool:
        """Add or update a pending pod; True if it became active by this."""
        uid = meta.uid(pod)
        queued = self._pods.get(uid)
        if queued is None:
            queued = self._pods[uid] = QueuedPod(pod, meta.key(pod), uid, now)
            self._activate(queued)
            return True
        changed = queued.pod["spec"] != pod["spec"] or meta.labels(queued.pod) != meta.labels(pod)
        queued.pod = pod
        if changed and queued.state == "waiting":
            self._activate(queued)
            return True
        return False

    def remove(self, uid: str) -> None:
        self._pods.pop(uid, None)
        self._busy_since.pop(uid, None)

    def pop(self, now: float) -> QueuedPod | None:
        """The next pod to try, marked busy until `done`, `failed` or `remove`."""
        self._release(now)
        while self._active:
            _, _, _, uid = heapq.heappop(self._active)
            queued = self._pods.get(uid)
            if queued is not None and queued.state == "active":
                queued.state = "busy"
                queued.attempts += 1
                self._busy_since[uid] = self._moves
                return queued
        return None

    def failed(self, queued: QueuedPod, failed_by: frozenset[str], now: float, *, retry: bool = False) -> None:
        """It did not fit (or, with `retry`, the attempt itself went wrong): wait for an event or for the backoff."""
        if self._pods.get(queued.uid) is not queued:
            return
        queued.failed_by = failed_by
        queued.backoff_until = now + BACKOFF.delay(queued.attempts)
        moved = self._busy_since.pop(queued.uid, self._moves) != self._moves
        queued.state = "backoff" if retry or moved else "waiting"
        queued.ready_at = queued.backoff_until if queued.state == "backoff" else now + UNSCHEDULABLE_SECONDS

    def wake(self, helps: Callable[[QueuedPod], bool], now: float) -> bool:
        """An event happened: waiting pods that it may help go on after their backoff. True if any moved."""
        self._moves += 1
        woken = False
        for queued in self._pods.values():
            if queued.state == "waiting" and helps(queued):
                queued.ready_at = max(queued.backoff_until, now)
                queued.state = "backoff"
                woken = True
        return woken

    def next_release(self) -> float | None:
        """When the next backoff ends; None if nothing is waiting for time."""
        return min((q.ready_at for q in self._pods.values() if q.state in ("backoff", "waiting")), default=None)

    def _release(self, now: float) -> None:
        for queued in self._pods.values():
            if queued.state in ("backoff", "waiting") and queued.ready_at <= now:
                self._activate(queued)

    def _activate(self, queued: QueuedPod) -> None:
        queued.state = "active"
        self._sequence += 1
        heapq.heappush(self._active, (-queued.priority, queued.added, self._sequence, queued.uid))
