"""The cluster's DNS on this node.

Owns: making the DNS server from the node's configuration, what it follows, its metrics port, and the Service that leads to
it where port 53 was taken. Called by: network.app. Never does: answer (net.dns).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from k1s.agent.network.dns_settings import DnsSettings
from k1s.agent.network.state import NodeNetwork
from k1s.agent.service_watch import service_of
from k1s.api.catalog import builtin
from k1s.base.metrics import Registry
from k1s.net.dns.forward import Forwarder
from k1s.net.dns.hosts import HostTable
from k1s.net.dns.metrics import DnsMetrics
from k1s.net.dns.metrics_port import PORT, MetricsPort
from k1s.net.dns.server import DnsServer
from k1s.net.dns.settings import Settings

Object = dict[str, Any]
_log = logging.getLogger("k1s.agent.network")


class DnsPart:
    """`own_services` is for the proxy, once started."""

    tables: Sequence[str] = ()

    def __init__(self, network: NodeNetwork) -> None:
        agent = network.agent
        config = agent.config
        self._agent = agent
        self._addresses = config.cluster_dns.split(",")
        metrics = DnsMetrics()
        self._forwarder = Forwarder(config.resolv_conf, own_addresses=self._addresses, clock=agent.clock, metrics=metrics)
        self._server = DnsServer(
            network.services,
            self._forwarder,
            domain=config.cluster_domain,
            addresses=self._addresses,
            reverse=[*network.ranges.services, *network.ranges.cluster_pods],
            metrics=metrics,
        )
        self.own_services: Mapping[str, tuple[Object, list[Object]]] = {}
        registry = Registry()
        metrics.register(agent.metrics, registry)
        self._metrics_port = MetricsPort(registry.exposition)
        self._settings = DnsSettings(agent, frozenset(self._addresses), self._set, self._set_nodes)

    async def start(self) -> None:
        port = await self._server.start()
        # Only where port 53 itself could not be had: then the proxy leads there what is sent to it.
        if port != 53:
            self.own_services = {f"k1s.io/dns-{n}": dns_service(address, port) for n, address in enumerate(self._addresses)}
        informers = self._agent.informers
        informers.informer(builtin("Service")).add_handler(lambda old, new: self._server.changed())
        informers.informer(builtin("EndpointSlice")).add_handler(self._slice_changed)
        self._settings.start()
        for address in self._addresses:
            await self._open_metrics(address)

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        self._server.endpoints_changed([*service_of(old or {}), *service_of(new or {})])

    def _set(self, settings: Settings) -> None:
        self._forwarder.configure(settings.stubs, settings.upstreams)
        self._server.resolver.overrides = settings.table()
        self._server.changed()

    def _set_nodes(self, table: HostTable) -> None:
        self._server.resolver.nodes = table
        self._server.changed()

    async def _open_metrics(self, address: str) -> None:
        """Port 9153 of the Service kube-dns, where those who know CoreDNS look; the agent's own /metrics has the same."""
        try:
            await self._metrics_port.open(address)
        except OSError as error:
            _log.warning("no DNS metrics on port %d of %s: %s", PORT, address, error.strerror or error)

    async def follow(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def repair(self) -> None:
        return None

    async def close(self) -> None:
        self._metrics_port.close()
        await self._server.stop()


def dns_service(address: str, port: int) -> tuple[Object, list[Object]]:
    """Port 53 of the address, served by its port `port`."""
    ports = [{"name": protocol.lower(), "protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    targets = [{**entry, "port": port} for entry in ports]
    kind = "IPv6" if ":" in address else "IPv4"
    piece = {"metadata": {}, "addressType": kind, "ports": targets, "endpoints": [{"addresses": [address]}]}
    return {"metadata": {}, "spec": {"clusterIP": address, "ports": ports}}, [piece]
