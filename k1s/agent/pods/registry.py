"""Which pods this node has, for those who ask by name: logs, exec, port-forward, stats.

Owns: the index of pods by uid and by namespace and name. Called by: pods/manager (writes), serving (reads).
Never does: I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from k1s.agent.pods.model import Object, Observed, pod_uid
from k1s.cri.runtime import ContainerStatus, Sandbox


@dataclass(slots=True)
class PodEntry:
    """A pod as the node has it. `pod` is read-only; `observed` and `status` are replaced whole by its worker."""

    pod: Object
    observed: Observed = field(default_factory=Observed)
    status: Object = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.pod["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        return pod_uid(self.pod)

    @property
    def sandbox(self) -> Sandbox | None:
        """The newest sandbox; its netns path is what port-forward enters."""
        return self.observed.sandbox

    def container(self, name: str, *, previous: bool = False) -> ContainerStatus | None:
        """The newest instance of a container, or the one before it."""
        instances = self.observed.all(name)
        index = 1 if previous else 0
        return instances[index] if len(instances) > index else None

    def log_directory(self, root: Any) -> str:
        return f"{root}/{self.namespace}_{self.name}_{self.uid}"


class PodRegistry:
    """At most as many entries as the node takes pods, and those that are just going."""

    def __init__(self) -> None:
        self._by_uid: dict[str, PodEntry] = {}
        self._removed = asyncio.Event()

    def put(self, pod: Object) -> PodEntry:
        """Add or refresh; keeps what the worker recorded."""
        entry = self._by_uid.get(pod_uid(pod))
        if entry is None:
            entry = self._by_uid[pod_uid(pod)] = PodEntry(pod)
        entry.pod = pod
        return entry

    def remove(self, uid: str) -> None:
        self._by_uid.pop(uid, None)
        self._removed.set()

    async def empty(self) -> None:
        """Return once no pod is left."""
        while self._by_uid:
            self._removed.clear()
            await self._removed.wait()

    def by_uid(self, uid: str) -> PodEntry | None:
        return self._by_uid.get(uid)

    def by_name(self, namespace: str, name: str) -> PodEntry | None:
        """The pod of that name; when an old one is still going, the newest."""
        found = [e for e in self._by_uid.values() if e.namespace == namespace and e.name == name]
        return max(found, key=lambda e: e.pod["metadata"].get("creationTimestamp") or "", default=None)

    def __iter__(self) -> Iterator[PodEntry]:
        return iter(list(self._by_uid.values()))

    def __len__(self) -> int:
        return len(self._by_uid)
