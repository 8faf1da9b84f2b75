"""The values that plan, status and worker share.

Owns: Observed (what the runtime has of one pod), Facts (what the worker knows beside it), Wait, and small readers of a
pod's spec. Called by: everything below agent/pods. Never does: I/O; change a pod.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from k1s.cri.runtime import ContainerStatus, Sandbox

Object = dict[str, Any]
ContainerKind = Literal["init", "sidecar", "regular", "ephemeral"]

# kubelet's labels and annotations: whatever reads a kubelet's containers reads ours.
POD_NAME, POD_NAMESPACE, POD_UID = "io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
HASH = "io.kubernetes.container.hash"
RESTART_COUNT = "io.kubernetes.container.restartCount"
TERMINATION_PATH = "io.kubernetes.container.terminationMessagePath"
TERMINATION_POLICY = "io.kubernetes.container.terminationMessagePolicy"
GRACE_PERIOD = "io.kubernetes.pod.terminationGracePeriod"


@dataclass(frozen=True, slots=True)
class Wait:
    """A container (or, with name "", the pod) may not be tried again before `until`; the status says `reason` meanwhile."""

    until: float
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Observed:
    """One pod in the runtime: sandboxes and containers, each newest first."""

    sandboxes: tuple[Sandbox, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()

    def newest(self, name: str) -> ContainerStatus | None:
        return next((c for c in self.containers if c.name == name), None)

    def all(self, name: str) -> list[ContainerStatus]:
        return [c for c in self.containers if c.name == name]

    def running(self) -> list[ContainerStatus]:
        return [c for c in self.containers if c.state == "running"]

    @property
    def sandbox(self) -> Sandbox | None:
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def alive(self) -> bool:
        """Whether anything of the pod may still run."""
        return any(s.ready for s in self.sandboxes) or any(c.state in ("running", "unknown") for c in self.containers)


@dataclass(frozen=True, slots=True)
class Facts:
    """`started`, `ready`: ids of containers whose startup and readiness checks hold. `unhealthy`: id -> which probe failed."""

    started: frozenset[str] = frozenset()
    ready: frozenset[str] = frozenset()
    unhealthy: Mapping[str, str] = field(default_factory=dict)
    waits: Mapping[str, Wait] = field(default_factory=dict)
    # id -> resources a running container has; what is missing has those of its spec
    resources: Mapping[str, Object] = field(default_factory=dict)


def pod_uid(pod: Object) -> str:
    return str(pod["metadata"]["uid"])


def pod_ref(pod: Object) -> str:
    """name_namespace(uid), as kubelet's messages name a pod."""
    meta = pod["metadata"]
    return f"{meta['name']}_{meta['namespace']}({meta['uid']})"


def is_sidecar(container: Object) -> bool:
    """Meaningful for init containers only: one that keeps running beside the others."""
    return container.get("restartPolicy") == "Always"


def init_containers(pod: Object) -> list[Object]:
    return pod["spec"].get("initContainers") or []


def containers(pod: Object) -> list[Object]:
    return pod["spec"].get("containers") or []


def ephemeral_containers(pod: Object) -> list[Object]:
    return pod["spec"].get("ephemeralContainers") or []


def all_containers(pod: Object) -> Iterator[tuple[ContainerKind, Object]]:
    for container in init_containers(pod):
        yield ("sidecar" if is_sidecar(container) else "init"), container
    for container in containers(pod):
        yield "regular", container
    for container in ephemeral_containers(pod):
        yield "ephemeral", container


def find_container(pod: Object, name: str) -> tuple[ContainerKind, Object]:
    """KeyError if the pod has no such container."""
    for kind, container in all_containers(pod):
        if container["name"] == name:
            return kind, container
    raise KeyError(name)


def restart_policy(pod: Object) -> str:
    return pod["spec"].get("restartPolicy") or "Always"


def container_hash(container: Object) -> str:
    """Changes when the container must be made anew: its name and image, the fields that may change while a pod lives."""
    text = json.dumps([container["name"], container.get("image", "")])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def restart_count(status: ContainerStatus) -> int:
    """How often the container had been restarted when this instance was made; our annotation on it says so."""
    text = status.annotations.get(RESTART_COUNT, "")
    return int(text) if text.isdigit() else status.attempt


def wants_host_network(pod: Object) -> bool:
    return bool(pod["spec"].get("hostNetwork"))


def restarts_after(pod: Object, container: Object, exit_code: int, *, kind: ContainerKind = "regular") -> bool:
    """Whether a container that ended with `exit_code` is started again: rules of the container, its policy, the pod's."""
    if kind == "ephemeral":
        return False
    for rule in container.get("restartPolicyRules") or []:
        codes = rule.get("exitCodes") or {}
        values = codes.get("values") or []
        if (exit_code in values) == (codes.get("operator") == "In"):
            return bool(rule.get("action") == "Restart")
    policy = container.get("restartPolicy") or restart_policy(pod)
    if kind == "init" and policy == "Always":
        policy = "OnFailure"  # an init container that succeeded is done
    return bool(policy == "Always" or (policy == "OnFailure" and exit_code != 0))


def reported_health(pod: Object) -> dict[str, tuple[bool, bool]]:
    """Container id -> (started, ready) as the API has it: an agent that restarts does not make its pods unready."""
    out: dict[str, tuple[bool, bool]] = {}
    for name in ("containerStatuses", "initContainerStatuses"):
        for status in (pod.get("status") or {}).get(name) or []:
            identity = str(status.get("containerID") or "").partition("://")[2]
            if identity:
                out[identity] = (bool(status.get("started")), bool(status.get("ready")))
    return out
