"""Ports of nodes that something else than a LoadBalancer Service has: node ports of Services, host ports of pods.

Owns: finding who has such a port, by indexes over the caches. Called by: service_lb. Never does: decide who may have it; I/O.
"""

from __future__ import annotations

from k1s.api import meta
from k1s.client.interface import Informer, Object
from k1s.server.controllers import pods
from k1s.server.controllers.service_lb_plan import Port, age

_NODE_PORT, _HOST_PORT = "node-port", "host-port"


class NodePorts:
    """`owner` is service_lb_plan's Busy."""

    def __init__(self, services: Informer, pods: Informer) -> None:
        self._services, self._pods = services, pods
        services.add_index(_NODE_PORT, node_ports)
        pods.add_index(_HOST_PORT, host_ports)

    def owner(self, node: str, port: Port, service: Object) -> str:
        """Only who was there before the Service: what comes later does not take its address away."""
        protocol, number = port
        for other in self._services.by_index(_NODE_PORT, f"{protocol}/{number}"):
            if meta.uid(other) != meta.uid(service) and age(other) < age(service):
                return f"Service {meta.key(other)} as its node port"
        for pod in self._pods.by_index(_HOST_PORT, f"{node}/{protocol}/{number}"):
            if age(pod) < age(service):
                return f"Pod {meta.key(pod)} as its host port"
        return ""


def node_ports(service: Object) -> list[str]:
    ports = (service.get("spec") or {}).get("ports") or ()
    return [f"{port.get('protocol') or 'TCP'}/{port['nodePort']}" for port in ports if port.get("nodePort")]


def host_ports(pod: Object) -> list[str]:
    """node/protocol/port of a pod that has not ended; those of one address of the node (127.0.0.1, say) are not in the way."""
    spec = pod.get("spec") or {}
    node, found = spec.get("nodeName"), []
    for container in spec.get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("hostPort") and port.get("hostIP") in (None, "", "0.0.0.0", "::"):
                found.append(f"{node}/{port.get('protocol') or 'TCP'}/{port['hostPort']}")
    return found if node and not pods.is_terminal(pod) else []
