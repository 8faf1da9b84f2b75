"""`k1s stop` ends k1s with all its containers and takes back its changes to the host; `k1s uninstall` also deletes its data.

Owns: the order, and what counts as ours. Called by: cli/main, packaging/down.sh. Never does: touch what does not carry our names
or paths; it works whatever state k1s is in, and a second run finds nothing to do.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from k1s.agent.config import AgentConfig
from k1s.base.config import load_all
from k1s.base.pid_file import running
from k1s.cli.errors import UserError
from k1s.server.config import ServerConfig

STOP_SECONDS = 20.0
CONFIG_FILE = Path("/etc/k1s/config.yaml")


def run(words: Sequence[str]) -> int:
    verb, *rest = words
    dry_run = "--dry-run" in rest
    server, agent = load_all(
        (ServerConfig, AgentConfig),
        [word for word in rest if word != "--dry-run"],
        program=f"k1s {verb}",
        description="Takes the server's and agent's flags, so that it finds what they made; --dry-run only tells.",
        config_file=CONFIG_FILE,
    )
    if os.geteuid() != 0:
        raise UserError("this needs root: use sudo")
    doomed = _data(server, agent) if verb == "uninstall" else []
    if dry_run:
        print("would end the server, the agent, containerd and every container of theirs")
        print("would remove the links, nftables tables, mounts and cgroups of k1s")
        for path in doomed:
            print(f"would delete {path}")
        return 0
    # Each remembers its child's or its own process; the server first, or it would start the agent again.
    for file in (agent.run_dir / "server.json", agent.run_dir / "agent.json", agent.run_dir / "node.json"):
        _leave_to_systemd(running(file), ["disable", "--now"] if verb == "uninstall" else ["stop"])
        _end(file)
    _take_back(agent)
    for path in doomed:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(agent.run_dir, ignore_errors=True)
    return 0


def _leave_to_systemd(pid: int, verb: Sequence[str]) -> None:
    """End the unit whose main process this is: systemd would start what ends otherwise again (an agent would join anew)."""
    unit = _unit(pid) if pid else ""
    if not unit or _systemctl("show", "--property=MainPID", "--value", unit).strip() != str(pid):
        return
    print(f"systemctl {' '.join(verb)} {unit}")
    _systemctl(*verb, unit)


def _unit(pid: int) -> str:
    """The systemd service whose control group holds the process, "" if there is none."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return ""
    # "0::/system.slice/k1s.service", and with cgroups of version 1 "1:name=systemd:/system.slice/k1s.service"
    parts = [part for line in lines for part in line.rpartition(":")[2].split("/")]
    return next((part for part in parts if part.endswith(".service")), "")


def _systemctl(*words: str) -> str:
    """What it says, "" if there is no systemd."""
    try:
        return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def _end(file: Path) -> None:
    """TERM the process that a pid file names, wait for it, then KILL."""
    pid = running(file)
    if not pid:
        file.unlink(missing_ok=True)
        return
    import select

    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not select.select([descriptor], [], [], STOP_SECONDS)[0]:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], STOP_SECONDS)
    finally:
        os.close(descriptor)
    file.unlink(missing_ok=True)


def _take_back(agent: AgentConfig) -> None:
    from k1s.agent import teardown
    from k1s.agent.network.app import remove_cni
    from k1s.net import teardown as network

    asyncio.run(teardown.stop_all(agent))
    remove_cni(agent)
    for line in network.remove_all(agent.agent_dir / "network"):
        print(f"removed {line}")


def _data(server: ServerConfig, agent: AgentConfig) -> list[Path]:
    """What uninstall deletes. The log directory is shared with other kubelets, so only the logs of our pods."""
    uids = {path.name for path in agent.pods_dir.glob("*")}
    logs = [path for path in agent.pod_log_dir.glob("*_*_*") if path.name.rpartition("_")[2] in uids]
    return [path for path in (*logs, server.data_dir, Path(server.write_kubeconfig)) if path.exists()]
