"""The SQLite file: found, locked, recognised, opened.

Owns: the lock file, the pragmas, the checks before first use, and what SQLite's errors mean. Called by: sql/log.
Never does: touch a file that is not ours, or repair one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from pathlib import Path

from k1s.storage.errors import Corrupt, StoreError, StoreFull
from k1s.storage.sql.dialects import APPLICATION_ID, LAYOUT, SQLITE

# The check at start may take this long; a larger file is checked as far as that (seconds).
CHECK_SECONDS = 0.25
PAGE_SIZE = 4096
WAL_PAGES = 1000
# The shared memory beside a WAL grows by 32 KiB.
SIDE_FILES = 64 * 1024


def translate(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    """A driver's error as one of ours."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreFull(f"no space left for {path}")
        return StoreError(f"{path}: {error.strerror or error}")
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and not _space(path)):
        return StoreFull(f"no space left for {path}, or its size limit is reached; nothing was written")
    if code == sqlite3.SQLITE_CORRUPT:
        return Corrupt(f"{path} is damaged ({error}): stop k1s, move {path}* away and restore a backup, or start empty")
    if code == sqlite3.SQLITE_NOTADB:
        return Corrupt(f"{path} is not a SQLite database: move it away, or name another --datastore-endpoint")
    return StoreError(f"{path}: {error}")


def _space(path: Path) -> bool:
    """Whether there is room for SQLite's side files: it says "I/O error" where it cannot enlarge them."""
    try:
        system = os.statvfs(path.parent)
    except OSError:
        return True
    return system.f_bavail * system.f_frsize > SIDE_FILES


class Lock:
    """An advisory lock beside the database, held while it is open: two writers would each hand out the same revisions."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._descriptor = -1

    def acquire(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            os.close(descriptor)
            database = self._path.with_suffix("")
            raise Corrupt(f"{database} is in use by process {holder or 'unknown'}: stop it first") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def connect(path: Path, *, synchronous: str, max_bytes: int) -> sqlite3.Connection:
    """The writer's connection to a checked database of ours, made if there is none. Raises sqlite3.Error, OSError, Corrupt."""
    fresh = not path.exists() or path.stat().st_size == 0
    if fresh:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _sync_directory(path.parent)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        if not fresh:
            _recognise(connection, path)
        _configure(connection, synchronous, max_bytes)
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            _create(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A second connection, that only reads."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = 1")
    connection.execute("PRAGMA cache_size = -512")
    return connection


def copy(source: sqlite3.Connection, target: Path) -> None:
    """A private copy that is whole or not there."""
    partial = target.with_name(target.name + ".partial")
    os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    try:
        connection = sqlite3.connect(partial, isolation_level=None)
        try:
            source.backup(connection)
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, without a WAL beside it
        finally:
            connection.close()
        os.link(partial, target)  # unlike a rename, never replaces what is there
        _sync_directory(target.parent)
    finally:
        partial.unlink()


def _recognise(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    layout = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application == 0 and layout == 0 and tables == 0:
        return  # an empty database: the first start was cut off before its first commit
    if application != APPLICATION_ID:
        raise Corrupt(f"{path} is a SQLite database, but not one of k1s: move it away, or name another --datastore-endpoint")
    if layout > LAYOUT:
        raise Corrupt(f"{path} was written by a newer k1s (layout {layout}, this one reads {LAYOUT}): start that version")
    fault = _quick_check(connection)
    if fault:
        raise Corrupt(f"{path} is damaged ({fault}): stop k1s, move {path}* away and restore a backup, or start empty")


def _quick_check(connection: sqlite3.Connection) -> str:
    """The first fault that is found within CHECK_SECONDS, or nothing."""
    deadline = time.monotonic() + CHECK_SECONDS
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 20_000)
    try:
        answer = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return ""
    finally:
        connection.set_progress_handler(None, 0)
    return "" if answer == "ok" else answer.replace("\n", " ")


def _configure(connection: sqlite3.Connection, synchronous: str, max_bytes: int) -> None:
    for pragma in (
        f"page_size = {PAGE_SIZE}",
        "auto_vacuum = INCREMENTAL",  # takes effect only before the first table
        "journal_mode = WAL",
        f"synchronous = {synchronous}",
        f"wal_autocheckpoint = {WAL_PAGES}",
        f"journal_size_limit = {WAL_PAGES * PAGE_SIZE}",
        "cache_size = -1024",
        # Debian builds overwrite deleted rows with zeros; FAST does so only where it costs no further page.
        "secure_delete = FAST",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    if max_bytes:
        pages = max(1, max_bytes // int(connection.execute("PRAGMA page_size").fetchone()[0]))
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in SQLITE.tables:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {LAYOUT}")
    connection.execute("COMMIT")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
