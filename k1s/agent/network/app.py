"""The agent's network part: pod network, CNI service, service proxy, cluster DNS.

Owns: their order, and keeping them alive together. Called by: agent.app as a part; `install_cni` also by packaging and tests.
Never does: the work itself (k1s/net). With the fake runtime nothing is put on the host.

Order: the Node's pod ranges > bridge and rules > addresses of sandboxes that died meanwhile > the parts > CNI socket >
conflist. The conflist comes last because containerd takes pods once it sees one. With the backend `none` the pods' links are
another CNI plugin's, which the user installs; Services, DNS and policies are k1s's all the same.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from k1s.agent.config import AgentConfig
from k1s.agent.context import AgentContext
from k1s.agent.network.address import AddressPart
from k1s.agent.network.announce import AnnouncePart
from k1s.agent.network.dns import DnsPart
from k1s.agent.network.overlay import OverlayPart
from k1s.agent.network.policy import PolicyPart
from k1s.agent.network.services import ServicePart
from k1s.agent.network.state import NetworkError, NodeNetwork, Part
from k1s.agent.service_watch import ServiceWatch
from k1s.api.catalog import builtin
from k1s.base.tasks import Supervisor
from k1s.net import setup, underlay
from k1s.net.cni import delete, install
from k1s.net.cni.service import CniService
from k1s.net.family import Network, parse_network
from k1s.net.monitor import Monitor, present
from k1s.net.nft import Nft
from k1s.net.overlay import plan
from k1s.net.proxy.table import Ranges

Object = dict[str, Any]
_PART = "network"
_log = logging.getLogger("k1s.agent.network")


def install_cni(config: AgentConfig) -> None:
    """Put plugin and conflist where k1s's containerd looks for them."""
    install.install(config.own_cni_conf_dir, config.own_cni_bin_dir, config.cni_socket)


def remove_cni(config: AgentConfig) -> None:
    install.remove(config.own_cni_conf_dir, config.own_cni_bin_dir, config.cni_socket)


async def run(agent: AgentContext, ready: Callable[[], None]) -> None:
    """Runs until cancelled. `ready` when pods can be wired."""
    if agent.config.fake_runtime:
        ready()
        await asyncio.get_running_loop().create_future()
    agent.set_ready(_PART, "the node has no pod range (spec.podCIDR) yet")
    try:
        backend = _backend(agent.config)
        _ranges(agent.config, ())
    except NetworkError as error:
        # What was configured cannot be, and will not be by starting again: the node says so, the rest of the agent goes on.
        agent.set_ready(_PART, str(error))
        await asyncio.get_running_loop().create_future()
    pod_ranges = await _pod_ranges(agent)
    if len(pod_ranges) > 1 and not underlay.has_ipv6():
        # IPv4 goes on meanwhile.
        agent.set_ready("IPv6", "pods of this cluster have IPv6 addresses, and this kernel has no IPv6 (ipv6.disable=1?)")
        pod_ranges = tuple(pods for pods in pod_ranges if pods.version == 4)
    services = ServiceWatch(agent.informers)
    async with AsyncExitStack() as stack:
        nft = Nft()
        stack.push_async_callback(nft.close)
        ranges = _ranges(agent.config, pod_ranges)
        host = await asyncio.to_thread(underlay.look, agent.node_ip)
        mtu = underlay.pod_mtu(host, backend, agent.node_ip)
        pods = await setup.open_network(
            _state_dir(agent.config), pod_ranges, ranges.cluster_pods, nft, mtu=mtu, bridge=backend != plan.NONE
        )
        network = NodeNetwork(agent, nft, pods, ranges, services)
        await _release_dead(network)
        await services.start()
        agent.metrics.gauge("k1s_pod_addresses", "Pod addresses in use on this node", read=lambda: len(pods.ipam.attachments()))
        parts = await _start_parts(network, stack)
        await _serve(network, parts, ready)


async def _start_parts(network: NodeNetwork, stack: AsyncExitStack) -> list[Part]:
    """The parts in their order, each with its rules in the kernel before the next."""
    address, overlay = AddressPart(network), OverlayPart(network)
    await address.start()
    stack.push_async_callback(overlay.close)
    await overlay.start()
    dns = DnsPart(network)
    stack.push_async_callback(dns.close)
    await dns.start()
    parts: list[Part] = [PolicyPart(network, dns.own_services), ServicePart(network, dns.own_services), AnnouncePart(network)]
    for part in parts:
        stack.push_async_callback(part.close)
        await part.start()
    return [address, overlay, dns, *parts]


async def _serve(network: NodeNetwork, parts: list[Part], ready: Callable[[], None]) -> None:
    agent = network.agent
    cni = CniService(network.pods)
    monitor = Monitor()
    await monitor.start(network.nft)
    try:
        if agent.config.network_backend != plan.NONE:
            await cni.start(agent.config.cni_socket)
            install_cni(agent.config)
        async with Supervisor() as tasks:
            for part in parts:
                tasks.spawn(type(part).__name__, part.follow())
            tasks.spawn("rule monitor", _repair(network, monitor, parts))
            agent.set_ready(_PART)
            ready()
    finally:
        monitor.close()
        await cni.stop()


async def _repair(network: NodeNetwork, monitor: Monitor, parts: list[Part]) -> None:
    """Somebody flushed or changed our tables: write them again. At most once a second, so that two such programs do not race."""
    tables = [*setup.tables(network.pods), *(table for part in parts for table in part.tables)]
    while True:
        if not await monitor.wait() and await present(network.nft, tables):
            continue
        _log.warning("somebody else changed k1s's nftables tables, writing them again")
        async with network.turn:
            await setup.write_rules(network.pods, network.ranges.cluster_pods)
            for part in parts:
                await part.repair()
        await network.agent.clock.sleep(1.0)


async def _release_dead(network: NodeNetwork) -> None:
    live = {sandbox.id for sandbox in await network.agent.runtime.list_pod_sandboxes()}
    for attachment in await delete.release_dead(network.pods, live):
        _log.info("released %s: its sandbox %s (%s) is gone", attachment.address, attachment.container_id[:12], attachment.pod)


def _state_dir(config: AgentConfig) -> Path:
    return config.agent_dir / "network"


def _backend(config: AgentConfig) -> str:
    backend = config.network_backend
    if backend == plan.WIREGUARD:
        raise NetworkError("--network-backend wireguard does not work yet: use vxlan, host-gw or none")
    if backend not in plan.BACKENDS:
        raise NetworkError(f"--network-backend {backend} is not known: use vxlan, host-gw or none")
    return backend


def _ranges(config: AgentConfig, pod_ranges: tuple[Network, ...]) -> Ranges:
    cluster = _networks("cluster-cidr", config.cluster_cidr)
    # Another CNI plugin need not keep to the node's range: any pod may be one of ours.
    here = cluster if config.network_backend == plan.NONE else pod_ranges
    return Ranges(here, cluster, _networks("service-cidr", config.service_cidr))


def _networks(flag: str, text: str) -> tuple[Network, ...]:
    try:
        found = tuple(ipaddress.ip_network(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise NetworkError(f"--{flag} {text}: {error}") from error
    if not any(network.version == 4 for network in found):
        raise NetworkError(f"--{flag} {text}: an IPv4 range is needed; IPv6-only clusters do not work yet")
    return found


async def _pod_ranges(agent: AgentContext) -> tuple[Network, ...]:
    """The ranges that the control plane gave this node, IPv4 first; waits for them."""
    node_informer = agent.informers.informer(builtin("Node"), field_selector=f"metadata.name={agent.node_name}")
    given: asyncio.Future[tuple[Network, ...]] = asyncio.get_running_loop().create_future()

    def changed(_: Object | None, node: Object | None) -> None:
        spec = (node or {}).get("spec") or {}
        texts = spec.get("podCIDRs") or [spec.get("podCIDR")]
        found = [network for text in texts if (network := parse_network(text or "")) is not None]
        if any(network.version == 4 for network in found) and not given.done():
            given.set_result(tuple(sorted(found, key=lambda network: network.version)))

    node_informer.add_handler(changed)
    return await given
