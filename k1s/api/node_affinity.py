"""Which nodes a pod or a volume may be on, by labels and name: pure.

Owns: v1.NodeSelector and the pod's required node affinity. Called by: the scheduler's plugins, DaemonSets, volume binding.
Never does: taints, preferences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k1s.api import meta
from k1s.api.selectors import EXISTS, GREATER, IN, LESS, NOT_EXISTS, NOT_IN, Requirement

Object = Mapping[str, Any]
_OPERATORS = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": NOT_EXISTS, "Gt": GREATER, "Lt": LESS}


def matches_term(term: Object, node: Object) -> bool:
    """v1.NodeSelectorTerm: all expressions and fields; an empty term matches nothing."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    labels = meta.labels(node)
    names = {"metadata.name": meta.name(node)}
    return all(_requirement(e).matches(labels) for e in expressions) and all(_requirement(f).matches(names) for f in fields)


def selects(selector: Object | None, node: Object) -> bool:
    """v1.NodeSelector: one of its terms; None selects every node."""
    return selector is None or any(matches_term(term, node) for term in selector.get("nodeSelectorTerms") or ())


def allows_pod(spec: Object, node: Object) -> bool:
    """The pod spec's nodeSelector and required node affinity hold on the node."""
    labels = meta.labels(node)
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    return selects(affinity.get("requiredDuringSchedulingIgnoredDuringExecution"), node)


def allows_volume(volume: Object, node: Object) -> bool:
    """The PersistentVolume can be reached from the node."""
    return selects((volume["spec"].get("nodeAffinity") or {}).get("required"), node)


def _requirement(expression: Object) -> Requirement:
    # Checked already when the object was written.
    return Requirement(expression["key"], _OPERATORS[expression["operator"]], tuple(expression.get("values") or ()))
