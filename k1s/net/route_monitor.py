"""Hearing that somebody took away or changed a link, address, route, neighbour or forwarding entry of k1s's.

Owns: the subscription to route netlink's notifications (rtnetlink(7)) and telling what concerns k1s. Called by: agent.network.
Never does: look at what there is, repair. The host's own addresses: see address_watch.
Standard library only; costs nothing while nothing changes. Neighbours of other links, which change with all traffic, are held
back in the kernel by a filter on the socket.

Messages are only a reason to look; k1s's own changes are a reason too, and the look that follows finds nothing to do.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Callable, Sequence
from types import TracebackType

from k1s.net import names
from k1s.net.family import Network
from k1s.net.link import IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU, INFO_KIND, index_of
from k1s.net.netlink import attributes, string
from k1s.net.notifications import Notifications
from k1s.net.route import PROTOCOL

# RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE, IPV4_NETCONF, IPV6_NETCONF
_GROUPS = (1, 3, 5, 7, 9, 11, 24, 25)
_NEW_LINK, _DELETE_LINK, _NEW_ADDRESS, _DELETE_ADDRESS = 16, 17, 20, 21
_NEW_ROUTE, _DELETE_ROUTE, _NEW_NEIGHBOUR, _DELETE_NEIGHBOUR, _NEW_CONFIGURATION = 24, 25, 28, 29, 80
_NETCONF_IFINDEX, _NETCONF_FORWARDING, _ALL_LINKS = 1, 2, -1
_IFA_SCOPE_SITE, _UP, _UP_AND_RUNNING = 200, 0x1, 0x41
_MOST_LINKS = 32
_RTA_DST, _MAIN = 1, 254
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_RECEIVE_BUFFER = 1 << 20


class RouteMonitor:
    """As a context manager. `wait` returns when something of k1s's may be gone or different.

    `is_pod_link` says whether a host end of a pod's pair (by name) should be there: those of pods that come and go are not told.
    """

    def __init__(self, ranges: Sequence[Network], is_pod_link: Callable[[str], bool] = lambda name: False) -> None:
        self._ranges, self._is_pod_link = tuple(ranges), is_pod_link
        self._changed = asyncio.Event()
        self._notifications = Notifications((), self._told, self._changed.set)
        self._socket = self._notifications.socket
        self._own: set[int] = set()
        self._uplink = 0
        # Of our links and the uplink: what counts of them, as last told.
        self._seen: dict[int, tuple[int, bytes, int]] = {}
        # A burst of pods must not cost us messages.
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        self._attach_filter(0)
        self.refresh()
        # Only now: before the filter, every neighbour would be heard of.
        self._notifications.join(_GROUPS)

    def __enter__(self) -> RouteMonitor:
        self._notifications.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._notifications.__exit__(kind, error, trace)

    def refresh(self) -> bool:
        """Links of ours have (perhaps) been made anew: know their numbers. Whether they are others than before, so that
        something may have been missed."""
        before, self._own = self._own, {index for name in names.LINKS if (index := index_of(name)) is not None}
        if before == self._own:
            return False
        self._attach_filter(index_of(names.VXLAN) or 0)
        return True

    def follow_uplink(self, index: int) -> None:
        """Changes of this link's size are told too, and that it goes and comes: routes through it go without a word."""
        self._uplink = index

    async def wait(self) -> None:
        """Many changes at once are one."""
        await self._changed.wait()
        self._changed.clear()

    def poke(self) -> None:
        """Let `wait` return: something else is a reason to look."""
        self._changed.set()

    def _attach_filter(self, vxlan: int) -> None:
        """Classic BPF: neighbour messages pass only where they are of the VXLAN device. Loads are in network order."""
        kinds = [_swap16(kind) for kind in (_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR)]
        program = [
            (0x28, 0, 0, 4),  # ldh [nlmsg_type]
            (0x15, 1, 0, kinds[0]),  # a neighbour: to the third next
            (0x15, 0, 2, kinds[1]),  # no neighbour: accept
            (0x20, 0, 0, 16 + 4),  # ld [ndm_ifindex]
            (0x15, 0, 1, _swap32(vxlan)),
            (0x06, 0, 0, 0xFFFFFFFF),  # accept
            (0x06, 0, 0, 0),  # drop
        ]
        code = b"".join(struct.pack("=HBBI", *step) for step in program)
        buffer = ctypes.create_string_buffer(code)
        filter_program = struct.pack("@HP", len(program), ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)

    def _told(self, kind: int, body: bytes) -> None:
        if self._matters(kind, body):
            self._changed.set()

    def _matters(self, kind: int, body: bytes) -> bool:
        if kind in (_NEW_LINK, _DELETE_LINK) and len(body) >= 16:
            return self._link_matters(kind, body)
        if kind in (_NEW_ADDRESS, _DELETE_ADDRESS) and len(body) >= 8:
            # Addresses are few and change rarely, and other hosts may be next hops by the host's own.
            return body[3] <= _IFA_SCOPE_SITE
        if kind in (_NEW_ROUTE, _DELETE_ROUTE) and len(body) >= 12:
            return self._route_matters(kind, body)
        if kind == _NEW_CONFIGURATION:
            fields = dict(attributes(body[4:]))
            (index,) = struct.unpack("=i", fields.get(_NETCONF_IFINDEX, bytes(4)))
            return (index == _ALL_LINKS or index in self._own) and not any(fields.get(_NETCONF_FORWARDING, b"\1"))
        return kind in (_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR)

    def _link_matters(self, kind: int, body: bytes) -> bool:
        (index,) = struct.unpack_from("=i", body, 4)
        fields = dict(attributes(body[16:]))
        name = string(fields.get(IFLA_IFNAME, b""))
        if names.is_veth(name):
            return self._is_pod_link(name)
        if index == self._uplink or name in names.LINKS or index in self._own:
            return kind == _DELETE_LINK or self._differs(index, body, fields)
        # Somebody else's tunnel may have stood in our device's way.
        info = dict(attributes(fields.get(IFLA_LINKINFO, b"")))
        return kind == _DELETE_LINK and string(info.get(INFO_KIND, b"")) == "vxlan"

    def _differs(self, index: int, body: bytes, fields: dict[int, bytes]) -> bool:
        """A bridge tells of itself whenever a port comes or goes, too."""
        (flags,) = struct.unpack_from("=I", body, 8)
        kept = _UP_AND_RUNNING if index == self._uplink else _UP
        (mtu,) = struct.unpack("=I", fields.get(IFLA_MTU, bytes(4)))
        state = (mtu, fields.get(IFLA_ADDRESS, b""), flags & kept)
        if self._seen.get(index) == state:
            return False
        if len(self._seen) > _MOST_LINKS:
            self._seen.clear()
        self._seen[index] = state
        return True

    def _route_matters(self, kind: int, body: bytes) -> bool:
        family, prefix, table, protocol = body[0], body[1], body[4], body[5]
        if table != _MAIN:
            return False
        if protocol == PROTOCOL:
            return kind == _DELETE_ROUTE
        destination = dict(attributes(body[12:])).get(_RTA_DST)
        version = 4 if family == socket.AF_INET else 6
        if destination is None or kind != _NEW_ROUTE:
            return False
        # Somebody's own route into our ranges may have replaced one of ours.
        number = int.from_bytes(destination, "big")
        return any(
            network.version == version
            and prefix >= network.prefixlen
            and number >> (network.max_prefixlen - network.prefixlen)
            == int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            for network in self._ranges
        )


def _swap16(value: int) -> int:
    return socket.htons(value)


def _swap32(value: int) -> int:
    return socket.htonl(value)
