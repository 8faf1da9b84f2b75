"""InterPodAffinity: near or far from other pods, required and preferred, as the pod says and as pods that run already say.

Source: scheduler/framework/plugins/interpodaffinity. Computed once a pod in `prepare`; `filter` looks at the node's labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from k1s.api import meta
from k1s.api.selectors import labels_from
from k1s.server.scheduler.plugin import MAX_SCORE, BasePlugin, CycleState, Refusal
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

Object = Mapping[str, Any]
Pair = tuple[str, str]  # topology key, value

_REQUIRED, _PREFERRED = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
# How much an existing pod's required affinity attracts others (hardPodAffinityWeight).
_HARD_WEIGHT = 1


@dataclass(slots=True)
class _Findings:
    near: list[Object] = field(default_factory=list)
    near_pairs: Counter[tuple[int, Pair]] = field(default_factory=Counter)
    far_pairs: set[Pair] = field(default_factory=set)
    forbidden: set[Pair] = field(default_factory=set)
    pulls: Counter[Pair] = field(default_factory=Counter)
    alone: bool = False


class InterPodAffinity(BasePlugin):
    name = "InterPodAffinity"
    weight = 2
    wakes_on = frozenset({"node-added", "node-updated", "pod-added", "pod-updated", "pod-removed"})

    def prepare(self, pod: PodInfo, state: CycleState) -> Refusal | None:
        state.values[self.name] = _find(pod, state.snapshot)
        return None

    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None:
        found: _Findings = state.values[self.name]
        labels = meta.labels(node.node)
        if found.near and not _near(found, labels):
            return Refusal(("node(s) didn't match pod affinity rules",), unresolvable=True)
        if any(labels.get(key) == value for key, value in found.far_pairs):
            return Refusal(("node(s) didn't match pod anti-affinity rules",))
        if any(labels.get(key) == value for key, value in found.forbidden):
            return Refusal(("node(s) didn't satisfy existing pods anti-affinity rules",))
        return None

    def score(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> int:
        found: _Findings = state.values[self.name]
        labels = meta.labels(node.node)
        return sum(weight for (key, value), weight in found.pulls.items() if labels.get(key) == value)

    def normalize(self, scores: dict[str, int], state: CycleState) -> None:
        low, high = min(scores.values()), max(scores.values())
        for name, score in scores.items():
            scores[name] = MAX_SCORE * (score - low) // (high - low) if high > low else 0


def _near(found: _Findings, labels: Mapping[str, str]) -> bool:
    if any(term["topologyKey"] not in labels for term in found.near):
        return False
    if found.alone:
        return True  # the first of a group that wants to be together
    return all(found.near_pairs[i, (t["topologyKey"], labels[t["topologyKey"]])] > 0 for i, t in enumerate(found.near))


def _find(pod: PodInfo, snapshot: Snapshot) -> _Findings:
    near, far = terms(pod.pod, "podAffinity"), terms(pod.pod, "podAntiAffinity")
    wishes = [(w["podAffinityTerm"], int(w["weight"])) for w in terms(pod.pod, "podAffinity", _PREFERRED)]
    wishes += [(w["podAffinityTerm"], -int(w["weight"])) for w in terms(pod.pod, "podAntiAffinity", _PREFERRED)]
    found = _Findings(near=near)
    for node in snapshot.nodes():
        labels = meta.labels(node.node)
        for other in node.pods.values():
            if other.affinity:
                _existing(found, pod, other, labels, snapshot)
            if near and all(matches(term, pod.pod, other.pod, snapshot) for term in near):
                for index, term in enumerate(near):
                    for pair in _pairs(term, labels):
                        found.near_pairs[index, pair] += 1
            for term in far:
                if matches(term, pod.pod, other.pod, snapshot):
                    found.far_pairs.update(_pairs(term, labels))
            for term, weight in wishes:
                if matches(term, pod.pod, other.pod, snapshot):
                    found.pulls.update({pair: weight for pair in _pairs(term, labels)})
    found.alone = not found.near_pairs and all(matches(term, pod.pod, pod.pod, snapshot) for term in near)
    return found


def _existing(found: _Findings, pod: PodInfo, other: PodInfo, labels: Mapping[str, str], snapshot: Snapshot) -> None:
    """What a pod that runs already says about the new one."""
    for term in terms(other.pod, "podAntiAffinity"):
        if matches(term, other.pod, pod.pod, snapshot):
            found.forbidden.update(_pairs(term, labels))
    for term in terms(other.pod, "podAffinity"):
        if matches(term, other.pod, pod.pod, snapshot):
            found.pulls.update({pair: _HARD_WEIGHT for pair in _pairs(term, labels)})
    for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        for wish in terms(other.pod, kind, _PREFERRED):
            if matches(wish["podAffinityTerm"], other.pod, pod.pod, snapshot):
                found.pulls.update({pair: sign * int(wish["weight"]) for pair in _pairs(wish["podAffinityTerm"], labels)})


def terms(pod: Object, kind: str, when: str = _REQUIRED) -> list[Object]:
    return list(((pod["spec"].get("affinity") or {}).get(kind) or {}).get(when) or ())


def _pairs(term: Object, labels: Mapping[str, str]) -> Iterator[Pair]:
    key = term["topologyKey"]
    if key in labels:
        yield key, labels[key]


def matches(term: Object, owner: Object, other: Object, snapshot: Snapshot) -> bool:
    """Whether `other` is one of the pods that a term of `owner` means."""
    namespace = other["metadata"].get("namespace") or ""
    if not _namespace_matches(term, owner, namespace, snapshot):
        return False
    labels = other["metadata"].get("labels") or {}
    own = owner["metadata"].get("labels") or {}
    return (
        labels_from(term.get("labelSelector")).matches(labels)
        and _same(term.get("matchLabelKeys"), own, labels, True)
        and _same(term.get("mismatchLabelKeys"), own, labels, False)
    )


def _same(keys: Iterable[str] | None, own: Mapping[str, str], labels: Mapping[str, str], wanted: bool) -> bool:
    return all((labels.get(key) == own[key]) is wanted for key in keys or () if key in own)


def _namespace_matches(term: Object, owner: Object, namespace: str, snapshot: Snapshot) -> bool:
    listed, selector = term.get("namespaces") or (), term.get("namespaceSelector")
    if not listed and selector is None:
        return namespace == (owner["metadata"].get("namespace") or "")
    if namespace in listed:
        return True
    return selector is not None and labels_from(selector).matches(snapshot.namespaces.get(namespace) or {})
