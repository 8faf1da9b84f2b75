"""The announcer's thread: begun, reached, ended, and its errors."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from k1s.net.announce.thread import AnnouncerThread


class Fake:
    """As much of an announcer as the thread knows."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.calls, self.where, self.ended = error, [], "", False

    def offer(self, *what: Any) -> None:
        self.calls.append((threading.current_thread().name, what))

    async def run(self) -> None:
        self.where = threading.current_thread().name
        try:
            if self.error is not None:
                raise self.error
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended = True


async def test_it_runs_beside_a_busy_loop_and_ends_with_its_task() -> None:
    fake = Fake()
    thread = AnnouncerThread(fake)  # type: ignore[arg-type]
    thread.offer((), (), ())
    ready = asyncio.Event()
    running = asyncio.create_task(thread.run(ready.set))
    await ready.wait()
    thread.offer(("192.0.2.240",), (), ())
    # This loop is held; the thread is not.
    deadline = time.monotonic() + 5
    while len(fake.calls) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)  # noqa: ASYNC251
    assert [name.startswith("k1s-announce") for name, _ in fake.calls] == [False, True]
    assert fake.where.startswith("k1s-announce")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert fake.ended
    assert not [t for t in threading.enumerate() if t.name.startswith("k1s-announce")]


@pytest.mark.parametrize("turns", range(4))
async def test_it_can_be_ended_at_any_moment_of_its_beginning(turns: int) -> None:
    running = asyncio.create_task(AnnouncerThread(Fake()).run(lambda: None))  # type: ignore[arg-type]
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(running, return_exceptions=True)
    assert not [t for t in threading.enumerate() if t.name.startswith("k1s-announce")]


async def test_an_error_comes_out() -> None:
    async with asyncio.timeout(5):
        with pytest.raises(OSError, match="no such thing"):
            await AnnouncerThread(Fake(OSError("no such thing"))).run(lambda: None)  # type: ignore[arg-type]
