"""WorkQueue and Controller in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from k1s.api.errors import conflict, forbidden
from k1s.base.clock import VirtualClock
from k1s.base.metrics import Registry
from k1s.client.controller import Controller, QueueMetrics
from k1s.client.expectations import Expectations
from k1s.client.rest import current_cause
from k1s.client.workqueue import WorkQueue, WorkQueueClosed


async def test_a_key_waits_once_and_keeps_its_latest_cause() -> None:
    queue = WorkQueue(VirtualClock())
    queue.add("a", 3)
    queue.add("a", 9)
    queue.add("a", 5)
    assert (await queue.get())[:2] == ("a", 9)
    assert len(queue) == 0


async def test_a_key_added_while_worked_on_comes_again_afterwards() -> None:
    queue = WorkQueue(VirtualClock())
    queue.add("a")
    await queue.get()
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert (await queue.get())[0] == "a"


async def test_delayed_adds_come_in_time_and_the_earliest_wins() -> None:
    clock = VirtualClock()
    queue = WorkQueue(clock)
    queue.add_after("late", 10)
    queue.add_after("soon", 2)
    queue.add_after("late", 5)
    queue.add_after("late", 60)
    await clock.advance(2)
    assert len(queue) == 1 and (await queue.get())[0] == "soon"
    await clock.advance(2.9)
    assert len(queue) == 0
    await clock.advance(0.2)
    assert (await queue.get())[0] == "late"
    queue.done("late")
    await clock.advance(100)
    assert len(queue) == 0
    queue.close()


async def test_failures_back_off_to_the_cap_and_forget_resets() -> None:
    queue = WorkQueue(VirtualClock())
    delays = [queue.retry("a") for _ in range(30)]
    assert delays[:3] == [0.005, 0.01, 0.02] and delays[-1] == 300.0
    queue.forget("a")
    assert queue.retry("a") == 0.005
    queue.close()


async def test_a_cancelled_getter_does_not_swallow_a_key() -> None:
    queue = WorkQueue(VirtualClock())
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert (await asyncio.wait_for(second, 1))[0] == "a"
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.close()
    with pytest.raises(WorkQueueClosed):
        await waiting


class OneObject:
    """An informer that holds one object."""

    def __init__(self) -> None:
        self.handlers: list[Any] = []

    async def synced(self) -> None:
        return None

    def add_handler(self, handler: Any) -> None:
        self.handlers.append(handler)
        handler(None, {"metadata": {"name": "a", "resourceVersion": "77"}})


async def test_controller_retries_quietly_and_passes_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    calls: list[int] = []

    async def reconcile(key: str) -> float | None:
        calls.append(current_cause.get())
        if len(calls) <= 3:
            raise forbidden("pods", "", key, "quota")
        if len(calls) == 4:
            raise conflict("pods", "", key)
        if len(calls) == 5:
            raise KeyError("defect")
        return 50.0 if len(calls) == 6 else None

    registry = Registry()
    controller = Controller("test", reconcile, clock=clock, metrics=QueueMetrics(registry))
    controller.watch(OneObject(), lambda old, new: [new["metadata"]["name"]] if new else [])  # type: ignore[arg-type]
    ready = asyncio.Event()
    task = asyncio.create_task(controller.run(ready.set))
    await ready.wait()
    await clock.advance(10)
    assert calls == [77] * 6
    await clock.advance(50)
    assert len(calls) == 7
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    warnings = [r.getMessage() for r in caplog.records if r.name == "k1s.controller"]
    assert len([w for w in warnings if "quota" in w]) == 1
    assert any("defect" in w for w in warnings) and not any("modified" in w for w in warnings)
    assert b'workqueue_retries_total{name="test"} 5' in registry.exposition()


async def test_what_passes_by_itself_is_told_only_if_it_does_not(caplog: pytest.LogCaptureFixture) -> None:
    clock, calls = VirtualClock(), 0

    async def reconcile(key: str) -> float | None:
        nonlocal calls
        calls += 1
        raise conflict("pods", "", key)

    controller = Controller("test", reconcile, clock=clock)
    controller.watch(OneObject(), lambda old, new: ["a"])  # type: ignore[arg-type]
    task = asyncio.create_task(controller.run())
    await clock.advance(0.04)
    assert calls >= 3 and not caplog.records
    await clock.advance(60)
    assert len(caplog.records) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_defect_in_a_key_function_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def reconcile(key: str) -> float | None:
        return None

    def broken(old: Any, new: Any) -> list[str]:
        raise KeyError("spec")

    controller = Controller("test", reconcile, clock=VirtualClock())
    source = OneObject()
    controller.watch(source, broken)  # type: ignore[arg-type]
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    source.handlers[0](None, {"kind": "Pod", "metadata": {"name": "b"}})
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "defect in the keys of Pod b" in caplog.text


def test_expectations_hold_back_until_met_or_expired() -> None:
    clock = VirtualClock()
    expected = Expectations(clock)
    expected.expect_creations("a", 2)
    expected.expect_deletions("a", ["u1"])
    expected.created("a")
    expected.deleted("a", "other")
    assert expected.wait("a") == 300.0
    expected.created("a")
    expected.created("a")
    assert expected.wait("a") > 0
    expected.deleted("a", "u1")
    assert expected.wait("a") == 0.0
    expected.expect_creations("a", 1)
    clock._elapsed += 301
    assert expected.wait("a") == 0.0
