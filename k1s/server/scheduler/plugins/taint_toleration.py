"""TaintToleration: NoSchedule and NoExecute taints keep pods away, PreferNoSchedule ones cost score.

Owns: `tolerates`, the rule of v1.Toleration.ToleratesTaint. Never does: evict (the node lifecycle controller).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k1s.server.scheduler.plugin import BasePlugin, CycleState, Refusal, scale_to_max
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo

Object = Mapping[str, Any]


def tolerates(tolerations: Sequence[Object], taint: Object) -> bool:
    """Whether any toleration covers the taint."""
    return any(_covers(toleration, taint) for toleration in tolerations)


def _covers(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    if operator in ("Lt", "Gt"):
        return _compare(operator, str(toleration.get("value") or ""), str(taint.get("value") or ""))
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def _compare(operator: str, tolerated: str, value: str) -> bool:
    try:
        return int(value) < int(tolerated) if operator == "Lt" else int(value) > int(tolerated)
    except ValueError:
        return False


class TaintToleration(BasePlugin):
    name = "TaintToleration"
    weight = 3
    wakes_on = frozenset({"node-added", "node-updated"})

    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None:
        tolerations = pod.pod["spec"].get("tolerations") or []
        for taint in node.node.get("spec", {}).get("taints") or []:
            if taint.get("effect") in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
                # With PodInfo's own words of upstream: key, then value in braces.
                return Refusal(
                    (f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}",), unresolvable=True
                )
        return None

    def score(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> int:
        tolerations = [t for t in pod.pod["spec"].get("tolerations") or [] if t.get("effect") in (None, "", "PreferNoSchedule")]
        taints = node.node.get("spec", {}).get("taints") or []
        return sum(1 for t in taints if t.get("effect") == "PreferNoSchedule" and not tolerates(tolerations, t))

    def normalize(self, scores: dict[str, int], state: CycleState) -> None:
        scale_to_max(scores, reverse=True)
