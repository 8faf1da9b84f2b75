"""A watch of which the caller keeps a little: initial events, going on, starting anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.clock import REAL_CLOCK
from k1s.client.projection import Projection

Object = dict[str, Any]


def thing(name: str, version: str, value: str = "v", namespace: str = "n") -> Object:
    return {"metadata": {"name": name, "namespace": namespace, "resourceVersion": version}, "value": value}


def end(version: str) -> tuple[str, Object]:
    return "BOOKMARK", {"metadata": {"resourceVersion": version, "annotations": {"k8s.io/initial-events-end": "true"}}}


class Scripted:
    """A client whose watches say one script each, then wait for ever."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts = list(scripts)
        self.asked: list[tuple[str, bool]] = []
        self.pauses = 0

    async def pause(self, seconds: float) -> None:
        self.pauses += 1

    async def watch(
        self, resource: Any, *, resource_version: str, initial_events: bool, **_: Any
    ) -> AsyncGenerator[tuple[str, Object], None]:
        self.asked.append((resource_version, initial_events))
        for item in self.scripts.pop(0) if self.scripts else []:
            if isinstance(item, Exception):
                raise item
            yield item
        if not self.scripts:
            await asyncio.get_running_loop().create_future()


async def play(client: Scripted, read: Any = lambda obj: obj["value"]) -> tuple[list[tuple[str, Any]], Projection[Any]]:
    said: list[tuple[str, Any]] = []
    projection: Projection[Any] = Projection(
        client,  # type: ignore[arg-type]
        builtin("Pod"),
        REAL_CLOCK,
        read=read,
        changed=lambda key, value: said.append((key, value)),
    )
    task = asyncio.ensure_future(projection.run())
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return said, projection


async def test_what_is_there_and_what_follows() -> None:
    client = Scripted(
        [
            ("ADDED", thing("a", "1")),
            ("ADDED", thing("b", "2")),
            end("5"),
            ("MODIFIED", thing("a", "6", "w")),
            ("DELETED", thing("b", "7")),
            ("DELETED", thing("never", "8")),
            ("ADDED", thing("cluster-wide", "9", namespace="")),
        ],
        [("BOOKMARK", {"metadata": {"resourceVersion": "12"}})],
        [],
    )
    said, projection = await play(client)
    assert said == [("n/a", "v"), ("n/b", "v"), ("n/a", "w"), ("n/b", None), ("cluster-wide", "v")]
    await asyncio.wait_for(projection.synced(), 1)
    # It goes on where it was, bookmarks included.
    assert client.asked == [("", True), ("9", False), ("12", False)]


async def test_a_start_that_breaks_off_begins_again() -> None:
    client = Scripted([("ADDED", thing("a", "1"))], [("ADDED", thing("b", "2")), end("3")])
    said, _ = await play(client)
    assert client.asked == [("", True), ("", True)]
    # `a` was gone when all had been seen.
    assert said == [("n/a", "v"), ("n/b", "v"), ("n/a", None)]


async def test_too_old_starts_anew_and_forgets_who_went() -> None:
    gone = ApiError(410, "Expired", "too old")
    client = Scripted(
        [("ADDED", thing("a", "1")), ("ADDED", thing("b", "1")), end("2"), gone], [("ADDED", thing("b", "9", "w")), end("9")]
    )
    said, _ = await play(client)
    assert client.asked == [("", True), ("", True)]
    assert said[2:] == [("n/b", "w"), ("n/a", None)]


async def test_other_errors_go_on_from_the_last_version() -> None:
    client = Scripted([end("2"), ApiError(500, "InternalError", "no")], [ApiError(503, "", "away")], [])
    said, _ = await play(client)
    assert client.asked == [("", True), ("2", False), ("2", False)]
    assert client.pauses >= 2
    assert said == []


async def test_what_is_not_worth_keeping_is_as_gone() -> None:
    client = Scripted(
        [("ADDED", thing("a", "1")), end("2"), ("MODIFIED", thing("a", "3", "")), ("MODIFIED", thing("a", "4", ""))]
    )
    said, _ = await play(client, read=lambda obj: obj["value"] or None)
    assert said == [("n/a", "v"), ("n/a", None)]
