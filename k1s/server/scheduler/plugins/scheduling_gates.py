"""SchedulingGates: a pod with gates is not looked at until they are gone (KEP-3521)."""

from __future__ import annotations

from k1s.server.scheduler.plugin import BasePlugin, CycleState, Refusal
from k1s.server.scheduler.snapshot import PodInfo


class SchedulingGates(BasePlugin):
    name = "SchedulingGates"
    wakes_on = frozenset({"pod-updated"})

    def prepare(self, pod: PodInfo, state: CycleState) -> Refusal | None:
        gates = [gate["name"] for gate in pod.pod["spec"].get("schedulingGates") or []]
        if gates:
            return Refusal((f"waiting for scheduling gates: [{' '.join(gates)}]",), unresolvable=True)
        return None
