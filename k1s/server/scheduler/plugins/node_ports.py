"""NodePorts: two pods on a node cannot have the same host port."""

from __future__ import annotations

from k1s.server.scheduler.plugin import BasePlugin, CycleState, Refusal
from k1s.server.scheduler.snapshot import HostPort, NodeInfo, PodInfo

_ANY = ("0.0.0.0", "::")


def conflict(one: HostPort, two: HostPort) -> bool:
    """Same protocol and port, on the same address or where one of them takes all addresses."""
    same_address = one[1] == two[1] or one[1] in _ANY or two[1] in _ANY
    return one[0] == two[0] and one[2] == two[2] and same_address


class NodePorts(BasePlugin):
    name = "NodePorts"
    wakes_on = frozenset({"node-added", "pod-removed"})

    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None:
        if pod.ports:
            taken = [port for other in node.pods.values() for port in other.ports]
            if any(conflict(wanted, port) for wanted in pod.ports for port in taken):
                return Refusal(("node(s) didn't have free ports for the requested pod ports",))
        return None
