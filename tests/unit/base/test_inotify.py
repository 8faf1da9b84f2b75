"""inotify on a real directory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from k1s.base.inotify import CLOSE_WRITE, MOVED_TO, Inotify


async def test_wakes_for_whole_files(tmp_path: Path) -> None:
    with Inotify() as watch:
        watch.add(tmp_path, CLOSE_WRITE | MOVED_TO)
        waiter = asyncio.create_task(watch.read())
        await asyncio.sleep(0.05)
        assert not waiter.done()
        (tmp_path / "a.partial").write_bytes(b"x")
        events = await asyncio.wait_for(waiter, 2)
        assert [(e.directory, e.name, e.mask) for e in events] == [(tmp_path, "a.partial", CLOSE_WRITE)]
        (tmp_path / "a.partial").rename(tmp_path / "a.tar")
        events = await asyncio.wait_for(watch.read(), 2)
        assert [(e.name, e.mask) for e in events] == [("a.tar", MOVED_TO)]


def test_a_missing_path_says_which(tmp_path: Path) -> None:
    with Inotify() as watch, pytest.raises(FileNotFoundError, match="nothing"):
        watch.add(tmp_path / "nothing", MOVED_TO)
