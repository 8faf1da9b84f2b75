"""Services on this node: the proxy's rules and the health check ports, kept up to date.

Owns: the loop from changed Services to the kernel, also when the node's zone or addresses change. Called by: network.app.
Never does: rules (net.proxy).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from k1s.agent.network.state import NodeNetwork
from k1s.api.catalog import builtin
from k1s.net.family import family_of
from k1s.net.names import PROXY_TABLE
from k1s.net.proxy import limits
from k1s.net.proxy.apply import ServiceProxy
from k1s.net.proxy.endpoints import Place
from k1s.net.proxy.health import HealthPorts
from k1s.net.setup import sysctl_memory

Object = dict[str, Any]
_ZONE = "topology.kubernetes.io/zone"


class ServicePart:
    """`own_services`: those that the agent itself serves, beside the API's."""

    def __init__(self, network: NodeNetwork, own_services: Mapping[str, tuple[Object, list[Object]]]) -> None:
        agent = network.agent
        self._network, self._watch = network, network.services
        families = list(dict.fromkeys(family_of(services) for services in network.ranges.services))
        self.tables: Sequence[str] = [f"{family.name} {PROXY_TABLE}" for family in families]
        anywhere = ["0.0.0.0" if family.version == 4 else "::" for family in families]
        self._health = HealthPorts(self._watch.lookup, agent.node_name, anywhere)
        self._node = agent.informers.informer(builtin("Node"), field_selector=f"metadata.name={agent.node_name}")
        self._moved = asyncio.Event()
        self._proxy = ServiceProxy(
            network.nft,
            self._watch.lookup,
            place=self._place(),
            ranges=network.ranges,
            families=families,
            own_addresses=agent.config.cluster_dns.split(","),
            own_services=own_services,
        )

    async def start(self) -> None:
        await self._proxy.load(self._watch.keys())
        await self._health.update(self._watch.keys())
        memory = sysctl_memory(self._network.agent.config.agent_dir / "network")
        await self._network.pods.in_thread(lambda: limits.apply(memory))
        self._node.add_handler(lambda _, __: self._moved.set())

    async def follow(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_services())
            tasks.create_task(self._follow_node())

    async def _follow_services(self) -> None:
        """Whatever changed while the last transaction ran goes into the next one."""
        while True:
            changed = await self._watch.changed()
            async with self._network.turn:
                await self._proxy.update(changed)
            await self._health.update(changed)

    async def _follow_node(self) -> None:
        """The node's zone label and addresses may change at any time."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            async with self._network.turn:
                await self._proxy.move(self._place())

    async def repair(self) -> None:
        await self._proxy.load(self._watch.keys())

    async def close(self) -> None:
        await self._health.close()

    def _place(self) -> Place:
        agent = self._network.agent
        node = self._node.get(agent.node_name) or {}
        labels = (node.get("metadata") or {}).get("labels") or {}
        addresses = (node.get("status") or {}).get("addresses") or ()
        own = {entry.get("address", "") for entry in addresses if entry.get("type") != "Hostname"}
        return Place(agent.node_name, str(labels.get(_ZONE) or ""), tuple(sorted(own)))
