"""Hearing that somebody else changed k1s's tables (firewall restarts, `nft flush ruleset`).

Owns: the netlink subscription to nftables changes. Called by: agent.network.app. Never does: repair; look at other tables.
Standard library only; costs nothing while nobody changes rules.

Whose change it was the kernel tells with each transaction, as a thread id in the first pid namespace, which is not the id
that the thread sees itself in a container. So the monitor learns its own side's id from a marker table that it makes.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Iterable

from k1s.net.names import TABLE_PREFIX
from k1s.net.netlink import attributes
from k1s.net.nft import Nft
from k1s.net.notifications import NETFILTER, Notifications

_GROUP = 7
_SUBSYSTEM = 10
_NEW_GENERATION = 15
_TABLE_NAME, _GENERATION_PID = 1, 2
_SO_RCVBUFFORCE = 33
_RECEIVE_BUFFER = 1 << 23
_LEARN_SECONDS = 10.0


class MonitorError(Exception):
    """Changes of nftables cannot be heard."""


class Monitor:
    """`wait` returns when a k1s table was changed by somebody else, or when changes may have been missed."""

    def __init__(self) -> None:
        self._notifications = Notifications((), self._note, self._lost, family=NETFILTER)
        # FORCE: beyond net.core.rmem_max, because one load of ours may send a megabyte of messages.
        self._notifications.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        self._notifications.join((_GROUP,))
        self._own = 0
        self._marker = ""
        self._touched: set[str] = set()
        self._foreign = asyncio.Event()
        self._certain = False
        self._learned = asyncio.Event()

    async def start(self, nft: Nft) -> None:
        """Listen; returns when the monitor knows which changes are `nft`'s. Raises MonitorError."""
        self._notifications.__enter__()
        self._marker = f"{TABLE_PREFIX}mark-{secrets.token_hex(4)}"
        # One transaction, so that no marker can be left behind.
        await nft.run(f"add table ip {self._marker}; delete table ip {self._marker}")
        try:
            async with asyncio.timeout(_LEARN_SECONDS):
                await self._learned.wait()
        except TimeoutError as error:
            raise MonitorError("the kernel does not tell of nftables changes") from error

    async def wait(self) -> bool:
        """True: somebody changed our tables. False: messages were lost, look whether the tables are there (`present`)."""
        await self._foreign.wait()
        self._foreign.clear()
        certain, self._certain = self._certain, False
        return certain

    def close(self) -> None:
        self._notifications.__exit__(None, None, None)

    def _lost(self) -> None:
        """Messages were lost, most likely because of our own load: no reason to load again without a look."""
        self._touched.clear()
        self._foreign.set()

    def _note(self, kind: int, body: bytes) -> None:
        """Changes come first, then the generation that says who made them."""
        if kind >> 8 != _SUBSYSTEM:
            return
        values = dict(attributes(body[4:]))
        if kind & 0xFF != _NEW_GENERATION:
            # Of every kind of object attribute 1 is the table's name.
            name = values.get(_TABLE_NAME, b"").rstrip(b"\0").decode(errors="replace")
            if name.startswith(TABLE_PREFIX):
                self._touched.add(name)
            return
        (author,) = struct.unpack(">I", values.get(_GENERATION_PID, b"\0\0\0\0"))
        if self._marker in self._touched:
            self._own = author
            self._learned.set()
        elif self._touched and author != self._own:
            self._certain = True
            self._foreign.set()
        self._touched.clear()


async def present(nft: Nft, tables: Iterable[str]) -> bool:
    """Are these tables (`ip k1s-proxy`) all there?"""
    found = {f"{t['family']} {t['name']}" for item in await nft.query("list tables") if (t := item.get("table"))}
    return found.issuperset(tables)
