"""What a CNI call needs of its node.

Owns: PodNetwork, its worker threads, and taking turns at a sandbox. Called by: agent.network.app (makes it),
cni.add, delete, check, service.
Never does: calls of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from k1s.net import names
from k1s.net.family import Family, family_of
from k1s.net.ipam import Attachment, Ipam
from k1s.net.nft import Nft

T = TypeVar("T")

# The kernel changes links one at a time (rtnl lock); more threads would only wait in it.
THREADS = 4


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="k1s-net")


@dataclass(slots=True)
class PodNetwork:
    """The node's bridge, addresses and rule engine."""

    ipam: Ipam
    nft: Nft
    bridge: int
    bridge_mac: str
    mtu: int
    # Pods are wired by another CNI plugin: no bridge, masquerading and host ports of ours.
    foreign: bool = False
    turns: dict[str, tuple[asyncio.Lock, int]] = field(default_factory=dict)
    pool: ThreadPoolExecutor = field(default_factory=_pool)
    # Awaited by ADD when the address is known and the sandbox has no interface yet: what must stand before a pod can send.
    before_start: list[Callable[[Attachment], Awaitable[None]]] = field(default_factory=list)
    # Awaited by DEL and GC when the interface is gone, before the address is free again.
    after_delete: list[Callable[[Attachment], Awaitable[None]]] = field(default_factory=list)

    @property
    def families(self) -> tuple[Family, ...]:
        return tuple(family_of(network) for network in self.ipam.networks)

    @asynccontextmanager
    async def turn(self, container_id: str) -> AsyncIterator[None]:
        """One at a time may wire or unwire a sandbox. A lock exists only while somebody holds or wants it."""
        lock, users = self.turns.get(container_id) or (asyncio.Lock(), 0)
        self.turns[container_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self.turns[container_id]
            if users == 1:
                del self.turns[container_id]
            else:
                self.turns[container_id] = (lock, users - 1)

    def lost_link(self, name: str) -> bool:
        """Is `name` the host end of a pod that is neither coming nor going? Then a change of it is none of ours."""
        return any(names.veth(*a.key) == name and a.container_id not in self.turns for a in self.ipam.attachments())

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Netlink and setns block, and a namespace is entered by one thread: both belong in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)
