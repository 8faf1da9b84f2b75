"""NodeAffinity: nodeSelector and node affinity, required and preferred."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k1s.api import meta
from k1s.api.selectors import EXISTS, GREATER, IN, LESS, NOT_EXISTS, NOT_IN, Requirement
from k1s.server.scheduler.plugin import BasePlugin, CycleState, Refusal, scale_to_max
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo

Object = Mapping[str, Any]


def matches_term(term: Object, node: Object) -> bool:
    """v1.NodeSelectorTerm: all expressions and fields; an empty term matches nothing."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    labels = meta.labels(node)
    names = {"metadata.name": meta.name(node)}
    return all(_requirement(e).matches(labels) for e in expressions) and all(_requirement(f).matches(names) for f in fields)


_OPERATORS = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": NOT_EXISTS, "Gt": GREATER, "Lt": LESS}


def _requirement(expression: Object) -> Requirement:
    # Checked already when the pod was written.
    return Requirement(expression["key"], _OPERATORS[expression["operator"]], tuple(expression.get("values") or ()))


def required_matches(pod: Object, node: Object) -> bool:
    """Whether nodeSelector and the required node affinity let the pod onto the node."""
    labels = meta.labels(node)
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(matches_term(term, node) for term in required.get("nodeSelectorTerms") or [])


class NodeAffinity(BasePlugin):
    name = "NodeAffinity"
    weight = 2
    wakes_on = frozenset({"node-added", "node-updated"})

    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None:
        if not required_matches(pod.pod, node.node):
            return Refusal(("node(s) didn't match Pod's node affinity/selector",), unresolvable=True)
        return None

    def score(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> int:
        affinity = (pod.pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
        preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []
        return sum(int(p["weight"]) for p in preferred if matches_term(p.get("preference") or {}, node.node))

    def normalize(self, scores: dict[str, int], state: CycleState) -> None:
        scale_to_max(scores)
