"""Routes of the calling thread's network namespace (main table).

Owns: rtnetlink's messages for routes, and the mark by which k1s knows its own. Called by: setup, veth, overlay; always in a
worker thread. Never does: touch a route that somebody else made.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from k1s.net.link import Link, LinkError, index_of, link_of, opened
from k1s.net.netlink import CREATE, REPLACE, NetlinkError, RouteSocket, attribute, attributes, family_of, number, packed

_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_MAIN, _UNICAST, _SCOPE_LINK, _SCOPE_UNIVERSE = 254, 1, 253, 0
_ONLINK = 4
# rtm_protocol: who made a route. A number that iproute2 and the routing daemons leave free; theirs are never touched.
PROTOCOL = 107


@dataclass(frozen=True, slots=True)
class Route:
    """`destination` as address/prefix; without `gateway` it is on the link itself. `onlink`: the gateway is, whatever the
    addresses say. `source`: what this host's own packets that way come from."""

    destination: str
    link: str = ""
    gateway: str = ""
    source: str = ""
    onlink: bool = False


def ensure(wanted: Route) -> None:
    with opened(f"route to {wanted.destination}") as route:
        index = index_of(wanted.link) if wanted.link else 0
        if index is None:
            raise LinkError(f"route to {wanted.destination}: there is no link {wanted.link}", errno.ENODEV)
        replace(route, wanted, index)


def replace(route: RouteSocket, wanted: Route, index: int) -> None:
    """`index` 0: the kernel finds the gateway's link."""
    scope = _SCOPE_UNIVERSE if wanted.gateway else _SCOPE_LINK
    payload = _message(wanted.destination, scope, _ONLINK if wanted.onlink else 0)
    payload += attribute(_RTA_GATEWAY, packed(wanted.gateway)) if wanted.gateway else b""
    payload += attribute(_RTA_PREFSRC, packed(wanted.source)) if wanted.source else b""
    payload += number(_RTA_OIF, index) if index else b""
    route.change(_NEW_ROUTE, payload, CREATE | REPLACE)


def remove(unwanted: Route) -> None:
    """A route of ours; gone already is as good."""
    with opened(f"route to {unwanted.destination}") as route:
        index = index_of(unwanted.link)
        payload = _message(unwanted.destination, _SCOPE_UNIVERSE if unwanted.gateway else _SCOPE_LINK, 0)
        payload += number(_RTA_OIF, index) if index else b""
        try:
            route.change(_DELETE_ROUTE, payload)
        except NetlinkError as error:
            if error.code not in (errno.ESRCH, errno.ENOENT, errno.ENODEV):
                raise


def own() -> list[Route]:
    """The routes of the main table that k1s made."""
    with opened("listing routes") as route:
        names = {index: name for index, name in socket.if_nameindex()}
        found = []
        for family, message in _dump(route):
            fields = dict(attributes(message[12:]))
            if message[5] != PROTOCOL:
                continue
            (index,) = struct.unpack("=I", fields.get(_RTA_OIF, bytes(4)))
            (flags,) = struct.unpack_from("=I", message, 8)
            destination = fields.get(_RTA_DST) or bytes(4 if family == socket.AF_INET else 16)
            found.append(
                Route(
                    f"{socket.inet_ntop(family, destination)}/{message[1]}",
                    names.get(index, ""),
                    _text(family, fields.get(_RTA_GATEWAY)),
                    _text(family, fields.get(_RTA_PREFSRC)),
                    bool(flags & _ONLINK),
                )
            )
        return found


def uplink(family: int = socket.AF_INET) -> Link | None:
    """The link of the default route with the best metric, or None on a host without one."""
    with opened("default route") as route:
        best: tuple[int, int] | None = None
        for _, message in _dump(route, (family,)):
            fields = dict(attributes(message[12:]))
            if message[1] == 0 and _RTA_OIF in fields:
                (metric,) = struct.unpack("=I", fields.get(_RTA_PRIORITY, bytes(4)))
                found = (metric, struct.unpack("=I", fields[_RTA_OIF])[0])
                best = found if best is None or metric < best[0] else best
        return link_of(route, best[1]) if best is not None else None


def _dump(route: RouteSocket, families: tuple[int, ...] = (socket.AF_INET, socket.AF_INET6)) -> Iterator[tuple[int, bytes]]:
    for family in families:
        for message in route.dump(_GET_ROUTE, struct.pack("=BBBBBBBBI", family, *bytes(7), 0)):
            if message[4] == _MAIN and message[0] == family:
                yield family, message


def _message(destination: str, scope: int, flags: int) -> bytes:
    address, _, prefix = destination.partition("/")
    head = struct.pack("=BBBBBBBBI", family_of(address), int(prefix), 0, 0, _MAIN, PROTOCOL, scope, _UNICAST, flags)
    return head + (attribute(_RTA_DST, packed(address)) if int(prefix) else b"")


def _text(family: int, value: bytes | None) -> str:
    return socket.inet_ntop(family, value) if value else ""
