"""The cluster's DNS on this node.

Owns: making the DNS server from the node's configuration; the Service that leads to it where port 53 was taken.
Called by: network.app. Never does: answer (net.dns).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from k1s.agent.network.state import NodeNetwork
from k1s.agent.service_watch import service_of
from k1s.api.catalog import builtin
from k1s.net.dns.forward import Forwarder
from k1s.net.dns.metrics import DnsMetrics
from k1s.net.dns.server import DnsServer

Object = dict[str, Any]


class DnsPart:
    """`own_services` is for the proxy, once started."""

    tables: Sequence[str] = ()

    def __init__(self, network: NodeNetwork) -> None:
        agent = network.agent
        config = agent.config
        self._agent = agent
        self._address = config.cluster_dns
        metrics = DnsMetrics()
        forwarder = Forwarder(config.resolv_conf, own_addresses=[config.cluster_dns], clock=agent.clock, metrics=metrics)
        self._server = DnsServer(
            network.services,
            forwarder,
            domain=config.cluster_domain,
            addresses=[config.cluster_dns],
            reverse=[*network.ranges.services, *network.ranges.cluster_pods],
            metrics=metrics,
        )
        self.own_services: Mapping[str, tuple[Object, list[Object]]] = {}
        metrics.register(agent.metrics)
        informers = agent.informers
        informers.informer(builtin("Service")).add_handler(lambda old, new: self._server.changed())
        informers.informer(builtin("EndpointSlice")).add_handler(self._slice_changed)

    async def start(self) -> None:
        port = await self._server.start()
        # Only where port 53 itself could not be had: then the proxy leads there what is sent to it.
        if port != 53:
            self.own_services = {"k1s.io/dns": dns_service(self._address, port)}

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        self._server.endpoints_changed([*service_of(old or {}), *service_of(new or {})])

    async def follow(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def repair(self) -> None:
        return None

    async def close(self) -> None:
        await self._server.stop()


def dns_service(address: str, port: int) -> tuple[Object, list[Object]]:
    """Port 53 of the address, served by its port `port`."""
    ports = [{"name": protocol.lower(), "protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    targets = [{**entry, "port": port} for entry in ports]
    kind = "IPv6" if ":" in address else "IPv4"
    piece = {"metadata": {}, "addressType": kind, "ports": targets, "endpoints": [{"addresses": [address]}]}
    return {"metadata": {}, "spec": {"clusterIP": address, "ports": ports}}, [piece]
