"""The queue: order, backoff, and who is woken by what."""

from __future__ import annotations

from typing import Any

from k1s.server.scheduler.queue import UNSCHEDULABLE_SECONDS, SchedulingQueue


def pod(name: str, priority: int = 0) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {"priority": priority}}


def test_priority_then_age() -> None:
    queue = SchedulingQueue()
    for moment, (name, priority) in enumerate([("old", 0), ("new", 0), ("important", 10)]):
        queue.set(pod(name, priority), moment)
    order = []
    while (popped := queue.pop(10)) is not None:
        order.append(popped.uid)
    assert order == ["important", "old", "new"]


def test_unfit_pods_wait_for_an_event_that_helps_and_for_their_backoff() -> None:
    queue = SchedulingQueue()
    queue.set(pod("p"), 0)
    queued = queue.pop(0)
    assert queued is not None
    queue.failed(queued, frozenset({"NodeResourcesFit"}), 0)
    assert queue.pop(5) is None
    assert not queue.wake(lambda q: "NodeAffinity" in q.failed_by, 0.1)
    assert queue.wake(lambda q: "NodeResourcesFit" in q.failed_by, 0.1)
    assert queue.pop(0.5) is None
    assert queue.next_release() == 1.0
    again = queue.pop(1.0)
    assert again is queued and again.attempts == 2
    queue.failed(again, frozenset({"NodeResourcesFit"}), 1.0)
    assert queue.wake(lambda q: True, 1.0)
    assert queue.next_release() == 3.0


def test_an_event_during_the_attempt_is_not_lost() -> None:
    queue = SchedulingQueue()
    queue.set(pod("p"), 0)
    queued = queue.pop(0)
    assert queued is not None
    queue.wake(lambda q: True, 0)
    queue.failed(queued, frozenset(), 0)
    assert queue.pop(1.0) is queued


def test_at_the_latest_after_five_minutes() -> None:
    queue = SchedulingQueue()
    queue.set(pod("p"), 0)
    queued = queue.pop(0)
    assert queued is not None
    queue.failed(queued, frozenset({"x"}), 0)
    assert queue.next_release() == UNSCHEDULABLE_SECONDS
    assert queue.pop(UNSCHEDULABLE_SECONDS) is queued


def test_a_changed_spec_is_tried_at_once_and_a_removed_pod_never() -> None:
    queue = SchedulingQueue()
    queue.set(pod("p"), 0)
    queued = queue.pop(0)
    assert queued is not None
    queue.failed(queued, frozenset({"x"}), 0)
    assert not queue.set(pod("p"), 1)
    assert queue.set(pod("p", priority=1), 1)
    assert queue.pop(1) is queued
    queue.remove("p")
    queue.failed(queued, frozenset(), 1)
    assert queue.next_release() is None and len(queue) == 0
