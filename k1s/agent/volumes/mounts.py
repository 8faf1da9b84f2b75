"""mount(2) and umount2(2).

Owns: the two calls through libc and reading the mount table. Called by: volumes, teardown. Never does: decide what to mount.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_GONE = (2, 22)  # ENOENT, EINVAL: no such path, no mount there


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str = "", *, flags: int = 0, data: str = "") -> None:
    """Raises OSError."""
    result = _libc().mount(
        source.encode(), str(target).encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {target}: {os.strerror(code)}")


def unmount(target: Path | str) -> None:
    """Detach; fine if there is no mount."""
    if _libc().umount2(str(target).encode(), _MNT_DETACH) != 0 and ctypes.get_errno() not in _GONE:
        code = ctypes.get_errno()
        raise OSError(code, f"umount {target}: {os.strerror(code)}")


def targets() -> list[str]:
    """Every mount point of this mount namespace."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4].encode().decode("unicode_escape") for line in lines]


def is_mounted(path: Path) -> bool:
    return str(path) in targets()


def remove_tree(root: Path) -> None:
    """Unmount what is mounted below, then delete. Idempotent."""
    unmount_below([root])
    if root.is_dir():
        shutil.rmtree(root)


def unmount_below(directories: Iterable[Path]) -> None:
    """Detach every mount at or below the directories, the deepest first."""
    roots = [str(d.absolute()) for d in directories]
    found = [t for t in targets() if any(t == r or t.startswith(r + "/") for r in roots)]
    for target in sorted(found, key=len, reverse=True):
        unmount(target)
