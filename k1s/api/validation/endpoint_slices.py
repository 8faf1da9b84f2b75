"""EndpointSlices.

Called by: table.py. Never does: compare with other slices or with pods.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from k1s.api import names
from k1s.api.addresses import sloppy_ip
from k1s.api.errors import duplicate, invalid_value, not_supported, required, too_many
from k1s.api.meta import Object
from k1s.api.validation.object_meta import label_map
from k1s.api.validation.rules import Check, Errors, immutable, strings

_TYPES = ("FQDN", "IPv4", "IPv6")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_MAX_ENDPOINTS, _MAX_ADDRESSES, _MAX_TOPOLOGY, _MAX_HINTS, _MAX_PORTS = 1000, 100, 16, 8, 20000


def _address(errs: Errors, at: str, kind: Any, address: str) -> None:
    if kind == "FQDN":
        strings(errs, at, address, names.fully_qualified_domain_name)
        return
    if kind not in ("IPv4", "IPv6"):
        return
    faults = names.ip_address(address)
    if faults:
        errs.extend(invalid_value(at, address, message) for message in faults)
        return
    parsed = sloppy_ip(address)
    assert parsed is not None
    if parsed.version != (6 if kind == "IPv6" else 4):
        errs.append(invalid_value(at, address, f"must be an {kind} address"))
    _special(errs, at, address, parsed)


def _special(errs: Errors, at: str, address: str, parsed: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """An address that can be an endpoint (ValidateNonSpecialIP)."""
    if parsed.is_unspecified:
        errs.append(invalid_value(at, address, f"may not be unspecified ({address})"))
    if parsed.is_loopback:
        errs.append(invalid_value(at, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if parsed.is_link_local:
        errs.append(invalid_value(at, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    if (parsed.packed[:3] == b"\xe0\0\0" and parsed.version == 4) or (parsed.packed[:2] == b"\xff\x02" and parsed.version == 6):
        errs.append(invalid_value(at, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))


def _endpoint(errs: Errors, at: str, endpoint: Object, kind: Any) -> None:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        errs.append(required(f"{at}.addresses", "must contain at least 1 address"))
    elif len(addresses) > _MAX_ADDRESSES:
        errs.append(too_many(f"{at}.addresses", len(addresses), _MAX_ADDRESSES))
    for number, address in enumerate(addresses):
        _address(errs, f"{at}.addresses[{number}]", kind, address)
    if endpoint.get("nodeName") is not None:
        strings(errs, f"{at}.nodeName", endpoint["nodeName"], names.dns1123_subdomain)
    topology = endpoint.get("deprecatedTopology") or {}
    if len(topology) > _MAX_TOPOLOGY:
        errs.append(too_many(f"{at}.deprecatedTopology", len(topology), _MAX_TOPOLOGY))
    label_map(errs, f"{at}.deprecatedTopology", topology)
    if "kubernetes.io/hostname" in topology:
        text = "may not be specified: use nodeName instead"
        errs.append(invalid_value(f"{at}.deprecatedTopology[kubernetes.io/hostname]", topology["kubernetes.io/hostname"], text))
    if endpoint.get("hostname") is not None:
        strings(errs, f"{at}.hostname", endpoint["hostname"], names.dns1123_label)
    hints = endpoint.get("hints") or {}
    _hints(errs, f"{at}.hints.forZones", hints.get("forZones") or [], names.label_value)
    _hints(errs, f"{at}.hints.forNodes", hints.get("forNodes") or [], names.dns1123_subdomain)


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


def _ports(errs: Errors, ports: list[Object]) -> None:
    if len(ports) > _MAX_PORTS:
        errs.append(too_many("ports", len(ports), _MAX_PORTS))
        return
    seen: set[str] = set()
    for index, entry in enumerate(ports):
        at, name, protocol = f"ports[{index}]", entry.get("name") or "", entry.get("protocol")
        if name:
            strings(errs, f"{at}.name", name, names.dns1123_label)
        if name in seen:
            errs.append(duplicate(f"{at}.name", name))
        seen.add(name)
        if protocol is None:
            errs.append(required(f"{at}.protocol"))
        elif protocol not in _PROTOCOLS:
            errs.append(not_supported(f"{at}.protocol", protocol, _PROTOCOLS))
        if entry.get("port") is not None:
            errs.extend(invalid_value(f"{at}.port", entry["port"], message) for message in names.port_number(entry["port"]))
        if entry.get("appProtocol") is not None:
            strings(errs, f"{at}.appProtocol", entry["appProtocol"], names.qualified_name)


def endpoint_slice(errs: Errors, obj: Object) -> None:
    kind = obj.get("addressType")
    if not kind:
        errs.append(required("addressType"))
    elif kind not in _TYPES:
        errs.append(not_supported("addressType", kind, _TYPES))
    items = obj.get("endpoints") or []
    if len(items) > _MAX_ENDPOINTS:
        errs.append(too_many("endpoints", len(items), _MAX_ENDPOINTS))
    else:
        for index, endpoint in enumerate(items):
            _endpoint(errs, f"endpoints[{index}]", endpoint, kind)
    _ports(errs, obj.get("ports") or [])


def endpoint_slice_update(errs: Errors, obj: Object, old: Object) -> None:
    endpoint_slice(errs, obj)
    immutable(errs, "addressType", obj.get("addressType"), old.get("addressType"))
