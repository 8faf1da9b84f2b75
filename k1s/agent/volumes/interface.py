"""What a volume type is.

Owns: VolumeRequest and VolumeFault. Called by: volumes/manager and every type. Never does: I/O.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k1s.agent.containers.paths import PodPaths
from k1s.agent.pods.model import Object

if TYPE_CHECKING:
    from k1s.agent.context import AgentContext


class VolumeFault(Exception):
    """The volume cannot be had now; the message is kubelet's. The pod waits and it is tried again."""


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """One volume of one pod. `pod_ips` is empty before there is a sandbox."""

    agent: AgentContext
    pod: Object
    volume: Object
    paths: PodPaths
    pod_ips: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.volume["name"])

    @property
    def fs_group(self) -> int | None:
        value = (self.pod["spec"].get("securityContext") or {}).get("fsGroup")
        return int(value) if value is not None else None


# Makes the volume be there (idempotent) and returns the directory or file to mount; for a payload type also refreshes it.
Prepare = Callable[[VolumeRequest], Awaitable[Path]]
