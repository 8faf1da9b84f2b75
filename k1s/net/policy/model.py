"""A NetworkPolicy as the rules need it: compiled once, compared by content.

Owns: Pod, Peer, Ports, Rule, Policy, and reading them from API objects. Called by: policy.cluster, isolation, chains,
agent.network.policy. Never does: I/O; know nftables.
Source: networking.k8s.io/v1 NetworkPolicy; KEP-2079 (endPort); the Network Policies page of the Kubernetes documentation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from k1s.api.selectors import EVERYTHING, LabelSelector, labels_from
from k1s.net.policy.blocks import Span, spans

Object = dict[str, Any]

PROTOCOLS = ("tcp", "udp", "sctp")
INGRESS, EGRESS = "ingress", "egress"
_ENDED = ("Succeeded", "Failed")


def digest(text: str) -> str:
    """Names of sets and chains come from what is in them, so that equal ones are shared. 64 bits: nobody meets by accident."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Pod:
    """What policies ask of a pod. `ports`: (protocol, name, number) of its containers' named ports."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    addresses: tuple[str, ...]
    ports: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """Pods by selector: of `namespace`, or of those that `namespaces` selects."""

    namespace: str
    namespaces: LabelSelector | None
    pods: LabelSelector
    name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        chosen = None if self.namespaces is None else self.namespaces.requirements
        object.__setattr__(self, "name", "peer-" + digest(repr((self.namespace, chosen, self.pods.requirements))))

    def __hash__(self) -> int:
        return hash(self.name)


# Every pod that this node knows of. An address of the cluster that is not among them is a pod that has just started.
KNOWN = Peer("", EVERYTHING, EVERYTHING)


@dataclass(frozen=True, slots=True)
class NamedPort:
    """All pods' ports of one name and protocol: a set of address and number."""

    protocol: str
    port: str

    @property
    def name(self) -> str:
        return f"port-{self.protocol}-{self.port}"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one protocol; `every`: all of them."""

    protocol: str
    numbers: tuple[int, ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    names: tuple[NamedPort, ...] = ()
    every: bool = False

    def includes(self, number: int) -> bool:
        return self.every or number in self.numbers or any(first <= number <= last for first, last in self.ranges)


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of spec.ingress or spec.egress. `anyone`: no peers are named; no ports: every port of every protocol."""

    anyone: bool
    peers: tuple[Peer, ...] = ()
    blocks: tuple[Span, ...] = ()
    ports: tuple[Ports, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """One direction of a policy. Its `name` tells what it says, not whose it is."""

    direction: str
    rules: tuple[Rule, ...]
    name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"rules-{digest(repr((self.direction, self.rules)))}")

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def looks_beyond_node(self) -> bool:
        """Does it judge by who others are? Numbers behind names of its own pods' ports a node knows without them."""
        return any(True for _ in self.peers()) or (self.direction == EGRESS and any(True for _ in self.named_ports()))

    def peers(self) -> Iterable[Peer]:
        return (peer for rule in self.rules for peer in rule.peers)

    def named_ports(self) -> Iterable[NamedPort]:
        return (name for rule in self.rules for ports in rule.ports for name in ports.names)


@dataclass(frozen=True, slots=True)
class Policy:
    """`ingress` and `egress` are None where the policy does not isolate."""

    namespace: str
    pods: LabelSelector
    ingress: Rules | None
    egress: Rules | None

    def direction(self, direction: str) -> Rules | None:
        return self.ingress if direction == INGRESS else self.egress

    @property
    def looks_beyond_node(self) -> bool:
        return any(rules is not None and rules.looks_beyond_node for rules in (self.ingress, self.egress))


def compile_policy(obj: Object) -> Policy:
    """A valid NetworkPolicy."""
    namespace, spec = str(obj["metadata"]["namespace"]), obj.get("spec") or {}
    kinds = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    ingress = _rules(INGRESS, namespace, spec.get("ingress"), "from") if "Ingress" in kinds else None
    egress = _rules(EGRESS, namespace, spec.get("egress"), "to") if "Egress" in kinds else None
    return Policy(namespace, _selector(spec.get("podSelector")), ingress, egress)


def _rules(direction: str, namespace: str, entries: Sequence[Object] | None, peers: str) -> Rules:
    # An entry may be written as null: it names nobody and no port, as {} does.
    return Rules(direction, tuple(_rule(namespace, entry or {}, peers) for entry in entries or ()))


def _rule(namespace: str, entry: Object, peers: str) -> Rule:
    chosen, blocks = [], []
    for peer in entry.get(peers) or ():
        block = peer.get("ipBlock")
        if block is not None:
            blocks.append((block["cidr"], tuple(block.get("except") or ())))
        elif peer.get("namespaceSelector") is not None:
            chosen.append(Peer("", labels_from(peer["namespaceSelector"]), _selector(peer.get("podSelector"))))
        else:
            chosen.append(Peer(namespace, None, _selector(peer.get("podSelector"))))
    return Rule(not entry.get(peers), tuple(dict.fromkeys(chosen)), spans(blocks), _ports(entry.get("ports") or ()))


def _selector(selector: Object | None) -> LabelSelector:
    return labels_from(selector) if selector else EVERYTHING


def _ports(entries: Iterable[Object]) -> tuple[Ports, ...]:
    """One Ports a protocol, what is contained in something else left out."""
    found = []
    entries = list(entries)
    for protocol in PROTOCOLS:
        mine = [entry for entry in entries if (entry.get("protocol") or "TCP").lower() == protocol]
        given = [(entry.get("port"), entry.get("endPort")) for entry in mine]
        if any(port is None for port, _ in given):
            found.append(Ports(protocol, every=True))
        elif given:
            names = sorted({port for port, _ in given if isinstance(port, str)})
            pairs = [(port, end or port) for port, end in given if isinstance(port, int)]
            numbers, ranges = _merged(pairs)
            found.append(Ports(protocol, numbers, ranges, tuple(NamedPort(protocol, name) for name in names)))
    return tuple(found)


def _merged(pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    merged: list[list[int]] = []
    for first, last in sorted(pairs):
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return tuple(a for a, b in merged if a == b), tuple((a, b) for a, b in merged if a != b)


def on_pod_network(obj: Object) -> bool:
    """Host-network pods are the node to policies: neither isolated nor selected. Ended pods have no address any more."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return not spec.get("hostNetwork") and status.get("phase") not in _ENDED


def addresses_of(obj: Object) -> tuple[str, ...]:
    """What status says, which may be nothing yet."""
    status = obj.get("status") or {}
    found = [entry.get("ip") for entry in status.get("podIPs") or ()] or [status.get("podIP")]
    return tuple(ip for ip in found if ip)


def pod_of(obj: Object, addresses: tuple[str, ...]) -> Pod:
    """Labels and names come again and again in a cluster: interned, a pod costs about 1 KB less."""
    meta = obj["metadata"]
    labels = {intern(key): intern(value) for key, value in (meta.get("labels") or {}).items()}
    return Pod(intern(meta.get("namespace") or ""), meta["name"], labels, addresses, tuple(_named_ports(obj.get("spec") or {})))


def _named_ports(spec: Object) -> Iterable[tuple[str, str, int]]:
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for port in container.get("ports") or ():
            if port.get("name"):
                yield intern((port.get("protocol") or "TCP").lower()), intern(port["name"]), int(port["containerPort"])
