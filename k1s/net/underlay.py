"""The host's own network, below that of the pods: which link leads to other hosts, its size, and what clashes with pods' ranges.

Owns: Underlay and the judgement of it. Called by: agent.network.overlay. Never does: change anything.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from k1s.net import link, names, route
from k1s.net.family import Network
from k1s.net.link import Link
from k1s.net.overlay import plan

# IPv6's least (RFC 8200, section 5), which IPv4 gets too: below it DNS answers and TLS handshakes begin to fail.
LEAST_POD_MTU = 1280
DEFAULT_MTU = 1500
_IPV6_ADDR_PREFERENCES, _PREFER_PUBLIC = 72, 2  # linux/in6.h


@dataclass(frozen=True, slots=True)
class Underlay:
    """`uplink` holds the node's address, or else the default route; `networks` are the host's own, each with address and link."""

    uplink: Link | None
    networks: tuple[tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, str], ...]

    @property
    def mtu(self) -> int:
        return self.uplink.mtu if self.uplink is not None else DEFAULT_MTU

    def on_link(self) -> list[tuple[Network, str]]:
        """Networks with room for a next hop."""
        return [(a.network, name) for a, name in self.networks if a.network.prefixlen < a.network.max_prefixlen]


def look(node_ip: str) -> Underlay:
    """In a worker thread."""
    by_index = {found.index: found for found in link.links()}
    networks = []
    holder: Link | None = None
    for held in link.all_addresses():
        owner = by_index.get(held.index)
        if owner is None or owner.name in names.LINKS:
            continue
        address = ipaddress.ip_interface(f"{held.address}/{held.prefix}")
        if address.is_link_local or address.is_loopback:
            continue
        networks.append((address, owner.name))
        # Hosts that are routers have their address on lo, which says nothing of the way out.
        if held.address == node_ip and owner.name != "lo":
            holder = owner
    family = socket.AF_INET6 if ":" in node_ip else socket.AF_INET
    return Underlay(holder or route.uplink(family), tuple(sorted(networks, key=lambda pair: (pair[1], str(pair[0])))))


def node_addresses(before: Sequence[str], versions: Sequence[int]) -> tuple[str, ...]:
    """The addresses this node is known by, one a family. In a worker thread.

    One that is still there stays, whatever else comes (another card, a VPN that takes the default route); one that has gone is
    replaced by what the kernel would send from; while there is no other the last one is kept.
    """
    by_index = {found.index: found.name for found in link.links()}
    usable = [
        held.address
        for held in link.all_addresses()
        if held.stable and by_index.get(held.index) not in names.LINKS and not ipaddress.ip_address(held.address).is_loopback
    ]
    found = []
    for version in versions:
        old = next((a for a in before if (":" in a) == (version == 6)), "")
        if old not in usable:
            source = _source(version)
            of_family = [a for a in usable if (":" in a) == (version == 6)]
            # The first family is what the node cannot do without; the other one may come and go.
            old = source or (of_family[0] if of_family else (old if version == versions[0] else ""))
        found += [old] if old else []
    return tuple(found)


def _source(version: int) -> str:
    """What packets to the world would come from, "" where there is no way out. Connecting a datagram socket sends nothing."""
    family, target = (socket.AF_INET6, "2001:db8::1") if version == 6 else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            if version == 6:
                # Not one of those that change every day (RFC 4941).
                probe.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDR_PREFERENCES, _PREFER_PUBLIC)
            probe.connect((target, 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6").exists()


def pod_mtu(underlay: Underlay, backend: str, node_ip: str) -> int:
    return underlay.mtu - plan.overhead(backend, 6 if ":" in node_ip else 4)


def faults(underlay: Underlay, backend: str, node_ip: str, pods: Iterable[Network], services: Iterable[Network]) -> list[str]:
    """What makes this host unfit, each with what to do about it."""
    found = [*_clashes(underlay, "pods", "cluster-cidr", pods), *_clashes(underlay, "services", "service-cidr", services)]
    if node_ip and not ipaddress.ip_address(node_ip).is_loopback:
        held = [str(address.ip) for address, _ in underlay.networks]
        if node_ip not in held:
            found.append(
                f"the node's address {node_ip} is on no link of this host (it has {', '.join(held) or 'none'}): give the host "
                "that address, or start with another --node-ip"
            )
    mtu = pod_mtu(underlay, backend, node_ip)
    if mtu < LEAST_POD_MTU and underlay.uplink is not None:
        spare = underlay.mtu - mtu
        found.append(
            f"the MTU of {underlay.uplink.name} is {underlay.mtu}, which leaves {mtu} for pods ({backend} takes {spare}); they "
            f"need {LEAST_POD_MTU}: set it to {LEAST_POD_MTU + spare} or more (ip link set {underlay.uplink.name} mtu ...)"
        )
    return found


def _clashes(underlay: Underlay, whose: str, flag: str, ranges: Iterable[Network]) -> list[str]:
    """The host's own networks that lie in a range of the cluster. One that is wider is no clash: ours is more specific."""
    return [
        f"this host's {address} on {name} lies in the range of {whose}, {network}: give the host another network, or the "
        f"cluster another range (--{flag} of a new server)"
        for network in ranges
        for address, name in underlay.networks
        if address.version == network.version and (address.ip in network or _inside(address.network, network))
    ]


def _inside(inner: Network, outer: Network) -> bool:
    return inner.prefixlen >= outer.prefixlen and inner.network_address in outer


def covering(underlay: Underlay, ranges: Sequence[Network]) -> list[str]:
    """The host's networks that are wider than a range of the cluster and contain it: worth a line in the log."""
    return [
        f"{address} on {name} contains {network}: hosts there with addresses of that range cannot be reached"
        for network in ranges
        for address, name in underlay.networks
        if address.version == network.version and address.network.prefixlen < network.prefixlen and network[0] in address.network
    ]
