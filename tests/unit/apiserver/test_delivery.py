"""Rounds of writes to watchers: together what waits together, one's fault is nobody else's, pauses as long as rounds."""

from __future__ import annotations

import asyncio

import pytest

from k1s.server.apiserver import delivery as delivery_module
from k1s.server.apiserver.delivery import Delivery


class Fake:
    def __init__(self, *, breaks: bool = False) -> None:
        self.flushed, self.breaks = 0, breaks

    def flush(self) -> None:
        self.flushed += 1
        if self.breaks:
            raise RuntimeError("the handler is closed")


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)


async def test_everyone_is_written_to() -> None:
    delivery, watchers = Delivery(), [Fake() for _ in range(3 * delivery_module.SLICE + 1)]
    for watcher in watchers:
        delivery.add(watcher)
    assert not any(watcher.flushed for watcher in watchers)
    await _settle()
    assert [watcher.flushed for watcher in watchers] == [1] * len(watchers)
    delivery.add(watchers[0])
    await _settle()
    assert watchers[0].flushed == 2


async def test_one_that_breaks_stops_nobody() -> None:
    loop = asyncio.get_running_loop()
    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    delivery, first, last = Delivery(), Fake(breaks=True), Fake()
    delivery.add(first)
    delivery.add(last)
    await _settle()
    assert last.flushed == 1 and len(faults) == 1
    delivery.add(last)
    await _settle()
    assert last.flushed == 2


async def test_a_slice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "SLICE", 2)
    delivery, order = Delivery(), []

    class Noting(Fake):
        def flush(self) -> None:
            order.append("watcher")

    for _ in range(4):
        delivery.add(Noting())
    asyncio.get_running_loop().call_soon(order.append, "others")
    await _settle()
    assert order == ["watcher", "watcher", "others", "watcher", "watcher"]
