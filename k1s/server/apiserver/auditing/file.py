"""The audit log's file: lines written beside the event loop, rotated by size, old files removed by number and age.

Owns: LogFile. Called by: auditing/app. Never does: make a request wait. Bounds: QUEUE_BYTES wait for the disk, more are dropped
and counted in `lost`; a disk that refuses costs lines too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

log = logging.getLogger("k1s.apiserver.audit")

QUEUE_BYTES = 32 << 20


class LogFile:
    """`max_bytes`, `keep` files and `days` (0: for ever) bound what lies on the disk."""

    def __init__(self, path: Path, *, max_bytes: int = 100 << 20, keep: int = 5, days: int = 0) -> None:
        self._path, self._max_bytes, self._keep, self._days = path, max_bytes, keep, days
        self._file = -1
        self._size = self._waiting = 0
        self._lines: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self.lost = self.written = 0

    def write(self, line: bytes) -> None:
        if self._waiting + len(line) > QUEUE_BYTES:
            self._lose(1, "the disk is too slow")
            return
        self._lines.append(line)
        self._waiting += len(line)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="audit")

    async def close(self) -> None:
        """Write what waits."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task})
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    async def _drain(self) -> None:
        while self._lines:
            lines, self._lines = self._lines, []
            self._waiting = 0
            try:
                await asyncio.to_thread(self._append, lines)
                self.written += len(lines)
            except OSError as error:
                self._lose(len(lines), str(error))

    def _lose(self, count: int, why: str) -> None:
        if not self.lost:
            log.error("audit lines are being lost: %s", why)
        self.lost += count

    def _append(self, lines: list[bytes]) -> None:
        start, size = 0, 0
        for index, line in enumerate(lines):
            self._open()
            if self._size + size and self._size + size + len(line) > self._max_bytes:
                self._put(b"".join(lines[start:index]))
                self._rotate()
                self._open()
                start, size = index, 0
            size += len(line)
        self._put(b"".join(lines[start:]))

    def _open(self) -> None:
        if self._file < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._size = os.fstat(self._file).st_size

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            done = os.write(self._file, view)
            self._size += done
            view = view[done:]

    def _rotate(self) -> None:
        os.close(self._file)
        self._file = -1
        for number in range(self._keep - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        if self._keep:
            self._path.replace(self._numbered(1))
        else:
            self._path.unlink()
        if self._days:
            oldest = time.time() - self._days * 86400
            for number in range(1, self._keep + 1):
                if self._numbered(number).exists() and self._numbered(number).stat().st_mtime < oldest:
                    self._numbered(number).unlink()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
