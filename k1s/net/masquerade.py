"""What leaves the pods' world: masquerading.

Owns: the table k1s-masq and its text. Called by: agent.network.app, through `apply`. Never does: services (proxy/), host ports.

Pod to outside: the node's own address. A pod that reaches itself through a service or a host port: the bridge's address,
else it would drop an answer that claims to come from itself. Nothing else is touched: pods of all nodes see each other's
addresses. What enters the tunnel with an address from elsewhere (the host's own, when a program chose it; others' that this host
forwards) goes under the bridge's: the answer would take another way back.
"""

from __future__ import annotations

from collections.abc import Sequence

from k1s.net.family import Network, family_of
from k1s.net.names import BRIDGE, MASQUERADE_TABLE, VXLAN
from k1s.net.nft import Nft

# One element a pod address, written once; a larger range than this gets no hairpin entries beyond it.
_MOST_HAIRPINS = 4096


def plan(pod_ranges: Sequence[Network], cluster_ranges: Sequence[Network], *, foreign: bool = False) -> str:
    """The whole table, replacing what there was, one per family of `pod_ranges`. `foreign`: another CNI plugin masquerades,
    only a pod that reaches itself is left to us."""
    return "".join(_table(pods, [c for c in cluster_ranges if c.version == pods.version], foreign) for pods in pod_ranges)


def _table(pods: Network, cluster: Sequence[Network], foreign: bool) -> str:
    family = family_of(pods)
    ip, table = family.name, f"{family.name} {MASQUERADE_TABLE}"
    inside = ", ".join(str(network) for network in cluster)
    hairpins = ",\n".join(f"\t\t\t{a} . {a}" for a, _ in zip(pods.hosts(), range(_MOST_HAIRPINS), strict=False))
    multicast = "224.0.0.0/4" if family.version == 4 else "ff00::/8"
    outward = f"""\
		{ip} saddr {pods} {ip} daddr != @cluster-ranges {ip} daddr != {multicast} oifname != "{BRIDGE}" masquerade
		oifname "{VXLAN}" {ip} saddr != @cluster-ranges snat to {pods[1]}
"""
    return f"""\
add table {table}
delete table {table}
table {table} {{
	set cluster-ranges {{
		type {family.address_type}
		flags interval
		elements = {{ {inside} }}
	}}
	set hairpins {{
		type {family.address_type} . {family.address_type}
		elements = {{
{hairpins} }}
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
{"" if foreign else outward}		ct status dnat {ip} saddr . {ip} daddr @hairpins masquerade
	}}
{_IPV6_MANNERS if family.version == 6 and not foreign else ""}}}
"""


# What a sysctl does for IPv4 (setup): no pod speaks for addresses elsewhere, and none is told of a shorter way to another
# pod, past this host's rules.
_IPV6_MANNERS = f"""\
	chain spoofed {{
		type filter hook prerouting priority raw; policy accept;
		iifname "{BRIDGE}" ip6 saddr != {{ ::, fe80::/10 }} fib saddr . iif oif missing drop
	}}
	chain redirects {{
		type filter hook output priority filter; policy accept;
		oifname "{BRIDGE}" icmpv6 type nd-redirect drop
	}}
"""


async def apply(nft: Nft, pod_ranges: Sequence[Network], cluster_ranges: Sequence[Network], *, foreign: bool = False) -> None:
    await nft.run(plan(pod_ranges, cluster_ranges, foreign=foreign))
