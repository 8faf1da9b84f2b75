"""NodeName: a pod that names its node goes nowhere else."""

from __future__ import annotations

from k1s.server.scheduler.plugin import BasePlugin, CycleState, Refusal
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo


class NodeName(BasePlugin):
    name = "NodeName"
    wakes_on = frozenset({"node-added"})

    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None:
        wanted = pod.pod["spec"].get("nodeName")
        if wanted and wanted != node.name:
            return Refusal(("node(s) didn't match the requested node name",), unresolvable=True)
        return None
