"""The Store on the SQL revision log.

Owns: its parts (log, writer, reader, compactor, fan-out), their start and end. Called by: k1s.storage.open.
Never does: the work of its parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from k1s.base.clock import REAL_CLOCK, Clock
from k1s.storage.errors import Closed
from k1s.storage.fanout import Fanout
from k1s.storage.interface import Event, KeyValue, Listing, Origin
from k1s.storage.sql.compact import Compactor, Policy
from k1s.storage.sql.log import Log
from k1s.storage.sql.plan import Kind, Write
from k1s.storage.sql.reader import Reader
from k1s.storage.sql.state import State
from k1s.storage.sql.threads import Worker
from k1s.storage.sql.writer import Writer


class SqlStore:
    """See k1s.storage.interface.Store. `synchronous` NORMAL may lose the last commits when the power goes."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock = REAL_CLOCK,
        synchronous: str = "FULL",
        max_bytes: int = 0,
        policy: Policy | None = None,
    ) -> None:
        self._log = Log(path, synchronous=synchronous, max_bytes=max_bytes)
        self._clock = clock
        self._policy = policy or Policy()
        self._state = State()
        self._opened = False

    async def open(self) -> None:
        self._write_thread, self._read_thread = Worker("store-write"), Worker("store-read")
        try:
            # Reading the log takes as long as it is large: not on the event loop.
            loaded = await self._write_thread.run(self._log.open)
            self._state = state = State()
            state.load(loaded)
        except BaseException:
            self._write_thread.stop()
            self._read_thread.stop()
            self._log.close()
            raise
        self._reader = Reader(self._log, self._read_thread, state)
        self._fanout = Fanout(self._reader.history, state.check_kept)
        self._fanout.start(state.revision)
        self._compactor = Compactor(self._log, self._write_thread, state, self._clock, self._policy)
        self._writer = Writer(
            self._log, self._write_thread, state, self._fanout, self._clock, self._compactor.notice, self._compactor.full
        )
        self._compactor.flush = self._writer.flush
        self._writer.start()
        self._compactor.start()
        self._opened = True

    async def close(self) -> None:
        if not self._opened:
            return
        self._opened = False
        self._fanout.close()
        await self._compactor.stop()
        try:
            await self._writer.close()
        finally:
            await self._write_thread.run(lambda: None)  # a sweep's piece that was under way when it was stopped
            self._read_thread.stop()
            await self._write_thread.run(self._log.close)
            self._write_thread.stop()

    @property
    def revision(self) -> int:
        self._check_open()
        return self._state.revision

    @property
    def compacted_revision(self) -> int:
        self._check_open()
        return self._state.compacted

    async def get(self, key: str, *, revision: int = 0) -> KeyValue | None:
        self._check_open()
        return await (self._reader.get_at(key, revision) if revision else self._reader.get(key))

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Listing:
        self._check_open()
        if revision:
            return await self._reader.page_at(prefix, after, limit, revision)
        return await self._reader.page(prefix, after, limit)

    async def create(self, key: str, value: bytes, *, origin: Origin, volatile: bool = False) -> int:
        return await self._write(Kind.CREATE, key, value, 0, origin, volatile)

    async def update(self, key: str, value: bytes, *, expected: int, origin: Origin, volatile: bool = False) -> int:
        return await self._write(Kind.UPDATE, key, value, expected, origin, volatile)

    async def delete(self, key: str, *, expected: int = 0, origin: Origin, volatile: bool = False) -> int:
        return await self._write(Kind.DELETE, key, b"", expected, origin, volatile)

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[Event]]:
        self._check_open()
        return self._fanout.watch(prefix, after)

    async def history(self, prefix: str, *, after: int, upto: int, durable: bool = False) -> tuple[Sequence[Event], int]:
        self._check_open()
        self._state.check_kept(after, durable=durable)
        piece = await self._reader.history(prefix, after, min(upto, self._state.revision))
        self._state.check_kept(after, durable=durable)  # compacted while we read: the piece may have holes
        return piece

    async def compact(self, revision: int) -> None:
        self._check_open()
        await self._compactor.compact(revision)

    async def compacted(self) -> None:
        """Wait until the sweep that a compaction started is over."""
        await self._compactor.swept()

    async def backup(self, target: Path) -> None:
        """Write everything, volatile too, to a new file that opens as a store. Raises StoreFull, StoreError (it exists).

        The copy counts as one of a store that crashed: opened, it stands ahead of every revision handed out before the copy,
        not of those after it.
        """
        self._check_open()
        await self._writer.flush()
        await self._read_thread.run(self._log.backup, target)

    def figures(self) -> dict[str, int]:
        """Sizes for metrics: each is a count, `bytes` the database file's size."""
        self._check_open()
        state = self._state
        return {
            "keys": len(state.index),
            "revisions": state.revision - state.compacted,
            "unflushed": len(state.unflushed),
            "watches": self._fanout.watchers,
            "bytes": self._log.size(),
        }

    def _check_open(self) -> None:
        if not self._opened:
            raise Closed("the store is not open")

    async def _write(self, kind: Kind, key: str, value: bytes, expected: int, origin: Origin, volatile: bool) -> int:
        self._check_open()
        # Here, where it hits only its caller: in the writer it would fail everyone's batch.
        if not isinstance(value, bytes):
            raise TypeError(f"the value of {key} must be bytes, not {type(value).__name__}")
        key.encode()
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        return await self._writer.submit(Write(kind, key, value, expected, origin, volatile, done))
