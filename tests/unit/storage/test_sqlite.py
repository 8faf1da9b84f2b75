"""What only the SQLite store has: its file, its errors, what a crash and a full disk leave."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from k1s.base.clock import VirtualClock
from k1s.storage import fanout
from k1s.storage.errors import Closed, Expired, StoreError, StoreFull
from k1s.storage.interface import Origin
from k1s.storage.sql import writer
from k1s.storage.sql.backend import SqlStore
from k1s.storage.sql.compact import Policy
from k1s.storage.sql.state import CEILING_STEP

BY = Origin("alice", "patch", 42)


async def opened(path: Path, **options: object) -> SqlStore:
    store = SqlStore(path, **options)  # type: ignore[arg-type]
    await store.open()
    return store


async def killed(store: SqlStore) -> None:
    """End as kill -9 does: no flush, no farewell."""
    assert store._writer._task is not None
    store._writer._task.cancel()
    if store._writer._flush_timer is not None:
        store._writer._flush_timer.cancel()
    await store._compactor.stop()
    store._read_thread.stop()
    store._write_thread.stop()
    store._log.close()


async def until(done: Callable[[], bool]) -> None:
    """The database's thread has no event to wait for."""
    async with asyncio.timeout(5):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def rows(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT rev, key, prev_rev, deleted, actor, verb, cause FROM log ORDER BY rev").fetchall()


async def test_rows_say_who_how_and_why_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "db" / "state.db"
    store = await opened(path)
    first = await store.create("/a", b"1", origin=BY)
    await store.delete("/a", origin=BY)
    await store.close()
    assert rows(path) == [(first, "/a", 0, 0, "alice", "patch", 42), (first + 1, "/a", first, 1, "alice", "patch", 42)]
    for file in (path, path.with_name("state.db.lock")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_volatile_writes_reach_the_disk_late_and_in_order(tmp_path: Path) -> None:
    clock = VirtualClock()
    path = tmp_path / "state.db"
    store = await opened(path, clock=clock)
    revision = await store.create("/lease", b"0", origin=BY, volatile=True)
    for number in range(5):
        revision = await store.update("/lease", b"%d" % number, expected=revision, origin=BY, volatile=True)
    assert rows(path) == []
    await clock.advance(writer.FLUSH_SECONDS)
    await until(lambda: not store._state.unflushed)
    assert [row[0] for row in rows(path)] == list(range(revision - 5, revision + 1))
    assert (await store.get("/lease")) == ("/lease", b"4", revision - 5, revision)
    await clock.advance(10 * writer.FLUSH_SECONDS)
    assert clock._sleepers == [], "no timer while there is nothing to flush"
    await store.close()


async def test_volatile_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FLUSH_ROWS", 10)
    store = await opened(tmp_path / "state.db")
    for number in range(35):
        await store.create(f"/{number}", b"", origin=BY, volatile=True)
        assert len(store._state.unflushed) <= 11
    await store.close()


async def test_a_crash_loses_volatile_writes_but_no_revision_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = await opened(path)
    durable = await store.create("/durable", b"1", origin=BY)
    lease = await store.create("/lease", b"1", origin=BY)
    seen = await store.update("/lease", b"2", expected=lease, origin=BY, volatile=True)
    gone = await store.create("/gone", b"1", origin=BY, volatile=True)
    kept = await store.update("/gone", b"2", expected=gone, origin=BY)
    await killed(store)

    store = await opened(path)
    assert kept < store.revision <= kept + CEILING_STEP
    assert await store.get("/lease") == ("/lease", b"1", lease, lease)
    assert await store.get("/durable") == ("/durable", b"1", durable, durable)
    assert await store.get("/gone") == ("/gone", b"2", gone, kept)
    assert await store.get("/gone", revision=kept - 1) is None
    with pytest.raises(Expired):
        store.watch("/", after=seen)  # has seen a write that is lost
    start = store.revision
    watch = store.watch("/", after=start)
    again = await store.update("/lease", b"3", expected=lease, origin=BY)
    assert again == start + 1
    assert [event.previous for event in await anext(watch)] == [b"1"]
    await store.close()

    store = await opened(path)
    assert store.revision == again, "after a clean stop nothing is skipped"
    with pytest.raises(Expired):
        store.watch("/", after=seen)  # still
    await store.close()


async def test_the_gap_outlives_later_crashes_and_clean_stops(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = await opened(path)
    seen = [await store.create(f"/lost/{n}", b"", origin=BY, volatile=True) for n in range(3)][1]
    for _ in range(2):
        await killed(store)
        store = await opened(path)
        await store.create(f"/kept/{store.revision}", b"", origin=BY, volatile=True)
        await store._writer.flush()
        with pytest.raises(Expired):
            store.watch("/", after=seen)
    revision = store.revision
    await store.close()
    store = await opened(path)
    assert store.revision == revision
    with pytest.raises(Expired):
        store.watch("/", after=seen)
    store.watch("/", after=revision)
    await store.close()


async def test_a_flush_during_a_replay_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "RING_EVENTS", 1)
    store = await opened(tmp_path / "state.db")
    start = store.revision
    revisions = [await store.create(f"/{n}", b"", origin=BY, volatile=True) for n in range(3)]
    run = store._read_thread.run

    async def read_then_flush(*args: object, **kwargs: object) -> object:
        found = await run(*args, **kwargs)  # type: ignore[arg-type]
        await store._writer.flush()
        return found

    monkeypatch.setattr(store._read_thread, "run", read_then_flush)
    assert [event.revision for event in await anext(store.watch("/", after=start))] == revisions
    await store.close()


async def test_a_compaction_during_a_replay_expires_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "RING_EVENTS", 1)
    store = await opened(tmp_path / "state.db")
    start = store.revision
    revision = await store.create("/k", b"", origin=BY)
    for _ in range(5):
        revision = await store.update("/k", b"", expected=revision, origin=BY)
    run = store._read_thread.run

    async def compact_then_read(*args: object, **kwargs: object) -> object:
        await store.compact(revision)
        await store.compacted()
        return await run(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(store._read_thread, "run", compact_then_read)
    with pytest.raises(Expired):
        await anext(store.watch("/", after=start))
    await store.close()


async def test_compaction_finds_rows_whose_successor_a_crash_lost(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = await opened(path)
    one = await store.create("/k", b"1", origin=BY)
    two = await store.update("/k", b"2", expected=one, origin=BY, volatile=True)
    three = await store.update("/k", b"3", expected=two, origin=BY)
    await killed(store)
    store = await opened(path)
    await store.compact(store.revision)
    await store.compacted()
    await store.close()
    assert [row[0] for row in rows(path)] == [three]


async def test_a_compaction_is_kept_over_a_restart_and_sweeps_volatile_rows_too(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = await opened(path)
    one = await store.create("/k", b"1", origin=BY)
    two = await store.update("/k", b"2", expected=one, origin=BY, volatile=True)
    await store.compact(two)
    await store.compacted()
    assert [row[0] for row in rows(path)] == [two]
    await killed(store)
    store = await opened(path)
    assert store.compacted_revision == two
    with pytest.raises(Expired):
        store.watch("/", after=one)
    await store.close()


async def test_a_sweep_that_was_cut_off_goes_on_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.db"
    store = await opened(path)
    revision = await store.create("/k", b"1", origin=BY)
    for _ in range(20):
        revision = await store.update("/k", b"1", expected=revision, origin=BY)
    monkeypatch.setattr(store._compactor, "_sweep_soon", lambda: None)
    await store.compact(revision)
    await store.close()
    assert len(rows(path)) == 21
    await store.open()
    await store.compacted()
    await store.close()
    assert [row[0] for row in rows(path)] == [revision]


async def test_compaction_by_age_number_and_only_when_due(tmp_path: Path) -> None:
    clock = VirtualClock()
    policy = Policy(keep_revisions=10, keep_seconds=600, slack=10, history_bytes=10**9)
    store = await opened(tmp_path / "state.db", clock=clock, policy=policy)
    revision = await store.create("/k", b"", origin=BY)
    while revision < 15:
        revision = await store.update("/k", b"", expected=revision, origin=BY)
    assert clock._sleepers == []
    while revision < 40:
        revision = await store.update("/k", b"", expected=revision, origin=BY)
    await clock.advance(599)
    assert store.compacted_revision == 0
    for _ in range(3):
        revision = await store.update("/k", b"", expected=revision, origin=BY)
    await clock.advance(1)
    await until(lambda: store.compacted_revision > 0)
    await store.compacted()
    # Armed at revision 20 and due 600 s later: what is younger stays, whatever its number.
    assert store.compacted_revision == 20
    assert len(rows(tmp_path / "state.db")) == revision - 20 + 1
    await store.close()


async def test_compaction_by_size_does_not_wait_for_age(tmp_path: Path) -> None:
    policy = Policy(keep_revisions=10, keep_seconds=10**6, slack=10, history_bytes=100_000)
    store = await opened(tmp_path / "state.db", policy=policy)
    revision = await store.create("/k", b"", origin=BY)
    for _ in range(300):
        revision = await store.update("/k", b"x" * 1000, expected=revision, origin=BY)
    await until(lambda: store.compacted_revision >= 200)
    await store.close()


async def test_compaction_gives_pages_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k1s.storage.sql.compact.SPARE_PAGES", 8)
    path = tmp_path / "state.db"
    store = await opened(path)
    revision = await store.create("/k", b"", origin=BY)
    for _ in range(200):
        revision = await store.update("/k", b"x" * 20_000, expected=revision, origin=BY)
    await store.close()
    large = path.stat().st_size
    await store.open()
    await store.compact(revision)
    await store.compacted()
    assert (await store.get("/k")) is not None
    await store.close()
    assert path.stat().st_size < large / 10


async def test_a_full_disk_refuses_writes_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = await opened(path, max_bytes=400_000, policy=Policy(keep_revisions=5, slack=10**9))
    revision = await store.create("/k", b"", origin=BY)
    lease = await store.create("/lease", b"", origin=BY, volatile=True)
    written = b""
    with pytest.raises(StoreFull):
        for number in range(200):
            value = b"%d" % number * 5000
            revision = await store.update("/k", value, expected=revision, origin=BY)
            written = value
    assert await store.get("/k") == ("/k", written, 2, revision), "nothing of the refused write is there"
    results = await asyncio.gather(
        store.create("/big", b"x" * 500_000, origin=BY),
        store.update("/lease", b"2", expected=lease, origin=BY, volatile=True),
        return_exceptions=True,
    )
    assert isinstance(results[0], StoreFull) and isinstance(results[1], int), "leases go on in memory"
    # What fills the file is history: it is forgotten at once, and then there is space.
    async with asyncio.timeout(10):
        while True:
            await store.compacted()
            try:
                revision = await store.update("/k", b"x" * 5000, expected=revision, origin=BY)
                break
            except StoreFull:
                await asyncio.sleep(0.01)
    await store.close()
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_start_with_a_full_disk_serves_reads(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = await opened(path)
    first = await store.create("/k", b"x" * 50_000, origin=BY)
    lease = await store.create("/lease", b"1", origin=BY, volatile=True)
    await store.update("/k", b"x" * 50_000, expected=first, origin=BY)
    await store.update("/lease", b"2", expected=lease, origin=BY)
    await killed(store)
    store = await opened(path, max_bytes=4096)
    assert (await store.get("/lease")) is not None
    with pytest.raises(StoreFull):
        for number in range(100):
            await store.create(f"/big/{number}", b"x" * 50_000, origin=BY)
    assert len((await store.list("/")).items) >= 2
    assert store.figures()["keys"] >= 2
    await store.close()


async def test_what_cannot_be_written_hits_only_its_caller(tmp_path: Path) -> None:
    store = await opened(tmp_path / "state.db")
    results = await asyncio.gather(
        store.create("/bad\ud800", b"", origin=BY),
        store.create("/text", "text", origin=BY),  # type: ignore[arg-type]
        store.create("/good", b"", origin=BY),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [UnicodeEncodeError, TypeError, int]
    await store.close()


async def test_a_fault_in_the_writer_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await opened(tmp_path / "state.db")
    monkeypatch.setattr(store._log, "commit", None)
    async with asyncio.timeout(5):
        results = await asyncio.gather(*(store.create(f"/{n}", b"", origin=BY) for n in range(600)), return_exceptions=True)
        assert all(isinstance(result, StoreError) for result in results)
        with pytest.raises(Closed):
            await store.create("/late", b"", origin=BY)
        with pytest.raises(TypeError):
            await store.close()
    await store.close()
    store = await opened(tmp_path / "state.db")  # the lock was given back
    await store.close()


async def test_reads_and_writes_under_way_end_when_the_store_closes(tmp_path: Path) -> None:
    store = await opened(tmp_path / "state.db")
    await store.create("/k", b"1", origin=BY)
    calls = [asyncio.ensure_future(store.get("/k")) for _ in range(50)]
    calls += [asyncio.ensure_future(store.create(f"/{n}", b"", origin=BY)) for n in range(5000)]  # type: ignore[misc]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await store.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
    written = sum(isinstance(result, int) for result in results)
    assert all(isinstance(result, (int, tuple, Closed)) for result in results)
    await store.open()
    assert len((await store.list("/")).items) == written + 1, "acknowledged is written, refused is not"
    await store.close()
