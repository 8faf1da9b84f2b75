"""The pod network's links on this node, and the way to other nodes' pods: set up, followed and healed.

Owns: the loop from changed Nodes and from the kernel's notifications to links, routes and tunnels; what of it makes the node not
ready. Called by: network.app. Never does: decide what there should be (net.overlay.plan, net.setup), or touch rules.

Bounds: one pass at a time, at most five a second; a fault is looked at again after 1 s doubling to 30 s, and at every change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from k1s.agent.network.state import NodeNetwork
from k1s.api.catalog import builtin
from k1s.base.backoff import Backoff
from k1s.net import names, repair, setup, underlay
from k1s.net.ipam import Attachment
from k1s.net.link import LinkError
from k1s.net.netns import NetnsError
from k1s.net.overlay import apply, plan, vxlan
from k1s.net.overlay.plan import Peer, Wanted
from k1s.net.repair import ServiceLink
from k1s.net.route_monitor import RouteMonitor

Object = dict[str, Any]
_PART = "pod network"
_DEBOUNCE, _PAUSE = 0.05, 0.2
_RETRY = Backoff(initial=1.0, maximum=30.0)
_log = logging.getLogger("k1s.agent.network")


class OverlayPart:
    tables: Sequence[str] = ()

    def __init__(self, network: NodeNetwork) -> None:
        self._network, self._agent = network, network.agent
        self._backend = network.agent.config.network_backend
        ranges = network.ranges
        self._monitor = RouteMonitor([*ranges.cluster_pods, *ranges.services], network.pods.lost_link)
        self._peers: dict[str, Peer] = {}
        self._wanted = Wanted()
        self._device: vxlan.Device | None = None
        self._skipped: dict[str, str] = {}
        self._failures = 0
        self._covered: list[str] = []
        self._agent.metrics.gauge("k1s_network_peers", "Other nodes whose pods this node can reach", read=lambda: self._reached)
        self._reached = 0

    async def start(self) -> None:
        """Peers that are known already are reachable when this returns, unless the kernel refuses."""
        self._monitor.__enter__()
        if self._backend != plan.NONE:
            nodes = self._agent.informers.informer(builtin("Node"))
            nodes.add_handler(self._node_changed)
            await nodes.synced()
        self._agent.address_handlers.append(lambda _: self._monitor.poke())
        await self._pass(first=True)

    async def follow(self) -> None:
        while True:
            retry = _RETRY.delay(self._failures) if self._failures else None
            try:
                async with asyncio.timeout(retry):
                    await self._monitor.wait()
            except TimeoutError:
                pass  # a fault is looked at again: that a program let go of a port is told to nobody
            await self._agent.clock.sleep(_DEBOUNCE)
            await self._pass()
            await self._agent.clock.sleep(_PAUSE)

    async def repair(self) -> None:
        """Rules are not ours."""

    async def close(self) -> None:
        self._monitor.__exit__(None, None, None)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        node = new or old
        assert node is not None
        name = node["metadata"]["name"]
        before, peer = self._peers.get(name), plan.peer_of(new) if new is not None else None
        if before == peer:
            return
        if peer is None:
            self._peers.pop(name, None)
        else:
            self._peers[name] = peer
        self._monitor.poke()

    async def _pass(self, *, first: bool = False) -> None:
        """Look, compare, put right."""
        pods = self._network.pods
        try:
            faults, done, lost = await pods.in_thread(self._bring_up)
            for attachment in lost:
                done += await self._rewire(attachment)
        except (LinkError, NetnsError, OSError) as error:
            faults, done = [str(error)], []
        if self._monitor.refresh():
            self._monitor.poke()
        if done and not first:
            _log.warning("put back what somebody else removed or changed: %s", ", ".join(done))
        self._failures = self._failures + 1 if faults else 0
        self._agent.set_ready(_PART, "; ".join(faults))

    async def _rewire(self, attachment: Attachment) -> list[str]:
        if await repair.rewire(self._network.pods, attachment):
            return [f"the link of pod {attachment.pod or attachment.container_id}"]
        return []

    def _bring_up(self) -> tuple[list[str], list[str], list[Attachment]]:
        """In a worker thread: (what makes the node unfit, what was put back, pods without a link)."""
        agent, pods, ranges = self._agent, self._network.pods, self._network.ranges
        ours = self._backend != plan.NONE
        host = underlay.look(agent.node_ip)
        faults = underlay.faults(host, self._backend, agent.node_ip, ranges.cluster_pods, ranges.services)
        self._tell_covered(underlay.covering(host, [*ranges.cluster_pods, *ranges.services]))
        if host.uplink is not None:
            self._monitor.follow_uplink(host.uplink.index)
        if ours:
            pods.mtu = underlay.pod_mtu(host, self._backend, agent.node_ip)
        memory = setup.sysctl_memory(agent.config.agent_dir / "network")
        done, lost = repair.restore_links(pods, self._service_link(), memory, bridge=ours)
        try:
            done += self._reach_peers(host)
        except LinkError as error:
            faults.append(str(error))
        return faults, done, lost

    def _service_link(self) -> ServiceLink:
        agent, pods = self._agent, self._network.pods
        if self._backend == plan.NONE:
            sources = {6 if ":" in address else 4: address for address in reversed(agent.node_ips)}
        else:
            sources = {gateway.version: str(gateway) for gateway in pods.ipam.gateways}
        held = setup.held_addresses(agent.config.cluster_dns.split(","))
        return ServiceLink(tuple(setup.service_routes(self._network.ranges.services, sources)), tuple(held))

    def _reach_peers(self, host: underlay.Underlay) -> list[str]:
        agent, pods = self._agent, self._network.pods
        own = Peer(agent.node_name, agent.node_ips, pods.ipam.networks)
        others = plan.peers(list(self._peers.values()), own)
        wanted = Wanted()
        device: vxlan.Device | None = None
        if self._backend == plan.VXLAN_BACKEND:
            wanted = plan.vxlan(agent.node_ip, own, others)
            device = vxlan.Device(
                agent.node_ip,
                plan.device_mac(own.ranges),
                pods.mtu,
                tuple(setup.held_addresses([str(gateway) for gateway in pods.ipam.gateways])),
                vxlan.checksums_work(host.uplink.name if host.uplink is not None else ""),
            )
        elif self._backend == plan.HOST_GW:
            wanted = plan.host_gw(own, others, host.on_link())
        touched, changes = apply.apply(wanted, device)
        added, before, same = changes.add, self._wanted, device == self._device
        self._wanted, self._device, self._reached = wanted, device, len(others) - len(wanted.skipped)
        self._tell_skipped(wanted.skipped)
        lost = [f"link {names.VXLAN}"] if touched and same else []
        lost += [f"the route to {route.destination}" for route in added.routes & before.routes]
        lost += [f"the neighbour {neighbour.address}" for neighbour in added.neighbours & before.neighbours]
        return lost + [f"the tunnel to {forward.address}" for forward in added.forwards & before.forwards]

    def _tell_skipped(self, skipped: dict[str, str]) -> None:
        for name, why in skipped.items():
            if self._skipped.get(name) != why:
                _log.error("pods of node %s cannot be reached: %s", name, why)
        self._skipped = dict(skipped)

    def _tell_covered(self, found: list[str]) -> None:
        if found != self._covered:
            self._covered = found
            for line in found:
                _log.warning("%s", line)
