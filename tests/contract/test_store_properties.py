"""Random histories against a dict: every kept revision can be read, and every watch rebuilds the listing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k1s.storage import fanout
from k1s.storage.errors import Expired, KeyExists, KeyNotFound, RevisionConflict
from k1s.storage.interface import Event, Origin, Store
from k1s.storage.memory import MemoryStore
from k1s.storage.sql.backend import SqlStore
from k1s.storage.sql.compact import Policy

BY = Origin("tester", "update", 7)
KEYS = st.sampled_from(["/p/a", "/p/b", "/p/c", "/q/a"])
State = dict[str, tuple[bytes, int]]

WRITES = st.one_of(
    st.tuples(st.just("create"), KEYS, st.booleans()),
    st.tuples(st.just("update"), KEYS, st.booleans(), st.booleans()),
    st.tuples(st.just("delete"), KEYS, st.booleans(), st.booleans()),
    st.tuples(st.just("compact"), st.floats(0, 1)),
)
RESTARTS = st.one_of(st.just(("reopen",)), st.just(("crash",)))


@pytest.fixture(autouse=True)
def small_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that most replays come from the log."""
    monkeypatch.setattr(fanout, "RING_EVENTS", 3)


class Model:
    """The same history in a dict: what each revision looked like, and which writes are on disk."""

    def __init__(self, revision: int) -> None:
        self.now: State = {}
        self.at: dict[int, State] = {revision: {}}
        self.pending: list[tuple[str, int, tuple[bytes, int] | None]] = []
        self.disk: dict[str, tuple[int, tuple[bytes, int] | None]] = {}

    def write(self, key: str, revision: int, value: bytes | None, *, volatile: bool) -> None:
        assert revision > max(self.at)
        entry = None if value is None else (value, revision)
        if entry is None:
            del self.now[key]
        else:
            self.now[key] = entry
        self.at[revision] = dict(self.now)
        if volatile:
            self.pending.append((key, revision, entry))
        else:
            self.disk[key] = (revision, entry)

    def flush(self) -> None:
        for key, revision, entry in self.pending:
            if revision > self.disk.get(key, (0, None))[0]:
                self.disk[key] = (revision, entry)
        self.pending = []

    def crash(self, revision: int) -> None:
        assert revision >= max(self.at), "a revision that was seen comes back"
        self.pending = []
        self.now = {key: entry for key, (_, entry) in self.disk.items() if entry}
        self.at = {revision: dict(self.now)}


async def apply(store: Store, model: Model, step: Sequence[Any], number: int) -> None:
    kind, key, volatile = step[0], step[1], step[2]
    value = b"v%d" % number
    current = model.now.get(key)
    if kind == "create":
        if current:
            with pytest.raises(KeyExists):
                await store.create(key, value, origin=BY, volatile=volatile)
        else:
            model.write(key, await store.create(key, value, origin=BY, volatile=volatile), value, volatile=volatile)
        return
    expected = (current[1] if current else 5) + (0 if step[3] else 1)
    call = store.update(key, value, expected=expected, origin=BY, volatile=volatile)
    if kind == "delete":
        call.close()  # type: ignore[attr-defined]
        call = store.delete(key, expected=expected, origin=BY, volatile=volatile)
    if current is None:
        with pytest.raises(KeyNotFound):
            await call
    elif not step[3]:
        with pytest.raises(RevisionConflict) as caught:
            await call
        assert (caught.value.current.value, caught.value.current.revision) == current
    else:
        model.write(key, await call, None if kind == "delete" else value, volatile=volatile)


async def check(store: Store, model: Model) -> None:
    """Every kept revision reads as it was; a watch from it ends at the present, with the right values before."""
    for prefix in ("/p/", "/"):
        for revision, state in model.at.items():
            if revision < store.compacted_revision:
                with pytest.raises(Expired):
                    await store.list(prefix, revision=revision)
                continue
            listing = await store.list(prefix, revision=revision)
            rebuilt = {item.key: (item.value, item.revision) for item in listing.items}
            assert rebuilt == {key: entry for key, entry in state.items() if key.startswith(prefix)}
            last = max((r for r in model.at if _touches(model, r, prefix)), default=0)
            seen = revision
            watch = store.watch(prefix, after=revision)
            while seen < last:
                async with asyncio.timeout(5):
                    events: Sequence[Event] = await anext(watch)
                for event in events:
                    assert seen < event.revision
                    assert event.previous == rebuilt.get(event.key, (b"", 0))[0]
                    assert event.created == (event.key not in rebuilt)
                    seen = event.revision
                    if event.deleted:
                        del rebuilt[event.key]
                    else:
                        rebuilt[event.key] = (event.value, event.revision)
            assert rebuilt == {key: entry for key, entry in model.now.items() if key.startswith(prefix)}


def _touches(model: Model, revision: int, prefix: str) -> bool:
    revisions = sorted(model.at)
    place = revisions.index(revision)
    if not place:
        return False
    before, after = model.at[revisions[place - 1]], model.at[revision]
    return any(before.get(k) != after.get(k) for k in {*before, *after} if k.startswith(prefix))


async def crash(store: SqlStore) -> None:
    """End without flush or farewell, as kill -9 does."""
    for task in (store._writer._task, store._writer._flush_timer, store._compactor._sweeper, store._compactor._auto):
        if task is not None:
            task.cancel()
    await asyncio.sleep(0)
    store._read_thread.stop()
    store._write_thread.stop()
    store._log.close()


async def run(steps: Sequence[Sequence[Any]], path: Path | None) -> None:
    store: Store = SqlStore(path, policy=Policy(keep_revisions=10**9)) if path else MemoryStore()
    await store.open()
    model = Model(store.revision)
    for number, step in enumerate(steps):
        if step[0] == "compact":
            target = sorted(model.at)[int(step[1] * (len(model.at) - 1))]
            if target > store.compacted_revision:
                model.flush()  # what is not on disk cannot be swept
            await store.compact(target)
        elif step[0] == "reopen" and path:
            await store.close()
            model.flush()
            before = max(model.at)
            await store.open()
            assert before == store.revision, "a clean restart skips no revision"
        elif step[0] == "crash" and isinstance(store, SqlStore):
            await crash(store)
            await store.open()
            model.crash(store.revision)
        elif step[0] in ("create", "update", "delete"):
            await apply(store, model, step, number)
    await check(store, model)
    await store.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WRITES, max_size=30))
def test_memory(steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(run(steps, None))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(WRITES, WRITES, WRITES, RESTARTS), max_size=30))
def test_sqlite(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory(prefix="k1s-store-") as directory:
        asyncio.run(run(steps, Path(directory) / "state.db"))
