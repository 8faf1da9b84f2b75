"""hostPath: a file or directory of the node.

Owns: the checks of `type`. Called by: volumes/manager. Never does: change ownership (it is not the pod's).
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path

from k1s.agent.volumes.interface import VolumeFault, VolumeRequest

_CHECKS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


async def prepare(request: VolumeRequest) -> Path:
    return await asyncio.to_thread(_prepare, request)


def _prepare(request: VolumeRequest) -> Path:
    source = request.volume["hostPath"]
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate" and not path.exists():
        path.mkdir(parents=True, mode=0o755)
    elif kind == "FileOrCreate" and not path.exists():
        if not path.parent.is_dir():
            raise VolumeFault(f"hostPath type check failed: {path.parent} does not exist")
        path.touch(mode=0o644)
    if not kind:
        if not path.exists():
            path.mkdir(parents=True)  # containerd would make it as well; upstream's behaviour of an unset type
        return path
    test, wanted = _CHECKS[kind]
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise VolumeFault(f"hostPath type check failed: {path} is not {wanted}") from error
    if not test(mode):
        raise VolumeFault(f"hostPath type check failed: {path} is not {wanted}")
    return path
