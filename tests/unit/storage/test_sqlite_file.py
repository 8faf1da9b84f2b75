"""The database file: recognised, locked, full, copied; and the endpoints that name it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k1s.storage.errors import Corrupt, StoreError, StoreFull
from k1s.storage.interface import Origin
from k1s.storage.memory import MemoryStore
from k1s.storage.open import open_store
from k1s.storage.sql.backend import SqlStore

BY = Origin("alice", "patch", 42)


async def opened(path: Path) -> SqlStore:
    store = SqlStore(path)
    await store.open()
    return store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], check=True)
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs")
async def test_a_full_file_system(small_disk: Path) -> None:
    store = await opened(small_disk / "state.db")
    revision = await store.create("/k", b"", origin=BY)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 500_000)
    with pytest.raises(StoreFull):
        for _ in range(100):
            revision = await store.update("/k", b"y" * 30_000, expected=revision, origin=BY)
    found = await store.get("/k")
    assert found is not None and found.revision == revision == store.revision
    ballast.unlink()
    after = await store.update("/k", b"z", expected=revision, origin=BY)
    assert after == revision + 1
    await store.close()
    await store.open()
    assert await store.get("/k") == ("/k", b"z", 2, after)
    await store.close()


async def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_bytes(b"not a database, but somebody's diary " * 100)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    for path, message in ((text, "is not a SQLite database"), (other, "not one of k1s")):
        before = path.read_bytes()
        with pytest.raises(Corrupt, match=message):
            await opened(path)
        assert path.read_bytes() == before


async def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    store = await opened(tmp_path / "state.db")
    await store.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(Corrupt, match="newer k1s"):
        await opened(tmp_path / "state.db")


@pytest.mark.parametrize("size", [2000, 50_000])
@pytest.mark.parametrize("keep", [0.3, 0.7])
async def test_a_truncated_or_scribbled_file_is_refused(tmp_path: Path, keep: float, size: int) -> None:
    path = tmp_path / "state.db"
    store = await opened(path)
    for number in range(100):
        await store.create(f"/{number}", os.urandom(size), origin=BY)
    await store.close()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(Corrupt, match="damaged"):
        await opened(path)
    middle = len(content) // 2 // 4096 * 4096
    path.write_bytes(content[:middle] + os.urandom(8 * 4096) + content[middle + 8 * 4096 :])
    with pytest.raises(Corrupt, match="damaged"):
        await opened(path)
    path.write_bytes(content)
    store = await opened(path)  # and a refusal holds no lock
    await store.close()


async def test_an_empty_file_is_a_first_start_that_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    store = await opened(tmp_path / "state.db")
    assert await store.create("/a", b"", origin=BY) == 2
    await store.close()


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = await opened(path)
    program = "import asyncio, sys; from k1s.storage.open import open_store; asyncio.run(open_store(sys.argv[1]).open())"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(path), stderr=subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert f"in use by process {os.getpid()}" in errors.decode()
    await store.close()


async def test_a_backup_opens_as_a_store(tmp_path: Path) -> None:
    store = await opened(tmp_path / "state.db")
    await store.create("/durable", b"1", origin=BY)
    last = await store.create("/volatile", b"2", origin=BY, volatile=True)
    copy = tmp_path / "copy.db"
    await store.backup(copy)
    await store.create("/later", b"", origin=BY)
    with pytest.raises(StoreError, match="File exists"):
        await store.backup(copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("copy")) == ["copy.db"]
    restored = await opened(copy)
    assert [item.value for item in (await restored.list("/")).items] == [b"1", b"2"]
    assert restored.revision >= last
    await restored.close()
    await store.close()


def test_endpoints() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    for dsn in ("sqlite:///tmp/x.db", "/tmp/x.db", "/tmp/x.db?synchronous=normal&max-bytes=5"):
        store = open_store(dsn)
        assert isinstance(store, SqlStore) and store._log.path == Path("/tmp/x.db")
    for dsn, message in (
        ("postgres://db/k1s", "PostgreSQL is not supported yet"),
        ("mysql://db/k1s", "MySQL is not supported yet"),
        ("etcd://x", "unknown datastore 'etcd'"),
        ("sqlite://", "names no file"),
        ("/x.db?synchronous=off", "options are"),
        ("/x.db?cache=1", "options are"),
    ):
        with pytest.raises(StoreError, match=message):
            open_store(dsn)


def test_no_database_toolkit_is_imported_for_sqlite() -> None:
    program = "import sys; from k1s.storage.open import open_store; open_store('/tmp/x'); print('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
