"""subPath and subPathExpr: a piece of a volume, that a pod cannot talk out of the volume.

Owns: walking to the piece without following links out of the volume, and pinning it by a bind mount. Called by: pods/start.
Never does: make the volume.

A container could replace a directory by a link between a check and the runtime's mount. So the walk opens one component after
another (O_NOFOLLOW), and what it arrived at is bind-mounted through its file descriptor to a path of ours.
Source: pkg/volume/util/subpath.
"""

from __future__ import annotations

import os
from pathlib import Path

from k1s.agent.volumes import mounts
from k1s.agent.volumes.interface import VolumeFault


def pin(volume: Path, relative: str, target: Path) -> Path:
    """Bind `relative` inside `volume` (made as a directory if it is not there) at `target`; returns `target`."""
    parts = [part for part in relative.split("/") if part not in ("", ".")]
    if relative.startswith("/") or ".." in parts:
        raise VolumeFault(f"subPath {relative!r} must be a relative path without '..'")
    if mounts.is_mounted(target):
        return target
    # Links of the atomic writer stay inside the volume: resolve first, then walk what it resolved to.
    real = os.path.realpath(volume / relative)
    root = os.path.realpath(volume)
    if real != root and not real.startswith(root + "/"):
        raise VolumeFault(f"subPath {relative!r} leads out of the volume")
    descriptor = _walk(root, os.path.relpath(real, root))
    try:
        is_directory = os.path.isdir(f"/proc/self/fd/{descriptor}")
        target.parent.mkdir(parents=True, exist_ok=True)
        if is_directory:
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        mounts.mount(f"/proc/self/fd/{descriptor}", target, flags=mounts.MS_BIND)
    finally:
        os.close(descriptor)
    return target


def _walk(root: str, relative: str) -> int:
    """A descriptor (O_PATH) of root/relative; missing directories are made."""
    current = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for part in [] if relative == "." else relative.split("/"):
            try:
                following = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=current)
            except FileNotFoundError:
                os.mkdir(part, 0o750, dir_fd=current)
                state = os.stat(root)
                os.chown(part, state.st_uid, state.st_gid, dir_fd=current, follow_symlinks=False)
                following = os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=current)
            os.close(current)
            current = following
    except OSError as error:
        os.close(current)
        raise VolumeFault(f"failed to prepare subPath {relative!r}: {error}") from error
    return current
