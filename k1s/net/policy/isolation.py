"""Who is isolated by what: this node's pods and all policies.

Owns: Isolation: policies, the pods of this node, and which chain judges which of their addresses. Pure.
Called by: policy.apply (asks), agent.network.policy (feeds it). Never does: know who the peers are (cluster).

Pods for which the same rules hold share one chain, however many pods and however the policies are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from k1s.net.policy.blocks import Span
from k1s.net.policy.model import EGRESS, INGRESS, KNOWN, NamedPort, Peer, Policy, Rules, digest

_Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The chain for pods that these rules isolate in one direction: what none of them lets through is refused."""

    rules: tuple[Rules, ...]
    name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", "pods-" + digest(" ".join(rules.name for rules in self.rules)))

    @property
    def looks_beyond_node(self) -> bool:
        return any(rules.looks_beyond_node for rules in self.rules)

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(slots=True)
class Wanted:
    """What the kernel should hold. `judged`: direction -> address -> its chain."""

    judged: dict[str, dict[str, Verdict]] = field(default_factory=lambda: {INGRESS: {}, EGRESS: {}})
    verdicts: set[Verdict] = field(default_factory=set)
    rules: set[Rules] = field(default_factory=set)
    peers: set[Peer] = field(default_factory=set)
    ports: set[NamedPort] = field(default_factory=set)
    blocks: set[tuple[Span, ...]] = field(default_factory=set)

    @property
    def empty(self) -> bool:
        return not self.verdicts

    @property
    def looks_beyond_node(self) -> bool:
        """Is a pod of this node judged by who others are?"""
        return KNOWN in self.peers


# A namespace and labels: what pods must have in common to be judged alike.
_Kind = tuple[str, frozenset[tuple[str, str]]]


class Isolation:
    """Bound: one entry a policy of the cluster, one a pod of this node."""

    def __init__(self) -> None:
        self.policies: dict[str, Policy] = {}
        self._by_namespace: dict[str, dict[str, Policy]] = {}
        self._local: dict[str, tuple[_Kind, tuple[str, ...]]] = {}
        self._known: dict[_Kind, dict[str, Verdict]] = {}
        self._dirty = True
        self._wanted = Wanted()

    def set_policy(self, key: str, policy: Policy | None) -> None:
        """`key`: namespace/name."""
        old = self.policies.pop(key, None)
        if old is not None:
            del self._by_namespace[old.namespace][key]
        if policy is not None:
            self.policies[key] = policy
            self._by_namespace.setdefault(policy.namespace, {})[key] = policy
        if old != policy:
            touched = {found.namespace for found in (old, policy) if found is not None}
            self._known = {kind: verdicts for kind, verdicts in self._known.items() if kind[0] not in touched}
            self._dirty = True

    def set_local(self, key: str, namespace: str, labels: _Labels, addresses: tuple[str, ...]) -> None:
        """A pod of this node; without addresses it is gone."""
        local = ((namespace, frozenset(labels.items())), addresses) if addresses else None
        if self._local.get(key) == local:
            return
        self._dirty = True
        if local is None:
            del self._local[key]
        else:
            self._local[key] = local

    def looks_beyond_node(self) -> bool:
        return any(policy.looks_beyond_node for policy in self.policies.values())

    def wanted(self) -> Wanted:
        """The same object as long as nothing changed."""
        if self._dirty:
            self._wanted, self._dirty = self._plan(self._wanted), False
        return self._wanted

    def _plan(self, before: Wanted) -> Wanted:
        """Work: pods of this node; and policies of the namespace for each kind of pod that is new, or whose policies changed."""
        wanted = Wanted()
        known: dict[_Kind, dict[str, Verdict]] = {}
        for kind, addresses in self._local.values():
            verdicts = known.get(kind)
            if verdicts is None:
                verdicts = known[kind] = self._known[kind] if kind in self._known else self._verdicts(kind)
                wanted.verdicts.update(verdicts.values())
            for direction, verdict in verdicts.items():
                wanted.judged[direction].update(dict.fromkeys(addresses, verdict))
        self._known = known
        if wanted.verdicts == before.verdicts:
            wanted.rules, wanted.peers, wanted.ports, wanted.blocks = before.rules, before.peers, before.ports, before.blocks
            return wanted
        for rules in {rules for verdict in wanted.verdicts for rules in verdict.rules}:
            wanted.rules.add(rules)
            wanted.peers.update([*rules.peers(), KNOWN] if rules.looks_beyond_node else ())
            wanted.ports.update(rules.named_ports())
            wanted.blocks.update(rule.blocks for rule in rules.rules if rule.blocks)
        return wanted

    def _verdicts(self, kind: _Kind) -> dict[str, Verdict]:
        namespace, labels = kind[0], dict(kind[1])
        chosen = [policy for policy in self._by_namespace.get(namespace, {}).values() if policy.pods.matches(labels)]
        found = {}
        for direction in (INGRESS, EGRESS):
            by_name = {rules.name: rules for policy in chosen if (rules := policy.direction(direction)) is not None}
            if by_name:
                found[direction] = Verdict(tuple(by_name[name] for name in sorted(by_name)))
        return found
