"""Where a pod's files are on this node, in kubelet's layout.

Owns: the names of directories and files. Called by: everything below the agent that reads or writes pods' files. Never does: I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from k1s.agent.config import AgentConfig

Object = dict[str, object]


@dataclass(frozen=True, slots=True)
class PodPaths:
    """Everything of one pod."""

    root: Path
    logs: Path

    @classmethod
    def of(cls, config: AgentConfig, namespace: str, name: str, uid: str) -> PodPaths:
        return cls(config.pods_dir.absolute() / uid, config.pod_log_dir.absolute() / f"{namespace}_{name}_{uid}")

    @property
    def hosts(self) -> Path:
        return self.root / "etc-hosts"

    def volume(self, plugin: str, name: str) -> Path:
        return self.root / "volumes" / f"kubernetes.io~{plugin}" / name

    def subpaths(self, container: str) -> Path:
        return self.root / "volume-subpaths" / container

    def termination_log(self, container: str, attempt: int) -> Path:
        return self.root / "containers" / container / str(attempt)

    def log_file(self, container: str, attempt: int) -> Path:
        return self.logs / container / f"{attempt}.log"
