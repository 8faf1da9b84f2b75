"""Services, Endpoints and EndpointSlices.

Called by: table.py. Never does: allocate (the apiserver's allocators), compare with other services.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required, too_many
from k1s.api.meta import Object
from k1s.api.validation.object_meta import label_map
from k1s.api.validation.rules import Check, Errors, immutable, in_range, one_of, port, port_or_name, strings
from k1s.api.validation.service_addresses import cluster_addresses, cluster_addresses_update

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_EXTERNAL = ("LoadBalancer", "NodePort")
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_ONLY_BALANCER = "may only be used when `type` is 'LoadBalancer'"
_MAX_AFFINITY = 86400
_KUBELET_PORT = 10250
_MAX_HINTS, _MAX_PORTS = 8, 20000


def _headless(spec: Object) -> bool:
    return spec.get("clusterIP") == "None"


def _ports(errs: Errors, spec: Object) -> None:
    ports = spec.get("ports") or []
    if not ports and not _headless(spec) and spec.get("type") != "ExternalName":
        errs.append(required("spec.ports"))
    seen_names: set[str] = set()
    seen_ports: set[tuple[Any, Any]] = set()
    seen_nodes: set[tuple[Any, Any]] = set()
    for index, entry in enumerate(ports):
        at = f"spec.ports[{index}]"
        _port_name(errs, at, entry.get("name"), seen_names, needed=len(ports) > 1)
        port(errs, f"{at}.port", entry.get("port") or 0)
        if entry.get("port") == _KUBELET_PORT and spec.get("type") == "LoadBalancer":
            text = f"may not expose port {_KUBELET_PORT} externally since it is used by kubelet"
            errs.append(invalid_value(at, entry["port"], text))
        one_of(errs, f"{at}.protocol", entry.get("protocol"), _PROTOCOLS, needed=True)
        if entry.get("targetPort") is not None:
            port_or_name(errs, f"{at}.targetPort", entry["targetPort"])
        if entry.get("appProtocol"):
            strings(errs, f"{at}.appProtocol", entry["appProtocol"], names.qualified_name)
        key = (entry.get("protocol"), entry.get("port"))
        if key in seen_ports:
            errs.append(duplicate(at, {"protocol": key[0], "port": key[1]}))
        seen_ports.add(key)
        if entry.get("nodePort"):
            node = (entry.get("protocol"), entry["nodePort"])
            if spec.get("type") not in _EXTERNAL:
                text = f"may not be used when `type` is '{spec.get('type')}'"
                errs.append(forbidden_field(f"{at}.nodePort", text))
            elif node in seen_nodes:
                errs.append(duplicate(f"{at}.nodePort", entry["nodePort"]))
            seen_nodes.add(node)


def _port_name(errs: Errors, at: str, name: Any, seen: set[str], *, needed: bool) -> None:
    if not name:
        if needed:
            errs.append(required(f"{at}.name"))
        return
    strings(errs, f"{at}.name", name, names.dns1123_label)
    if name in seen:
        errs.append(duplicate(f"{at}.name", name))
    seen.add(name)


def _type(errs: Errors, spec: Object) -> None:
    kind = spec.get("type")
    one_of(errs, "spec.type", kind, _TYPES, needed=True)
    if kind in _EXTERNAL and _headless(spec):
        errs.append(invalid_value("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    if kind != "ExternalName":
        return
    target = spec.get("externalName") or ""
    # A trailing dot makes it absolute, which is fine.
    if target:
        strings(errs, "spec.externalName", target.removesuffix("."), names.dns1123_subdomain)
    else:
        errs.append(required("spec.externalName"))


def _affinity(errs: Errors, spec: Object) -> None:
    affinity, config = spec.get("sessionAffinity"), spec.get("sessionAffinityConfig")
    one_of(errs, "spec.sessionAffinity", affinity, ("ClientIP", "None"), needed=True)
    at = "spec.sessionAffinityConfig"
    if affinity == "None" and config:
        errs.append(forbidden_field(at, f"must not be set when session affinity is {affinity}"))
    elif affinity == "ClientIP":
        timeout = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
        if timeout is None:
            errs.append(required(at, "when session affinity type is ClientIP"))
        elif not 0 < timeout <= _MAX_AFFINITY:
            text = f"must be greater than 0 and less than {_MAX_AFFINITY}"
            errs.append(invalid_value(f"{at}.clientIP.timeoutSeconds", timeout, text))


def _addresses(errs: Errors, spec: Object) -> None:
    found: Errors = []
    cluster_addresses(found, spec)
    errs += found
    for index, address in enumerate(spec.get("externalIPs") or ()):
        _unicast(errs, f"spec.externalIPs[{index}]", address)


def _unicast(errs: Errors, field: str, address: Any) -> None:
    """An address that can be an endpoint: not loopback, link-local, multicast, unspecified."""
    before = len(errs)
    strings(errs, field, address or "", names.ip_address)
    if len(errs) > before:
        return
    parsed = ipaddress.ip_address(address)
    if parsed.is_unspecified:
        errs.append(invalid_value(field, address, f"may not be unspecified ({parsed})"))
    if parsed.is_loopback:
        errs.append(invalid_value(field, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if parsed.is_link_local:
        errs.append(invalid_value(field, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    if parsed.is_multicast and (parsed.packed[:3] == b"\xe0\0\0" or parsed.packed[:2] == b"\xff\x02"):
        errs.append(invalid_value(field, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))


def _traffic(errs: Errors, spec: Object) -> None:
    kind, external = spec.get("type"), spec.get("externalTrafficPolicy")
    if external:
        if kind not in _EXTERNAL and not (kind == "ClusterIP" and spec.get("externalIPs")):
            text = "may only be set for externally-accessible services"
            errs.append(invalid_value("spec.externalTrafficPolicy", external, text))
        else:
            one_of(errs, "spec.externalTrafficPolicy", external, ("Cluster", "Local"))
    elif kind in _EXTERNAL:
        errs.append(required("spec.externalTrafficPolicy"))
    internal = spec.get("internalTrafficPolicy")
    one_of(errs, "spec.internalTrafficPolicy", internal, ("Cluster", "Local"), needed=kind != "ExternalName")
    distributions = ("PreferClose", "PreferSameNode", "PreferSameZone")
    one_of(errs, "spec.trafficDistribution", spec.get("trafficDistribution"), distributions)
    if spec.get("healthCheckNodePort") and not (kind == "LoadBalancer" and external == "Local"):
        text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errs.append(invalid_value("spec.healthCheckNodePort", spec["healthCheckNodePort"], text))
    elif kind == "LoadBalancer" and external == "Local":
        port(errs, "spec.healthCheckNodePort", spec.get("healthCheckNodePort") or 0)


def _balancer(errs: Errors, spec: Object) -> None:
    balancer = spec.get("type") == "LoadBalancer"
    if balancer:
        if spec.get("allocateLoadBalancerNodePorts") is None:
            errs.append(required("spec.allocateLoadBalancerNodePorts"))
    else:
        for key in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if spec.get(key) is not None:
                errs.append(forbidden_field(f"spec.{key}", _ONLY_BALANCER))
    if spec.get("loadBalancerClass") is not None:
        strings(errs, "spec.loadBalancerClass", spec["loadBalancerClass"], names.qualified_name)
    ranges = spec.get("loadBalancerSourceRanges") or []
    if ranges and not balancer:
        errs.append(forbidden_field("spec.LoadBalancerSourceRanges", _ONLY_BALANCER))
    for index, block in enumerate(ranges):
        strings(errs, f"spec.loadBalancerSourceRanges[{index}]", block.strip(), names.cidr)


def service(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    _type(errs, spec)
    _ports(errs, spec)
    label_map(errs, "spec.selector", spec.get("selector"))
    _affinity(errs, spec)
    _addresses(errs, spec)
    _traffic(errs, spec)
    _balancer(errs, spec)


def _checks_health(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def service_update(errs: Errors, obj: Object, old: Object) -> None:
    service(errs, obj)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    cluster_addresses_update(errs, spec, before)
    if _checks_health(spec) and _checks_health(before):
        number = spec.get("healthCheckNodePort")
        immutable(errs, "spec.healthCheckNodePort", number, before.get("healthCheckNodePort"))
    if spec.get("type") == before.get("type") == "LoadBalancer":
        new, was = spec.get("loadBalancerClass"), before.get("loadBalancerClass")
        if new != was:
            errs.append(invalid_value("spec.loadBalancerClass", new, "may not change once set"))


def _endpoint_address(errs: Errors, at: str, address: Object) -> None:
    _unicast(errs, f"{at}.ip", address.get("ip"))
    if address.get("hostname"):
        strings(errs, f"{at}.hostname", address["hostname"], names.dns1123_label)
    if address.get("nodeName"):
        strings(errs, f"{at}.nodeName", address["nodeName"], names.dns1123_subdomain)


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
            here = f"{at}.ports[{number}]"
            _port_name(errs, here, entry.get("name"), set(), needed=len(ports) > 1)
            port(errs, f"{here}.port", entry.get("port") or 0)
            one_of(errs, f"{here}.protocol", entry.get("protocol"), _PROTOCOLS, needed=True)


def _slice_address(errs: Errors, at: str, kind: Any, address: str) -> None:
    if kind == "FQDN":
        strings(errs, at, address, names.fully_qualified_domain_name)
        return
    before = len(errs)
    _unicast(errs, at, address)
    version = 6 if kind == "IPv6" else 4
    if len(errs) == before and ipaddress.ip_address(address).version != version:
        errs.append(invalid_value(at, address, f"must be an {kind} address"))


def endpoint_slice(errs: Errors, obj: Object) -> None:
    kind = obj.get("addressType")
    one_of(errs, "addressType", kind, ("FQDN", "IPv4", "IPv6"), needed=True)
    items = obj.get("endpoints") or []
    if len(items) > 1000:
        errs.append(too_many("endpoints", len(items), 1000))
        return
    for index, endpoint in enumerate(items):
        at = f"endpoints[{index}]"
        addresses = endpoint.get("addresses") or []
        if not addresses:
            errs.append(required(f"{at}.addresses", "must contain at least 1 address"))
        elif len(addresses) > 100:
            errs.append(too_many(f"{at}.addresses", len(addresses), 100))
        for number, address in enumerate(addresses):
            _slice_address(errs, f"{at}.addresses[{number}]", kind, address)
        if endpoint.get("hostname") is not None:
            strings(errs, f"{at}.hostname", endpoint["hostname"], names.dns1123_label)
        if endpoint.get("nodeName") is not None:
            strings(errs, f"{at}.nodeName", endpoint["nodeName"], names.dns1123_subdomain)
        label_map(errs, f"{at}.deprecatedTopology", endpoint.get("deprecatedTopology"))
        for key, check in (("forZones", names.label_value), ("forNodes", names.dns1123_subdomain)):
            _hints(errs, f"{at}.hints.{key}", (endpoint.get("hints") or {}).get(key) or [], check)
    _slice_ports(errs, obj.get("ports") or [])


def _hints(errs: Errors, at: str, hints: list[Object], check: Check) -> None:
    if len(hints) > _MAX_HINTS:
        errs.append(too_many(at, len(hints), _MAX_HINTS))
        return
    seen: set[str] = set()
    for index, hint in enumerate(hints):
        name = hint.get("name") or ""
        if name in seen:
            errs.append(duplicate(f"{at}[{index}].name", name))
        seen.add(name)
        strings(errs, f"{at}[{index}].name", name, check)


def _slice_ports(errs: Errors, ports: list[Object]) -> None:
    if len(ports) > _MAX_PORTS:
        errs.append(too_many("ports", len(ports), _MAX_PORTS))
        return
    seen: set[str] = set()
    for index, entry in enumerate(ports):
        at, name = f"ports[{index}]", entry.get("name") or ""
        if name:
            strings(errs, f"{at}.name", name, names.dns1123_label)
        if name in seen:
            errs.append(duplicate(f"{at}.name", name))
        seen.add(name)
        one_of(errs, f"{at}.protocol", entry.get("protocol"), _PROTOCOLS, needed=True)
        if entry.get("port") is not None:
            in_range(errs, f"{at}.port", entry["port"], 1, 65535)
        if entry.get("appProtocol"):
            strings(errs, f"{at}.appProtocol", entry["appProtocol"], names.qualified_name)


def endpoint_slice_update(errs: Errors, obj: Object, old: Object) -> None:
    endpoint_slice(errs, obj)
    immutable(errs, "addressType", obj.get("addressType"), old.get("addressType"))


def load_balancer_status(errs: Errors, obj: Object, old: Object) -> None:
    """status.loadBalancer of services and ingresses."""
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    at = "status.loadBalancer.ingress"
    kind = (obj.get("spec") or {}).get("type")
    if ingress and obj.get("kind") == "Service" and kind != "LoadBalancer":
        errs.append(forbidden_field(at, 'may only be used when `spec.type` is "LoadBalancer"'))
    for index, entry in enumerate(ingress):
        here, address, host = f"{at}[{index}]", entry.get("ip"), entry.get("hostname")
        if address:
            strings(errs, f"{here}.ip", address, names.ip_address)
        if host:
            strings(errs, f"{here}.hostname", host, names.dns1123_subdomain)
            if not names.ip_address(host):
                errs.append(invalid_value(f"{here}.hostname", host, "must be a DNS name, not an IP address"))
        if obj.get("kind") == "Service":
            one_of(errs, f"{here}.ipMode", entry.get("ipMode"), ("Proxy", "VIP"))
