"""What a write of a Service means for its addresses, families and ports, before anything is taken from a pool.

Owns: carrying over what the client left out, dropping what another type needed, working out ipFamilies. Called by: allocators;
pure, on `spec` in place. Never does: know which addresses are free.
Source: upstream pkg/registry/core/service: patchAllocatedValues, normalizeClusterIPs, dropTypeDependentFields,
initIPFamilyFields.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from k1s.api.errors import FieldError, invalid_value
from k1s.api.validation.service_addresses import cluster_addresses

Object = dict[str, Any]

_MULTIPLE = "must be 'RequireDualStack' or 'PreferDualStack' when multiple {} are specified"
_RELEASE = "must be 'SingleStack' to release the secondary {}"


def needs_address(spec: Object) -> bool:
    return bool(spec) and (spec.get("type") or "ClusterIP") != "ExternalName"


def needs_node_ports(spec: Object) -> bool:
    kind = spec.get("type")
    return kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False)


def needs_health_port(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _exposed(spec: Object) -> bool:
    kind = spec.get("type") or "ClusterIP"
    return kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def _balanced(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer"


def carry_over(spec: Object, before: Object) -> None:
    """An update that leaves out what the server had given means to keep it."""
    if needs_address(before) and needs_address(spec):
        if not spec.get("clusterIP") and before.get("clusterIP"):
            spec["clusterIP"] = before["clusterIP"]
        if not spec.get("clusterIPs") and spec.get("clusterIP") == before.get("clusterIP") and before.get("clusterIPs"):
            spec["clusterIPs"] = list(before["clusterIPs"])
    if needs_node_ports(before) and needs_node_ports(spec):
        _carry_node_ports(spec.get("ports") or [], before.get("ports") or [])
    if needs_health_port(before) and needs_health_port(spec) and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = before.get("healthCheckNodePort")


def _carry_node_ports(ports: list[Object], before: list[Object]) -> None:
    """By the port's name: everything else about it may have changed."""
    used = {p["nodePort"] for p in before if p.get("nodePort")} & {p["nodePort"] for p in ports if p.get("nodePort")}
    by_name = {p.get("name") or "": p.get("nodePort") for p in before}
    for port in ports:
        number = by_name.get(port.get("name") or "")
        if number and not port.get("nodePort") and number not in used:
            port["nodePort"] = number
            used.add(number)


def normalize(spec: Object, before: Object) -> None:
    """clusterIP is the older name of clusterIPs[0]; a client that knows only the one need not set the other."""
    first, many = spec.get("clusterIP"), spec.get("clusterIPs")
    if not before:
        if first and not many:
            spec["clusterIPs"] = [first]
    elif first != before.get("clusterIP") and (many or []) == (before.get("clusterIPs") or []):
        if first:
            spec["clusterIPs"] = [first]
        else:
            spec.pop("clusterIPs", None)


def drop_foreign(spec: Object, before: Object) -> None:
    """When the type changes, what the old type needed goes, unless the client has just set it anew."""
    if not before:
        return
    if needs_address(before) and not needs_address(spec):
        if (spec.get("clusterIPs") or []) == (before.get("clusterIPs") or []):
            for field in ("clusterIP", "clusterIPs"):
                spec.pop(field, None)
        _drop_same(spec, before, "ipFamilies", "ipFamilyPolicy")
    if needs_node_ports(before) and not needs_node_ports(spec):
        ports = spec.get("ports") or []
        if _numbers(ports) == _numbers(before.get("ports") or []):
            for port in ports:
                port.pop("nodePort", None)
    if needs_health_port(before) and not needs_health_port(spec):
        _drop_same(spec, before, "healthCheckNodePort")
    if _balanced(before) and not _balanced(spec):
        _drop_same(spec, before, "allocateLoadBalancerNodePorts", "loadBalancerClass")
    if _exposed(before) and not _exposed(spec):
        _drop_same(spec, before, "externalTrafficPolicy")


def _drop_same(spec: Object, before: Object, *fields: str) -> None:
    for field in fields:
        if spec.get(field) == before.get(field):
            spec.pop(field, None)


def _numbers(ports: list[Object]) -> set[int]:
    return {port["nodePort"] for port in ports if port.get("nodePort")}


def keeps_dual_stack(spec: Object, before: Object) -> bool:
    """A Service that prefers two families and did not change them is not touched, whatever families the cluster has by now."""
    same = all((spec.get(field) or []) == (before.get(field) or []) for field in ("clusterIPs", "ipFamilies"))
    both = spec.get("ipFamilyPolicy") == before.get("ipFamilyPolicy") == "PreferDualStack"
    return bool(before) and both and same and needs_address(before) == needs_address(spec)


def choose_families(spec: Object, before: Object, available: Sequence[str]) -> list[FieldError]:
    """Set ipFamilyPolicy and ipFamilies. `available`: the cluster's families, its own first."""
    errors: list[FieldError] = []
    if not needs_address(spec) or keeps_dual_stack(spec, before):
        return errors
    if not spec.get("ipFamilyPolicy"):
        spec["ipFamilyPolicy"] = before.get("ipFamilyPolicy") or ("RequireDualStack" if _bare(spec) else "SingleStack")
    cluster_addresses(errors, spec)
    if errors:
        return errors
    _release(errors, spec, before)
    if spec["ipFamilyPolicy"] == "SingleStack":
        for field, what in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")):
            if len(spec.get(field) or ()) == 2:
                errors.append(invalid_value("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], _MULTIPLE.format(what)))
    _infer(errors, spec, available)
    if not errors and not _bare(spec):
        _check_available(errors, spec, available)
    if not errors:
        _complete(spec, available)
    return errors


def _bare(spec: Object) -> bool:
    """Headless and without a selector: nobody but its author knows its addresses."""
    return spec.get("clusterIP") == "None" and not spec.get("selector")


def _release(errors: list[FieldError], spec: Object, before: Object) -> None:
    """Turning to one family gives the second one back; giving it back without saying so is a mistake."""
    for field, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        now, was = spec.get(field) or [], before.get(field) or []
        if not was:
            continue
        if spec["ipFamilyPolicy"] == "SingleStack":
            if now == was and len(now) > 1:
                spec[field] = now[:1]
        elif len(now) == 1 and len(was) == 2:
            errors.append(invalid_value("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], _RELEASE.format(what)))


def _infer(errors: list[FieldError], spec: Object, available: Sequence[str]) -> None:
    """Families of the addresses that the client chose."""
    addresses, families = spec.get("clusterIPs") or [], list(spec.get("ipFamilies") or [])
    for index, address in enumerate(addresses):
        if address == "None" or index < len(families):
            continue
        family = f"IPv{ipaddress.ip_address(address).version}"
        if family not in available:
            text = f"{family} is not configured on this cluster"
            errors.append(invalid_value(f"spec.clusterIPs[{index}]", addresses, text))
        else:
            families.append(family)
    if families:
        spec["ipFamilies"] = families


def _check_available(errors: list[FieldError], spec: Object, available: Sequence[str]) -> None:
    if spec["ipFamilyPolicy"] == "RequireDualStack" and len(available) < 2:
        text = "this cluster is not configured for dual-stack services"
        errors.append(invalid_value("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], text))
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in available:
            errors.append(invalid_value(f"spec.ipFamilies[{index}]", family, "not configured on this cluster"))


def _complete(spec: Object, available: Sequence[str]) -> None:
    families = list(spec.get("ipFamilies") or available[:1])
    both = len(available) == 2 or _bare(spec)
    if spec["ipFamilyPolicy"] != "SingleStack" and len(families) == 1 and both:
        families.append("IPv6" if families[0] == "IPv4" else "IPv4")
    spec["ipFamilies"] = families
