"""Services and Endpoints.

Called by: table.py. Never does: compare with what the cluster supports.
Source: upstream pkg/api/service/warnings.go, pkg/registry/core/endpoint/strategy.go.
"""

from __future__ import annotations

from k1s.api.meta import Object
from k1s.api.warnings.addresses import for_cidr, for_ip

_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"


def service(obj: Object, old: Object | None) -> list[str]:
    spec, out = obj.get("spec") or {}, []
    if _HINTS in ((obj.get("metadata") or {}).get("annotations") or {}):
        out.append(f"annotation {_HINTS} is deprecated, please use {_MODE} instead")
    for index, address in enumerate(spec.get("clusterIPs") or ()):
        out += for_ip(f"spec.clusterIPs[{index}]", address)
    kind, external = spec.get("type"), spec.get("externalIPs") or []
    headless = kind == "ClusterIP" and spec.get("clusterIP") == "None"
    if headless:
        out += _headless(spec)
    for index, address in enumerate(external):
        out += for_ip(f"spec.externalIPs[{index}]", address)
    if external and not headless and kind != "ExternalName":
        out.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    out += for_ip("spec.loadBalancerIP", spec.get("loadBalancerIP"))
    for index, block in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        out += for_cidr(f"spec.loadBalancerSourceRanges[{index}]", block)
    if kind == "ExternalName" and external:
        out.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if kind != "ExternalName" and spec.get("externalName"):
        out.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        out.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return out


def _headless(spec: Object) -> list[str]:
    out = []
    if spec.get("loadBalancerIP"):
        out.append("spec.loadBalancerIP is ignored for headless services")
    if spec.get("externalIPs"):
        out.append("spec.externalIPs is ignored for headless services")
    if spec.get("sessionAffinity") != "None":
        out.append("spec.SessionAffinity is ignored for headless services")
    return out


def service_status(obj: Object, old: Object | None) -> list[str]:
    out = []
    for index, entry in enumerate(((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()):
        out += for_ip(f"status.loadBalancer.ingress[{index}].ip", entry.get("ip"))
    return out


def endpoints(obj: Object, old: Object | None) -> list[str]:
    if old is not None and old.get("subsets") == obj.get("subsets"):
        return []
    out = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        for key in ("addresses", "notReadyAddresses"):
            for number, address in enumerate(subset.get(key) or ()):
                out += for_ip(f"subsets[{index}].{key}[{number}].ip", address.get("ip"))
    return out
