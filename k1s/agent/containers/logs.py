"""Container logs on disk: rotation by size.

Owns: kubelet's naming (0.log, 0.log.20260102-030405, .gz) and limits. Called by: pods/manager at each heartbeat.
Never does: read lines.
Bounds: MAX_FILES files of MAX_SIZE bytes each per container (all but the newest two compressed).
Source: pkg/kubelet/logs/container_log_manager.go.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from k1s.base.clock import Clock
from k1s.cri.errors import RuntimeFailure
from k1s.cri.runtime import ContainerStatus, Runtime

MAX_SIZE = 10 * 1024 * 1024
MAX_FILES = 5


def too_large(containers: Iterable[ContainerStatus]) -> list[ContainerStatus]:
    """Running containers whose log has grown over the limit: one stat each."""
    out = []
    for container in containers:
        if container.state != "running" or not container.log_path:
            continue
        try:
            if os.stat(container.log_path).st_size > MAX_SIZE:
                out.append(container)
        except FileNotFoundError:
            continue  # nothing written yet
    return out


async def rotate(container: ContainerStatus, runtime: Runtime, clock: Clock) -> None:
    """Move the log aside and let the runtime open a new one. Raises RuntimeFailure, OSError."""
    path = Path(container.log_path)
    await asyncio.to_thread(_make_room, path)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(clock.now()))
    aside = path.with_name(f"{path.name}.{stamp}")
    path.rename(aside)
    try:
        await runtime.reopen_container_log(container.id)
    except RuntimeFailure:
        # The runtime still writes to the file that was moved: it must be found under its name.
        aside.rename(path)
        raise


def _make_room(path: Path) -> None:
    """Compress what is rotated already, but for the newest; delete the oldest."""
    rotated = sorted(p for p in path.parent.glob(path.name + ".*") if not p.name.endswith(".tmp"))
    for old in rotated[: max(len(rotated) - (MAX_FILES - 2), 0)]:
        old.unlink()
    for file in rotated[max(len(rotated) - (MAX_FILES - 2), 0) : -1]:
        if not file.name.endswith(".gz"):
            _compress(file)


def _compress(file: Path) -> None:
    temporary = file.with_name(file.name + ".tmp")
    with file.open("rb") as source, gzip.open(temporary, "wb", 6) as target:
        shutil.copyfileobj(source, target)
    temporary.rename(file.with_name(file.name + ".gz"))
    file.unlink()


def remove_of(container: ContainerStatus) -> None:
    """The files of an instance that is forgotten."""
    if not container.log_path:
        return
    path = Path(container.log_path)
    for file in [path, *path.parent.glob(path.name + ".*")]:
        file.unlink(missing_ok=True)
