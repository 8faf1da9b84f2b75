"""Having a pool address in the kernel, so that it answers for it on the LAN.

Owns: link k1s-lb (a bridge without ports) and the addresses on it; copies of them on an uplink where the kernel would not
answer otherwise. Called by: announcer, teardown; in a worker thread. Never does: decide who holds what.

- IPv4: an address on any link is answered for on every link (arp_ignore 0). With another arp_ignore it must be the uplink's.
- IPv6: neighbour solicitations are answered for the link's own addresses only (RFC 4861), so it always is the uplink's too.
- What stands on k1s-lb is what is held: by that teardown, and an agent that starts again, find the copies.
- With `seconds` the kernel takes the address away by itself: an agent that was killed, whose successor among the nodes
  answers already, must not go on answering beside it.
- Never a source address of the host's own packets: deprecated from the start, and of a scope that IPv4 does not choose.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from k1s.net import link
from k1s.net.names import BALANCER_LINK
from k1s.net.netlink import CREATE, REPLACE, NetlinkError, RouteSocket, attribute, attributes

_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_NO_DAD, _NO_PREFIX_ROUTE = 0x02, 0x200
_SCOPE_LINK = 253
_FOREVER = 0xFFFFFFFF


class HoldError(Exception):
    """The kernel does not take the address; the message says which and why."""


def held() -> frozenset[str]:
    """What is held already: by this agent, or by the one before it."""
    try:
        index = socket.if_nametoindex(BALANCER_LINK)
    except OSError:
        return frozenset()
    with RouteSocket() as route:
        # The link's own address, fe80::..., is none of a pool.
        return frozenset(str(address) for address, _, owner in _addresses(route) if owner == index and not address.is_link_local)


def hold(address: str, uplink: str, seconds: int | None) -> None:
    """Have it, for so long or (None) for good. To be renewed before the time is over. Raises HoldError."""
    if refused := renew([address], uplink, seconds):
        raise HoldError(refused[address])


def renew(addresses: Sequence[str], uplink: str, seconds: int | None) -> dict[str, str]:
    """The same for several at a time; returns those that the kernel refused, with why."""
    refused: dict[str, str] = {}
    try:
        own = link.ensure_link(BALANCER_LINK, "bridge")
        with RouteSocket() as route:
            for address in addresses:
                try:
                    for index in (own, *_copies(uplink, address)):
                        route.change(_NEW_ADDRESS, _message(address, index, seconds), CREATE | REPLACE)
                except (NetlinkError, OSError) as error:
                    refused[address] = f"address {address} cannot be held on {BALANCER_LINK} and {uplink}: {error}"
    except link.LinkError as error:
        return {address: f"address {address} cannot be held: {error}" for address in addresses}
    return refused


def drop(address: str) -> None:
    """Let go of it wherever it is."""
    wanted = ipaddress.ip_address(address)
    with RouteSocket() as route:
        owners = [index for found, bits, index in _addresses(route) if found == wanted and bits == wanted.max_prefixlen]
        for index in owners:
            try:
                route.change(_DELETE_ADDRESS, _message(address, index, None))
            except NetlinkError as error:
                if error.code not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                    raise HoldError(f"address {address} cannot be taken away: {error}") from error


def drop_all() -> list[str]:
    """Let go of everything; returns what it was."""
    gone = sorted(held())
    for address in gone:
        drop(address)
    return gone


def _copies(uplink: str, address: str) -> list[int]:
    """The links that must have the address beside our own. The kernel heeds the higher arp_ignore of the two."""
    if ":" in address or any(_arp_ignore(name) != "0" for name in ("all", uplink)):
        return [socket.if_nametoindex(uplink)]
    return []


def _arp_ignore(name: str) -> str:
    try:
        return Path(f"/proc/sys/net/ipv4/conf/{name}/arp_ignore").read_text().strip()
    except OSError:
        return "0"  # the link has just gone


def _addresses(route: RouteSocket) -> list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int, int]]:
    """(address, prefix length, link)"""
    found = []
    for message in route.dump(_GET_ADDRESS, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        family, bits, _, _, index = struct.unpack_from("=BBBBI", message)
        fields = dict(attributes(message[8:]))
        value = fields.get(_IFA_LOCAL) or fields.get(_IFA_ADDRESS)
        if value and family in (socket.AF_INET, socket.AF_INET6):
            found.append((ipaddress.ip_address(value), bits, index))
    return found


def _message(address: str, index: int, seconds: int | None) -> bytes:
    parsed = ipaddress.ip_address(address)
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    lifetime = struct.pack("=IIII", 0, _FOREVER if seconds is None else seconds, 0, 0)
    flags = _NO_PREFIX_ROUTE | (_NO_DAD if parsed.version == 6 else 0)
    return (
        struct.pack("=BBBBI", family, parsed.max_prefixlen, 0, _SCOPE_LINK, index)
        + attribute(_IFA_LOCAL, parsed.packed)
        + attribute(_IFA_ADDRESS, parsed.packed)
        + attribute(_IFA_CACHEINFO, lifetime)
        + attribute(_IFA_FLAGS, struct.pack("=I", flags))
    )
