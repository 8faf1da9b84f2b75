"""NodeUnschedulable: nodes that are cordoned take only pods that tolerate it."""

from __future__ import annotations

from k1s.server.scheduler.plugin import BasePlugin, CycleState, Refusal
from k1s.server.scheduler.plugins.taint_toleration import tolerates
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo

_TAINT = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


class NodeUnschedulable(BasePlugin):
    name = "NodeUnschedulable"
    wakes_on = frozenset({"node-added", "node-updated"})

    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None:
        if node.node.get("spec", {}).get("unschedulable") and not tolerates(pod.pod["spec"].get("tolerations") or [], _TAINT):
            return Refusal(("node(s) were unschedulable",), unresolvable=True)
        return None
