"""The host's links that lead to a LAN, and which of them a pool address belongs to.

Owns: reading links and addresses for that, `choose` (pure), hearing that they changed. Called by: announcer.
Never does: change anything.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from k1s.net.names import BALANCER_LINK
from k1s.net.netlink import RouteSocket, attributes
from k1s.net.notifications import Notifications

_GROUP_LINK, _GROUP_IPV4, _GROUP_IPV6 = 1, 5, 9
_NEW_LINK, _DELETE_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_EXT_MASK = 1, 3, 10, 29
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_LOOPBACK, _RUNNING, _NO_ARP = 0x8, 0x40, 0x80
_ETHERNET = 1
_SCOPE_SITE = 200

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, slots=True)
class Uplink:
    """An Ethernet-like link that is up and has its cable in. `addresses`: with the range that is on the link."""

    index: int
    name: str
    mac: bytes
    addresses: tuple[Interface, ...]


def choose(address: str, uplinks: Iterable[Uplink]) -> Uplink | None:
    """The link whose range the address is in; of several the one with the narrowest range."""
    wanted = ipaddress.ip_address(address)
    best: tuple[int, int, Uplink] | None = None
    for uplink in uplinks:
        for own in uplink.addresses:
            # A lone address (another pool address, a point-to-point link) says nothing of its neighbours.
            if own.version == wanted.version and wanted in own.network and own.network.num_addresses > 1:
                found = (-own.network.prefixlen, uplink.index, uplink)
                best = found if best is None or found[:2] < best[:2] else best
    return best[2] if best is not None else None


def read() -> list[Uplink]:
    """Of the calling thread's network namespace. k1s's own links lead to no LAN."""
    with RouteSocket() as route:
        request = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        links = {index: link for message in route.dump(_GET_LINK, request) if (link := _link(message)) and (index := link[0])}
        found: dict[int, list[Interface]] = {}
        for message in route.dump(_GET_ADDRESS, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
            family, prefix, _, scope, index = struct.unpack_from("=BBBBI", message)
            fields = dict(attributes(message[8:]))
            value = fields.get(_IFA_LOCAL) or fields.get(_IFA_ADDRESS)
            if value and index in links and scope <= _SCOPE_SITE and family in (socket.AF_INET, socket.AF_INET6):
                found.setdefault(index, []).append(ipaddress.ip_interface((value, prefix)))
    return [Uplink(index, name, mac, tuple(found.get(index, ()))) for index, name, mac in links.values()]


def _link(message: bytes) -> tuple[int, str, bytes] | None:
    _, kind, index, flags, _ = struct.unpack_from("=BxHiII", message)
    fields = dict(attributes(message[16:]))
    name = fields.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
    mac = fields.get(_IFLA_ADDRESS, b"")
    useful = flags & _RUNNING and not flags & (_LOOPBACK | _NO_ARP) and kind == _ETHERNET and len(mac) == 6
    return (index, name, mac) if useful and not name.startswith("k1s") and _IFLA_MASTER not in fields else None


def watch(changed: Callable[[], None]) -> Notifications:
    """Calls `changed` when addresses, or links that have some, may have changed. A context manager."""

    def told(kind: int, body: bytes) -> None:
        if matters(kind, body):
            changed()

    return Notifications((_GROUP_LINK, _GROUP_IPV4, _GROUP_IPV6), told, changed)


def matters(kind: int, body: bytes) -> bool:
    """Whether the message may be about an uplink or an address that we hold; k1s's pods' links are not."""
    if kind == _DELETE_ADDRESS:
        return True
    if kind == _NEW_ADDRESS and len(body) >= 8:
        # A lone address says nothing of a LAN; ours on uplinks are such, and are renewed all the time.
        return body[3] <= _SCOPE_SITE and body[1] != (32 if body[0] == socket.AF_INET else 128)
    if kind in (_NEW_LINK, _DELETE_LINK) and len(body) >= 16:
        fields = dict(attributes(body[16:]))
        name = fields.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        if name == BALANCER_LINK:
            return kind == _DELETE_LINK
        return _IFLA_MASTER not in fields and not name.startswith("k1s")
    return False
