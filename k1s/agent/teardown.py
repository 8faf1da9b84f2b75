"""Everything the agent has put on this host, taken away: `make down`, `k1s uninstall`.

Owns: the order: containerd, then shims and what runs in them, then mounts, then cgroups. Called by: cli, make, tests.
Never does: touch anything that does not carry this instance's paths or cgroup; delete data (the caller removes directories).
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from k1s.agent.config import AgentConfig
from k1s.agent.containerd import ContainerdPaths, stop_containerd
from k1s.agent.resources import cgroups
from k1s.agent.resources.cgroups import Cgroups
from k1s.agent.volumes import mounts

_ROUNDS = 100


async def stop_all(config: AgentConfig, *, cgroup_root: str = "") -> None:
    """Containers, shims, containerd, mounts and cgroups of this data directory are gone afterwards. Idempotent.

    `cgroup_root`: where tests put their containers, in place of the agent's own.
    """
    await stop_containerd(config)
    paths = ContainerdPaths.of(config)
    tree = Cgroups(cgroup_root or cgroups.cgroup_root(config))
    for _ in range(_ROUNDS):
        pids = {*_shims(paths), *tree.all_pids()}
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        await asyncio.sleep(0.05)
    mounts.unmount_below([paths.state, paths.root, config.pods_dir])
    await asyncio.to_thread(tree.remove_all)
    paths.pid_file.unlink(missing_ok=True)
    paths.socket.unlink(missing_ok=True)


def _shims(paths: ContainerdPaths) -> list[int]:
    """Shims name the socket of their containerd on the command line."""
    address = str(paths.socket.absolute()).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has gone meanwhile
        if b"containerd-shim" in command[0] and address in command:
            found.append(int(entry.name))
    return found
