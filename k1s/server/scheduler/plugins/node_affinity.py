"""NodeAffinity: nodeSelector and node affinity, required and preferred."""

from __future__ import annotations

from k1s.api.node_affinity import allows_pod, matches_term
from k1s.server.scheduler.plugin import BasePlugin, CycleState, Refusal, scale_to_max
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo


class NodeAffinity(BasePlugin):
    name = "NodeAffinity"
    weight = 2
    wakes_on = frozenset({"node-added", "node-updated"})

    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None:
        if not allows_pod(pod.pod["spec"], node.node):
            return Refusal(("node(s) didn't match Pod's node affinity/selector",), unresolvable=True)
        return None

    def score(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> int:
        affinity = (pod.pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
        preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []
        return sum(int(p["weight"]) for p in preferred if matches_term(p.get("preference") or {}, node.node))

    def normalize(self, scores: dict[str, int], state: CycleState) -> None:
        scale_to_max(scores)
