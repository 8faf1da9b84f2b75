"""Network policies on this node: rules that stand before a pod can send, and are kept up to date.

Owns: the loop from changed policies, pods and namespaces to the kernel, and the two hooks in the pods' wiring.
Called by: network.app. Never does: rules (net.policy); decide who is selected.

No packet escapes a policy that the node knows: a pod's rules are written when its address is known and before it has an
interface. While the agent is away its rules stay; at its start the table is replaced in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k1s.agent.network.policy_watch import PolicyWatch
from k1s.agent.network.state import NodeNetwork
from k1s.net.family import IPV4, IPV6
from k1s.net.ipam import Attachment
from k1s.net.policy.apply import PolicyRules
from k1s.net.policy.chains import Setting, table_name
from k1s.net.policy.guard import BridgeGuard, judged_above

Object = dict[str, Any]


class PolicyPart:
    """`own_services`: what leads to the agent's DNS where it could not have port 53 (network.dns)."""

    def __init__(self, network: NodeNetwork, own_services: Mapping[str, tuple[Object, list[Object]]]) -> None:
        self._network = network
        versions = {found.version for found in network.ranges.cluster_pods}
        families = tuple(family for family in (IPV4, IPV6) if family.version in versions)
        self.tables: Sequence[str] = tuple(table_name(family) for family in families)
        dns = tuple(network.agent.config.cluster_dns.split(","))
        setting = Setting(dns, _dns_port(own_services), network.ranges.cluster_pods)
        self._rules = PolicyRules(network.nft, families=families, setting=setting)
        self._watch = PolicyWatch(network.agent, self._rules)
        self._guard, self._judged = BridgeGuard(network.nft), judged_above()
        self._leaving: set[tuple[str, str]] = set()
        rules, metrics = self._rules, network.agent.metrics
        metrics.gauge("k1s_network_policies", "NetworkPolicies in the cluster", read=lambda: len(rules.isolation.policies))
        metrics.gauge("k1s_policy_addresses", "Addresses of this node's pods that a policy isolates", read=lambda: rules.isolated)

    async def start(self) -> None:
        pods = self._network.pods
        await self._watch.start(self._attachments())
        async with self._network.turn:
            await self._rules.load()
            await self._guard_bridge()
        pods.before_start.append(self._before_start)
        pods.after_delete.append(self._after_delete)
        self._network.agent.heartbeat_handlers.append(self._look)

    async def follow(self) -> None:
        """Whatever changed while the last transaction ran goes into the next one."""
        while True:
            await self._watch.changed.wait()
            self._watch.changed.clear()
            await self._watch.complete()
            await self._write()

    async def repair(self) -> None:
        self._guard.forget()
        await self._rules.load()
        await self._guard_bridge()

    async def close(self) -> None:
        await self._watch.close()

    async def _before_start(self, attachment: Attachment) -> None:
        """Raises NftError, which ends this try of the pod's start."""
        self._leaving.discard(attachment.key)
        await self._attached()

    async def _after_delete(self, attachment: Attachment) -> None:
        """Before the address is free for another pod."""
        self._leaving.add(attachment.key)
        await self._attached()

    async def _attached(self) -> None:
        self._watch.attached(self._attachments())
        if self._rules.isolation.policies:
            await self._watch.complete()
            await self._write()

    async def _write(self) -> None:
        async with self._network.turn:
            await self._rules.update()
            await self._guard_bridge()

    async def _guard_bridge(self) -> None:
        await self._guard.update(self._attachments(), wanted=self._rules.isolated > 0, judged=self._judged)

    def _attachments(self) -> list[Attachment]:
        """Those that are here to stay: an address is in its record until its pod's interface and rules are gone."""
        found = self._network.pods.ipam.attachments()
        self._leaving &= {attachment.key for attachment in found}
        return [attachment for attachment in found if attachment.key not in self._leaving]

    def _look(self) -> None:
        """At each heartbeat: another program (docker does) may have loaded br_netfilter."""
        if self._rules.isolated and judged_above() != self._judged:
            self._judged = judged_above()
            self._watch.changed.set()


def _dns_port(own_services: Mapping[str, tuple[Object, list[Object]]]) -> int:
    for _, slices in own_services.values():
        for port in slices[0]["ports"]:
            return int(port["port"])
    return 53
