"""Forgetting: what is older than anybody will ask for.

Owns: when to compact, the sweep in small pieces, giving pages back. Called by: sql/backend (`compact`), sql/writer (`notice`,
`full`). Never does: touch a current value, hold the writer up for longer than one piece, tick when nothing happens.

Policy: at least KEEP_REVISIONS revisions and KEEP_SECONDS seconds stay. Work begins only when SLACK more revisions than that
have gathered; then one timer of KEEP_SECONDS is armed, and what was old when it was armed is forgotten. If more than
HISTORY_BYTES were written since the last time, or the disk is full, age does not count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from k1s.base.clock import Clock
from k1s.storage.errors import Closed, FutureRevision, StoreError
from k1s.storage.sql import table
from k1s.storage.sql.log import Log
from k1s.storage.sql.state import State
from k1s.storage.sql.threads import Worker

SWEEP_ROWS = 256
VACUUM_PAGES = 128
# Free pages that stay in the file for the writes to come (1 MiB).
SPARE_PAGES = 256
# While the disk is full, every refused write asks for space; the sweep that fails for the same reason is not tried each time.
FULL_SECONDS = 5.0

_log = logging.getLogger("k1s.storage.compact")


@dataclass(frozen=True, slots=True)
class Policy:
    """See the module docstring."""

    keep_revisions: int = 1_000
    keep_seconds: float = 600.0
    slack: int = 1_000
    history_bytes: int = 256 * 1024 * 1024


class Compactor:
    """`flush(meta)` writes marks durably, after everything volatile: a row that is not in the log cannot be swept."""

    def __init__(self, log: Log, worker: Worker, state: State, clock: Clock, policy: Policy) -> None:
        self._log, self._worker, self._state, self._clock, self._policy = log, worker, state, clock, policy
        self.flush: Callable[[Mapping[str, int]], Awaitable[None]]
        self._bytes = 0
        self._urgent = asyncio.Event()
        self._not_before = float("-inf")
        self._auto: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Finish what a stop cut off."""
        if self._state.swept < self._state.compacted:
            self._sweep_soon()

    async def stop(self) -> None:
        tasks = [task for task in (self._auto, self._sweeper) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def notice(self, size: int) -> None:
        """`size` bytes were written."""
        self._bytes += size
        if self._bytes > self._policy.history_bytes:
            self._urgent.set()
        if self._auto is None and self._due():
            self._auto = asyncio.create_task(self._run(), name="storage-compact")

    def full(self) -> None:
        """There is no space: forget now what may be forgotten, at most every FULL_SECONDS."""
        now = self._clock.monotonic()
        if now < self._not_before:
            return
        self._not_before = now + FULL_SECONDS
        self._urgent.set()
        if self._auto is None and self._span() > self._policy.keep_revisions:
            self._auto = asyncio.create_task(self._run(), name="storage-compact")

    async def compact(self, revision: int) -> None:
        """Forget history below `revision`; the sweep goes on in the background."""
        if revision > self._state.revision:
            raise FutureRevision(revision, self._state.revision)
        if revision > self._state.compacted:
            await self.flush({table.COMPACTED: revision})
        if self._state.swept < self._state.compacted:
            self._sweep_soon()

    async def swept(self) -> None:
        """Wait until no sweep is under way."""
        if self._sweeper is not None:
            await asyncio.wait({self._sweeper})

    def _span(self) -> int:
        return self._state.revision - self._state.compacted

    def _due(self) -> bool:
        return self._span() >= self._policy.keep_revisions + self._policy.slack or self._urgent.is_set()

    async def _run(self) -> None:
        try:
            old = self._state.revision
            await self._wait()
            newest_kept = self._state.revision - self._policy.keep_revisions
            target = newest_kept if self._urgent.is_set() else min(old, newest_kept)
            self._urgent.clear()
            self._bytes = 0
            if target > self._state.compacted:
                await self.compact(target)
        except StoreError as error:
            # The history stays; the next commit that finds it too long starts over.
            _log.warning("compaction put off: %s", error)
        finally:
            self._auto = None

    async def _wait(self) -> None:
        """KEEP_SECONDS, or until it is urgent."""
        waiters = [
            asyncio.ensure_future(self._clock.sleep(self._policy.keep_seconds)),
            asyncio.ensure_future(self._urgent.wait()),
        ]
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()

    def _sweep_soon(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep(), name="storage-sweep")

    async def _sweep(self) -> None:
        state = self._state
        try:
            while state.swept < state.compacted:
                state.swept = await self._worker.run(self._log.sweep, state.swept, state.compacted, SWEEP_ROWS)
            while await self._worker.run(self._log.vacuum, VACUUM_PAGES, SPARE_PAGES):
                pass
        except Closed:
            pass
        except StoreError as error:
            _log.warning("compaction put off at revision %d: %s", state.swept, error)
        finally:
            self._sweeper = None
