"""EventRecorder: counting, combining, spam."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from k1s.api.errors import not_found
from k1s.base.clock import VirtualClock
from k1s.client.events import QUEUE_SIZE, EventRecorder

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "5"}}


class Sink:
    """The two calls the recorder makes."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.patched: list[tuple[str, dict[str, Any]]] = []
        self.expired = False

    async def create(self, resource: Any, obj: dict[str, Any], namespace: str) -> dict[str, Any]:
        self.created.append(obj)
        return obj

    async def patch(self, resource: Any, name: str, namespace: str, patch: dict[str, Any]) -> dict[str, Any]:
        if self.expired:
            raise not_found("events", "", name)
        self.patched.append((name, patch))
        return patch


@pytest.fixture
async def setup():
    clock, sink = VirtualClock(), Sink()
    recorder = EventRecorder(sink, "kubelet", host="node1", clock=clock)  # type: ignore[arg-type]
    task = asyncio.create_task(recorder.run())
    yield recorder, sink, clock
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_first_is_created_repeats_are_counted(setup) -> None:
    recorder, sink, clock = setup
    recorder.event(POD, "Normal", "Pulled", "ok", field_path="spec.containers{a}")
    await recorder.flush()
    await clock.advance(5)
    recorder.event(POD, "Normal", "Pulled", "ok", field_path="spec.containers{a}")
    recorder.event(POD, "Normal", "Started", "ok")
    await recorder.flush()
    first = sink.created[0]
    assert first["metadata"]["namespace"] == "n" and first["metadata"]["name"].startswith("p.")
    assert first["involvedObject"] == {
        "kind": "Pod", "namespace": "n", "name": "p", "uid": "u", "apiVersion": "v1", "resourceVersion": "5",
        "fieldPath": "spec.containers{a}",
    }  # fmt: skip
    assert first["source"] == {"component": "kubelet", "host": "node1"}
    assert [e["reason"] for e in sink.created] == ["Pulled", "Started"]
    assert sink.patched[0][0] == first["metadata"]["name"]
    assert sink.patched[0][1]["count"] == 2
    assert sink.patched[0][1]["lastTimestamp"] != first["lastTimestamp"]


async def test_an_expired_event_is_made_again(setup) -> None:
    recorder, sink, _ = setup
    recorder.event(POD, "Normal", "Pulled", "ok")
    await recorder.flush()
    sink.expired = True
    recorder.event(POD, "Normal", "Pulled", "ok")
    await recorder.flush()
    assert len(sink.created) == 2 and sink.created[1]["count"] == 1


async def test_similar_messages_are_combined(setup) -> None:
    recorder, sink, _ = setup
    for number in range(13):
        recorder.event(POD, "Warning", "Failed", f"try {number}")
    await recorder.flush()
    assert len(sink.created) == 10
    assert sink.created[-1]["message"] == "(combined from similar events): try 9"
    assert [p["message"] for _, p in sink.patched][-1] == "(combined from similar events): try 12"


async def test_one_object_cannot_flood(setup) -> None:
    recorder, sink, clock = setup
    for _ in range(40):
        recorder.event(POD, "Normal", "Pulled", "ok")
    await recorder.flush()
    assert len(sink.created) + len(sink.patched) == 25 and recorder.dropped == 15
    await clock.advance(301)
    recorder.event(POD, "Normal", "Pulled", "ok")
    await recorder.flush()
    assert len(sink.patched) == 25


async def test_the_queue_is_bounded() -> None:
    recorder = EventRecorder(Sink(), "x", clock=VirtualClock())  # type: ignore[arg-type]
    for _ in range(QUEUE_SIZE + 5):
        recorder.event(POD, "Normal", "A", "b")
    assert recorder.dropped == 5
