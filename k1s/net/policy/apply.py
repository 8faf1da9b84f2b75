"""Network policies into the kernel: the whole table at start and at repair, afterwards only what changed.

Owns: what the kernel holds at the moment, and the transactions. Called by: agent.network.policy.
Never does: watch the API; decide what a policy means (isolation, cluster) or how it is written (chains).

While no pod of this node is isolated the table is empty and packets do not meet it. A transaction that the kernel refuses
(somebody changed the table) is answered by a full load; if that fails too the error goes up and the next call loads again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from k1s.net.family import IPV4, Family
from k1s.net.nft import Nft, NftError
from k1s.net.policy import chains
from k1s.net.policy.chains import Setting
from k1s.net.policy.cluster import Changes, Cluster, Element
from k1s.net.policy.isolation import Isolation, Verdict, Wanted
from k1s.net.policy.model import EGRESS, INGRESS, NamedPort, Peer, Pod, Rules

# The DNS as policies see it: what people write to let it through names kube-system, or these labels. No pod has such a key.
_DNS_KEY = "k1s.io/dns"
_DNS_PORTS = (("udp", "dns", 53), ("tcp", "dns-tcp", 53), ("tcp", "metrics", 9153))
_Named = TypeVar("_Named", Peer, NamedPort, Rules, Verdict)
_log = logging.getLogger("k1s.net.policy")


class PolicyRules:
    """The rules of one node. `cluster` and `isolation` are fed by the caller; `update` brings the kernel up to date with them.

    Not to be called concurrently: one at a time, whoever it is.
    """

    def __init__(self, nft: Nft, *, families: Sequence[Family] = (IPV4,), setting: Setting | None = None) -> None:
        self._nft, self._families, self._setting = nft, tuple(families), setting or Setting()
        self.cluster, self.isolation = Cluster(), Isolation()
        self._held: Wanted | None = None
        if self._setting.dns:
            server = Pod("kube-system", "k1s-dns", {"k8s-app": "kube-dns"}, self._setting.dns, _DNS_PORTS)
            self.cluster.set_pod(_DNS_KEY, server)

    @property
    def isolated(self) -> int:
        """Addresses of this node that some policy isolates."""
        return len({a for addresses in self._held.judged.values() for a in addresses}) if self._held else 0

    async def load(self) -> None:
        """Replace the tables by ones that hold what is wanted now, in one transaction."""
        wanted = self._want(None)
        self.cluster.take()
        self._held = None
        await self._nft.run("".join(self._whole(family, wanted) for family in self._families))
        self._held = wanted

    async def update(self) -> None:
        held = self._held
        wanted = self._want(held)
        if held is None or held.empty != wanted.empty:
            await self.load()
            return
        if wanted.empty:
            self.cluster.take()
            return
        changes = self.cluster.take()
        text = "".join(change_text(family, held, wanted, changes, self._setting) for family in self._families)
        self._held = None
        try:
            if text:
                await self._nft.run(text)
        except NftError as error:
            _log.warning("policy table is not as it was left, writing it anew: %s", error)
            await self.load()
            return
        self._held = wanted

    def _want(self, held: Wanted | None) -> Wanted:
        wanted = self.isolation.wanted()
        if wanted is not held:
            self.cluster.want(wanted.peers, wanted.ports)
        return wanted

    def _whole(self, family: Family, wanted: Wanted) -> str:
        if wanted.empty:
            return chains.empty_text(family)
        everything = Changes()
        for name, elements in self.cluster.elements(family.version).items():
            everything.added[family.version].update((name, element) for element in elements)
        return chains.frame_text(family) + change_text(family, Wanted(), wanted, everything, self._setting)


def change_text(family: Family, held: Wanted, wanted: Wanted, changes: Changes, setting: Setting) -> str:
    """The commands that lead from `held` to `wanted`. What is new comes first, what nobody needs any more goes last."""
    parts: list[str] = []
    if held is not wanted:
        parts += [chains.set_text(family, new) for new in _by_name(wanted.peers - held.peers)]
        parts += [chains.set_text(family, new) for new in _by_name(wanted.ports - held.ports)]
        parts += [chains.block_text(family, new) for new in sorted(wanted.blocks - held.blocks)]
    parts += _elements("delete", family, changes.removed[family.version])
    parts += _elements("add", family, changes.added[family.version])
    if held is wanted:
        return "".join(parts)
    parts += [chains.rules_text(family, new, setting) for new in _by_name(wanted.rules - held.rules)]
    parts += [chains.verdict_text(family, new, setting) for new in _by_name(wanted.verdicts - held.verdicts)]
    parts += _judged(family, held, wanted)
    table = chains.table_name(family)
    parts += [f"delete chain {table} {old.name}\n" for old in _by_name(held.verdicts - wanted.verdicts)]
    parts += [f"delete chain {table} {old.name}\n" for old in _by_name(held.rules - wanted.rules) if old.rules]
    parts += [f"delete set {table} {old.name}\n" for old in _by_name(held.peers - wanted.peers)]
    parts += [f"delete set {table} {old.name}\n" for old in _by_name(held.ports - wanted.ports)]
    for old in sorted(held.blocks - wanted.blocks):
        if chains.block_text(family, old):
            parts.append(f"delete set {table} {chains.block_name(old)}\n")
    return "".join(parts)


def _judged(family: Family, held: Wanted, wanted: Wanted) -> Iterable[str]:
    """Pods' addresses: who has a chain, which one, and who may talk to itself."""
    for direction in (EGRESS, INGRESS):
        before, after = _chains_of(family, held.judged[direction]), _chains_of(family, wanted.judged[direction])
        gone = [address for address, name in before.items() if after.get(address) != name]
        come = [f"{address} : goto {name}" for address, name in after.items() if before.get(address) != name]
        if gone:
            yield chains.elements_text("delete", family, direction, gone)
        if come:
            yield chains.elements_text("add", family, direction, come)
    before_self, after_self = _isolated(family, held), _isolated(family, wanted)
    for verb, addresses in (("delete", before_self - after_self), ("add", after_self - before_self)):
        if addresses:
            yield chains.elements_text(verb, family, "self", [f"{a} . {a}" for a in addresses])


def _chains_of(family: Family, judged: Mapping[str, Verdict]) -> dict[str, str]:
    return {address: verdict.name for address, verdict in judged.items() if _in(family, address)}


def _isolated(family: Family, wanted: Wanted) -> set[str]:
    return {address for judged in wanted.judged.values() for address in judged if _in(family, address)}


def _in(family: Family, address: str) -> bool:
    return (":" in address) == (family.version == 6)


def _elements(verb: str, family: Family, elements: Collection[Element]) -> list[str]:
    by_set: dict[str, list[str]] = {}
    for name, element in elements:
        by_set.setdefault(name, []).append(element)
    return [chains.elements_text(verb, family, name, found) for name, found in sorted(by_set.items())]


def _by_name(found: Iterable[_Named]) -> list[_Named]:
    return sorted(found, key=lambda one: one.name)
