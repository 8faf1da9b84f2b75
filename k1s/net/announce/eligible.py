"""Which nodes may serve a Service of type LoadBalancer.

Owns: the class that is ours, the condition that says what a Service got, the node labels, local endpoints.
Called by: server/controllers/service_lb* (writes the status), agent/network/announce (announces it); pure.
Never does: I/O; look at a node's readiness (the control plane has its conditions, a node knows its own).
Source: k3s' ServiceLB for the labels, upstream cloud-provider controllers/service for the exclusion, KEP-1669 for endpoints
that end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from k1s.api import meta

Object = dict[str, Any]

CLASS = "k1s.io/servicelb"
# In a Service's status.conditions; its presence says that the address is ours, its reason where it comes from.
CONDITION = "k1s.io/LoadBalancer"
FROM_NODES, FROM_POOL = "NodeAddresses", "PoolAddress"

ENABLE_LABEL = "svccontroller.k3s.cattle.io/enablelb"
POOL_LABEL = "svccontroller.k3s.cattle.io/lbpool"
EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
_EXCLUDE_TAINT = "ToBeDeletedByClusterAutoscaler"


def wants_balancer(service: Object) -> bool:
    """It is for us to serve: of type LoadBalancer, of no class or ours, and not on its way out."""
    spec = service.get("spec") or {}
    return (
        spec.get("type") == "LoadBalancer"
        and spec.get("loadBalancerClass") in (None, "", CLASS)
        and not meta.is_deleting(service)
    )


def is_local(service: Object) -> bool:
    return bool((service.get("spec") or {}).get("externalTrafficPolicy") == "Local")


def pool_addresses(service: Object) -> tuple[str, ...]:
    """The addresses that a node has to announce for this Service."""
    found = meta.condition(service, CONDITION)
    if not wants_balancer(service) or found is None or found.get("reason") != FROM_POOL:
        return ()
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return tuple(entry["ip"] for entry in ingress if entry.get("ip"))


def candidates(service: Object, nodes: Iterable[Object]) -> list[Object]:
    """The nodes whose labels let them serve it.

    One node with the label enablelb, whatever its value, and only those with `true` serve; a Service's lbpool label asks for
    nodes of the same.
    """
    everyone = list(nodes)
    chosen = [node for node in everyone if not _excluded(node)]
    if any(ENABLE_LABEL in meta.labels(node) for node in everyone):
        chosen = [node for node in chosen if meta.labels(node).get(ENABLE_LABEL) == "true"]
    pool = meta.labels(service).get(POOL_LABEL)
    return [node for node in chosen if meta.labels(node).get(POOL_LABEL) == pool] if pool else chosen


def _excluded(node: Object) -> bool:
    taints = (node.get("spec") or {}).get("taints") or ()
    return (
        EXCLUDE_LABEL in meta.labels(node)
        or meta.is_deleting(node)
        or any(taint.get("key") == _EXCLUDE_TAINT for taint in taints)
    )


def nodes_with_endpoints(slices: Iterable[Object]) -> frozenset[str]:
    """Nodes that have a ready endpoint; where nobody has one, those whose endpoints end but still serve."""
    ready, ending = set(), set()
    for piece in slices:
        for endpoint in piece.get("endpoints") or ():
            node, conditions = endpoint.get("nodeName"), endpoint.get("conditions") or {}
            if not node:
                continue
            if conditions.get("ready") is not False:
                ready.add(node)
            elif conditions.get("serving") and conditions.get("terminating"):
                ending.add(node)
    return frozenset(ready or ending)
