"""The only writer: many callers, one commit.

Owns: the queue of writes, group commit, the volatile writes' way to disk. Called by: sql/backend, sql/compact.
Never does: read for others, forget history.

One task drains the queue: up to BATCH writes (or BATCH_BYTES) become one plan (sql/plan, pure), one call into the writer's
thread, one transaction. While it commits, the next writes gather. Callers beyond QUEUE wait for room. A write that loses its
compare-and-swap gets its answer; the others of the batch do not notice. If the disk is full nothing of the batch is written,
except that its volatile writes go on in memory.

Volatile rows reach the disk after FLUSH_SECONDS (one timer, armed by the first of them), at close, before a compaction, or when
they exceed FLUSH_ROWS or FLUSH_BYTES; if that flush fails because the disk is full, they are refused from twice FLUSH_BYTES or
FLUSH_ROWS on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from k1s.base.clock import Clock
from k1s.storage.errors import Closed, KeyExists, KeyNotFound, RevisionConflict, StoreError, StoreFull
from k1s.storage.fanout import Fanout
from k1s.storage.index import Version
from k1s.storage.interface import Event, KeyValue
from k1s.storage.sql import table
from k1s.storage.sql.log import Log
from k1s.storage.sql.plan import Conflict, Outcome, Plan, Write, plan_batch
from k1s.storage.sql.state import CEILING_STEP, State
from k1s.storage.sql.table import Row
from k1s.storage.sql.threads import Worker

QUEUE = 4096
BATCH = 256
BATCH_BYTES = 8 * 1024 * 1024
FLUSH_SECONDS = 600.0
FLUSH_ROWS = 4096
FLUSH_BYTES = 4 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Flush:
    """Put every volatile row on disk, and `meta` with it. `last`: the store closes, nothing follows."""

    done: asyncio.Future[None]
    meta: dict[str, int] = field(default_factory=dict)
    last: bool = False


class Writer:
    """`notice(bytes)` is called after every commit, `full()` when one found no space."""

    def __init__(
        self,
        log: Log,
        worker: Worker,
        state: State,
        fanout: Fanout,
        clock: Clock,
        notice: Callable[[int], None],
        full: Callable[[], None],
    ) -> None:
        self._log, self._worker, self._state, self._fanout, self._clock = log, worker, state, fanout, clock
        self._notice, self._full = notice, full
        self._queue: asyncio.Queue[Write | Flush] = asyncio.Queue(QUEUE)
        self._task: asyncio.Task[None] | None = None
        self._flush_timer: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="storage-writer")

    async def submit(self, write: Write) -> int:
        """The new revision, once it is durable (or, volatile, visible). Raises what the Store protocol says."""
        await self._put(write)
        return await write.done

    async def flush(self, meta: Mapping[str, int] | None = None, *, last: bool = False) -> None:
        """Everything volatile, and `meta`, is on disk when this returns."""
        request = Flush(asyncio.get_running_loop().create_future(), dict(meta or {}), last)
        await self._put(request)
        await request.done

    async def close(self) -> None:
        """Flush and end. Writes that come later raise Closed."""
        if self._task is None:
            return
        try:
            if not self._closing:
                await self.flush(last=True)
        finally:
            self._closing = True
            self._task.cancel()
            if self._flush_timer is not None:
                self._flush_timer.cancel()
            await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()  # a fault of ours that ended it early travels up here

    async def _put(self, item: Write | Flush) -> None:
        if self._closing:
            raise Closed("the store is closed")
        await self._queue.put(item)
        if self._closing and not item.done.done():  # waited for room while the store closed
            _fail(item, Closed("the store is closed"))

    async def _run(self) -> None:
        try:
            await self._drain()
        finally:
            # However this ends, nobody is left waiting for it.
            self._closing = True
            while not self._queue.empty():
                _fail(self._queue.get_nowait(), Closed("the store is closed"))

    async def _drain(self) -> None:
        while not self._closing:
            batch = [await self._queue.get()]
            size = 0
            while len(batch) < BATCH and size < BATCH_BYTES and not self._queue.empty():
                item = self._queue.get_nowait()
                size += len(item.value) if isinstance(item, Write) else 0
                batch.append(item)
            # Who stopped waiting before the write began does not want it.
            wanted = [item for item in batch if not item.done.done()]
            writes = [item for item in wanted if isinstance(item, Write)]
            flushes = [item for item in wanted if isinstance(item, Flush)]
            self._closing = any(flush.last for flush in flushes)
            await self._settle(writes, flushes)

    async def _settle(self, writes: list[Write], flushes: list[Flush]) -> None:
        """Commit, and answer everyone whatever happens."""
        waiting: list[Write | Flush] = [*writes, *flushes]
        try:
            await self._commit(writes, flushes, flush=bool(flushes) or self._unflushed_over(1))
        except StoreFull as error:
            self._full()
            volatile = [] if self._unflushed_over(2) else [write for write in writes if write.volatile]
            for item in waiting:
                if item not in volatile:
                    _fail(item, error)
            try:
                await self._commit(volatile, [], flush=False)
            except StoreError as again:
                for write in volatile:
                    _fail(write, again)
        except StoreError as error:
            for item in waiting:
                _fail(item, error)
        except BaseException as error:
            for item in waiting:
                _fail(item, StoreError(f"the writer failed: {error!r}"))
            raise

    async def _commit(self, writes: Sequence[Write], flushes: Sequence[Flush], *, flush: bool) -> None:
        state = self._state
        plan = plan_batch(writes, state.index.get, state.revision, int(self._clock.now() * 1000))
        revision = plan.rows[-1].rev if plan.rows else state.revision
        held = dict(state.unflushed)
        append = [row for row in plan.rows if row.rev not in plan.volatile]
        if flush:
            append = [*held.values(), *plan.rows]
        meta = self._meta(plan, flushes, revision, flush=flush, append=bool(append))
        wanted = [rev for rev in plan.wanted() if rev not in held]
        values: dict[int, bytes] = {row.rev: row.value for row in (*held.values(), *plan.rows)}
        if wanted or append or meta:
            values.update(await self._worker.run(self._log.commit, wanted, append, meta))
        self._apply(plan, meta, held if flush else {}, revision, flush=flush)
        events = [_event(row, values) for row in plan.rows]
        if events:
            self._fanout.publish(events)
        for write, outcome in zip(writes, plan.outcomes, strict=True):
            _answer(write, outcome, values)
        for request in flushes:
            if not request.done.done():
                request.done.set_result(None)
        self._notice(sum(len(row.value) + len(row.key) for row in append))

    def _meta(self, plan: Plan, flushes: Sequence[Flush], revision: int, *, flush: bool, append: bool) -> dict[str, int]:
        state = self._state
        meta: dict[str, int] = {}
        for request in flushes:
            meta.update(request.meta)
        in_use = state.ceiling > state.flushed
        if flush and (in_use or state.unflushed or plan.volatile):
            meta[table.FLUSHED] = revision
        beyond = bool(plan.volatile) and not flush and max(plan.volatile) > state.ceiling
        near = append and in_use and state.ceiling - revision < CEILING_STEP // 2
        if self._closing and (in_use or plan.volatile):
            meta[table.CEILING] = revision
        elif beyond or near:
            meta[table.CEILING] = revision + CEILING_STEP
        return {**state.repairs, **meta} if meta or append else {}

    def _apply(self, plan: Plan, meta: Mapping[str, int], flushed: Mapping[int, Row], revision: int, *, flush: bool) -> None:
        """The commit has happened: make it visible."""
        state = self._state
        for row in plan.rows:
            if row.deleted:
                state.index.remove(row.key)
            else:
                state.index.put(row.key, Version(row.rev, row.create_rev))
            if row.rev in plan.volatile and not flush:
                state.hold(row)
        for rev in flushed:
            state.release(rev)
        if meta:
            state.repairs = {}
        state.revision = revision
        state.ceiling = meta.get(table.CEILING, state.ceiling)
        state.flushed = meta.get(table.FLUSHED, state.flushed)
        state.compacted = max(state.compacted, meta.get(table.COMPACTED, 0))
        if state.unflushed and self._flush_timer is None and not self._closing:
            self._flush_timer = asyncio.create_task(self._flush_later(), name="storage-flush")

    async def _flush_later(self) -> None:
        try:
            await self._clock.sleep(FLUSH_SECONDS)
            await self.flush()
        except StoreFull:
            pass  # still in memory, within its bound; the next volatile write arms the timer again
        finally:
            self._flush_timer = None

    def _unflushed_over(self, times: int) -> bool:
        state = self._state
        return len(state.unflushed) >= times * FLUSH_ROWS or state.unflushed_bytes >= times * FLUSH_BYTES


def _event(row: Row, values: Mapping[int, bytes]) -> Event:
    # The value before is missing only if it was a volatile write that a crash lost.
    return Event(row.rev, row.key, row.value, values.get(row.prev_rev, b""), row.create_rev, bool(row.deleted))


def _answer(write: Write, outcome: Outcome, values: Mapping[int, bytes]) -> None:
    if write.done.done():
        return
    if isinstance(outcome, Row):
        write.done.set_result(outcome.rev)
    elif isinstance(outcome, Conflict):
        version = outcome.current
        current = KeyValue(outcome.key, values.get(version.revision, b""), version.create_revision, version.revision)
        write.done.set_exception(RevisionConflict(current, write.expected))
    else:
        write.done.set_exception(outcome)


def _fail(item: Write | Flush, error: StoreError) -> None:
    if not item.done.done():
        # Each waiter gets its own: a shared exception would gather every waiter's traceback.
        own = type(error)(*error.args) if not isinstance(error, (KeyExists, KeyNotFound)) else error
        item.done.set_exception(own)
