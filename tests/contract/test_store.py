"""What every Store keeps: one suite over the memory and the SQLite store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from k1s.storage import fanout, memory
from k1s.storage.errors import Closed, Expired, FutureRevision, KeyExists, KeyNotFound, RevisionConflict
from k1s.storage.interface import Event, Origin, Store
from k1s.storage.memory import MemoryStore
from k1s.storage.sql import reader, writer
from k1s.storage.sql.backend import SqlStore

BY = Origin("tester", "create", 0)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqlStore(tmp_path / "state.db")
    await made.open()
    yield made
    await made.close()


async def take(watch: AsyncIterator[object], count: int) -> list[Event]:
    """The next `count` events, however they are batched."""
    found: list[Event] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found.extend(await anext(watch))  # type: ignore[call-overload]
    assert len(found) == count
    return found


async def settled(store: Store) -> None:
    """Let the sweep that a compaction started come to its end."""
    if isinstance(store, SqlStore):
        await store.compacted()


@pytest.mark.parametrize("volatile", [False, True])
async def test_create_get_update_delete(store: Store, volatile: bool) -> None:
    first = await store.create("/a/x", b"1", origin=BY, volatile=volatile)
    assert first > 1 and store.revision == first
    assert await store.get("/a/x") == ("/a/x", b"1", first, first)
    second = await store.update("/a/x", b"2", expected=first, origin=BY, volatile=volatile)
    assert second == first + 1
    assert await store.get("/a/x") == ("/a/x", b"2", first, second)
    gone = await store.delete("/a/x", expected=second, origin=BY, volatile=volatile)
    assert gone == store.revision == second + 1
    assert await store.get("/a/x") is None
    again = await store.create("/a/x", b"3", origin=BY, volatile=volatile)
    assert await store.get("/a/x") == ("/a/x", b"3", again, again)


async def test_refusals(store: Store) -> None:
    first = await store.create("/a", b"1", origin=BY)
    with pytest.raises(KeyExists):
        await store.create("/a", b"2", origin=BY)
    with pytest.raises(KeyNotFound):
        await store.update("/b", b"2", expected=first, origin=BY)
    with pytest.raises(KeyNotFound):
        await store.delete("/b", origin=BY)
    second = await store.update("/a", b"2", expected=first, origin=BY)
    for call in (
        lambda: store.update("/a", b"3", expected=first, origin=BY),
        lambda: store.update("/a", b"3", expected=0, origin=BY),
        lambda: store.delete("/a", expected=first, origin=BY),
    ):
        with pytest.raises(RevisionConflict) as caught:
            await call()
        assert caught.value.current == ("/a", b"2", first, second)
    assert store.revision == second, "a refused write takes no revision"
    await store.delete("/a", origin=BY)


async def test_durable_and_volatile_writes_mix_on_one_key(store: Store) -> None:
    watch = store.watch("/", after=store.revision)
    one = await store.create("/k", b"1", origin=BY, volatile=True)
    two = await store.update("/k", b"2", expected=one, origin=BY)
    three = await store.update("/k", b"3", expected=two, origin=BY, volatile=True)
    with pytest.raises(RevisionConflict) as caught:
        await store.update("/k", b"x", expected=two, origin=BY)
    assert caught.value.current.value == b"3"
    four = await store.delete("/k", expected=three, origin=BY)
    events = await take(watch, 4)
    assert [e.revision for e in events] == [one, two, three, four]
    assert [e.previous for e in events] == [b"", b"1", b"2", b"3"]
    assert await take(store.watch("/", after=one), 3) == events[1:]
    for revision, value in ((one, b"1"), (two, b"2"), (three, b"3")):
        found = await store.get("/k", revision=revision)
        assert found == ("/k", value, one, revision)


async def test_list_pages_in_byte_order(store: Store) -> None:
    keys = ["/p/b/1", "/p/b/10", "/p/b/2", "/p/a", "/p/é", "/q/a", "/p0", "/p"]
    for key in keys:
        await store.create(key, key.encode(), origin=BY)
    expected = sorted((k for k in keys if k.startswith("/p/")), key=str.encode)
    everything = await store.list("/p/")
    assert [item.key for item in everything.items] == expected
    assert everything.revision == store.revision and everything.remaining == 0
    paged, after = [], ""
    while True:
        page = await store.list("/p/", after=after, limit=2, revision=everything.revision)
        paged += [item.key for item in page.items]
        assert page.remaining == len(expected) - len(paged)
        if not page.remaining:
            break
        after = page.items[-1].key
        await store.create(f"/p/a{after[3:]}-later", b"", origin=BY)  # not in the listing that goes on
    assert paged == expected
    rest = (await store.list("/p/", after="/p/b/1")).items
    assert [item.key for item in rest] == [k for k in sorted(i.key for i in (await store.list("/p/")).items) if k > "/p/b/1"]
    assert (await store.list("/nothing/")).items == []
    assert (await store.list("/p/", limit=3)).remaining == len((await store.list("/p/")).items) - 3


async def test_reads_at_a_revision(store: Store) -> None:
    a = await store.create("/a", b"a1", origin=BY)
    b = await store.create("/b", b"b1", origin=BY)
    a2 = await store.update("/a", b"a2", expected=a, origin=BY)
    gone = await store.delete("/b", origin=BY)
    b2 = await store.create("/b", b"b2", origin=BY)

    async def at(revision: int) -> dict[str, tuple[bytes, int]]:
        return {i.key: (i.value, i.revision) for i in (await store.list("/", revision=revision)).items}

    assert await at(a) == {"/a": (b"a1", a)}
    assert await at(b) == {"/a": (b"a1", a), "/b": (b"b1", b)}
    assert await at(a2) == {"/a": (b"a2", a2), "/b": (b"b1", b)}
    assert await at(gone) == {"/a": (b"a2", a2)}
    assert await at(b2) == {"/a": (b"a2", a2), "/b": (b"b2", b2)}
    assert await store.get("/b", revision=gone) is None
    assert await store.get("/b", revision=a2) == ("/b", b"b1", b, b)
    with pytest.raises(FutureRevision):
        await store.get("/b", revision=store.revision + 1)
    with pytest.raises(FutureRevision):
        await store.list("/", revision=store.revision + 1)


async def test_watch_replays_then_follows(store: Store) -> None:
    start = store.revision
    a = await store.create("/w/a", b"1", origin=BY)
    await store.create("/other", b"", origin=BY)
    b = await store.update("/w/a", b"2", expected=a, origin=BY)
    watch = store.watch("/w/", after=start)
    late = store.watch("/w/", after=a)
    assert await take(watch, 2) == [Event(a, "/w/a", b"1", b"", a, False), Event(b, "/w/a", b"2", b"1", a, False)]
    waiting = asyncio.ensure_future(take(watch, 1))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    gone = await store.delete("/w/a", origin=BY)
    event = (await waiting)[0]
    assert event == Event(gone, "/w/a", b"", b"2", a, True) and not event.created
    assert [e.revision for e in await take(late, 2)] == [b, gone]


async def test_watch_from_a_revision_to_come_skips_until_then(store: Store) -> None:
    watch = store.watch("/", after=store.revision + 2)
    for number in range(3):
        last = await store.create(f"/{number}", b"", origin=BY)
    assert [e.revision for e in await take(watch, 1)] == [last]


async def test_compaction_forgets_history_but_no_current_value(store: Store) -> None:
    a = await store.create("/a", b"1", origin=BY)
    await store.create("/b", b"1", origin=BY)
    a2 = await store.update("/a", b"2", expected=a, origin=BY, volatile=True)
    await store.delete("/b", origin=BY)
    a3 = await store.update("/a", b"3", expected=a2, origin=BY)
    follower = store.watch("/", after=a2)
    await store.compact(a3)
    await settled(store)
    assert store.compacted_revision == a3
    with pytest.raises(Expired):
        await store.get("/a", revision=a2)
    with pytest.raises(Expired):
        await store.list("/", revision=a2)
    with pytest.raises(Expired):
        await anext(store.watch("/", after=a2))
    with pytest.raises(Expired):
        await anext(follower)
    assert [i.value for i in (await store.list("/", revision=a3)).items] == [b"3"]
    watch = store.watch("/", after=a3)
    a4 = await store.update("/a", b"4", expected=a3, origin=BY)
    assert await take(watch, 1) == [Event(a4, "/a", b"4", b"3", a, False)]
    await store.compact(a)  # backwards: nothing to do
    assert store.compacted_revision == a3
    with pytest.raises(FutureRevision):
        await store.compact(store.revision + 1)


async def test_a_slow_watcher_is_not_waited_for_and_misses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "PENDING_EVENTS", 4)
    monkeypatch.setattr(fanout, "RING_EVENTS", 8)
    watch = store.watch("/s/", after=store.revision)
    first = await store.create("/s/x", b"", origin=BY)
    await take(watch, 1)
    revision = first
    for number in range(50):
        revision = await store.update("/s/x", b"%d" % number, expected=revision, origin=BY)
    assert [e.value for e in await take(watch, 50)] == [b"%d" % number for number in range(50)]
    await store.update("/s/x", b"live", expected=revision, origin=BY)
    assert [e.value for e in await take(watch, 1)] == [b"live"]


async def test_a_watcher_behind_the_compaction_is_expired(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "PENDING_EVENTS", 2)
    watch = store.watch("/s/", after=store.revision)
    quiet = store.watch("/quiet/", after=store.revision)
    revision = await store.create("/s/x", b"", origin=BY)
    await take(watch, 1)
    follow = asyncio.ensure_future(take(quiet, 1))
    await asyncio.sleep(0.01)
    for _ in range(5):
        revision = await store.update("/s/x", b"", expected=revision, origin=BY)
    await store.compact(revision)
    with pytest.raises(Expired):
        await anext(watch)
    await store.create("/quiet/x", b"", origin=BY)
    assert len(await follow) == 1, "a watch that is up to date does not care about compaction"


async def test_concurrent_compare_and_swap_has_one_winner(store: Store) -> None:
    revision = await store.create("/c", b"0", origin=BY)
    results = await asyncio.gather(
        *(store.update("/c", b"%d" % n, expected=revision, origin=BY, volatile=n % 2 == 0) for n in range(100)),
        return_exceptions=True,
    )
    assert sum(isinstance(r, int) for r in results) == 1
    losers = [r for r in results if isinstance(r, RevisionConflict)]
    assert len(losers) == 99
    assert {loser.current.revision for loser in losers} == {store.revision}
    assert {loser.current for loser in losers} == {await store.get("/c")}


async def test_concurrent_creates_are_one_order_for_all(store: Store) -> None:
    watch = store.watch("/", after=store.revision)
    revisions = await asyncio.gather(*(store.create(f"/n/{n:03}", b"v", origin=BY, volatile=n % 3 == 0) for n in range(300)))
    assert len(set(revisions)) == 300
    assert [e.revision for e in await take(watch, 300)] == sorted(revisions)


async def test_watchers_under_load_see_every_revision_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers of every pace, while writers write both classes, volatile rows are flushed and history is compacted."""
    monkeypatch.setattr(fanout, "PENDING_EVENTS", 16)
    monkeypatch.setattr(fanout, "RING_EVENTS", 32)
    monkeypatch.setattr(writer, "FLUSH_ROWS", 40)
    monkeypatch.setattr(reader, "HISTORY_EVENTS", 25)
    rng = random.Random(7)
    written: list[int] = []
    start = store.revision

    async def write(number: int) -> None:
        key, revision = f"/load/{number}", 0
        for step in range(60):
            volatile = rng.random() < 0.4
            if not revision:
                revision = await store.create(key, b"0", origin=BY, volatile=volatile)
            elif step % 7 == 6:
                written.append(await store.delete(key, expected=revision, origin=BY, volatile=volatile))
                revision = 0
                continue
            else:
                revision = await store.update(key, b"%d" % step, expected=revision, origin=BY, volatile=volatile)
            written.append(revision)
            if rng.random() < 0.1:
                await asyncio.sleep(0.001)

    async def follow(pace: float) -> tuple[list[int], bool]:
        """Revisions seen, and whether the end came as Expired. Values before must chain."""
        seen: list[int] = []
        values: dict[str, bytes] = {}
        try:
            async for events in store.watch("/load/", after=start):
                for event in events:
                    assert event.previous == values.get(event.key, b"")
                    values[event.key] = event.value
                    seen.append(event.revision)
                if len(seen) == 16 * 60:
                    return seen, False
                await asyncio.sleep(pace * rng.random())
        except Expired:
            pass
        return seen, True

    async def compact() -> None:
        for _ in range(20):
            await asyncio.sleep(0.005)
            await store.compact(max(store.revision - 500, 1))

    async with asyncio.timeout(30):
        watchers = [asyncio.ensure_future(follow(pace)) for pace in (0, 0, 0.0005, 0.001, 0.002, 0.02)]
        await asyncio.gather(compact(), *(write(number) for number in range(16)))
        ends = await asyncio.gather(*watchers)
    assert not ends[0][1], "who keeps up is not expired"
    for seen, _ in ends:
        assert seen == sorted(written)[: len(seen)]


async def test_close_ends_watches_and_refuses_the_rest(store: Store) -> None:
    watch = store.watch("/", after=store.revision)
    ended = asyncio.ensure_future(anext(watch, None))
    await asyncio.sleep(0.01)
    await store.close()
    await store.close()
    assert await ended is None
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.get("/a"),
        lambda: store.list("/"),
        lambda: store.create("/a", b"", origin=BY),
        lambda: store.update("/a", b"", expected=1, origin=BY),
        lambda: store.delete("/a", origin=BY),
        lambda: store.compact(1),
    ]
    for call in calls:
        with pytest.raises(Closed):
            await call()
    with pytest.raises(Closed):
        store.watch("/", after=0)
    with pytest.raises(Closed):
        _ = store.revision


async def test_dropped_watches_leave_nothing_behind(store: Store) -> None:
    watch = store.watch("/", after=store.revision)
    other = store.watch("/", after=store.revision)
    await other.aclose()  # type: ignore[attr-defined]
    assert await anext(other, None) is None
    del watch, other
    assert store._fanout.watchers == 0  # type: ignore[attr-defined]


async def test_history_stays_bounded_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEEP_REVISIONS", 10)
    store = MemoryStore()
    await store.open()
    revision = await store.create("/a", b"", origin=BY)
    for _ in range(100):
        revision = await store.update("/a", b"", expected=revision, origin=BY)
    assert store.compacted_revision >= revision - 21
    await store.close()
