"""Hearing that this host's own addresses or its way out have changed (DHCP, another network, a link that went down).

Owns: the subscription to route netlink's notifications of addresses, default routes and links (rtnetlink(7)).
Called by: server/addresses, agent/network. Never does: say what the addresses are; look at pods' links.
Standard library only; costs nothing while nothing changes.

Use: open the watch, look at the addresses, then look again after each `wait`. So no change can fall between.
Messages are only a reason to look, so losing some of them is no more than one.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from types import TracebackType

from k1s.net.netlink import attributes
from k1s.net.notifications import Notifications

_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 1, 5, 7, 9, 11  # RTNLGRP_*
_NEW_LINK, _NEW_ADDRESS, _DEL_ADDRESS, _NEW_ROUTE, _DEL_ROUTE = 16, 20, 21, 24, 25
# Addresses of a narrower scope (a link's own, the host's) are of no use to others, and each pod brings one.
_SCOPE_SITE = 200
# Without DAD and deprecated from the start: addresses of LoadBalancer pools (announce/holder), renewed every two seconds.
_POOL_ADDRESS = 0x22
_MAIN_TABLE = 254
_UP = 0x1
_ALL = 0xFFFFFFFF
_MASTER = 10  # IFLA_MASTER


class AddressWatch:
    """As a context manager. It hears of the network namespace that the thread was in when it was made."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        groups = (_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE)
        self._notifications = Notifications(groups, self._told, self._changed.set)

    def __enter__(self) -> AddressWatch:
        self._notifications.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._notifications.__exit__(kind, error, trace)

    async def wait(self) -> None:
        """Return when something has changed since the last call; many changes at once are one."""
        await self._changed.wait()
        self._changed.clear()

    async def __aiter__(self) -> AsyncIterator[None]:
        """Once now, then once for each `wait`: for a loop that looks at the addresses and acts on them."""
        yield
        while True:
            await self.wait()
            yield

    def _told(self, kind: int, body: bytes) -> None:
        if _matters(kind, body):
            self._changed.set()


def _matters(kind: int, body: bytes) -> bool:
    if kind in (_NEW_ADDRESS, _DEL_ADDRESS) and len(body) >= 8:
        return body[3] <= _SCOPE_SITE and body[2] & _POOL_ADDRESS != _POOL_ADDRESS
    if kind in (_NEW_ROUTE, _DEL_ROUTE) and len(body) >= 12:
        return body[1] == 0 and body[4] == _MAIN_TABLE
    if kind == _NEW_LINK and len(body) >= 16:
        # IPv4 routes leave with a link that goes down, and the kernel says no word of them.
        # (A pod's link is a port of a bridge, and goes down when it is deleted.)
        flags, change = struct.unpack_from("=II", body, 8)
        down = change != _ALL and change & _UP and not flags & _UP
        return bool(down) and _MASTER not in dict(attributes(body[16:]))
    return False
