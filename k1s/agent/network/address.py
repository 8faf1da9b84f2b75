"""This node's own addresses: which they are, and that they have changed (DHCP, another network).

Owns: the loop from the kernel's notifications to AgentContext.set_node_ip, whose handlers tell server, certificates and tunnels.
Called by: network.app. Never does: follow anything where --node-ip says what the address is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from k1s.agent.network.state import NodeNetwork
from k1s.net import underlay
from k1s.net.address_watch import AddressWatch

_log = logging.getLogger("k1s.agent.network")


class AddressPart:
    tables: Sequence[str] = ()

    def __init__(self, network: NodeNetwork) -> None:
        self._agent, self._pods = network.agent, network.pods
        self._follows = not network.agent.config.node_ip
        self._versions = tuple(dict.fromkeys(pods.version for pods in network.ranges.cluster_pods))

    async def start(self) -> None:
        """The other family's address, which nobody asked for before the cluster was known to have two."""
        await self._look()

    async def follow(self) -> None:
        with AddressWatch() as watch:
            async for _ in watch:
                await self._look()

    async def _look(self) -> None:
        if not self._follows:
            return
        agent, before = self._agent, self._agent.node_ips
        found = await self._pods.in_thread(lambda: underlay.node_addresses(before, self._versions))
        if found and found != before:
            _log.info("this node's address is %s now (was %s)", ",".join(found), ",".join(before))
            agent.set_node_ip(",".join(found))

    async def repair(self) -> None:
        return None

    async def close(self) -> None:
        return None
