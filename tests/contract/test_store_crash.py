"""kill -9 under load: what was acknowledged stays, revisions only grow, the file stays sound.

The writer is this file run as a program: it prints each acknowledged write before it makes the next one on that key.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

from k1s.storage.interface import Origin
from k1s.storage.sql.backend import SqlStore

ROUNDS = 20
CALLERS = 16
BY = Origin("crash-test", "update", 0)


async def write_for_ever(path: Path) -> None:
    """Durable writes by all callers but the last, volatile ones by the last, and a compaction now and then."""
    store = SqlStore(path)
    await store.open()
    out = sys.stdout
    print(f"open {store.revision}", file=out, flush=True)

    async def caller(number: int) -> None:
        key = f"/crash/{number:02}"
        volatile = number == CALLERS - 1
        current = await store.get(key)
        revision = current.revision if current else 0
        for step in range(10**9):
            value = b"%d %s" % (step, b"x" * random.randrange(6000))
            if revision:
                revision = await store.update(key, value, expected=revision, origin=BY, volatile=volatile)
            else:
                revision = await store.create(key, value, origin=BY, volatile=volatile)
            print(f"{'volatile' if volatile else 'durable'} {key} {revision} {step}", file=out, flush=True)
            if step % 50 == 49:
                await store.compact(store.revision - 20)

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))


def crash_once(path: Path, seconds: float) -> list[list[str]]:
    """Run the writer, kill it `seconds` after it opened the store; what it printed."""
    with subprocess.Popen([sys.executable, __file__, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        killer = threading.Timer(seconds, process.send_signal, (signal.SIGKILL,))
        killer.start()
        # Read until the pipe ends, so that the writer never waits for us.
        lines = [first, *process.stdout.readlines()]
        killer.join()
    return [line.split() for line in lines if line.endswith("\n")]


def test_kill_under_load(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    rng = random.Random(20)
    acknowledged: dict[str, tuple[int, str]] = {}
    highest, writes = 0, 0
    for _ in range(ROUNDS):
        lines = crash_once(path, rng.uniform(0.0, 0.4))
        assert lines[0][0] == "open", "the store opens after every crash"
        assert int(lines[0][1]) >= highest, "a revision that was seen comes back"
        for line in lines[1:]:
            writes += 1
            assert int(line[2]) > int(lines[0][1])
            highest = max(highest, int(line[2]))
            if line[0] == "durable":
                acknowledged[line[1]] = (int(line[2]), line[3])
        asyncio.run(_verify(path, acknowledged, highest))
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert writes > 20 * ROUNDS, "no load, no proof"


async def _verify(path: Path, acknowledged: dict[str, tuple[int, str]], highest: int) -> None:
    store = SqlStore(path)
    begin = time.monotonic()
    await store.open()
    assert time.monotonic() - begin < 2
    assert store.revision >= highest
    for key, (revision, step) in acknowledged.items():
        found = await store.get(key)
        assert found is not None
        # The last write may have been committed without the answer getting out.
        assert (found.revision, found.value.split()[0].decode()) == (revision, step) or found.revision > revision
    await store.close()


if __name__ == "__main__":
    asyncio.run(write_for_ever(Path(sys.argv[1])))
