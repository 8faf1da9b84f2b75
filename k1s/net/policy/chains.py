"""The policy table's text: fixed chains, and the chains and sets that follow from what is wanted.

Owns: every nftables word of network policy. Called by: policy.apply; pure. Never does: choose (isolation, cluster).

The shape: two maps lead a local pod's address to the chain of the rules that isolate it, one map a direction. Egress is judged
first, ingress right after it in a hook of its own, so that "accept" means this direction only. Chains and sets are named after
what is in them and never change: a policy that changes gets new ones. A pod that comes, goes or changes its labels is elements.

No interval sets: as long as a table has any, nft reads all their elements for each change (0.2 s at 1,000 policies). Ranges
of ports are rules of their own, several address ranges are a concatenation with the protocol, which nft does not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from k1s.net.family import Family, Network
from k1s.net.names import POLICY_TABLE
from k1s.net.policy.blocks import Span
from k1s.net.policy.isolation import Verdict
from k1s.net.policy.model import EGRESS, INGRESS, KNOWN, NamedPort, Peer, Ports, Rule, Rules, digest


@dataclass(frozen=True, slots=True)
class Setting:
    """What the text has to know of the cluster: the DNS, which the agent serves on the node itself, and on which port it arrives
    once the proxy has translated it; and the ranges of all pods.
    """

    dns: tuple[str, ...] = ()
    dns_port: int = 53
    cluster: tuple[Network, ...] = ()


def table_name(family: Family) -> str:
    return f"{family.name} {POLICY_TABLE}"


def empty_text(family: Family) -> str:
    """The table without a single hook: packets of a node without policies meet nothing."""
    table = table_name(family)
    return f"add table {table}\ndelete table {table}\nadd table {table}\n"


def frame_text(family: Family) -> str:
    """Replace the table by one that judges nobody yet. Priorities: after services were translated to pods' addresses."""
    ip, kind, table = family.name, family.address_type, table_name(family)
    # Established: a policy judges who may open a connection; answers and what is open already go on.
    begin = f"ct state established,related accept\n\t\t{ip} saddr . {ip} daddr @self accept"
    # Without neighbour discovery an isolated pod could not even reach its gateway.
    discovery = "\n\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
    # Refused at once, not dropped: programs see why they fail. A SYN by a reset, because the error of a packet that never leaves
    # this host comes while its socket is busy, and would only be heard at the next try, a second later. Where a service address
    # was translated it has to be the error: the kernel does not translate a reset back.
    words = "icmp type" if family.version == 4 else "icmpv6 type"
    return f"""\
add table {table}
delete table {table}
table {table} {{
	map egress {{ type {kind} : verdict; }}
	map ingress {{ type {kind} : verdict; }}
	set self {{ type {kind} . {kind}; }}
	chain refuse {{
		ct status dnat reject with {words} admin-prohibited
		tcp flags & (fin | syn | rst | ack) == syn reject with tcp reset
		reject with {words} admin-prohibited
	}}
	chain forward-egress {{
		type filter hook forward priority 0; policy accept;
		{begin}
		{ip} saddr vmap @egress
	}}
	chain forward-ingress {{
		type filter hook forward priority 1; policy accept;
		{begin}
		{ip} daddr vmap @ingress
	}}
	chain input-egress {{
		type filter hook input priority 0; policy accept;
		{begin}{discovery if family.version == 6 else ""}
		{ip} saddr vmap @egress
	}}
}}
"""


def verdict_text(family: Family, verdict: Verdict, setting: Setting) -> str:
    """A chain for pods. Its rules' chains must be there.

    Who is told of a refusal at once does not try again. So a pod of another node that has just started, of which this node has
    not heard yet, gets no answer: its next try, a second later, is judged by what it is.
    """
    chain, ip = f"{table_name(family)} {verdict.name}", family.name
    lines = [f"jump {rules.name}" for rules in verdict.rules if rules.rules]
    if verdict.looks_beyond_node:
        ranges = [network for network in setting.cluster if network.version == family.version]
        lines += [f"{ip} {side} {network} {ip} {side} != @{KNOWN.name} drop" for network in ranges for side in ("saddr", "daddr")]
    return f"add chain {chain}\n" + "".join(f"add rule {chain} {line}\n" for line in [*lines, "goto refuse"])


def rules_text(family: Family, rules: Rules, setting: Setting) -> str:
    """The chain of one direction of a policy; none if it lets nobody through. Its sets must be there."""
    if not rules.rules:
        return ""
    chain = f"{table_name(family)} {rules.name}"
    lines = dict.fromkeys(line for rule in rules.rules for line in _lines(family, rules.direction, rule, setting))
    return f"add chain {chain}\n" + "".join(f"add rule {chain} {line} accept\n".replace("  ", " ") for line in lines)


def set_text(family: Family, wanted: Peer | NamedPort) -> str:
    table, kind = table_name(family), family.address_type
    if isinstance(wanted, Peer):
        return f"add set {table} {wanted.name} {{ type {kind}; }}\n"
    return f"add set {table} {wanted.name} {{ type {kind} . inet_service; }}\n"


def block_text(family: Family, spans: tuple[Span, ...]) -> str:
    """The set of several address ranges; one alone stands in its rules."""
    mine = _of_family(family, spans)
    if len(mine) < 2:
        return ""
    elements = ", ".join(f"{span} . 0-255" for span in mine)
    kind = f"type {family.address_type} . inet_proto; flags interval;"
    return f"add set {table_name(family)} {block_name(spans)} {{ {kind} elements = {{ {elements} }}; }}\n"


def block_name(spans: tuple[Span, ...]) -> str:
    return "block-" + digest(" ".join(f"{span.version}/{span}" for span in spans))


def elements_text(verb: str, family: Family, name: str, elements: Iterable[str]) -> str:
    return f"{verb} element {table_name(family)} {name} {{ {', '.join(sorted(elements))} }}\n"


def _of_family(family: Family, spans: tuple[Span, ...]) -> list[Span]:
    return [span for span in spans if span.version == family.version]


def _lines(family: Family, direction: str, rule: Rule, setting: Setting) -> Iterator[str]:
    """One match a combination of peer and ports. A family that no peer of the rule has gets none."""
    for peer in _peers(family, "saddr" if direction == INGRESS else "daddr", rule):
        if not rule.ports:
            yield peer
        for ports in rule.ports:
            for port in _port_matches(family, ports):
                yield f"{peer} {port}".strip()
            if direction == EGRESS and setting.dns_port != 53 and ports.protocol != "sctp" and _asks_dns(ports):
                for address in filter(family.owns, setting.dns):
                    yield f"{family.name} daddr {address} {peer} {ports.protocol} dport {setting.dns_port}"


def _asks_dns(ports: Ports) -> bool:
    return not ports.every and (ports.includes(53) or any(named.port in ("dns", "dns-tcp") for named in ports.names))


def _peers(family: Family, side: str, rule: Rule) -> Sequence[str]:
    if rule.anyone:
        return [""]
    found = [f"{family.name} {side} @{peer.name}" for peer in rule.peers]
    mine = _of_family(family, rule.blocks)
    if len(mine) == 1:
        whole = mine[0].last - mine[0].first + 1 == 1 << family.host_bits
        found.append("" if whole else f"{family.name} {side} {mine[0]}")
    elif mine:
        found.append(f"{family.name} {side} . meta l4proto @{block_name(rule.blocks)}")
    return found


def _port_matches(family: Family, ports: Ports) -> Iterator[str]:
    protocol = ports.protocol
    if ports.every:
        yield f"meta l4proto {protocol}"
        return
    if len(ports.numbers) == 1:
        yield f"{protocol} dport {ports.numbers[0]}"
    elif ports.numbers:
        yield f"{protocol} dport {{ {', '.join(map(str, ports.numbers))} }}"
    for first, last in ports.ranges:
        yield f"{protocol} dport {first}-{last}"
    for named in ports.names:
        yield f"{family.name} daddr . {protocol} dport @{named.name}"
