"""Host ports: a port of this host that leads to a pod.

Owns: the table k1s-hostport: its text, and adding and removing single ports. Called by: cni.service.
Never does: decide who gets a port (the scheduler and the agent's admission do).

One rule a direction and two maps: a port is an element, so that adding one costs the same on a full node.
A host port answers on 127.0.0.1 too. That takes route_localnet on the bridge (setup), which would open the host's loopback
to pods; chain shield keeps it shut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k1s.net.family import IPV4, IPV6, Family, parse_address
from k1s.net.ipam import Attachment, PortMapping
from k1s.net.names import BRIDGE, HOSTPORT_TABLE

PROTOCOLS = ("tcp", "udp", "sctp")


def plan(attachments: Iterable[Attachment], families: Sequence[Family] = (IPV4,)) -> str:
    """The whole table with the ports of these attachments, replacing what there was."""
    attachments = list(attachments)
    return "".join(_table(family) + _elements("add", family, attachments) for family in families)


def plan_add(attachment: Attachment, families: Sequence[Family] = (IPV4, IPV6)) -> str:
    """Commands that open the attachment's ports; empty if it has none."""
    return "".join(_elements("add", family, [attachment]) for family in families)


def plan_delete(attachment: Attachment, families: Sequence[Family] = (IPV4, IPV6)) -> str:
    return "".join(_elements("delete", family, [attachment]) for family in families)


def _table(family: Family) -> str:
    ip, table = family.name, f"{family.name} {HOSTPORT_TABLE}"
    kind = family.address_type
    lookups = "\n".join(
        f"\t\t{guard}dnat {ip} to {key} map @{name}"
        for guard, key, name in (
            ("", f"{ip} daddr . meta l4proto . th dport", "address-ports"),
            ("fib daddr type local ", "meta l4proto . th dport", "ports"),
        )
    )
    return f"""\
add table {table}
delete table {table}
table {table} {{
	map ports {{
		type inet_proto . inet_service : {kind} . inet_service
	}}
	map address-ports {{
		type {kind} . inet_proto . inet_service : {kind} . inet_service
	}}
	chain lookup {{
{lookups}
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		jump lookup
	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		jump lookup
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		{ip} saddr {family.loopback} oifname "{BRIDGE}" masquerade
	}}
	chain shield {{
		type filter hook prerouting priority raw; policy accept;
		iifname "{BRIDGE}" {ip} daddr {family.loopback} drop
	}}
}}
"""


def _elements(verb: str, family: Family, attachments: Iterable[Attachment]) -> str:
    plain, bound = [], []
    for attachment in attachments:
        own = next((address for address in attachment.addresses if family.owns(address)), "")
        for port in attachment.ports if own else ():
            target = f" : {own} . {port.container_port}" if verb == "add" else ""
            host = parse_address(port.host_ip)
            if host is None or host.is_unspecified:
                plain.append(f"{port.protocol} . {port.host_port}{target}")
            elif host.version == family.version:
                bound.append(f"{host} . {port.protocol} . {port.host_port}{target}")
    return "".join(
        f"{verb} element {family.name} {HOSTPORT_TABLE} {name} {{ {', '.join(sorted(items))} }}\n"
        for name, items in (("ports", plain), ("address-ports", bound))
        if items
    )


def mappings(runtime_config: object) -> tuple[PortMapping, ...]:
    """The portMappings of a CNI call's runtimeConfig. Entries without a host port mean nothing and are left out.

    Keys count without case: containerd sends HostPort where the convention says hostPort, as plugins in Go never notice.
    """
    if not isinstance(runtime_config, dict):
        return ()
    found = []
    for given in runtime_config.get("portMappings") or ():
        entry = {key.lower(): value for key, value in given.items()}
        protocol = str(entry.get("protocol") or "tcp").lower()
        if entry.get("hostport") and protocol in PROTOCOLS:
            found.append(PortMapping(int(entry["hostport"]), int(entry["containerport"]), protocol, entry.get("hostip") or ""))
    return tuple(found)
