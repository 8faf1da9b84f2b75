"""The agent's network part: pod network, CNI service, service proxy, cluster DNS.

Owns: their order, and keeping them alive together. Called by: agent.app as a part; `install_cni` also by packaging and tests.
Never does: the work itself (k1s/net). With the fake runtime nothing is put on the host.

Order: the Node's pod range > bridge and rules > addresses of sandboxes that died meanwhile > DNS > proxy > CNI socket >
conflist. The conflist comes last because containerd takes pods once it sees one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import Any

from k1s.agent.config import AgentConfig
from k1s.agent.context import AgentContext
from k1s.agent.service_watch import ServiceWatch
from k1s.api.catalog import builtin
from k1s.base.tasks import Supervisor
from k1s.net import setup
from k1s.net.cni import delete, install
from k1s.net.cni.node import PodNetwork
from k1s.net.cni.service import CniService
from k1s.net.dns.forward import Forwarder
from k1s.net.dns.server import DnsServer
from k1s.net.family import Network
from k1s.net.monitor import Monitor, present
from k1s.net.names import HOSTPORT_TABLE, MASQUERADE_TABLE, PROXY_TABLE
from k1s.net.nft import Nft
from k1s.net.proxy.apply import ServiceProxy
from k1s.net.proxy.endpoints import Place
from k1s.net.proxy.health import HealthPorts
from k1s.net.proxy.table import Ranges

Object = dict[str, Any]
_PART = "network"
_TABLES = [f"ip {name}" for name in (MASQUERADE_TABLE, HOSTPORT_TABLE, PROXY_TABLE)]
_log = logging.getLogger("k1s.agent.network")


class NetworkError(Exception):
    """The network cannot be set up; the message says what to change."""


def install_cni(config: AgentConfig) -> None:
    """Put plugin and conflist where k1s's containerd looks for them."""
    install.install(config.cni_conf_dir, config.cni_bin_dir, config.cni_socket)


def remove_cni(config: AgentConfig) -> None:
    install.remove(config.cni_conf_dir, config.cni_bin_dir, config.cni_socket)


async def run(agent: AgentContext, ready: Callable[[], None]) -> None:
    """Runs until cancelled. `ready` when pods can be wired."""
    if agent.config.fake_runtime:
        ready()
        await asyncio.get_running_loop().create_future()
    agent.set_ready(_PART, "the node has no pod range (spec.podCIDR) yet")
    pod_range = await _pod_range(agent)
    services = ServiceWatch(agent.informers)
    nft = Nft()
    try:
        ranges = _ranges(agent.config, pod_range)
        network = await setup.open_network(_state_dir(agent.config), pod_range, ranges.cluster_pods, nft)
        dns_address = agent.config.cluster_dns
        await network.in_thread(lambda: setup.service_link(network, ranges.services, [dns_address]))
        await _release_dead(agent, network)
        await services.start()
        dns = _dns(agent, services, ranges)
        _count(agent, dns, network)
        try:
            proxy = _proxy(agent, nft, services, ranges, await dns.start())
            await proxy.load(services.keys())
            await _serve(agent, network, services, proxy, ranges, ready)
        finally:
            await dns.stop()
    finally:
        await nft.close()


def _dns(agent: AgentContext, services: ServiceWatch, ranges: Ranges) -> DnsServer:
    config = agent.config
    forwarder = Forwarder(config.resolv_conf, own_addresses=[config.cluster_dns, agent.node_ip], clock=agent.clock)
    reverse = [*ranges.services, *ranges.cluster_pods]
    return DnsServer(services, forwarder, domain=config.cluster_domain, address=config.cluster_dns, reverse=reverse)


def _proxy(agent: AgentContext, nft: Nft, services: ServiceWatch, ranges: Ranges, dns_port: int) -> ServiceProxy:
    address = agent.config.cluster_dns
    # Only where port 53 itself could not be had: then the proxy leads there what is sent to it.
    own = {} if dns_port == 53 else {"k1s.io/dns": dns_service(address, dns_port)}
    place = Place(agent.node_name, _zone(agent))
    return ServiceProxy(nft, services.lookup, place=place, ranges=ranges, own_addresses=[address], own_services=own)


def dns_service(address: str, port: int) -> tuple[Object, list[Object]]:
    """Port 53 of the address, served by its port `port`."""
    ports = [{"name": protocol.lower(), "protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    targets = [{**entry, "port": port} for entry in ports]
    kind = "IPv6" if ":" in address else "IPv4"
    piece = {"metadata": {}, "addressType": kind, "ports": targets, "endpoints": [{"addresses": [address]}]}
    return {"metadata": {}, "spec": {"clusterIP": address, "ports": ports}}, [piece]


async def _serve(
    agent: AgentContext,
    network: PodNetwork,
    services: ServiceWatch,
    proxy: ServiceProxy,
    ranges: Ranges,
    ready: Callable[[], None],
) -> None:
    cni = CniService(network)
    monitor = Monitor()
    health = HealthPorts(services.lookup, Place(agent.node_name))
    # The proxy's state has one owner at a time: changes of the API and repairs take turns.
    turn = asyncio.Lock()
    await monitor.start(network.nft)
    try:
        await health.update(services.keys())
        await cni.start(agent.config.cni_socket)
        install_cni(agent.config)
        async with Supervisor() as tasks:
            tasks.spawn("service proxy", _follow(services, proxy, health, turn))
            tasks.spawn("rule monitor", _repair(agent, monitor, network, services, proxy, ranges, turn))
            agent.set_ready(_PART)
            ready()
    finally:
        monitor.close()
        await cni.stop()
        await health.close()


async def _follow(services: ServiceWatch, proxy: ServiceProxy, health: HealthPorts, turn: asyncio.Lock) -> None:
    """Whatever changed while the last transaction ran goes into the next one."""
    while True:
        changed = await services.changed()
        async with turn:
            await proxy.update(changed)
        await health.update(changed)


async def _repair(
    agent: AgentContext,
    monitor: Monitor,
    network: PodNetwork,
    services: ServiceWatch,
    proxy: ServiceProxy,
    ranges: Ranges,
    turn: asyncio.Lock,
) -> None:
    """Somebody flushed or changed our tables: write them again. At most once a second, so that two such programs do not race."""
    while True:
        if not await monitor.wait() and await present(network.nft, _TABLES):
            continue
        _log.warning("somebody else changed k1s's nftables tables, writing them again")
        async with turn:
            await setup.write_rules(network, ranges.cluster_pods)
            await proxy.load(services.keys())
        await agent.clock.sleep(1.0)


async def _release_dead(agent: AgentContext, network: PodNetwork) -> None:
    live = {sandbox.id for sandbox in await agent.runtime.list_pod_sandboxes()}
    for attachment in await delete.release_dead(network, live):
        _log.info("released %s: its sandbox %s (%s) is gone", attachment.address, attachment.container_id[:12], attachment.pod)


def _state_dir(config: AgentConfig) -> Any:
    return config.agent_dir / "network"


def _ranges(config: AgentConfig, pod_range: Network) -> Ranges:
    return Ranges((pod_range,), _networks("cluster-cidr", config.cluster_cidr), _networks("service-cidr", config.service_cidr))


def _networks(flag: str, text: str) -> tuple[Network, ...]:
    try:
        found = tuple(ipaddress.ip_network(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise NetworkError(f"--{flag} {text}: {error}") from error
    if not any(network.version == 4 for network in found):
        raise NetworkError(f"--{flag} {text}: an IPv4 range is needed; IPv6-only clusters do not work yet")
    return found


async def _pod_range(agent: AgentContext) -> Network:
    """The IPv4 range that the control plane gave this node; waits for it."""
    node_informer = agent.informers.informer(builtin("Node"), field_selector=f"metadata.name={agent.node_name}")
    given: asyncio.Future[Network] = asyncio.get_running_loop().create_future()

    def changed(_: Object | None, node: Object | None) -> None:
        spec = (node or {}).get("spec") or {}
        for text in spec.get("podCIDRs") or [spec.get("podCIDR")]:
            if text and ":" not in text and not given.done():
                given.set_result(ipaddress.ip_network(text))

    node_informer.add_handler(changed)
    return await given


def _zone(agent: AgentContext) -> str:
    node_informer = agent.informers.informer(builtin("Node"), field_selector=f"metadata.name={agent.node_name}")
    node = node_informer.get(agent.node_name) or {}
    labels = (node.get("metadata") or {}).get("labels") or {}
    return str(labels.get("topology.kubernetes.io/zone") or "")


def _count(agent: AgentContext, dns: DnsServer, network: PodNetwork) -> None:
    agent.metrics.gauge("k1s_dns_queries", "DNS questions answered since start", read=lambda: dns.answered)
    agent.metrics.gauge("k1s_dns_forwarded", "DNS questions sent to upstream resolvers since start", read=lambda: dns.forwarded)
    agent.metrics.gauge("k1s_pod_addresses", "Pod addresses in use on this node", read=lambda: len(network.ipam.attachments()))
