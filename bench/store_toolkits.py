"""The SQLite store beside SQLAlchemy + aiosqlite: import time, memory, writes/s. Figures of docs/adr/0001.

`python bench/store_toolkits.py` runs each way in a process of its own: `k1s` (the whole store: compare-and-swap, index, events),
`core` (SQLAlchemy Core async on aiosqlite, inserts only), `text` (statement compiled once, then batches through aiosqlite's
thread, inserts only). All with group commit, WAL, synchronous=FULL, 500-byte values.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

WRITES = 6400
VALUE = b"x" * 500
COLUMNS = ("rev", "key", "create_rev", "prev_rev", "deleted", "at", "actor", "verb", "cause", "value")
Write = Callable[[str], Awaitable[object]]


def resident() -> float:
    """MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


async def ours(path: Path) -> Write:
    from k1s.storage.interface import Origin
    from k1s.storage.open import open_store

    store, by = open_store(str(path)), Origin()
    await store.open()
    return lambda key: store.create(key, VALUE, origin=by)


async def toolkit(path: Path, *, core: bool) -> Write:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    types = {"key": sa.Text, "actor": sa.Text, "verb": sa.Text, "value": sa.LargeBinary}
    metadata = sa.MetaData()
    log = sa.Table("log", metadata, *(sa.Column(c, types.get(c, sa.Integer), primary_key=c == "rev") for c in COLUMNS))
    connection = await engine.connect()
    await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    await connection.exec_driver_sql("PRAGMA synchronous=FULL")
    await connection.run_sync(metadata.create_all)
    await connection.commit()
    driver: Any = (await connection.get_raw_connection()).driver_connection
    compiled = log.insert().compile(dialect=engine.dialect, column_keys=list(COLUMNS))
    text, order = str(compiled), compiled.positiontup or []
    queue: asyncio.Queue[tuple[str, asyncio.Future[int]]] = asyncio.Queue(4096)

    def commit(rows: list[list[Any]]) -> None:
        driver._conn.execute("BEGIN IMMEDIATE")
        driver._conn.executemany(text, rows)
        driver._conn.commit()

    async def drain() -> None:
        revision = 0
        while True:
            batch = [await queue.get()]
            while not queue.empty() and len(batch) < 256:
                batch.append(queue.get_nowait())
            rows = []
            for key, _ in batch:
                revision += 1
                rows.append(dict(zip(COLUMNS, (revision, key, revision, 0, 0, 0, "", "", 0, VALUE), strict=True)))
            if core:
                await connection.execute(log.insert(), rows)
                await connection.commit()
            else:
                await driver._execute(commit, [[row[name] for name in order] for row in rows])
            for _, done in batch:
                done.set_result(0)

    toolkit.task = asyncio.create_task(drain())  # type: ignore[attr-defined]

    async def write(key: str) -> int:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await queue.put((key, done))
        return await done

    return write


async def measure(way: str, path: Path) -> None:
    memory, begin = resident(), time.perf_counter()
    write = await (ours(path) if way == "k1s" else toolkit(path, core=way == "core"))
    line = f"{way:<5} import and open {(time.perf_counter() - begin) * 1000:4.0f} ms, +{resident() - memory:.1f} MiB"
    for callers in (1, 64):

        async def caller(number: int, callers: int = callers) -> None:
            for step in range(WRITES // callers):
                await write(f"/{callers}/{number}/{step}")

        begin = time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(callers)))
        line += f", {callers} callers {WRITES / (time.perf_counter() - begin):.0f} writes/s"
    print(line, flush=True)


def main() -> None:
    for way in ("k1s", "core", "text"):
        with tempfile.TemporaryDirectory(prefix="k1s-bench-") as directory:
            subprocess.run([sys.executable, __file__, way, directory], check=True)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        import os

        asyncio.get_event_loop_policy().new_event_loop().run_until_complete(measure(sys.argv[1], Path(sys.argv[2]) / "x.db"))
        os._exit(0)  # neither way closes what it opened: the figures are taken
