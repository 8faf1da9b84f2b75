"""In-place resize: a running container gets other resources without a restart.

Owns: what each running container has now, and bringing it to what the spec says (pods/resize). Called by: worker.
Never does: restart a container itself: where the resizePolicy asks for it, it says which.
Source: KEP-1287, pkg/kubelet/kuberuntime (doPodResizeAction).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k1s.agent.pods.model import Object, Observed, all_containers, pod_uid
from k1s.agent.pods.plan import KillContainer
from k1s.agent.resources.qos import container_resources, oom_score_adj, pod_limits, pod_requests, qos_class
from k1s.cri.runtime import ContainerStatus

if TYPE_CHECKING:
    from k1s.agent.context import AgentContext

_KINDS = ("limits", "requests")


@dataclass(frozen=True, slots=True)
class Pending:
    """The PodResizePending condition: Infeasible (never fits this node) or Deferred (does not fit now)."""

    reason: str
    message: str


class Resizer:
    """Of one pod. `reported`: the pod as the API had it when this agent first saw it."""

    def __init__(self, agent: AgentContext, reported: Object) -> None:
        self._agent = agent
        self._applied: dict[str, Object] = {}
        self._reported = {
            str(s.get("containerID") or "").partition("://")[2]: s["resources"]
            for name in ("containerStatuses", "initContainerStatuses")
            for s in (reported.get("status") or {}).get(name) or []
            if s.get("resources")
        }
        self.pending: Pending | None = None

    def applied(self) -> dict[str, Object]:
        """Container id -> the resources it runs with."""
        return dict(self._applied)

    def allocated(self, pod: Object, observed: Observed) -> Object:
        """The pod as the node has granted it: while a resize is pending, with the resources it runs with."""
        if self.pending is None:
            return pod
        have = {c.name: self._applied[c.id] for c in observed.containers if c.id in self._applied}
        granted = [{**c, "resources": have.get(c["name"], c.get("resources"))} for c in pod["spec"]["containers"]]
        return {**pod, "spec": {**pod["spec"], "containers": granted}}

    def changes(self, pod: Object, observed: Observed) -> list[tuple[Object, ContainerStatus]]:
        """Running containers that have other resources than the spec says. New instances have the spec's."""
        running = {c.id: c for c in observed.containers if c.state == "running"}
        self._applied = {i: r for i, r in self._applied.items() if i in running}
        out = []
        for kind, container in all_containers(pod):
            status = observed.newest(container["name"])
            if kind == "ephemeral" or status is None or status.id not in running:
                continue
            wanted = _resources(container)
            have = self._applied.setdefault(status.id, self._reported.pop(status.id, None) or wanted)
            if _plain(have) != _plain(wanted):
                out.append((container, status))
        if not out:
            self.pending = None
        return out

    async def apply(
        self, pod: Object, changed: list[tuple[Object, ContainerStatus]], others: list[Object]
    ) -> KillContainer | None:
        """Resize what can be resized; a container that must be restarted for it is returned. Raises RuntimeFailure."""
        self.pending = self._unfit(pod, others)
        if self.pending is not None:
            return None
        agent = self._agent
        if agent.cgroups is not None:
            await asyncio.to_thread(agent.cgroups.ensure_pod, pod_uid(pod), qos_class(pod), pod_limits(pod))
        for container, status in changed:
            wanted = _resources(container)
            if _needs_restart(container, self._applied[status.id], wanted):
                message = f"Container {container['name']} resize requires restart"
                return KillContainer(status.id, container["name"], "Resize", message)
            settings = container_resources(container, oom_score_adj=oom_score_adj(pod, container, agent.machine.memory))
            await agent.runtime.update_container_resources(status.id, settings)
            self._applied[status.id] = wanted
        return None

    def _unfit(self, pod: Object, others: list[Object]) -> Pending | None:
        wanted, room = pod_requests(pod), self._agent.allocatable
        for name in ("cpu", "memory"):
            if wanted.get(name, 0) > room[name]:
                return Pending(
                    "Infeasible", f"Node didn't have enough capacity: {name}, requested: {wanted[name]}, capacity: {room[name]}"
                )
            used = sum(pod_requests(o).get(name, 0) for o in others)
            if used + wanted.get(name, 0) > room[name]:
                text = (
                    f"Node didn't have enough resource: {name}, requested: {wanted[name]}, used: {used}, capacity: {room[name]}"
                )
                return Pending("Deferred", text)
        return None


def _resources(container: Object) -> Object:
    resources = container.get("resources") or {}
    return {kind: dict(resources[kind]) for kind in _KINDS if resources.get(kind)}


def _plain(resources: Object) -> Object:
    """cpu and memory only: nothing else can be resized."""
    return {k: {n: v for n, v in (resources.get(k) or {}).items() if n in ("cpu", "memory")} for k in _KINDS}


def _needs_restart(container: Object, have: Object, wanted: Object) -> bool:
    policies = {p["resourceName"]: p["restartPolicy"] for p in container.get("resizePolicy") or []}
    for name in ("cpu", "memory"):
        before = [(have.get(kind) or {}).get(name) for kind in _KINDS]
        after = [(wanted.get(kind) or {}).get(name) for kind in _KINDS]
        if before != after and policies.get(name) == "RestartContainer":
            return True
    return False
