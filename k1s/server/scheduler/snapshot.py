"""What the scheduler knows of the nodes: kept up to date by events, never recomputed.

Owns: NodeInfo and Snapshot, including pods that were decided on but are not seen bound yet ("assumed").
Called by: app (events), cycle (reads). Never does: I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from k1s.api import meta
from k1s.server.scheduler import resources
from k1s.server.scheduler.resources import Amounts

Object = Mapping[str, Any]
HostPort = tuple[str, str, int]  # protocol, host address, port


@dataclass(slots=True)
class PodInfo:
    """A pod with what the plugins ask of it again and again."""

    pod: Object
    key: str
    uid: str
    requests: Amounts
    scored_requests: Amounts
    ports: frozenset[HostPort]
    priority: int = 0
    started: str = ""
    affinity: bool = False  # to or against other pods

    @classmethod
    def of(cls, pod: Object) -> PodInfo:
        return cls(
            pod=pod,
            key=meta.key(pod),
            uid=meta.uid(pod),
            requests=resources.pod_requests(pod),
            scored_requests=resources.pod_requests(pod, non_zero=True),
            ports=frozenset(_host_ports(pod)),
            priority=int(pod["spec"].get("priority") or 0),
            affinity=bool({"podAffinity", "podAntiAffinity"} & set(pod["spec"].get("affinity") or ())),
            started=(pod.get("status") or {}).get("startTime") or "",
        )


@dataclass(slots=True)
class NodeInfo:
    """A node with the sums over its pods."""

    name: str
    node: Object
    allocatable: Amounts = field(default_factory=dict)
    requested: Amounts = field(default_factory=dict)
    scored: Amounts = field(default_factory=dict)
    pods: dict[str, PodInfo] = field(default_factory=dict)  # by uid
    images: dict[str, int] = field(default_factory=dict)  # name -> bytes

    def add(self, info: PodInfo) -> None:
        self.pods[info.uid] = info
        resources.add(self.requested, info.requests)
        resources.add(self.scored, info.scored_requests)

    def remove(self, uid: str) -> None:
        info = self.pods.pop(uid, None)
        if info is not None:
            resources.subtract(self.requested, info.requests)
            resources.subtract(self.scored, info.scored_requests)

    def copy(self) -> NodeInfo:
        """One whose pods can be changed without changing this one."""
        return replace(self, requested=dict(self.requested), scored=dict(self.scored), pods=dict(self.pods))

    def set_node(self, node: Object) -> None:
        self.node = node
        status = node.get("status", {})
        self.allocatable = resources.amounts(status.get("allocatable") or status.get("capacity"))
        self.images = {
            name: int(image.get("sizeBytes") or 0) for image in status.get("images") or [] for name in image.get("names") or []
        }


class Storage(Protocol):
    """Claims, volumes and classes as the caches have them."""

    def claim(self, namespace: str, name: str) -> Object | None: ...
    def volume(self, name: str) -> Object | None: ...
    def volumes(self) -> Iterable[Object]: ...
    def storage_class(self, name: str) -> Object | None: ...


class NoStorage:
    """A cluster without any."""

    def claim(self, namespace: str, name: str) -> Object | None:
        return None

    def volume(self, name: str) -> Object | None:
        return None

    def volumes(self) -> Iterable[Object]:
        return ()

    def storage_class(self, name: str) -> Object | None:
        return None


class Snapshot:
    """All nodes by name. Pods on nodes that are not known yet are kept until the node comes."""

    def __init__(self, storage: Storage | None = None) -> None:
        self.storage: Storage = storage or NoStorage()
        self._nodes: dict[str, NodeInfo] = {}
        self._known: set[str] = set()
        self._placed: dict[str, str] = {}  # pod uid -> node name
        self._assumed: set[str] = set()
        # Labels of namespaces, which affinity terms may select.
        self.namespaces: dict[str, Mapping[str, str]] = {}
        # Pods that others were ended for, and the node where that was: uid -> (pod, node name).
        self._nominated: dict[str, tuple[PodInfo, str]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def nodes(self) -> Iterator[NodeInfo]:
        """Nodes that exist, in name order, so that equal scores are decided the same way everywhere."""
        return (self._nodes[name] for name in sorted(self._known))

    def get(self, name: str) -> NodeInfo | None:
        return self._nodes.get(name) if name in self._known else None

    def pods(self) -> Iterable[PodInfo]:
        return (info for name in self._known for info in self._nodes[name].pods.values())

    def nominate(self, info: PodInfo, node: str) -> None:
        """Keep the room that is being made on a node for the pod."""
        self._nominated[info.uid] = (info, node)

    def nomination(self, uid: str) -> str | None:
        found = self._nominated.get(uid)
        return found[1] if found is not None else None

    def withdraw(self, uid: str) -> None:
        """The pod needs no kept room any more."""
        self._nominated.pop(uid, None)

    def seen_by(self, pod: PodInfo, node: NodeInfo) -> NodeInfo:
        """The node with the pods it is promised to that are at least as important as `pod`."""
        promised = [
            info
            for info, name in self._nominated.values()
            if name == node.name and info.uid != pod.uid and info.priority >= pod.priority and info.uid not in node.pods
        ]
        if not promised:
            return node
        seen = node.copy()
        for info in promised:
            seen.add(info)
        return seen

    def with_node(self, node: NodeInfo) -> Snapshot:
        """The same with another state of one node; what it shares with this one must not be changed."""
        other = Snapshot(self.storage)
        other._nodes = {**self._nodes, node.name: node}
        other._known = self._known
        other.namespaces = self.namespaces
        return other

    def set_node(self, node: Object) -> None:
        name = meta.name(node)
        info = self._nodes.get(name) or self._nodes.setdefault(name, NodeInfo(name, node))
        info.set_node(node)
        self._known.add(name)

    def remove_node(self, name: str) -> None:
        self._known.discard(name)
        if name in self._nodes and not self._nodes[name].pods:
            del self._nodes[name]

    def set_pod(self, pod: Object) -> None:
        """A pod as the API has it now: bound ones count, finished ones and those without a node do not."""
        uid, node = meta.uid(pod), pod["spec"].get("nodeName")
        finished = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if not node and uid in self._assumed:
            return  # our binding has not come back yet
        self._take(uid)
        if node and not finished:
            self._put(PodInfo.of(pod), node)

    def remove_pod(self, uid: str) -> None:
        self._take(uid)

    def assume(self, info: PodInfo, node: str) -> None:
        """Count a pod on a node before the API says so."""
        self.withdraw(info.uid)
        self._put(info, node)
        self._assumed.add(info.uid)

    def forget(self, uid: str) -> None:
        """The binding failed."""
        if uid in self._assumed:
            self._take(uid)

    def _put(self, info: PodInfo, node: str) -> None:
        holder = self._nodes.get(node) or self._nodes.setdefault(node, NodeInfo(node, {}))
        holder.add(info)
        self._placed[info.uid] = node

    def _take(self, uid: str) -> None:
        self._assumed.discard(uid)
        node = self._placed.pop(uid, None)
        if node is not None and node in self._nodes:
            self._nodes[node].remove(uid)


def _host_ports(pod: Object) -> Iterator[HostPort]:
    spec = pod["spec"]
    containers = [
        *(spec.get("containers") or []),
        *(c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"),
    ]
    for container in containers:
        for port in container.get("ports") or []:
            if port.get("hostPort"):
                yield port.get("protocol") or "TCP", port.get("hostIP") or "0.0.0.0", int(port["hostPort"])
