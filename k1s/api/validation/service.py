"""Services, and the Endpoints of old.

Called by: table.py. Never does: allocate (the apiserver's allocators), compare with other services, EndpointSlices (services.py).
Source: upstream ValidateService, ValidateServiceUpdate, ValidateLoadBalancerStatus, validateEndpointSubsets.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.object_meta import label_map
from k1s.api.validation.rules import Errors, one_of, port, port_or_name, strings
from k1s.api.validation.service_addresses import cluster_addresses, cluster_addresses_update, headless, usable_address

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_EXTERNAL = ("LoadBalancer", "NodePort")
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_ONLY_BALANCER = "may only be used when `type` is 'LoadBalancer'"
_MAX_AFFINITY = 86400
_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"


def _annotations(obj: Object) -> dict[str, Any]:
    return (obj.get("metadata") or {}).get("annotations") or {}


def service(errs: Errors, obj: Object) -> None:
    spec, notes = obj.get("spec") or {}, _annotations(obj)
    if _MODE in notes and _HINTS in notes and notes[_MODE] != notes[_HINTS]:
        text = f"must match annotations[{_HINTS}] when both are specified"
        errs.append(invalid_value(f"metadata.annotations[{_MODE}]", notes[_MODE], text))
    if not spec.get("ports") and not headless(spec) and spec.get("type") != "ExternalName":
        errs.append(required("spec.ports"))
    _type_rules(errs, spec)
    seen: set[str] = set()
    for index, entry in enumerate(spec.get("ports") or ()):
        _port(errs, f"spec.ports[{index}]", entry, seen, name_needed=len(spec["ports"]) > 1)
    label_map(errs, "spec.selector", spec.get("selector"))
    _affinity(errs, spec)
    cluster_addresses(errs, spec)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        usable_address(errs, f"spec.externalIPs[{index}]", address)
    one_of(errs, "spec.type", spec.get("type"), _TYPES, needed=True)
    _ports_once(errs, spec)
    _source_ranges(errs, spec, notes)
    _balancer(errs, spec)
    _external_traffic(errs, spec)
    _internal_traffic(errs, spec)


def _type_rules(errs: Errors, spec: Object) -> None:
    kind = spec.get("type")
    if kind in _EXTERNAL and headless(spec):
        errs.append(invalid_value("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    if kind != "ExternalName":
        return
    for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(key):
            errs.append(forbidden_field(f"spec.{key}", "may not be set for ExternalName services"))
    # A trailing dot makes it absolute, which is fine.
    target = (spec.get("externalName") or "").removesuffix(".")
    if target:
        strings(errs, "spec.externalName", target, names.dns1123_subdomain)
    else:
        errs.append(required("spec.externalName"))


def _port(errs: Errors, at: str, entry: Object, seen: set[str], *, name_needed: bool) -> None:
    name = entry.get("name") or ""
    if name:
        strings(errs, f"{at}.name", name, names.dns1123_label)
        if name in seen:
            errs.append(duplicate(f"{at}.name", name))
        seen.add(name)
    elif name_needed:
        errs.append(required(f"{at}.name"))
    port(errs, f"{at}.port", entry.get("port") or 0)
    one_of(errs, f"{at}.protocol", entry.get("protocol"), _PROTOCOLS, needed=True)
    target = entry.get("targetPort")
    port_or_name(errs, f"{at}.targetPort", 0 if target is None else target)
    if entry.get("appProtocol") is not None:
        strings(errs, f"{at}.appProtocol", entry["appProtocol"], names.qualified_name)


def _ports_once(errs: Errors, spec: Object) -> None:
    """No node port without its type; no number of a protocol twice."""
    ports = spec.get("ports") or ()
    for index, entry in enumerate(ports) if spec.get("type") == "ClusterIP" else ():
        if entry.get("nodePort"):
            errs.append(forbidden_field(f"spec.ports[{index}].nodePort", "may not be used when `type` is 'ClusterIP'"))
    nodes: set[tuple[Any, Any]] = set()
    for index, entry in enumerate(ports):
        key = (entry.get("protocol"), entry.get("nodePort"))
        if entry.get("nodePort") and key in nodes:
            errs.append(duplicate(f"spec.ports[{index}].nodePort", entry["nodePort"]))
        nodes.add(key)
    numbers: set[tuple[Any, Any]] = set()
    for index, entry in enumerate(ports):
        key = (entry.get("protocol"), entry.get("port"))
        if key in numbers:
            # The internal type has no JSON names, so Go's field names show.
            shown = {"Name": "", "Protocol": key[0], "AppProtocol": None, "Port": key[1], "TargetPort": 0, "NodePort": 0}
            errs.append(duplicate(f"spec.ports[{index}]", shown))
        numbers.add(key)


def _affinity(errs: Errors, spec: Object) -> None:
    affinity, config = spec.get("sessionAffinity"), spec.get("sessionAffinityConfig")
    one_of(errs, "spec.sessionAffinity", affinity, ("ClientIP", "None"), needed=True)
    at, why = "spec.sessionAffinityConfig", "when session affinity type is ClientIP"
    if affinity == "None":
        if config is not None:
            errs.append(forbidden_field(at, "must not be set when session affinity is None"))
    elif affinity == "ClientIP":
        client_ip = (config or {}).get("clientIP")
        timeout = (client_ip or {}).get("timeoutSeconds")
        if config is None:
            errs.append(required(at, why))
        elif client_ip is None:
            errs.append(required(f"{at}.clientIP", why))
        elif timeout is None:
            errs.append(required(f"{at}.clientIP.timeoutSeconds", why))
        elif not 0 < timeout <= _MAX_AFFINITY:
            text = f"must be greater than 0 and less than {_MAX_AFFINITY}"
            errs.append(invalid_value(f"{at}.clientIP.timeoutSeconds", timeout, text))


def _source_ranges(errs: Errors, spec: Object, notes: dict[str, Any]) -> None:
    ranges, balancer = spec.get("loadBalancerSourceRanges") or [], spec.get("type") == "LoadBalancer"
    if ranges:
        if not balancer:
            errs.append(forbidden_field("spec.LoadBalancerSourceRanges", _ONLY_BALANCER))
        for index, block in enumerate(ranges):
            strings(errs, f"spec.LoadBalancerSourceRanges[{index}]", block.strip(), names.cidr)
    elif _RANGES in notes:
        at = f"metadata.annotations[{_RANGES}]"
        if not balancer:
            errs.append(forbidden_field(at, _ONLY_BALANCER))
        for block in notes[_RANGES].split(",") if notes[_RANGES].strip() else ():
            strings(errs, at, block.strip(), names.cidr)


def _balancer(errs: Errors, spec: Object) -> None:
    if spec.get("type") == "LoadBalancer":
        if spec.get("allocateLoadBalancerNodePorts") is None:
            errs.append(required("allocateLoadBalancerNodePorts"))
        if spec.get("loadBalancerClass") is not None:
            strings(errs, "spec.loadBalancerClass", spec["loadBalancerClass"], names.qualified_name)
        return
    for key in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
        if spec.get(key) is not None:
            errs.append(forbidden_field(f"spec.{key}", _ONLY_BALANCER))


def _exposed(spec: Object) -> bool:
    kind = spec.get("type")
    return kind in _EXTERNAL or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def _checks_health(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _external_traffic(errs: Errors, spec: Object) -> None:
    policy, number = spec.get("externalTrafficPolicy"), spec.get("healthCheckNodePort") or 0
    if _exposed(spec):
        one_of(errs, "spec.externalTrafficPolicy", policy, ("Cluster", "Local"), needed=True)
    elif policy:
        text = "may only be set for externally-accessible services"
        errs.append(invalid_value("spec.externalTrafficPolicy", policy, text))
    if not _checks_health(spec):
        if number:
            text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            errs.append(invalid_value("spec.healthCheckNodePort", number, text))
    elif not number:
        errs.append(required("spec.healthCheckNodePort"))
    else:
        port(errs, "spec.healthCheckNodePort", number)


def _internal_traffic(errs: Errors, spec: Object) -> None:
    policy = spec.get("internalTrafficPolicy")
    needed = spec.get("type") in ("ClusterIP", *_EXTERNAL)
    one_of(errs, "spec.internalTrafficPolicy", policy, ("Cluster", "Local"), needed=needed)
    distributions = ("PreferClose", "PreferSameNode", "PreferSameZone")
    one_of(errs, "spec.trafficDistribution", spec.get("trafficDistribution"), distributions)


def service_update(errs: Errors, obj: Object, old: Object) -> None:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    cluster_addresses_update(errs, spec, before)
    if spec.get("type") == before.get("type") == "LoadBalancer":
        new, was = spec.get("loadBalancerClass"), before.get("loadBalancerClass")
        if new != was:
            errs.append(invalid_value("spec.loadBalancerClass", new, "may not change once set"))
    same_port = (spec.get("healthCheckNodePort") or 0) == (before.get("healthCheckNodePort") or 0)
    if _checks_health(spec) and _checks_health(before) and not same_port:
        errs.append(forbidden_field("spec.healthCheckNodePort", "field is immutable"))
    service(errs, obj)


def service_status(errs: Errors, obj: Object, old: Object) -> None:
    """status.loadBalancer: addresses only for balancers, each with its mode."""
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    at = "status.loadBalancer.ingress"
    if ingress and (obj.get("spec") or {}).get("type") != "LoadBalancer":
        errs.append(forbidden_field(at, "may only be used when `spec.type` is 'LoadBalancer'"))
        return
    for index, entry in enumerate(ingress):
        here, address, mode = f"{at}[{index}]", entry.get("ip"), entry.get("ipMode")
        if address:
            strings(errs, f"{here}.ip", address, names.ip_address)
            if mode is None:
                errs.append(required(f"{here}.ipMode", "must be specified when `ip` is set"))
        elif mode is not None:
            errs.append(forbidden_field(f"{here}.ipMode", "may not be specified when `ip` is not set"))
        if address and mode is not None and mode not in ("Proxy", "VIP"):
            errs.append(not_supported(f"{here}.ipMode", mode, ("Proxy", "VIP")))
        host = entry.get("hostname")
        if host:
            strings(errs, f"{here}.hostname", host, names.dns1123_subdomain)
            if not names.ip_address(host):
                errs.append(invalid_value(f"{here}.hostname", host, "must be a DNS name, not an IP address"))


def endpoints(errs: Errors, obj: Object) -> None:
    for index, subset in enumerate(obj.get("subsets") or ()):
        at = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errs.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for number, address in enumerate(subset.get(key) or ()):
                _endpoint_address(errs, f"{at}.{key}[{number}]", address)
        ports = subset.get("ports") or []
        for number, entry in enumerate(ports):
            _endpoint_port(errs, f"{at}.ports[{number}]", entry, name_needed=len(ports) > 1)


def _endpoint_address(errs: Errors, at: str, address: Object) -> None:
    if address.get("hostname"):
        strings(errs, f"{at}.hostname", address["hostname"], names.dns1123_label)
    if address.get("nodeName") is not None:
        strings(errs, f"{at}.nodeName", address["nodeName"], names.dns1123_subdomain)
    usable_address(errs, f"{at}.ip", address.get("ip") or "")


def _endpoint_port(errs: Errors, at: str, entry: Object, *, name_needed: bool) -> None:
    if entry.get("name"):
        strings(errs, f"{at}.name", entry["name"], names.dns1123_label)
    elif name_needed:
        errs.append(required(f"{at}.name"))
    port(errs, f"{at}.port", entry.get("port") or 0)
    one_of(errs, f"{at}.protocol", entry.get("protocol"), _PROTOCOLS, needed=True)
    if entry.get("appProtocol") is not None:
        strings(errs, f"{at}.appProtocol", entry["appProtocol"], names.qualified_name)
