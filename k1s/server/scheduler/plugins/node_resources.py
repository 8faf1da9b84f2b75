"""NodeResourcesFit and NodeResourcesBalancedAllocation: what is free, and how evenly it is used."""

from __future__ import annotations

from k1s.server.scheduler.plugin import MAX_SCORE, BasePlugin, CycleState, Refusal
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo


class NodeResourcesFit(BasePlugin):
    """Filters by requests; scores by LeastAllocated over cpu and memory."""

    name = "NodeResourcesFit"
    weight = 1
    wakes_on = frozenset({"node-added", "node-updated", "pod-removed", "pod-updated"})

    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None:
        reasons, hopeless = [], False
        if len(node.pods) + 1 > node.allocatable.get("pods", 0):
            reasons.append("Too many pods")
        for name, wanted in pod.requests.items():
            total = node.allocatable.get(name, 0)
            if wanted and wanted > total - node.requested.get(name, 0):
                reasons.append(f"Insufficient {name}")
                hopeless = hopeless or wanted > total
        return Refusal(tuple(reasons), hopeless) if reasons else None

    def score(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> int:
        scores = []
        for name in ("cpu", "memory"):
            total = node.allocatable.get(name, 0)
            used = node.scored.get(name, 0) + pod.scored_requests.get(name, 0)
            if total:
                scores.append(MAX_SCORE * max(total - used, 0) // total)
        return sum(scores) // len(scores) if scores else 0


class NodeResourcesBalancedAllocation(BasePlugin):
    """Prefers nodes whose cpu and memory would be used to like shares."""

    name = "NodeResourcesBalancedAllocation"
    weight = 1

    def score(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> int:
        shares = []
        for name in ("cpu", "memory"):
            total = node.allocatable.get(name, 0)
            if total:
                shares.append(min((node.requested.get(name, 0) + pod.requests.get(name, 0)) / total, 1.0))
        if len(shares) < 2:
            return MAX_SCORE
        return int((1 - abs(shares[0] - shares[1]) / 2) * MAX_SCORE)
