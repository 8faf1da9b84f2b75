"""The proxy's table: maps, fixed chains, and the chains that Services need on demand.

Owns: the text of the table. Called by: proxy.apply; pure. Never does: know a Service (plan).
Written for nftables 1.0.6 on, where `ct original proto-dst` has a type only after `meta l4proto`: hence sets per protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from k1s.net.family import Family, Network
from k1s.net.names import BRIDGE, PROXY_TABLE
from k1s.net.proxy.plan import LOCAL_SLOTS, PROTOCOLS, Balance, Chain, Sources, Stick

# Clients remembered for session affinity; a full map means that new clients get any target each time.
STICKY_CLIENTS = 65536
# fully-random: two clients with the same port at the same moment are not given the same one, which loses a packet.
_MASQUERADE = "masquerade fully-random"


@dataclass(frozen=True, slots=True)
class Ranges:
    """What the table has to know of the cluster, per family: pods of this node, all pods, service addresses."""

    node_pods: tuple[Network, ...]
    cluster_pods: tuple[Network, ...]
    services: tuple[Network, ...]

    def of(self, family: Family) -> Ranges:
        def pick(networks: tuple[Network, ...]) -> tuple[Network, ...]:
            return tuple(network for network in networks if network.version == family.version)

        return Ranges(pick(self.node_pods), pick(self.cluster_pods), pick(self.services))


def table_name(family: Family) -> str:
    return f"{family.name} {PROXY_TABLE}"


def begin_text(family: Family, ranges: Ranges) -> str:
    """Replace the table by one with everything but Services in it."""
    table = table_name(family)
    parts = [_maps(family), _ranges(family, ranges.of(family)), _nat(family), _refuse(family), _sticky(family)]
    return f"add table {table}\ndelete table {table}\ntable {table} {{\n{''.join(parts)}}}\n"


def chain_text(family: Family, chain: Chain) -> str:
    """A chain that Services need, to be added once."""
    ip, table = family.name, table_name(family)
    lines = [f"add chain {table} {chain.name}"]
    match chain:
        case Balance():
            if chain.sticky:
                lines.append(f"dnat {ip} to {ip} saddr . {ip} daddr . meta l4proto . th dport map @affinity")
            key = _slot_key(family, chain.over, chain.protocol)
            offset = f" offset {LOCAL_SLOTS}" if chain.local else ""
            draw = f"numgen random mod {chain.targets}{offset}"
            lines.append(f"dnat {ip} to {key} . {draw} map @{chain.over}-slots-{chain.protocol}")
        case Stick():
            if family.version == 6:
                return lines[0] + "\n"  # the rule is more than libnftables can write: see sticky_rule
            client = f"{ip} saddr . ct original {ip} daddr . meta l4proto . ct original proto-dst"
            entry = f"{client} timeout {chain.seconds}s : {ip} daddr . th dport"
            lines.append(f"meta l4proto {chain.protocol} update @affinity {{ {entry} }}")
        case Sources():
            if chain.ranges:
                lines.append(f"{ip} saddr {{ {', '.join(chain.ranges)} }} return")
            lines.append("drop")
    return lines[0] + "\n" + "".join(f"add rule {table} {chain.name} {line}\n" for line in lines[1:])


def _maps(family: Family) -> str:
    kind, ip = family.address_type, family.name
    frontend = {"ip": f"{kind} . inet_proto . inet_service", "port": "inet_proto . inet_service"}
    text = f"\tset cluster-ips {{ type {kind}; }}\n\tset pool-ips {{ type {kind}; }}\n"
    for over in ("ip", "port"):
        text += f"\tmap service-{over}s {{ type {frontend[over]} : verdict; }}\n"
        text += f"\tmap local-{over}s {{ type {frontend[over]} : verdict; }}\n"
        text += f"\tmap dead-{over}s {{ type {frontend[over]} : verdict; }}\n"
        text += f"\tset dead-local-{over}s {{ type {frontend[over]}; }}\n"
        for protocol in PROTOCOLS:
            key = _slot_key(family, over, protocol)
            text += f"\tmap {over}-slots-{protocol} {{ typeof {key} . numgen random mod 2 : {ip} daddr . {protocol} dport; }}\n"
    text += f"\tmap guarded-ips {{ type {frontend['ip']} : verdict; }}\n"
    for protocol in PROTOCOLS:
        text += f"\tset outside-ips-{protocol} {{ type {kind} . inet_service; }}\n"
        text += f"\tset outside-ports-{protocol} {{ type inet_service; }}\n"
        text += f"\tmap sticky-ips-{protocol} {{ type {kind} . inet_service : verdict; }}\n"
        text += f"\tmap sticky-ports-{protocol} {{ type inet_service : verdict; }}\n"
    text += (
        f"\tmap affinity {{ type {kind} . {kind} . inet_proto . inet_service : {kind} . inet_service;"
        f" size {STICKY_CLIENTS}; flags dynamic,timeout; timeout 3h; }}\n"
    )
    return text


def _slot_key(family: Family, over: str, protocol: str) -> str:
    """What a slot is looked up by, but for the number.

    A drawn number has no type name, so these maps are declared by typeof; and there `th dport` for any protocol is something
    that nft 1.0.6 writes but cannot read back. Hence a map per protocol.
    """
    return f"{family.name} daddr . {protocol} dport" if over == "ip" else f"{protocol} dport"


def _ranges(family: Family, ranges: Ranges) -> str:
    text = ""
    for name, networks in (("node-pods", ranges.node_pods), ("cluster-pods", ranges.cluster_pods)):
        elements = f" elements = {{ {', '.join(map(str, networks))} }};" if networks else ""
        text += f"\tset {name} {{ type {family.address_type}; flags interval;{elements} }}\n"
    return text


def _nat(family: Family) -> str:
    """Before host ports (-100), which answer on every local address: a node that announces a pool address has that too."""
    ip = family.name
    here = f"fib daddr type local {ip} daddr != {family.loopback}"
    away = "".join(
        f"\t\tmeta l4proto {protocol} ct original {ip} daddr . ct original proto-dst @outside-ips-{protocol} {_MASQUERADE}\n"
        f"\t\tmeta l4proto {protocol} ct original proto-dst @outside-ports-{protocol} {_MASQUERADE}\n"
        for protocol in PROTOCOLS
    )
    return f"""\
	chain dispatch {{
		{ip} saddr != @cluster-pods fib saddr type != local jump outsiders
		{ip} daddr . meta l4proto . th dport vmap @service-ips
		{here} meta l4proto . th dport vmap @service-ports
	}}
	chain outsiders {{
		{ip} daddr . meta l4proto . th dport vmap @local-ips
		{here} meta l4proto . th dport vmap @local-ports
	}}
	chain prerouting {{
		type nat hook prerouting priority -101; policy accept;
		jump dispatch
	}}
	chain output {{
		type nat hook output priority -101; policy accept;
		jump dispatch
	}}
	chain guard {{
		type filter hook prerouting priority -110; policy accept;
		ct state new {ip} daddr . meta l4proto . th dport vmap @guarded-ips
	}}
	chain guard-output {{
		type filter hook output priority -110; policy accept;
		ct state new {ip} daddr . meta l4proto . th dport vmap @guarded-ips
	}}
	chain postrouting {{
		type nat hook postrouting priority 100; policy accept;
		ct status dnat oifname != {{ "lo", "{BRIDGE}" }} {ip} saddr != @node-pods jump away
	}}
	chain away {{
		ct original {ip} daddr @cluster-ips {_MASQUERADE}
{away}	}}
"""


def _refuse(family: Family) -> str:
    """Also what is sent to a pool address and no Service's port: the node that announces it must not answer with its own."""
    ip = family.name
    here = f"fib daddr type local {ip} daddr != {family.loopback}"
    # An answer that the kernel cannot place keeps the pod's own address, and its caller, who never spoke to that, would reset
    # the connection.
    invalid = f"\t\t{ip} saddr @node-pods ct state invalid drop\n"
    hooks = "".join(
        f"""\
	chain {hook} {{
		type filter hook {hook.removesuffix("-filter")} priority 0; policy accept;
		ct state new jump dead
{invalid if hook == "forward-filter" else ""}	}}
"""
        for hook in ("input-filter", "forward-filter", "output-filter")
    )
    return f"""\
	chain refuse {{
		meta l4proto tcp reject with tcp reset
		reject
	}}
	chain dead {{
		ct status dnat return
		{ip} daddr . meta l4proto . th dport vmap @dead-ips
		{here} meta l4proto . th dport vmap @dead-ports
		{ip} saddr != @cluster-pods fib saddr type != local jump dead-outsiders
		{ip} daddr @cluster-ips goto refuse
		meta l4proto {{ tcp, udp, sctp }} {ip} daddr @pool-ips goto refuse
	}}
	chain dead-outsiders {{
		{ip} daddr . meta l4proto . th dport @dead-local-ips drop
		{here} meta l4proto . th dport @dead-local-ports drop
	}}
{hooks}"""


def _sticky(family: Family) -> str:
    ip = family.name
    lookups = "".join(
        f"\t\tmeta l4proto {protocol} ct original {ip} daddr . ct original proto-dst vmap @sticky-ips-{protocol}\n"
        f"\t\tmeta l4proto {protocol} ct original proto-dst vmap @sticky-ports-{protocol}\n"
        for protocol in PROTOCOLS
    )
    hooks = "".join(
        f"""\
	chain {hook}-sticky {{
		type filter hook {hook} priority -150; policy accept;
		ct state new ct status dnat jump sticky
	}}
"""
        for hook in ("input", "postrouting")
    )
    return f"\tchain sticky {{\n{lookups}\t}}\n{hooks}"


def elements_text(verb: str, family: Family, elements: Sequence[tuple[tuple[str, str], str]]) -> str:
    """`add element` or `delete element` commands, one a map. A delete names keys only."""
    by_map: dict[str, list[str]] = {}
    for (name, key), value in elements:
        by_map.setdefault(name, []).append(f"{key} : {value}" if value and verb == "add" else key)
    table = table_name(family)
    return "".join(f"{verb} element {table} {name} {{ {', '.join(sorted(keys))} }}\n" for name, keys in sorted(by_map.items()))
