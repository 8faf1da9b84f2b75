"""What pods could do below the rules: speak as another pod, and from bridge port to bridge port.

Owns: the table `bridge k1s-policy`, there only while some pod of this node is isolated. Called by: agent.network.policy.
Never does: judge a flow (chains).

Policies know pods by their addresses. A container with CAP_NET_RAW, which runtimes give by default, could send with the address
of a neighbour, or write a frame to a neighbour's interface that the host's IP stack never sees. So what a pod's interface sends
must carry the pod's own address (ARP too), and nothing goes from port to port: pods of one node talk through the host (see
veth.configure_pod). Where br_netfilter shows bridged packets to the IP rules, port to port stays open for them: they are judged
there, and translated packets of Services need that way.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from k1s.net import names
from k1s.net.ipam import Attachment
from k1s.net.monitor import present
from k1s.net.nft import Nft, NftError

TABLE = f"bridge {names.POLICY_TABLE}"
_SWITCHES = {"ip": "bridge-nf-call-iptables", "ip6": "bridge-nf-call-ip6tables"}
_PORTS = f"{names.VETH_PREFIX}*"
_log = logging.getLogger("k1s.net.policy")

# (interface, address)
Pair = tuple[str, str]


class BridgeGuard:
    """Not to be called concurrently. A kernel without bridge rules is told of once, and does without."""

    def __init__(self, nft: Nft) -> None:
        self._nft = nft
        self._held: tuple[frozenset[Pair], frozenset[str]] | None = None
        self._able = True

    def forget(self) -> None:
        """Somebody else changed the table: the next update writes it whole."""
        self._held = None

    async def update(self, attachments: Iterable[Attachment], *, wanted: bool, judged: frozenset[str]) -> None:
        """`wanted`: is anybody isolated; `judged`: of which families the IP rules see bridged packets (`judged_above`)."""
        if not self._able:
            return
        pairs = (
            frozenset((names.veth(*a.key), address) for a in attachments for address in a.addresses) if wanted else frozenset()
        )
        now = (pairs, judged) if wanted else None
        if now == self._held:
            return
        if now is None:
            text = f"add table {TABLE}\ndelete table {TABLE}\n"
        elif self._held is None or self._held[1] != judged:
            text = table_text(pairs, judged)
        else:
            before = self._held[0]
            text = _elements("delete", before - pairs) + _elements("add", pairs - before)
        self._held = None
        try:
            await self._run(text, pairs if now else None, judged)
        except NftError as error:
            if await present(self._nft, [TABLE]):
                # Better no pod starts than one that the old table keeps from talking.
                raise
            self._able = False
            _log.warning("pods with CAP_NET_RAW can get around network policies on this node: no rules for bridges: %s", error)
            return
        self._held = now

    async def _run(self, text: str, pairs: frozenset[Pair] | None, judged: frozenset[str]) -> None:
        try:
            await self._nft.run(text)
        except NftError:
            if pairs is None:
                raise
            # Somebody changed the table, or there can be none.
            await self._nft.run(table_text(pairs, judged))


def judged_above() -> frozenset[str]:
    """Of which families br_netfilter shows bridged packets to the IP rules. It may come and go with other programs."""
    directory, found = Path("/proc/sys/net/bridge"), set()
    for family, name in _SWITCHES.items():
        switch = directory / name
        if switch.exists() and switch.read_text().strip() == "1":
            found.add(family)
    return frozenset(found)


def table_text(pairs: Iterable[Pair], judged: frozenset[str]) -> str:
    """The whole table, replacing what there was."""
    through = "".join(f"\t\tether type {family} accept\n" for family in sorted(judged))
    return f"""\
add table {TABLE}
delete table {TABLE}
table {TABLE} {{
	set pods {{ type ifname . ipv4_addr; }}
	set pods6 {{ type ifname . ipv6_addr; }}
	chain prerouting {{
		type filter hook prerouting priority -300; policy accept;
		iifname "{_PORTS}" jump sent
	}}
	chain sent {{
		ether type ip iifname . ip saddr @pods accept
		ether type arp iifname . arp saddr ip @pods accept
		ether type ip6 iifname . ip6 saddr @pods6 accept
		ip6 saddr ::/128 accept
		ip6 saddr fe80::/10 accept
		drop
	}}
	chain forward {{
		type filter hook forward priority -200; policy accept;
		iifname "{_PORTS}" oifname "{_PORTS}" jump across
	}}
	chain across {{
{through}		drop
	}}
}}
{_elements("add", pairs)}"""


def _elements(verb: str, pairs: Iterable[Pair]) -> str:
    text = ""
    for name, six in (("pods", False), ("pods6", True)):
        mine = sorted(f'"{interface}" . {address}' for interface, address in pairs if (":" in address) == six)
        if mine:
            text += f"{verb} element {TABLE} {name} {{ {', '.join(mine)} }}\n"
    return text
