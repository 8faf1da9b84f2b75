"""The node's side of the pod network: bridge, forwarding, masquerading, host ports.

Owns: the order of making it, and the path of its memory. Called by: agent.network.app. Never does: serve CNI calls.
Everything may be repeated; what a killed agent left is taken over, pods stay connected.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from k1s.net import hostport, link, masquerade, names, sysctl
from k1s.net.cni.node import PodNetwork
from k1s.net.family import Network
from k1s.net.ipam import Ipam
from k1s.net.nft import Nft

_DEFAULT_MTU = 1500
# These vanish with the bridge and need no memory. send_redirects: pods of one node talk through the bridge's own interface
# (see link.configure_pod), the kernel must not tell them of a shorter way. rp_filter: no pod speaks for addresses elsewhere.
_BRIDGE_SYSCTLS = {"send_redirects": "0", "rp_filter": "1"}


def sysctl_memory(state_dir: Path) -> Path:
    return state_dir / "sysctl.json"


async def open_network(state_dir: Path, pod_range: Network, cluster_ranges: Sequence[Network], nft: Nft) -> PodNetwork:
    """Make or take over the node's bridge and tables; pods can be wired when this returns."""
    ipam = Ipam(state_dir / "addresses", pod_range)
    network = PodNetwork(ipam=ipam, nft=nft, bridge=0, bridge_mac="", mtu=0)
    made = await network.in_thread(lambda: _bridge(ipam, sysctl_memory(state_dir)))
    network.bridge, network.bridge_mac, network.mtu = made.index, made.mac, made.mtu
    await masquerade.apply(nft, [pod_range], cluster_ranges)
    await nft.run(hostport.plan(ipam.attachments()))
    # Only now: the rules that keep pods from the host's loopback stand (see hostport).
    await network.in_thread(lambda: sysctl.write({f"net/ipv4/conf/{names.BRIDGE}/route_localnet": "1"}))
    return network


def service_link(network: PodNetwork, service_ranges: Sequence[Network], addresses: Sequence[str]) -> None:
    """The link that holds the cluster DNS address, with the route for every service address. In a worker thread.

    The route makes services reachable on a host without a default route, keeps packets for services that do not exist on
    this host, and gives the host an address that every pod can answer. A bridge without ports does what a dummy link does,
    and needs no kernel module that the pods' bridge does not need.
    """
    held = [f"{a}/{128 if ':' in a else 32}" for a in addresses]
    link.ensure_link(names.DNS_LINK, "bridge", addresses=held)
    link.remove_addresses(names.DNS_LINK, held)
    for service_range in service_ranges:
        if service_range.version == network.ipam.network.version:
            link.ensure_route(str(service_range), names.DNS_LINK, source=str(network.ipam.gateway))


async def write_rules(network: PodNetwork, cluster_ranges: Sequence[Network]) -> None:
    """Masquerading and host ports again, after somebody flushed them."""
    await masquerade.apply(network.nft, [network.ipam.network], cluster_ranges)
    await network.nft.run(hostport.plan(network.ipam.attachments()))


def _bridge(ipam: Ipam, memory: Path) -> link.Link:
    upstream = link.uplink()
    address = f"{ipam.gateway}/{ipam.network.prefixlen}"
    link.ensure_link(
        names.BRIDGE,
        "bridge",
        mtu=upstream.mtu if upstream else _DEFAULT_MTU,
        mac=_bridge_mac(ipam),
        addresses=[address],
    )
    link.remove_addresses(names.BRIDGE, [address])
    sysctl.write({"net/ipv4/ip_forward": "1"}, memory)
    sysctl.write({f"net/ipv4/conf/{names.BRIDGE}/{name}": value for name, value in _BRIDGE_SYSCTLS.items()})
    found = link.find(names.BRIDGE)
    if found is None:
        raise link.LinkError(f"bridge {names.BRIDGE} vanished while it was made")
    return found


def _bridge_mac(ipam: Ipam) -> str:
    """Fixed and locally administered: without one a bridge takes the lowest of its ports' and changes it as pods come."""
    return "02:" + ":".join(f"{byte:02x}" for byte in (b"\x6b" + ipam.gateway.packed[-4:]))
