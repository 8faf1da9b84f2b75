"""Waiting for files to appear in a directory.

Owns: one inotify descriptor through libc. Called by: node/images. Never does: say which file: look at the directory.
Bounds: the kernel queues events; the descriptor is drained whole, so a burst wakes once.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path
from types import TracebackType

_CLOSE_WRITE, _MOVED_TO = 0x8, 0x80
_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC


class Inotify:
    """`with Inotify(directory) as changes: await changes.wait()`: returns after a file was closed or moved there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1
        self._changed = asyncio.Event()

    def __enter__(self) -> Inotify:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(_NONBLOCK | _CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if libc.inotify_add_watch(self._descriptor, os.fsencode(self._directory), _CLOSE_WRITE | _MOVED_TO) < 0:
            code = ctypes.get_errno()
            os.close(self._descriptor)
            raise OSError(code, f"inotify_add_watch {self._directory}: {os.strerror(code)}")
        asyncio.get_running_loop().add_reader(self._descriptor, self._drain)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _drain(self) -> None:
        while True:
            try:
                if not os.read(self._descriptor, 65536):
                    break
            except BlockingIOError:
                break
        self._changed.set()

    async def wait(self) -> None:
        await self._changed.wait()
        self._changed.clear()
