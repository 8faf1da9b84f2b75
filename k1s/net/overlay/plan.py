"""What this host's kernel must hold so that its pods reach those of other nodes: pure.

Owns: Peer, Wanted, and the two ways: VXLAN (RFC 7348) and plain routes (host-gw). Called by: overlay.apply, agent.network.
Never does: I/O. Golden-tested.

VXLAN without flooding: a packet for a peer's pods goes to the peer's gateway address, whose hardware address is a permanent
neighbour, which a permanent forwarding entry leads to the peer's own address. All three follow from the Node object: the
hardware address of a node's device is made from its pod range, so nothing has to be told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from k1s.net.family import Network, parse_address, parse_network
from k1s.net.names import VXLAN
from k1s.net.route import Route

Object = dict[str, Any]

VXLAN_BACKEND, HOST_GW, WIREGUARD, NONE = "vxlan", "host-gw", "wireguard", "none"
BACKENDS = (VXLAN_BACKEND, HOST_GW, WIREGUARD, NONE)
# Outer IPv4 (20) or IPv6 (40), UDP (8), VXLAN (8) and the inner Ethernet header (14).
_OVERHEAD = {4: 50, 6: 70}


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node: where it is, and the ranges of its pods."""

    name: str
    addresses: tuple[str, ...]
    ranges: tuple[Network, ...]

    def address(self, version: int) -> str:
        """Its first address of that IP version, "" if it has none."""
        return next((a for a in self.addresses if (":" in a) == (version == 6)), "")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """`address` has that hardware address, on the VXLAN device."""

    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Forward:
    """Frames for that hardware address go to the host `address`."""

    mac: str
    address: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """`skipped`: peer -> why its pods cannot be reached."""

    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    forwards: frozenset[Forward] = frozenset()
    skipped: dict[str, str] = field(default_factory=dict, compare=False)


def overhead(backend: str, version: int) -> int:
    """How much smaller pods' packets must be than the uplink's, for outer packets of that IP version."""
    return _OVERHEAD[version] if backend == VXLAN_BACKEND else 0


def peer_of(node: Object) -> Peer | None:
    """What a Node object says of where its pods are; None where it has no pods' range or no address yet."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    texts = spec.get("podCIDRs") or [spec.get("podCIDR") or ""]
    ranges = tuple(network for text in texts if (network := parse_network(text)) is not None)
    entries = status.get("addresses") or ()
    addresses = tuple(
        str(parsed)
        for entry in entries
        if entry.get("type") == "InternalIP" and (parsed := parse_address(entry.get("address") or "")) is not None
    )
    return Peer(node["metadata"]["name"], addresses, ranges) if ranges and addresses else None


def peers(nodes: Iterable[Peer], own: Peer) -> list[Peer]:
    """All but ourselves, by name; not those that claim our own address (agents that only pretend) or a range that is taken."""
    found, taken = [], list(own.ranges)
    for peer in sorted(nodes, key=lambda peer: peer.name):
        if peer.name == own.name or set(peer.addresses) & set(own.addresses):
            continue
        if any(a.version == b.version and a.overlaps(b) for a in peer.ranges for b in taken):
            continue
        taken += peer.ranges
        found.append(peer)
    return found


def device_mac(ranges: Sequence[Network]) -> str:
    """The hardware address of a node's VXLAN device: locally administered, different for every pod range."""
    first = ranges[0]
    tail = first.network_address.packed if first.version == 4 else hashlib.sha256(str(first).encode()).digest()[:4]
    # 06, not the bridge's 02; the second byte keeps the two families apart.
    return bytes((0x06, 0x6B if first.version == 4 else 0x6C, *tail)).hex(":")


def gateway(network: Network) -> str:
    """The address of a node's bridge in that range."""
    return str(network.network_address + 1)


def vxlan(local: str, own: Peer, others: Iterable[Peer]) -> Wanted:
    """`local`: this host's end of the tunnels; peers are met at their address of the same family."""
    routes, neighbours, forwards = set(), set(), set()
    skipped = {}
    version = 6 if ":" in local else 4
    sources = _sources(own)
    for peer in others:
        address = peer.address(version)
        if not address:
            skipped[peer.name] = f"it has no IPv{version} address, and this node's tunnels end at {local}"
            continue
        mac = device_mac(peer.ranges)
        forwards.add(Forward(mac, address))
        for network in peer.ranges:
            if network.version in sources:
                via = gateway(network)
                neighbours.add(Neighbour(via, mac))
                routes.add(Route(str(network), VXLAN, via, sources[network.version], onlink=True))
    return Wanted(frozenset(routes), frozenset(neighbours), frozenset(forwards), skipped)


def host_gw(own: Peer, others: Iterable[Peer], links: Sequence[tuple[Network, str]]) -> Wanted:
    """`links`: this host's own networks and the link of each. A peer must be in one of them."""
    routes: set[Route] = set()
    skipped: dict[str, str] = {}
    sources = _sources(own)
    for peer in others:
        for network in peer.ranges:
            if network.version not in sources:
                continue
            via = peer.address(network.version)
            link = _on_link(via, links)
            if link:
                routes.add(Route(str(network), link, via, sources[network.version]))
                continue
            why = f"it has no IPv{network.version} address to be the next hop of {network}"
            if via:
                why = (
                    f"its address {via} is not in a network of this host ({', '.join(str(n) for n, _ in links)}), so it cannot "
                    "be the next hop: put the hosts into one network, or use --network-backend vxlan"
                )
            skipped[peer.name] = "; ".join(filter(None, (skipped.get(peer.name), why)))
    return Wanted(frozenset(routes), skipped=skipped)


def _sources(own: Peer) -> dict[int, str]:
    """What our own packets to pods elsewhere come from: an address in our range, so that answers take the same way back."""
    return {network.version: gateway(network) for network in own.ranges}


def _on_link(address: str, links: Sequence[tuple[Network, str]]) -> str:
    parsed = parse_address(address)
    inside = [(network.prefixlen, link) for network, link in links if parsed is not None and parsed in network]
    return max(inside)[1] if inside else ""


@dataclass(frozen=True, slots=True)
class Changes:
    """From what is there to what is wanted."""

    add: Wanted
    remove: Wanted

    def __bool__(self) -> bool:
        return any((w.routes, w.neighbours, w.forwards) != (frozenset(),) * 3 for w in (self.add, self.remove))


def difference(wanted: Wanted, found: Wanted) -> Changes:
    """What to add and what to take away. A route is replaced in place, a neighbour too: those are not removed first."""
    destinations = {route.destination for route in wanted.routes}
    addresses = {neighbour.address for neighbour in wanted.neighbours}
    return Changes(
        Wanted(wanted.routes - found.routes, wanted.neighbours - found.neighbours, wanted.forwards - found.forwards),
        Wanted(
            frozenset(route for route in found.routes - wanted.routes if route.destination not in destinations),
            frozenset(n for n in found.neighbours - wanted.neighbours if n.address not in addresses),
            found.forwards - wanted.forwards,
        ),
    )
