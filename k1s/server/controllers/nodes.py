"""What several controllers need to know about nodes.

Owns: the taints that conditions mean, tolerations against taints, pods by node. Called by: node_lifecycle, taint_eviction,
pod_gc, daemonset. Never does: I/O.
Source: upstream pkg/controller/nodelifecycle and component-helpers scheduling corev1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k1s.api import meta
from k1s.client.interface import Informer, Object

BY_NODE = "node-name"

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_OURS = frozenset(
    [(key, "NoSchedule") for key in (*_PRESSURES.values(), NOT_READY, UNREACHABLE, UNSCHEDULABLE)]
    + [(NOT_READY, "NoExecute"), (UNREACHABLE, "NoExecute")]
)


def index_by_node(pods: Informer) -> None:
    pods.add_index(BY_NODE, _node_of)


def _node_of(pod: Object) -> Iterable[str]:
    name = (pod.get("spec") or {}).get("nodeName")
    return (name,) if name else ()


def pods_on(pods: Informer, node: str) -> Iterable[Object]:
    return pods.by_index(BY_NODE, node)


def taints_of(node: Object) -> list[Object]:
    return (node.get("spec") or {}).get("taints") or []


def ready_status(node: Object) -> str:
    """True, False or Unknown; a node that never said is Unknown."""
    found = meta.condition(node, "Ready")
    return str(found.get("status", "Unknown")) if found else "Unknown"


def wanted_taints(node: Object, *, evict: bool, stamp: str) -> list[Object]:
    """The taints the node should have: others' as they are, ours as its conditions say. `evict`: NoExecute may be put on."""
    ready = ready_status(node)
    keys = [key for kind, key in _PRESSURES.items() if meta.is_true(node, kind)]
    if (node.get("spec") or {}).get("unschedulable"):
        keys.append(UNSCHEDULABLE)
    unhealthy = {"False": NOT_READY, "Unknown": UNREACHABLE}.get(ready)
    if unhealthy:
        keys.append(unhealthy)
    wanted = [(key, "NoSchedule") for key in keys]
    if unhealthy and evict:
        wanted.append((unhealthy, "NoExecute"))
    kept = {(t["key"], t["effect"]): t for t in taints_of(node) if (t["key"], t["effect"]) in _OURS}
    out = [t for t in taints_of(node) if (t["key"], t["effect"]) not in _OURS]
    for key, effect in wanted:
        out.append(kept.get((key, effect)) or {"key": key, "effect": effect, "timeAdded": stamp})
    return out


def tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    if operator == "Equal":
        return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")
    return _compares(operator, toleration.get("value") or "", taint.get("value") or "")


def _compares(operator: str, wanted: str, found: str) -> bool:
    """Gt and Lt: numeric taint values."""
    try:
        return int(found) > int(wanted) if operator == "Gt" else operator == "Lt" and int(found) < int(wanted)
    except ValueError:
        return False


def untolerated(tolerations: Sequence[Object], taints: Iterable[Object], effects: Sequence[str]) -> list[Object]:
    return [t for t in taints if t.get("effect") in effects and not any(tolerates(tol, t) for tol in tolerations)]
