"""Ingresses, NetworkPolicies and EndpointSlices.

Called by: table.py. Never does: refuse an address (validation does).
Source: the strategies of upstream's pkg/registry/networking and pkg/registry/discovery.
"""

from __future__ import annotations

from k1s.api.meta import Object
from k1s.api.warnings.addresses import for_cidr, for_ip

_CLASS = "kubernetes.io/ingress.class"
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
# Their addresses are canonical: nobody could act on what there is to say.
_CONTROLLERS = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")


def ingress(obj: Object, old: Object | None) -> list[str]:
    """Only of new ones: who changes another field is not asked to."""
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    if old is not None or _CLASS not in annotations or (obj.get("spec") or {}).get("ingressClassName") is not None:
        return []
    return [f"annotation \"{_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"]


def ingress_status(obj: Object, old: Object | None) -> list[str]:
    out = []
    for index, entry in enumerate(((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()):
        out += for_ip(f"status.loadBalancer.ingress[{index}].ip", entry.get("ip"))
    return out


def network_policy(obj: Object, old: Object | None) -> list[str]:
    spec, out = obj.get("spec") or {}, []
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(spec.get(direction) or ()):
            for j, peer in enumerate(rule.get(peers) or ()):
                at, block = f"spec.{direction}[{i}].{peers}[{j}].ipBlock", peer.get("ipBlock") or {}
                out += for_cidr(f"{at}.cidr", block.get("cidr"))
                for k, hole in enumerate(block.get("except") or ()):
                    out += for_cidr(f"{at}.except[{k}]", hole)
    return out


def endpoint_slice(obj: Object, old: Object | None) -> list[str]:
    out = []
    if obj.get("addressType") == "FQDN":
        out.append("spec.addressType: FQDN endpoints are deprecated")
    if ((obj.get("metadata") or {}).get("labels") or {}).get(_MANAGED_BY) in _CONTROLLERS:
        return out
    for index, endpoint in enumerate(obj.get("endpoints") or ()):
        for number, address in enumerate(endpoint.get("addresses") or ()):
            out += for_ip(f"endpoints[{index}].addresses[{number}]", address)
    return out
