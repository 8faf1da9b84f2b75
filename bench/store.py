"""Figures of the SQLite store: `python bench/store.py [--dir DIR] [--writes N]`.

Writes/s one by one and with 64 callers, durable (synchronous=FULL), 500-byte values; bytes that reached the disk per revision;
time to open; reads/s. One line a figure. Bytes come from /proc/self/io (write_bytes), so DIR must not be a tmpfs.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from k1s.storage.interface import Origin
from k1s.storage.sql.backend import SqlStore

BY = Origin("bench", "update", 0)
VALUE = b"x" * 500
OBJECTS = 2_048


def written() -> int:
    """Bytes this process caused to be sent to the storage layer."""
    for line in Path("/proc/self/io").read_text().splitlines():
        name, _, value = line.partition(": ")
        if name == "write_bytes":
            return int(value)
    raise RuntimeError("/proc/self/io has no write_bytes")


async def update_all(store: SqlStore, count: int, callers: int, *, volatile: bool) -> tuple[float, list[float]]:
    """`count` updates by `callers` at once, each on keys of its own; the seconds it all took, and each."""
    known = {item.key: item.revision for item in (await store.list("/bench/")).items}
    seconds: list[float] = []

    async def caller(number: int) -> None:
        for step in range(count // callers):
            key = f"/bench/{(number + step * callers) % OBJECTS:05}"
            begin = time.perf_counter()
            known[key] = await store.update(key, VALUE, expected=known[key], origin=BY, volatile=volatile)
            seconds.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(callers)))
    return time.perf_counter() - begin, seconds


async def report(store: SqlStore, name: str, writes: int, callers: int, *, volatile: bool) -> None:
    before = written()
    total, seconds = await update_all(store, writes, callers, volatile=volatile)
    rate = len(seconds) / total
    p50, p99 = (statistics.quantiles(seconds, n=100)[i] * 1000 for i in (49, 98))
    disk = (written() - before) / len(seconds) / 1024
    print(f"{name:<12} {rate:8.0f} writes/s  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  {disk:6.2f} KiB to disk per revision")


async def run(directory: Path, writes: int) -> None:
    store = SqlStore(directory / "state.db")
    await store.open()
    await asyncio.gather(*(store.create(f"/bench/{n:05}", VALUE, origin=BY) for n in range(OBJECTS)))
    for name, callers in (("one by one", 1), ("16 callers", 16), ("64 callers", 64)):
        await report(store, name, writes, callers, volatile=False)
    begin = time.perf_counter()
    for number in range(writes):
        await store.get(f"/bench/{number % OBJECTS:05}")
    print(f"{'get':<12} {writes / (time.perf_counter() - begin):8.0f} reads/s")
    begin = time.perf_counter()
    for _ in range(20):
        await store.list("/bench/")
    print(f"{'list':<12} {20 / (time.perf_counter() - begin):8.1f} lists/s of {OBJECTS}")
    await report(store, "volatile", writes, 64, volatile=True)
    begin = time.perf_counter()
    await store.compact(store.revision)
    await store.compacted()
    print(f"{'compact':<12} {(time.perf_counter() - begin) * 1000:8.0f} ms for {store.revision} revisions")
    await store.close()
    store = SqlStore(directory / "state.db")
    begin = time.perf_counter()
    await store.open()
    print(f"{'open':<12} {(time.perf_counter() - begin) * 1000:8.1f} ms with {OBJECTS} objects")
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dir", type=Path, default=None, help="where to put the database (default: the temporary directory)")
    parser.add_argument("--writes", type=int, default=8_000)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="k1s-bench-", dir=options.dir))
    try:
        asyncio.run(run(directory, options.writes))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
