"""emptyDir: a directory that lives as long as the pod, on disk or in memory.

Owns: making it, its tmpfs. Called by: volumes/manager.
Never does: enforce sizeLimit on disk (eviction's job); a tmpfs enforces its own.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from k1s.agent.volumes import mounts
from k1s.agent.volumes.interface import VolumeFault, VolumeRequest
from k1s.api import quantity


async def prepare(request: VolumeRequest) -> Path:
    return await asyncio.to_thread(_prepare, request)


def _prepare(request: VolumeRequest) -> Path:
    source = request.volume["emptyDir"] or {}
    medium = source.get("medium") or ""
    path = request.paths.volume("empty-dir", request.name)
    path.mkdir(parents=True, exist_ok=True)
    if medium == "Memory":
        if not mounts.is_mounted(path):
            limit = source.get("sizeLimit")
            size = f"size={quantity.value(limit)}" if limit and quantity.value(limit) > 0 else ""
            mounts.mount("tmpfs", path, "tmpfs", data=size)
    elif medium:
        raise VolumeFault(f'unknown or unsupported storage medium "{medium}"')
    state = path.stat()
    if request.fs_group is not None:
        os.chown(path, -1, request.fs_group)
        os.chmod(path, 0o2777)
    elif state.st_mode & 0o7777 != 0o777:
        os.chmod(path, 0o777)
    return path
