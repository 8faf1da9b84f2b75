"""What a probe should find, straight from the text of the API and of the documentation's page "Network Policies".

Written without a look at k1s/net/policy and slow on purpose: one question at a time, no sets, no compilation. It is the judge of
the generated matrices.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class End:
    """One end of a flow: a pod, or something else with an address."""

    address: str
    namespace: str = ""
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    ports: tuple[tuple[str, str, int], ...] = ()  # (name, protocol, number)
    node: str = ""

    @property
    def is_pod(self) -> bool:
        return self.namespace != ""


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions") or []:
        has, values = term["key"] in labels, term.get("values") or []
        good = {
            "In": has and labels.get(term["key"]) in values,
            "NotIn": not has or labels.get(term["key"]) not in values,
            "Exists": has,
            "DoesNotExist": not has,
        }[term["operator"]]
        if not good:
            return False
    return True


def allowed(
    policies: list[dict[str, Any]], namespaces: dict[str, dict[str, str]], source: End, target: End, protocol: str, port: int
) -> bool:
    """May `source` open a flow to `port` of `target`? The addresses are those after Services were translated."""
    if source.address == target.address:
        return True  # "a Pod cannot block access to itself"
    return _lets(policies, namespaces, "Egress", source, target, target, protocol, port) and _lets(
        policies, namespaces, "Ingress", target, source, target, protocol, port
    )


def _lets(
    policies: list[dict[str, Any]],
    namespaces: dict[str, dict[str, str]],
    direction: str,
    pod: End,
    peer: End,
    target: End,
    protocol: str,
    port: int,
) -> bool:
    if not pod.is_pod:
        return True
    isolating = [
        p["spec"]
        for p in policies
        if p["metadata"]["namespace"] == pod.namespace
        and selects(p["spec"].get("podSelector") or {}, pod.labels)
        and direction in _types(p["spec"])
    ]
    if not isolating:
        return True
    field_name, peers_name = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    for spec, policy_namespace in ((s, pod.namespace) for s in isolating):
        for written in spec.get(field_name) or []:
            rule = written or {}  # null is decoded as {}
            ports, peers = rule.get("ports") or [], rule.get(peers_name) or []
            port_good = not ports or any(_port(entry, target, protocol, port) for entry in ports)
            peer_good = not peers or any(_peer(entry, policy_namespace, namespaces, peer) for entry in peers)
            if port_good and peer_good:
                return True
    return False


def _types(spec: dict[str, Any]) -> list[str]:
    if spec.get("policyTypes"):
        return list(spec["policyTypes"])
    return ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _port(entry: dict[str, Any], target: End, protocol: str, port: int) -> bool:
    if entry.get("protocol", "TCP") != protocol:
        return False
    wanted = entry.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return any(name == wanted and kind == protocol and number == port for name, kind, number in target.ports)
    return bool(wanted <= port <= entry.get("endPort", wanted))


def _peer(entry: dict[str, Any], policy_namespace: str, namespaces: dict[str, dict[str, str]], peer: End) -> bool:
    block = entry.get("ipBlock")
    if block is not None:
        address = ipaddress.ip_address(peer.address)
        if address not in ipaddress.ip_network(block["cidr"], strict=False):
            return False
        return not any(address in ipaddress.ip_network(hole, strict=False) for hole in block.get("except") or [])
    if not peer.is_pod:
        return False
    if entry.get("namespaceSelector") is not None:
        if peer.namespace not in namespaces or not selects(entry["namespaceSelector"], namespaces[peer.namespace]):
            return False
    elif peer.namespace != policy_namespace:
        return False
    return selects(entry.get("podSelector") or {}, peer.labels)
