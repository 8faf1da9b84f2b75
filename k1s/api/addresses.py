"""Is it a good IP address or network? As strict as v1.36 and later (KEP-4858), with upstream's messages word for word.

Owns: ip_address, cidr (both lists of messages, empty means good), their canonical forms, and the sloppy parsers of what stands
in older objects. Called by: names, api/validation, api/warnings. Never does: say where the fault is; the caller knows the path.
"""

from __future__ import annotations

import ipaddress

_IP_TEXT = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_CIDR_TEXT = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _without_zeros(value: str) -> str:
    """Octets with leading zeros as decimal numbers, the way upstream's sloppy parser reads them."""
    head, colon, tail = value.rpartition(":")
    parts = tail.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
        return value
    return head + colon + ".".join(str(int(part)) for part in parts)


def sloppy_ip(value: str) -> _Address | None:
    """The address, also of forms that are not accepted any more: leading zeros, IPv4 in IPv6. None: it is none."""
    try:
        return None if "%" in value else ipaddress.ip_address(_without_zeros(value))
    except ValueError:
        return None


def _mapped(address: _Address) -> bool:
    return address.version == 6 and address.ipv4_mapped is not None


def ip_address(value: str) -> list[str]:
    """Strict, as since v1.36 (KEP-4858): no leading zeros, no IPv4 in IPv6. IPv6 need not be in its shortest form."""
    address = sloppy_ip(value)
    if address is None:
        return [_IP_TEXT]
    if _without_zeros(value) != value:
        return ["must not have leading 0s"]
    return ["must not be an IPv4-mapped IPv6 address"] if _mapped(address) else []


def canonical_ip(value: str) -> list[str]:
    """An address in the one form that newer fields and names accept."""
    faults = ip_address(value)
    if faults:
        return faults
    text = str(ipaddress.ip_address(value))
    return [] if text == value else [f'must be in canonical form ("{text}")']


def sloppy_cidr(value: str) -> _Network | None:
    """The network, host bits dropped, also of forms that are not accepted any more. None: it is none."""
    address, slash, length = value.rpartition("/")
    if not slash or not (length.isascii() and length.isdigit()) or sloppy_ip(address) is None:
        return None
    try:
        return ipaddress.ip_network(f"{_without_zeros(address)}/{int(length)}", strict=False)
    except ValueError:
        return None


def cidr(value: str) -> list[str]:
    """Strict, as since v1.36 (KEP-4858): no leading zeros, no IPv4 in IPv6, no bits beyond the prefix."""
    network = sloppy_cidr(value)
    if network is None:
        return [_CIDR_TEXT]
    address, _, length = value.rpartition("/")
    if _without_zeros(address) != address or str(int(length)) != length:
        return ["must not have leading 0s in IP or prefix length"]
    if _mapped(ipaddress.ip_address(address)):
        return ["must not have an IPv4-mapped IPv6 address"]
    if ipaddress.ip_address(address) != network.network_address:
        return ["must not have bits set beyond the prefix length"]
    return []


def canonical_cidr(value: str) -> list[str]:
    """A network in the one form that newer fields accept."""
    faults = cidr(value)
    if faults:
        return faults
    text = str(ipaddress.ip_network(value))
    return [] if text == value else [f'must be in canonical form ("{text}")']
