"""The node's side of the pod network: bridge, forwarding, masquerading, host ports, and the link of service addresses.

Owns: the order of making it, and the path of its memory. Called by: agent.network.app, net.repair. Never does: serve CNI calls.
Everything may be repeated; what a killed agent left is taken over, pods stay connected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from k1s.net import hostport, link, masquerade, names, route, sysctl
from k1s.net.cni.node import PodNetwork
from k1s.net.family import Network
from k1s.net.ipam import Ipam
from k1s.net.nft import Nft
from k1s.net.route import Route

DEFAULT_MTU = 1500
# These vanish with the bridge and need no memory. send_redirects: pods of one node talk through the bridge's own interface
# (see veth.configure_pod), the kernel must not tell them of a shorter way. rp_filter: no pod speaks for addresses elsewhere.
# route_localnet: see hostport.
_BRIDGE_SYSCTLS = {"send_redirects": "0", "rp_filter": "1"}
# No second of waiting until the bridge may ask for pods' hardware addresses, and no pod that makes itself the host's router.
_BRIDGE_SYSCTLS_IPV6 = {"accept_dad": "0", "accept_ra": "0"}
_ROUTE_LOCALNET = {f"net/ipv4/conf/{names.BRIDGE}/route_localnet": "1"}
_IPV6 = Path("/proc/sys/net/ipv6/conf")
_FORWARD, _FORWARD_IPV6 = Path("/proc/sys/net/ipv4/ip_forward"), _IPV6 / "all" / "forwarding"


def sysctl_memory(state_dir: Path) -> Path:
    return state_dir / "sysctl.json"


async def open_network(
    state_dir: Path,
    pod_ranges: Network | Sequence[Network],
    cluster_ranges: Sequence[Network],
    nft: Nft,
    *,
    mtu: int = 0,
    bridge: bool = True,
) -> PodNetwork:
    """Make or take over the node's bridge and tables; pods can be wired when this returns. `mtu` 0: the uplink's.

    `bridge` False: pods belong to another CNI plugin, which masquerades and opens host ports itself.
    """
    ranges = tuple(pod_ranges) if isinstance(pod_ranges, Sequence) else (pod_ranges,)
    ipam = Ipam(state_dir / "addresses", *ranges)
    network = PodNetwork(ipam=ipam, nft=nft, bridge=0, bridge_mac=_bridge_mac(ipam), mtu=mtu, foreign=not bridge)
    await network.in_thread(lambda: _prepare(network, sysctl_memory(state_dir)))
    await write_rules(network, cluster_ranges)
    if bridge:
        # Only now: the rules that keep pods from the host's loopback stand (see hostport).
        await network.in_thread(lambda: sysctl.write(_ROUTE_LOCALNET))
    return network


def _prepare(network: PodNetwork, memory: Path) -> None:
    if not network.mtu:
        upstream = route.uplink()
        network.mtu = upstream.mtu if upstream else DEFAULT_MTU
    forward(network, memory)
    if not network.foreign:
        ensure_bridge(network)
    elif not ipam_in_use(network):
        link.delete(names.BRIDGE)


def ipam_in_use(network: PodNetwork) -> bool:
    """Pods that k1s wired itself still run: their bridge must stay until they end."""
    return bool(network.ipam.attachments())


def forward(network: PodNetwork, memory: Path) -> bool:
    """Packets pass this host. Whether that was not so."""
    before = [path.read_text().strip() for path in (_FORWARD, _FORWARD_IPV6) if path.exists()]
    sysctl.write({"net/ipv4/ip_forward": "1"}, memory)
    if any(pods.version == 6 for pods in network.ipam.networks):
        _forward_ipv6(memory)
    return before != [path.read_text().strip() for path in (_FORWARD, _FORWARD_IPV6) if path.exists()]


def _forward_ipv6(memory: Path) -> None:
    """A router ignores router advertisements unless told otherwise: then a host that lives by them would lose its way out."""
    others = [path for path in _IPV6.glob("*/accept_ra") if path.parent.name not in ("all", "default", "lo", *names.LINKS)]
    listening = [p for p in others if not names.is_veth(p.parent.name) and p.read_text().strip() == "1"]
    sysctl.write({f"net/ipv6/conf/{path.parent.name}/accept_ra": "2" for path in listening}, memory)
    sysctl.write({"net/ipv6/conf/all/forwarding": "1"}, memory)


def bridge_addresses(network: PodNetwork) -> list[str]:
    pairs = zip(network.ipam.gateways, network.ipam.networks, strict=True)
    return [f"{gateway}/{pods.prefixlen}" for gateway, pods in pairs]


def ensure_bridge(network: PodNetwork, *, localnet: bool = False) -> None:
    """`localnet`: the shield of hostport stands already."""
    held = bridge_addresses(network)
    network.bridge = link.ensure_link(names.BRIDGE, "bridge", mtu=network.mtu, mac=network.bridge_mac, addresses=held)
    link.remove_addresses(names.BRIDGE, held)
    sysctl.write({f"net/ipv4/conf/{names.BRIDGE}/{name}": value for name, value in _BRIDGE_SYSCTLS.items()})
    if any(pods.version == 6 for pods in network.ipam.networks):
        sysctl.write({f"net/ipv6/conf/{names.BRIDGE}/{name}": value for name, value in _BRIDGE_SYSCTLS_IPV6.items()})
    if localnet:
        sysctl.write(_ROUTE_LOCALNET)


def ensure_service_link(routes: Sequence[Route], held: Sequence[str]) -> None:
    """The link that holds the cluster DNS addresses `held`, with the route for every service address. In a worker thread.

    The routes make services reachable on a host without a default route, keep packets for services that do not exist on
    this host, and give the host an address that every pod can answer. A bridge without ports does what a dummy link does,
    and needs no kernel module that the pods' bridge does not need.
    """
    link.ensure_link(names.DNS_LINK, "bridge", addresses=held)
    link.remove_addresses(names.DNS_LINK, held)
    for wanted in routes:
        route.ensure(wanted)


def service_routes(service_ranges: Sequence[Network], sources: Mapping[int, str]) -> list[Route]:
    """`sources` by IP version: what this host's own packets to services come from."""
    return [
        Route(str(services), names.DNS_LINK, source=sources[services.version])
        for services in service_ranges
        if services.version in sources
    ]


def held_addresses(addresses: Sequence[str]) -> list[str]:
    return [f"{a}/{128 if ':' in a else 32}" for a in addresses]


async def write_rules(network: PodNetwork, cluster_ranges: Sequence[Network]) -> None:
    """Masquerading and host ports, at start and after somebody flushed them."""
    foreign = network.foreign and not ipam_in_use(network)
    await masquerade.apply(network.nft, network.ipam.networks, cluster_ranges, foreign=foreign)
    if foreign:
        ports = [f"{family.name} {names.HOSTPORT_TABLE}" for family in network.families]
        await network.nft.run("".join(f"add table {table}\ndelete table {table}\n" for table in ports))
    else:
        await network.nft.run(hostport.plan(network.ipam.attachments(), network.families))


def tables(network: PodNetwork) -> list[str]:
    """The nftables tables that must be there, as `ip k1s-masq`."""
    held = (names.MASQUERADE_TABLE,) if network.foreign else (names.MASQUERADE_TABLE, names.HOSTPORT_TABLE)
    return [f"{family.name} {table}" for table in held for family in network.families]


def _bridge_mac(ipam: Ipam) -> str:
    """Fixed and locally administered: without one a bridge takes the lowest of its ports' and changes it as pods come."""
    return "02:" + ":".join(f"{byte:02x}" for byte in (b"\x6b" + ipam.gateways[0].packed[-4:]))
