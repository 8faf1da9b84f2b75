"""The pod network's links on this host, put back where somebody took them away.

Owns: comparing bridge, service link and pods' pairs with what they should be. Called by: agent.network.overlay.
Never does: the way to other nodes (overlay), rules (monitor tells of those). What is as it should be is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from k1s.net import link, names, netns, route, setup, veth
from k1s.net.cni import wire
from k1s.net.cni.node import PodNetwork
from k1s.net.ipam import Attachment
from k1s.net.link import Link, LinkError
from k1s.net.route import Route


@dataclass(frozen=True, slots=True)
class ServiceLink:
    """The wanted state of the link of service addresses."""

    routes: tuple[Route, ...]
    held: tuple[str, ...]


def restore_links(
    network: PodNetwork, services: ServiceLink, memory: Path, *, bridge: bool = True
) -> tuple[list[str], list[Attachment]]:
    """Put bridge, service link and pods' ends back; in a worker thread. Returns what was put back, in words, and the pods
    whose pair is gone altogether (`rewire`). `memory`: setup.sysctl_memory. `bridge` False: another CNI plugin's network, only
    the service link is ours."""
    present = {found.name: found for found in link.links()}
    held: dict[int, set[str]] = {}
    for address in link.all_addresses():
        held.setdefault(address.index, set()).add(f"{address.address}/{address.prefix}")
    done = ["forwarding of packets"] if setup.forward(network, memory) else []
    lost: list[Attachment] = []
    if bridge:
        found = present.get(names.BRIDGE)
        if not _as_wanted(found, held, setup.bridge_addresses(network)) or (found and found.mtu != network.mtu):
            setup.ensure_bridge(network, localnet=True)
            done.append(f"link {names.BRIDGE}")
        ended, lost = _pods(network, present)
        done += ended
    routes = {r for r in route.own() if r.link == names.DNS_LINK}
    if not _as_wanted(present.get(names.DNS_LINK), held, services.held) or routes != set(services.routes):
        for unwanted in routes - set(services.routes):
            route.remove(unwanted)
        setup.ensure_service_link(services.routes, services.held)
        done.append(f"link {names.DNS_LINK}")
    return done, lost


def _as_wanted(found: Link | None, held: dict[int, set[str]], addresses: Sequence[str]) -> bool:
    return found is not None and found.up and held.get(found.index, set()) >= set(addresses)


def _pods(network: PodNetwork, present: dict[str, Link]) -> tuple[list[str], list[Attachment]]:
    done, lost = [], []
    for attachment in network.ipam.attachments():
        name = names.veth(*attachment.key)
        end = present.get(name)
        if attachment.container_id in network.turns:
            continue
        if end is None:
            lost.append(attachment)
        elif end.master != network.bridge or not end.up or end.mtu != network.mtu:
            if _attach(network, attachment, end):
                done.append(f"pod {attachment.pod or attachment.container_id}")
    return done, lost


def _attach(network: PodNetwork, attachment: Attachment, end: Link) -> bool:
    try:
        veth.attach(end.name, network.bridge, network.mtu)
        if end.mtu != network.mtu:
            with netns.entered(attachment.netns):
                veth.configure_pod(wire.interface(network, attachment))
    except (LinkError, netns.NetnsError):
        if link.find(end.name) is None:
            return False  # the pod has ended meanwhile
        raise
    return True


async def rewire(network: PodNetwork, attachment: Attachment) -> bool:
    """A pair for a pod that lost its own, with the same addresses. False where the pod itself has gone."""
    async with network.turn(attachment.container_id):
        if network.ipam.find(*attachment.key) is None:
            return False
        return await network.in_thread(lambda: _rewire(network, attachment))


def _rewire(network: PodNetwork, attachment: Attachment) -> bool:
    if link.find(names.veth(*attachment.key)) is not None:
        return False
    try:
        wire.wire(network, attachment, again=True)
    except (LinkError, netns.NetnsError):
        if not _alive(attachment):
            return False
        raise
    return True


def _alive(attachment: Attachment) -> bool:
    """Is there a namespace at its path? A sandbox that was killed leaves a plain file there, or nothing."""
    try:
        with netns.entered(attachment.netns):
            return True
    except netns.NetnsError:
        return False
