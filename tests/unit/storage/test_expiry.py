"""Keys with a TTL die on time, over restarts too, with one timer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from k1s.base.clock import VirtualClock
from k1s.storage.expiry import GRAIN, Expiry
from k1s.storage.interface import Origin
from k1s.storage.memory import MemoryStore

BY = Origin("tester", "create", 0)
TTL = 3600.0


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    made = MemoryStore()
    await made.open()
    yield made
    await made.close()


@asynccontextmanager
async def running(store: MemoryStore, clock: VirtualClock) -> AsyncIterator[None]:
    ready = asyncio.Event()
    task = asyncio.create_task(Expiry(store, clock, prefix="/e/", ttl=TTL).run(ready.set))
    await ready.wait()
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def keys(store: MemoryStore) -> list[str]:
    return [item.key for item in (await store.list("/e/")).items]


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await check():  # noqa: ASYNC110  (deletions have no event to wait for)
            await asyncio.sleep(0)


async def test_a_key_dies_ttl_after_its_last_change(store: MemoryStore) -> None:
    clock = VirtualClock()
    async with running(store, clock):
        renewed = await store.create("/e/renewed", b"", origin=BY)
        await store.create("/e/old", b"", origin=BY)
        await store.create("/other", b"", origin=BY)
        await clock.advance(TTL / 2)
        await store.update("/e/renewed", b"", expected=renewed, origin=BY)
        await clock.advance(TTL / 2)
        assert await keys(store) == ["/e/old", "/e/renewed"], "not before its time"
        await clock.advance(GRAIN)
        assert await keys(store) == ["/e/renewed"]
        await clock.advance(TTL / 2 + GRAIN)
        assert await keys(store) == []
        assert await store.get("/other") is not None


async def test_many_die_together(store: MemoryStore) -> None:
    clock = VirtualClock()
    async with running(store, clock):
        for number in range(500):
            await store.create(f"/e/{number}", b"", origin=BY)
        await clock.advance(TTL + GRAIN)
        await eventually(lambda: _empty(store))


async def test_age_survives_a_restart(store: MemoryStore) -> None:
    clock = VirtualClock()
    async with running(store, clock):
        await store.create("/e/old", b"", origin=BY)
        await clock.advance(TTL * 0.75)
    async with running(store, clock):
        await clock.advance(TTL * 0.25 + GRAIN)
        assert await keys(store) == []


async def test_nothing_waits_while_there_is_no_key(store: MemoryStore) -> None:
    clock = VirtualClock()
    async with running(store, clock):
        await clock.advance(10 * TTL)
        assert clock._sleepers == []


async def _empty(store: MemoryStore) -> bool:
    return not await keys(store)
