"""PodTopologySpread: like pods are spread evenly over zones, hosts or any other label of nodes.

Source: scheduler/framework/plugins/podtopologyspread. Pods without constraints are spread by their controller, over hosts and
zones, as a preference (upstream finds the same pods by the selectors of services and sets).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k1s.api import meta
from k1s.api.node_affinity import allows_pod
from k1s.api.selectors import labels_from
from k1s.server.scheduler.plugin import BasePlugin, CycleState, Refusal, scale_to_max
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

Object = Mapping[str, Any]

_DEFAULT = "PodTopologySpread/default"
_TEXT = "node(s) didn't match pod topology spread constraints"
_DEFAULT_KEYS = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")


@dataclass(slots=True)
class _Spread:
    """One constraint and how many like pods each domain has."""

    constraint: Object
    counts: dict[str, int]
    own: int  # 1 if the pod counts itself

    @property
    def key(self) -> str:
        return str(self.constraint["topologyKey"])

    def least(self) -> int:
        if len(self.counts) < int(self.constraint.get("minDomains") or 1):
            return 0
        return min(self.counts.values(), default=0)


class PodTopologySpread(BasePlugin):
    name = "PodTopologySpread"
    weight = 2
    wakes_on = frozenset({"node-added", "node-updated", "pod-added", "pod-updated", "pod-removed"})

    def prepare(self, pod: PodInfo, state: CycleState) -> Refusal | None:
        hard: list[_Spread] = []
        soft: list[_Spread] = []
        for constraint in pod.pod["spec"].get("topologySpreadConstraints") or ():
            spread = _spread(pod, constraint, state.snapshot)
            (hard if constraint.get("whenUnsatisfiable") != "ScheduleAnyway" else soft).append(spread)
        state.values[self.name] = hard, soft
        state.values[_DEFAULT] = None if hard or soft else _siblings(pod, state.snapshot)
        return None

    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None:
        labels = meta.labels(node.node)
        for spread in state.values[self.name][0]:
            value = labels.get(spread.key)
            if value is None:
                return Refusal((f"{_TEXT} (missing required label)",), unresolvable=True)
            skew = spread.counts.get(value, 0) + spread.own - spread.least()
            if skew > int(spread.constraint["maxSkew"]):
                return Refusal((_TEXT,))
        return None

    def score(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> int:
        """How many like pods are near: fewer are better, see normalize."""
        labels = meta.labels(node.node)
        default: Counter[tuple[str, str]] | None = state.values[_DEFAULT]
        if default is not None:
            return sum(default[key, labels.get(key, "")] for key in _DEFAULT_KEYS)
        spreads: list[_Spread] = state.values[self.name][1]
        return sum(spread.counts.get(labels.get(spread.key, ""), 0) for spread in spreads)

    def normalize(self, scores: dict[str, int], state: CycleState) -> None:
        scale_to_max(scores, reverse=True)


def _spread(pod: PodInfo, constraint: Object, snapshot: Snapshot) -> _Spread:
    selector = labels_from(constraint.get("labelSelector"))
    own = pod.pod["metadata"].get("labels") or {}
    fixed = {key: own[key] for key in constraint.get("matchLabelKeys") or () if key in own}
    namespace = pod.pod["metadata"].get("namespace")
    counts: dict[str, int] = {}
    for node in snapshot.nodes():
        value = meta.labels(node.node).get(constraint["topologyKey"])
        if value is None or not _counts(pod, node, constraint):
            continue
        counts.setdefault(value, 0)
        for other in node.pods.values():
            metadata = other.pod["metadata"]
            labels = metadata.get("labels") or {}
            if metadata.get("namespace") != namespace or metadata.get("deletionTimestamp") or not selector.matches(labels):
                continue
            if all(labels.get(key) == wanted for key, wanted in fixed.items()):
                counts[value] += 1
    return _Spread(constraint, counts, int(selector.matches(own)))


def _counts(pod: PodInfo, node: NodeInfo, constraint: Object) -> bool:
    """Whether the node is a place the constraint speaks of."""
    if constraint.get("nodeAffinityPolicy") != "Ignore" and not allows_pod(pod.pod["spec"], node.node):
        return False
    if constraint.get("nodeTaintsPolicy") != "Honor":
        return True
    taints = node.node.get("spec", {}).get("taints") or ()
    tolerations = pod.pod["spec"].get("tolerations") or ()
    return all(t.get("effect") == "PreferNoSchedule" or any(_tolerates(o, t) for o in tolerations) for t in taints)


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    return toleration.get("operator") == "Exists" or (toleration.get("value") or "") == (taint.get("value") or "")


def _siblings(pod: PodInfo, snapshot: Snapshot) -> Counter[tuple[str, str]]:
    """Pods of the same controller by host and zone."""
    owner = meta.controller_of(dict(pod.pod))
    found: Counter[tuple[str, str]] = Counter()
    if owner is None:
        return found
    for node in snapshot.nodes():
        labels = meta.labels(node.node)
        count = sum(
            any(r.get("uid") == owner["uid"] for r in p.pod["metadata"].get("ownerReferences") or ()) for p in node.pods.values()
        )
        for key in _DEFAULT_KEYS:
            if count and key in labels:
                found[key, labels[key]] += count
    return found
