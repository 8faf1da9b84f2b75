"""inotify(7) for asyncio: to be woken by files instead of looking at them.

Owns: one inotify descriptor and its reading. Called by: agent (logs, image imports, static pods),
server/addons (manifests). Never does: recurse.
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

MODIFY, CLOSE_WRITE, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x2, 0x8, 0x80, 0x100, 0x200, 0x400, 0x800
MOVED_FROM = 0x40
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 * 1024


class FileEvent(NamedTuple):
    """`directory` is the watched path; `name` the entry in it, "" when the path itself changed.

    After an overflow of the kernel's queue `mask` is 0: look at everything again.
    """

    directory: Path
    name: str
    mask: int


class Inotify:
    """`with Inotify() as watch: watch.add(path, mask); events = await watch.read()`. Raises OSError as the kernel does."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed (fs.inotify.max_user_instances?)")
        self._paths: dict[int, Path] = {}

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._fd)

    def add(self, path: Path, mask: int) -> None:
        descriptor = self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask)
        if descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
        self._paths[descriptor] = path

    async def read(self) -> list[FileEvent]:
        """Wait for the next events."""
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not readable.done():
                readable.set_result(None)

        loop.add_reader(self._fd, wake)
        try:
            await readable
        finally:
            loop.remove_reader(self._fd)
        data = os.read(self._fd, _READ_BYTES)
        events: list[FileEvent] = []
        position = 0
        while position < len(data):
            descriptor, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size
            name = data[position : position + length].rstrip(b"\0")
            position += length
            if mask & _OVERFLOW:
                events.extend(FileEvent(path, "", 0) for path in self._paths.values())
            elif mask & _IGNORED:
                self._paths.pop(descriptor, None)  # the directory is gone, and with it the watch
            elif descriptor in self._paths:
                events.append(FileEvent(self._paths[descriptor], os.fsdecode(name), mask))
        return events
