"""Loading image archives, which CRI has no verb for.

Owns: the call of `ctr images import`. Called by: containerd.py. Never does: decide which archives to load.

`ctr` ships with every containerd, reads OCI and docker archives (compressed or not) and unpacks for the snapshotter;
containerd's Transfer service, the alternative, exists from 1.7 on only.
"""

from __future__ import annotations

import asyncio
import os

from k1s.base.process import child_environment
from k1s.cri.errors import RuntimeFailure

_TIMEOUT = 600.0


async def import_archive(tar: str, *, ctr: str, socket: str, snapshotter: str = "") -> list[str]:
    """Import into CRI's namespace; returns the names of the images. Raises RuntimeFailure."""
    command = [ctr, "-a", os.path.abspath(socket), "-n", "k8s.io", "images", "import"]
    if snapshotter:
        command += ["--snapshotter", snapshotter]
    command.append(tar)
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=child_environment(),
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _TIMEOUT)
    except (TimeoutError, asyncio.CancelledError):
        process.kill()
        await process.wait()
        raise
    text = output.decode(errors="replace")
    if process.returncode != 0:
        raise RuntimeFailure(f"import of {tar} failed: {' '.join(text.split())[-400:]}")
    return _names(text)


def _names(output: str) -> list[str]:
    """ctr prints `unpacking NAME (sha256:...)...done` for each image."""
    names = []
    for line in output.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "unpacking":
            names.append(words[1])
    return names
