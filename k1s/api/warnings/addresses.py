"""Addresses and blocks that are valid but not written as they should be.

Called by: services.py, networking.py, nodes.py, pods.py. Never does: refuse what does not parse (validation does).
Source: KEP-4858; apimachinery/pkg/util/validation GetWarningsForIP and GetWarningsForCIDR.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any


def for_ip(field: str, value: Any) -> list[str]:
    """An address that has another, canonical spelling."""
    if not isinstance(value, str) or not value or value == "None":
        return []
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return []
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None:
        return [_non_standard(field, "IP address", value, str(mapped))]
    if str(address) != value:
        return [f"{field}: IPv6 address {json.dumps(value)} should be in RFC 5952 canonical format ({json.dumps(str(address))})"]
    return []


def for_cidr(field: str, value: Any) -> list[str]:
    """A block with host bits set, or with another, canonical spelling."""
    if not isinstance(value, str):
        return []
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError:
        return []
    mapped = interface.ip.ipv4_mapped if isinstance(interface.ip, ipaddress.IPv6Address) else None
    if mapped is not None:
        length = max(interface.network.prefixlen - 96, 0)
        canonical = str(ipaddress.ip_network(f"{mapped}/{length}", strict=False))
        return [_non_standard(field, "CIDR value", value, canonical)]
    network = str(interface.network)
    if interface.ip != interface.network.network_address:
        address = f"{interface.ip}/{interface.ip.max_prefixlen}"
        ambiguous = f"CIDR value {json.dumps(value)} is ambiguous in this context"
        return [f"{field}: {ambiguous} (should be {json.dumps(network)} or {json.dumps(address)}?)"]
    if network != value and ":" in value:
        return [f"{field}: IPv6 CIDR value {json.dumps(value)} should be in RFC 5952 canonical format ({json.dumps(network)})"]
    return []


def _non_standard(field: str, what: str, value: str, canonical: str) -> str:
    text = f"non-standard {what} {json.dumps(value)} will be considered invalid in a future Kubernetes release"
    return f"{field}: {text}: use {json.dumps(canonical)}"
