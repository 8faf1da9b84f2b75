"""Hints in EndpointSlices: which nodes and zones an endpoint is meant for.

Owns: `distribute` (spec.trafficDistribution) and `balance` (the annotation topology-mode: Auto). Called by: endpointslice; pure,
on fresh endpoints in place. Never does: I/O; decide whether a proxy follows a hint (net/proxy/endpoints).
Source: upstream k8s.io/endpointslice trafficdist and topologycache; KEP-4444, KEP-3015, KEP-2433.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from k1s.api import meta, quantity
from k1s.client.interface import Object

ZONE = "topology.kubernetes.io/zone"
MODE, OLDER_MODE = "service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"
_CLOSE = ("PreferClose", "PreferSameZone", "PreferSameNode")
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
# No zone may get this much more traffic for its endpoints than the others; else there are no hints at all.
_OVERLOAD = 0.2


def is_auto(service: Object) -> bool:
    annotations = meta.annotations(service)
    return (annotations.get(MODE) or annotations.get(OLDER_MODE)) in ("Auto", "auto")


def distribute(service: Object, endpoints: Iterable[Object]) -> None:
    """trafficDistribution: every ready endpoint is for its own zone, and with PreferSameNode for its own node."""
    distribution = service["spec"].get("trafficDistribution")
    if distribution not in _CLOSE:
        return
    for endpoint in endpoints:
        if not endpoint["conditions"]["ready"]:
            continue
        hints: Object = {}
        if endpoint.get("zone"):
            hints["forZones"] = [{"name": endpoint["zone"]}]
        if endpoint.get("nodeName") and distribution == "PreferSameNode":
            hints["forNodes"] = [{"name": endpoint["nodeName"]}]
        if hints:
            endpoint["hints"] = hints


def balance(endpoints: Sequence[Object], shares: Mapping[str, float]) -> None:
    """topology-mode Auto: endpoints are shared out to zones by the zones' CPUs. No hints where that would overload a zone."""
    # Sorted: the same endpoints get the same hints each time.
    ready = sorted((e for e in endpoints if e["conditions"]["ready"]), key=lambda e: str(e["addresses"]))
    wanted = _wanted(len(ready), shares)
    if wanted is None or not all(endpoint.get("zone") for endpoint in ready):
        return
    zones = [str(endpoint["zone"]) for endpoint in ready]
    giving, receiving = _moves(wanted, {zone: zones.count(zone) for zone in {*zones, *shares}})
    for endpoint, zone in zip(ready, zones, strict=True):
        target = zone
        if giving.get(zone) and receiving:
            giving[zone] -= 1
            target = receiving.pop()
        endpoint["hints"] = {"forZones": [{"name": target}]}


def cpu_shares(nodes: Iterable[Object]) -> dict[str, float]:
    """Each zone's part of the CPUs of ready workers; empty if a node says neither zone nor CPUs, or there is one zone only."""
    cpus: dict[str, float] = {}
    for node in nodes:
        labels = meta.labels(node)
        if any(label in labels for label in _CONTROL_PLANE) or not _is_ready(node):
            continue
        amount = _cpus(node)
        if not labels.get(ZONE) or not amount:
            return {}
        cpus[labels[ZONE]] = cpus.get(labels[ZONE], 0.0) + amount
    total = sum(cpus.values())
    return {zone: amount / total for zone, amount in cpus.items()} if len(cpus) > 1 else {}


def weight(node: Object | None) -> tuple[bool, bool, float]:
    """What `cpu_shares` looks at, but for the zone."""
    if node is None:
        return False, False, 0.0
    return _is_ready(node), any(label in meta.labels(node) for label in _CONTROL_PLANE), _cpus(node)


def _is_ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _cpus(node: Object) -> float:
    text = ((node.get("status") or {}).get("allocatable") or {}).get("cpu")
    try:
        return float(quantity.parse(text)) if text else 0.0
    except ValueError:
        return 0.0


@dataclass(slots=True)
class _Wanted:
    least: int
    desired: float


def _wanted(total: int, shares: Mapping[str, float]) -> dict[str, _Wanted] | None:
    if not 2 <= len(shares) <= total:
        return None
    found = {}
    for zone, share in shares.items():
        least = math.ceil(share * total / (1 + _OVERLOAD))
        found[zone] = _Wanted(least, max(share * total, float(least)))
    return found if sum(zone.least for zone in found.values()) <= total else None


def _moves(wanted: Mapping[str, _Wanted], held: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """How many endpoints each zone gives away, and the zones that receive, once for each they get."""
    differences = {zone: count - (wanted[zone].desired if zone in wanted else 0.0) for zone, count in held.items()}
    spare = {zone: more for zone, more in differences.items() if more > 0}
    needs = {zone: -more for zone, more in differences.items() if more < 0}
    giving: dict[str, int] = {}
    receiving: list[str] = []
    while spare and needs:
        giver = max(sorted(spare), key=lambda zone: spare[zone])
        receiver = max(sorted(needs), key=lambda zone: needs[zone])
        give, need = spare[giver], needs[receiver]
        if (give < 1 and need < 1) or give < 0.5 or need < 0.5:
            break
        giving[giver] = giving.get(giver, 0) + 1
        receiving.append(receiver)
        spare[giver] -= 1
        needs[receiver] -= 1
    return giving, receiving
