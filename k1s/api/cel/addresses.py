"""ip() and cidr() in CEL. Source: apiserver/pkg/cel/library/{ip,cidr}.go."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface
from typing import Any

from k1s.api.cel.optional import Opaque, holds, opaque, opened

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PREFIX = re.compile(r"0|[1-9]\d{0,2}")


def _parse_ip(text: str) -> Address:
    try:
        found = ip_address(text)
    except ValueError:
        raise ValueError(f'IP Address "{text}" parse error during conversion from string') from None
    if isinstance(found, IPv6Address) and (found.ipv4_mapped is not None or found.scope_id):
        what = "IPv4-mapped IPv6 address is" if found.ipv4_mapped is not None else "IP address with zone value is"
        raise ValueError(f'{what} not allowed: "{text}"')
    return found


def _parse_cidr(text: str) -> tuple[Address, int]:
    host, slash, prefix = text.partition("/")
    address = _parse_ip(host)
    if not slash or not _PREFIX.fullmatch(prefix) or int(prefix) > address.max_prefixlen:
        raise ValueError(f'network address parse error during conversion from string: "{text}"')
    return address, int(prefix)


def _is(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _ip(text: str) -> Opaque:
    return opaque("ip", str(_parse_ip(text)))


def _cidr(text: str) -> Opaque:
    address, prefix = _parse_cidr(text)
    return opaque("cidr", f"{address}/{prefix}")


def _address(value: Any) -> Address:
    return ip_address(opened(value, "ip"))


def _network(value: Any) -> Network:
    return ip_interface(opened(value, "cidr")).network


def _contains_ip(value: Any, other: Any) -> bool:
    address = _parse_ip(other) if isinstance(other, str) else _address(other)
    return address in _network(value)


def _contains_cidr(value: Any, other: Any) -> bool:
    outer = _network(value)
    inner = ip_interface(opened(_cidr(other) if isinstance(other, str) else other, "cidr")).network
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _masked(value: Any) -> Opaque:
    return opaque("cidr", str(_network(value)))


def _text(value: Any) -> str:
    for kind in ("ip", "cidr", "semver", "quantity"):
        if holds(value, kind):
            return str(opened(value, kind))
    raise ValueError("no such overload")


def _global_unicast(address: Address) -> bool:
    # As Go has it: private addresses are global unicast, too.
    limited = isinstance(address, IPv4Address) and str(address) == "255.255.255.255"
    return not (limited or address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local)


def _link_local_multicast(address: Address) -> bool:
    block = "224.0.0.0/24" if isinstance(address, IPv4Address) else None
    if block is not None:
        return address in IPv4Network(block)
    return address.packed[0] == 0xFF and address.packed[1] & 0x0F == 2


FUNCTIONS = (
    ("isIP", False, ("STRING",), _is(_parse_ip)),
    ("ip", False, ("STRING",), _ip),
    ("ip.isCanonical", False, ("STRING",), lambda text: str(_parse_ip(text)) == text),
    ("family", True, ("OPAQUE",), lambda value: _address(value).version),
    ("isUnspecified", True, ("OPAQUE",), lambda value: _address(value).is_unspecified),
    ("isLoopback", True, ("OPAQUE",), lambda value: _address(value).is_loopback),
    ("isLinkLocalMulticast", True, ("OPAQUE",), lambda value: _link_local_multicast(_address(value))),
    ("isLinkLocalUnicast", True, ("OPAQUE",), lambda value: _address(value).is_link_local),
    ("isGlobalUnicast", True, ("OPAQUE",), lambda value: _global_unicast(_address(value))),
    ("isCIDR", False, ("STRING",), _is(_parse_cidr)),
    ("cidr", False, ("STRING",), _cidr),
    ("containsIP", True, ("OPAQUE", "ANY"), _contains_ip),
    ("containsCIDR", True, ("OPAQUE", "ANY"), _contains_cidr),
    ("ip", True, ("OPAQUE",), lambda value: opaque("ip", opened(value, "cidr").partition("/")[0])),
    ("prefixLength", True, ("OPAQUE",), lambda value: _network(value).prefixlen),
    ("masked", True, ("OPAQUE",), _masked),
    ("string", False, ("OPAQUE",), _text),
)
