"""Services on this node: the proxy's rules and the health check ports, kept up to date.

Owns: the loop from changed Services to the kernel. Called by: network.app. Never does: rules (net.proxy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k1s.agent.network.state import NodeNetwork
from k1s.api.catalog import builtin
from k1s.net.names import PROXY_TABLE
from k1s.net.proxy.apply import ServiceProxy
from k1s.net.proxy.endpoints import Place
from k1s.net.proxy.health import HealthPorts

Object = dict[str, Any]


class ServicePart:
    """`own_services`: those that the agent itself serves, beside the API's."""

    tables: Sequence[str] = (f"ip {PROXY_TABLE}",)

    def __init__(self, network: NodeNetwork, own_services: Mapping[str, tuple[Object, list[Object]]]) -> None:
        agent = network.agent
        self._network, self._watch = network, network.services
        self._health = HealthPorts(self._watch.lookup, Place(agent.node_name))
        self._proxy = ServiceProxy(
            network.nft,
            self._watch.lookup,
            place=Place(agent.node_name, _zone(network)),
            ranges=network.ranges,
            own_addresses=[agent.config.cluster_dns],
            own_services=own_services,
        )

    async def start(self) -> None:
        await self._proxy.load(self._watch.keys())
        await self._health.update(self._watch.keys())

    async def follow(self) -> None:
        """Whatever changed while the last transaction ran goes into the next one."""
        while True:
            changed = await self._watch.changed()
            async with self._network.turn:
                await self._proxy.update(changed)
            await self._health.update(changed)

    async def repair(self) -> None:
        await self._proxy.load(self._watch.keys())

    async def close(self) -> None:
        await self._health.close()


def _zone(network: NodeNetwork) -> str:
    agent = network.agent
    node_informer = agent.informers.informer(builtin("Node"), field_selector=f"metadata.name={agent.node_name}")
    node = node_informer.get(agent.node_name) or {}
    labels = (node.get("metadata") or {}).get("labels") or {}
    return str(labels.get("topology.kubernetes.io/zone") or "")
