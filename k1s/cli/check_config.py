"""`k1s check-config`: what this host lacks for running k1s, each with the way to mend it.

Owns: the checks of kernel, cgroups and programs; those of the pod network are net/check's. Called by: cli/main, and cli/agent at
start (required ones only). Never does: change the host.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k1s.base.host import default_address
from k1s.base.process import ProgramMissing, bundled_file, find_binary

if TYPE_CHECKING:
    from k1s.agent.config import AgentConfig
    from k1s.server.config import ServerConfig

CONFIG_FILE = Path("/etc/k1s/config.yaml")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `remedy` is empty where it passed."""

    name: str
    required: bool
    remedy: str = ""

    @property
    def passed(self) -> bool:
        return not self.remedy


def run(words: Sequence[str]) -> int:
    from k1s.agent.config import AgentConfig
    from k1s.base.config import load_all
    from k1s.server.config import ServerConfig

    server, agent = load_all(
        (ServerConfig, AgentConfig),
        words[1:],
        program="k1s check-config",
        description="Say what this host lacks for running k1s. Takes the flags and the config file of the server.",
        config_file=CONFIG_FILE,
    )
    findings = [*check(), *_network(server, agent)]
    for finding in findings:
        mark = "ok     " if finding.passed else ("MISSING" if finding.required else "warning")
        print(f"{mark}  {finding.name}" + (f": {finding.remedy}" if finding.remedy else ""))
    failed = [f for f in findings if not f.passed and f.required]
    print(f"\n{len(failed)} of {len(findings)} checks failed" if failed else "\nthis host can run k1s")
    return 1 if failed else 0


def missing_for_agent() -> list[Finding]:
    """The required checks that fail, for the agent's start."""
    return [finding for finding in check() if finding.required and not finding.passed]


def check() -> Iterator[Finding]:
    yield Finding("running as root", True, "" if os.geteuid() == 0 else "use sudo")
    yield _python()
    for name in ("containerd", "containerd-shim-runc-v2", "runc"):
        found = find_binary(name)
        yield Finding(f"program {name}", True, "" if found else str(ProgramMissing(name)))
    yield Finding("program kubectl", False, "" if find_binary("kubectl") else "'k1s kubectl' will not work; run 'make up' once")
    yield _probe("libnftables", True, _libnftables, "apt-get install libnftables1")
    yield from _cgroups()
    yield from _kernel()
    yield _capability()


def _network(server: ServerConfig, agent: AgentConfig) -> Iterator[Finding]:
    """What would keep pods from reaching others or names; told, not required: it may be meant so."""
    if os.geteuid() != 0:
        return  # cannot be asked, and is told above
    from k1s.cli import ranges
    from k1s.net.check import problems

    found = problems(
        agent.resolv_conf,
        backend=server.network_backend,
        node_ip=(agent.node_ip or default_address()).split(",")[0],
        pods=ranges.parse("cluster-cidr", server.cluster_cidr),
        services=ranges.parse("service-cidr", server.service_cidr),
    )
    yield from (Finding("pod network", False, problem) for problem in found)
    if not found:
        yield Finding("pod network", False)


def _python() -> Finding:
    return Finding("Python 3.11 or newer", True, "" if sys.version_info >= (3, 11) else "install a newer python3")


def _probe(name: str, required: bool, probe: Callable[[], bool], remedy: str) -> Finding:
    return Finding(name, required, "" if probe() else remedy)


def _libnftables() -> bool:
    import ctypes

    try:
        ctypes.CDLL(bundled_file("libnftables.so.1") or "libnftables.so.1")
    except OSError:
        return False
    return True


def _cgroups() -> Iterator[Finding]:
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists():
        controllers = set(unified.read_text().split())
        kind = "cgroup v2"
    else:
        lines = Path("/proc/cgroups").read_text().splitlines()[1:]
        controllers = {line.split()[0] for line in lines if line.split()[3] == "1"}
        kind = "cgroup v1"
    for name, required in (("cpu", True), ("memory", True), ("pids", True), ("cpuset", False)):
        remedy = "" if name in controllers else "enable it on the kernel's command line (cgroup_enable=memory cgroup_memory=1)"
        yield Finding(f"{kind} controller {name}", required, remedy)


def _kernel() -> Iterator[Finding]:
    filesystems = Path("/proc/filesystems").read_text()
    overlay = "overlay" in filesystems or _module("overlay")
    yield Finding("overlayfs", True, "" if overlay else "modprobe overlay, or start with --snapshotter native")
    for name in ("nf_tables", "bridge", "veth"):
        present = Path(f"/sys/module/{name}").exists() or _module(name)
        yield Finding(
            f"kernel module {name}", False, "" if present else f"modprobe {name} (it may be built in under another name)"
        )
    for name in ("net", "mnt", "pid", "ipc", "uts"):
        yield Finding(f"{name} namespaces", True, "" if Path(f"/proc/self/ns/{name}").exists() else "the kernel lacks them")


def _module(name: str) -> bool:
    """Whether the running kernel has it built in or loadable."""
    base = Path("/lib/modules") / os.uname().release
    for listing in ("modules.builtin", "modules.dep"):
        file = base / listing
        if file.exists() and f"/{name}.ko" in file.read_text():
            return True
    # Kernels without a modules directory (boards, virtual machines) have what they need built in.
    return not base.exists()


def _capability() -> Finding:
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    has = bool(effective >> 24 & 1)
    return Finding("CAP_SYS_RESOURCE", False, "" if has else "missing; k1s runs containers without lowering their oom_score_adj")
