"""What the network's parts share, and what a part is.

Owns: NodeNetwork, Part, NetworkError. Called by: app (makes it), every part. Never does: I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from k1s.agent.context import AgentContext
from k1s.agent.service_watch import ServiceWatch
from k1s.net.cni.node import PodNetwork
from k1s.net.nft import Nft
from k1s.net.proxy.table import Ranges


class NetworkError(Exception):
    """The network cannot be set up; the message says what to change."""


@dataclass(slots=True)
class NodeNetwork:
    """One node's network. `pods` is its bridge, addresses and worker threads."""

    agent: AgentContext
    nft: Nft
    pods: PodNetwork
    ranges: Ranges
    services: ServiceWatch
    # Rules have one writer at a time: changes of the API and repairs take turns.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Part(Protocol):
    """One job of the network. `start` returns when its rules stand; `follow` runs until cancelled and takes `turn` itself to
    write rules; `repair` writes them all again and is called with `turn` held."""

    @property
    def tables(self) -> Sequence[str]:
        """The nftables tables that must be there, as `ip k1s-proxy`."""
        ...

    async def start(self) -> None: ...

    async def follow(self) -> None: ...

    async def repair(self) -> None: ...

    async def close(self) -> None: ...
