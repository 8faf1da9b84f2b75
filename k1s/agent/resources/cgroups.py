"""The cgroups pods live in: /k1s/kubepods/{,burstable/,besteffort/}pod<uid>.

Owns: making, limiting and removing them, on cgroup v1 (a tree per controller), v2 and hybrids. Called by: pods/worker, teardown.
Never does: touch a cgroup outside its root; containers' own cgroups (runc makes those below the pod's).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from k1s.agent.config import AgentConfig

_LIMITED = ("cpu", "memory", "pids")
PERIOD = 100_000
MIN_SHARES, MAX_SHARES = 2, 262_144


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """What a cgroup may use; None leaves a resource unlimited. `cpu_quota` is microseconds per PERIOD."""

    cpu_shares: int = MIN_SHARES
    cpu_quota: int | None = None
    memory: int | None = None
    pids: int | None = None


def cgroup_root(config: AgentConfig) -> str:
    """/k1s; with another run directory than the usual one a root of its own, so that two agents never meet."""
    if str(config.run_dir) == "/run/k1s":
        return "/k1s"
    return "/k1s-" + hashlib.sha256(str(config.run_dir.absolute()).encode()).hexdigest()[:8]


class Cgroups:
    """All pod cgroups below one root. Blocking calls on a memory file system: quick."""

    def __init__(self, root: str, mount: Path = Path("/sys/fs/cgroup")) -> None:
        self.root = root
        self._mount = mount
        self.unified = (mount / "cgroup.controllers").exists()
        # controller -> directory of its tree; v2 has one tree for all.
        self._trees = {"": mount} if self.unified else _v1_trees(mount)

    def parent(self, qos: str) -> str:
        """The cgroup of a QoS class: Guaranteed pods live directly in kubepods."""
        base = f"{self.root}/kubepods"
        return base if qos == "Guaranteed" else f"{base}/{qos.lower()}"

    def pod_path(self, uid: str, qos: str) -> str:
        """What the runtime is told as cgroup parent of the pod's containers."""
        return f"{self.parent(qos)}/pod{uid}"

    def ensure_hierarchy(self, *, milli_cpu: int) -> None:
        """The root, kubepods and the QoS classes, with as many shares as the node has cpus."""
        self._make(self.root)
        self._make(self.parent("Guaranteed"))
        self._limit(self.parent("Guaranteed"), CgroupLimits(cpu_shares=shares(milli_cpu)))
        self._make(self.parent("BestEffort"))
        self._limit(self.parent("BestEffort"), CgroupLimits())
        self._make(self.parent("Burstable"))

    def set_burstable_shares(self, milli_cpu: int) -> None:
        """Burstable pods together weigh as much as they request."""
        self._limit(self.parent("Burstable"), CgroupLimits(cpu_shares=shares(milli_cpu)))

    def ensure_pod(self, uid: str, qos: str, limits: CgroupLimits) -> str:
        path = self.pod_path(uid, qos)
        self._make(path)
        self._limit(path, limits)
        return path

    def remove_pod(self, uid: str) -> None:
        """Gone in every tree, whatever QoS class it had. Processes still in it are killed."""
        for qos in ("Guaranteed", "Burstable", "BestEffort"):
            self._remove(self.pod_path(uid, qos))

    def pods(self) -> set[str]:
        """The uids that have a cgroup in any tree."""
        found: set[str] = set()
        for directory in self._directories(self.root):
            if directory.name.startswith("pod") and not directory.name.startswith("pods"):
                found.add(directory.name[3:])
        return found

    def all_pids(self) -> set[int]:
        return {pid for directory in self._directories(self.root) for pid in _pids(directory)}

    def remove_all(self) -> None:
        self._remove(self.root)

    def file(self, controller: str, path: str, name: str) -> Path:
        """A control file, for reading statistics."""
        tree = self._trees[""] if self.unified else self._trees.get(controller, self._mount / controller)
        return tree / path.lstrip("/") / name

    def _make(self, path: str) -> None:
        relative = path.lstrip("/")
        if self.unified:
            directory = self._trees[""]
            for part in relative.split("/"):
                _enable_controllers(directory)
                directory = directory / part
                directory.mkdir(exist_ok=True)
            _enable_controllers(directory)
            return
        for controller in _LIMITED:
            if controller in self._trees:
                (self._trees[controller] / relative).mkdir(parents=True, exist_ok=True)

    def _limit(self, path: str, limits: CgroupLimits) -> None:
        quota, memory = limits.cpu_quota, limits.memory
        pids = "max" if limits.pids is None else str(limits.pids)
        if self.unified:
            self._write("", path, "cpu.weight", str(weight(limits.cpu_shares)))
            self._write("", path, "cpu.max", f"{'max' if quota is None else quota} {PERIOD}")
            self._write("", path, "memory.max", "max" if memory is None else str(memory))
            self._write("", path, "pids.max", pids)
            return
        self._write("cpu", path, "cpu.shares", str(limits.cpu_shares))
        self._write("cpu", path, "cpu.cfs_period_us", str(PERIOD))
        self._write("cpu", path, "cpu.cfs_quota_us", "-1" if quota is None else str(quota))
        self._write("memory", path, "memory.limit_in_bytes", "-1" if memory is None else str(memory))
        self._write("pids", path, "pids.max", pids)

    def _write(self, controller: str, path: str, name: str, value: str) -> None:
        if controller not in self._trees:
            return  # this kernel limits no such thing
        file = self._trees[controller] / path.lstrip("/") / name
        # A file may be missing where the kernel was built without the feature (cfs quota, memory on small boards).
        if file.exists():
            file.write_text(value)

    def _directories(self, path: str) -> Iterator[Path]:
        """Every directory at and below `path`, in every tree, children before parents."""
        for tree in {str(t.resolve()): t for t in self._all_trees()}.values():
            top = tree / path.lstrip("/")
            for directory, _, _ in os.walk(top, topdown=False):
                yield Path(directory)

    def _all_trees(self) -> list[Path]:
        if self.unified:
            return [self._mount]
        return [entry for entry in self._mount.iterdir() if entry.is_dir()]

    def _remove(self, path: str) -> None:
        for directory in self._directories(path):
            for _ in range(50):
                try:
                    directory.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    _kill_all(directory)


def _kill_all(directory: Path) -> None:
    import signal
    import time

    for pid in _pids(directory):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    time.sleep(0.01)  # a killed process leaves its cgroup a moment later; callers run this in a thread


def _pids(directory: Path) -> list[int]:
    try:
        return [int(line) for line in (directory / "cgroup.procs").read_text().split()]
    except (OSError, ValueError):
        return []  # it has gone meanwhile, or is threaded


def _v1_trees(mount: Path) -> dict[str, Path]:
    return {entry.name: entry for entry in sorted(mount.iterdir()) if (entry / "cgroup.procs").exists() or entry.is_symlink()}


def _enable_controllers(directory: Path) -> None:
    available = (directory / "cgroup.controllers").read_text().split()
    enabled = (directory / "cgroup.subtree_control").read_text().split()
    wanted = [f"+{c}" for c in ("cpu", "cpuset", "memory", "pids", "io", "hugetlb") if c in available and c not in enabled]
    if wanted:
        (directory / "cgroup.subtree_control").write_text(" ".join(wanted))


def shares(milli_cpu: int) -> int:
    """cpu.shares for a request in thousandths of a cpu."""
    return min(max(milli_cpu * 1024 // 1000, MIN_SHARES), MAX_SHARES)


def weight(cpu_shares: int) -> int:
    """cpu.weight (v2) for cpu.shares, as runc converts it."""
    return 1 + (cpu_shares - 2) * 9999 // 262_142
