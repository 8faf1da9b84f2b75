"""Which addresses every Service of type LoadBalancer gets (pure).

Owns: Outcome, `plan`. Called by: service_lb. Never does: I/O, remember anything: what was given out before stands in the
Services' status (and in `given`, for what has not been seen there yet).

Without pools a Service gets the addresses of nodes, as k3s' ServiceLB gives them: a port of a node belongs to one Service,
the oldest that wants it. With pools every Service gets an address of its own and keeps it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from k1s.api import meta
from k1s.client.interface import Object
from k1s.net.announce import eligible
from k1s.net.family import IPV4, IPV6, Address, Family, parse_address
from k1s.server.controllers.service_lb_pool import OPTION, Pool, first_free, holds

# Addresses that a Service asks for: ours, and what users of MetalLB are used to.
WANTED_ANNOTATIONS = ("k1s.io/loadBalancerIPs", "metallb.io/loadBalancerIPs", "metallb.universe.tf/loadBalancerIPs")

Port = tuple[str, int]  # (protocol, number)
Slices = Callable[[Object], Iterable[Object]]
# Who else has a port of a node (a host port, a node port) since before the Service was there: (node, port, Service) -> words.
Busy = Callable[[str, Port, Object], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a Service gets, or why it gets nothing. `expected`: it is nobody's fault, no event tells of it."""

    addresses: tuple[str, ...]
    reason: str
    message: str
    expected: bool = False

    @property
    def good(self) -> bool:
        return bool(self.addresses)


@dataclass(frozen=True, slots=True)
class BalancerConfig:
    """`reserved`: ports that every node uses itself; each node's kubelet port is added."""

    enabled: bool = True
    pools: tuple[Pool, ...] = ()
    reserved: frozenset[Port] = field(default_factory=lambda: frozenset({("TCP", 6443), ("UDP", 8472)}))


def plan(
    services: Iterable[Object],
    nodes: Sequence[Object],
    slices: Slices,
    config: BalancerConfig,
    given: Mapping[str, tuple[str, ...]],
    busy: Busy = lambda node, port, service: "",
) -> dict[str, Outcome]:
    """namespace/name -> outcome, of every Service that is ours to serve."""
    ours = sorted(
        (service for service in services if config.enabled and eligible.wants_balancer(service)),
        # Stamps are of whole seconds: of two in one second the one that has something already is the older.
        key=lambda service: (age(service)[0], not _before(service, given), meta.key(service)),
    )
    if config.pools:
        return _Allocation(config.pools, nodes, ours, given).outcomes()
    return _Dispute(nodes, slices, config.reserved, busy).outcomes(ours)


def age(service: Object) -> tuple[str, str]:
    return meta.metadata(service).get("creationTimestamp") or "", meta.key(service)


def _before(service: Object, given: Mapping[str, tuple[str, ...]]) -> Sequence[str]:
    """What it has, or was given a moment ago."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return [entry["ip"] for entry in ingress if entry.get("ip")] or given.get(meta.key(service), ())


def families_of(service: Object) -> list[Family]:
    kinds = service["spec"].get("ipFamilies") or ["IPv4"]
    return [family for kind in kinds for family in (IPV4, IPV6) if family.kind == kind]


# --- addresses of nodes


class _Dispute:
    """One pass over all Services, the oldest first: each takes its ports on the nodes where nobody has them yet."""

    def __init__(self, nodes: Sequence[Object], slices: Slices, reserved: frozenset[Port], busy: Busy) -> None:
        self._nodes, self._slices = sorted(nodes, key=meta.name), slices
        self._reserved, self._busy = reserved, busy
        self._owners: dict[tuple[str, Port], str] = {}

    def outcomes(self, ours: list[Object]) -> dict[str, Outcome]:
        return {meta.key(service): self._serve(service) for service in ours}

    def _serve(self, service: Object) -> Outcome:
        chosen = [node for node in eligible.candidates(service, self._nodes) if meta.is_true(node, "Ready")]
        if not chosen:
            return Outcome((), "NoNodes", "there are no available nodes")
        if eligible.is_local(service):
            local = eligible.nodes_with_endpoints(self._slices(service))
            chosen = [node for node in chosen if meta.name(node) in local]
            if not chosen:
                text = "no available node has a ready endpoint (externalTrafficPolicy: Local)"
                return Outcome((), "NoLocalEndpoints", text, expected=True)
        ports = [(p.get("protocol") or "TCP", int(p["port"])) for p in service["spec"].get("ports") or ()]
        own = next((port for node in chosen for port in ports if self._is_nodes_own(node, port)), None)
        if own is not None:
            text = f"port {_said(own)} is used by the nodes themselves: take another one, or a pool ({OPTION})"
            return Outcome((), "PortReserved", text)
        return self._take(service, chosen, ports)

    def _is_nodes_own(self, node: Object, port: Port) -> bool:
        return port in self._reserved or port == ("TCP", _kubelet_port(node))

    def _take(self, service: Object, chosen: list[Object], ports: list[Port]) -> Outcome:
        families, taken = families_of(service), ""
        found: list[tuple[int, str]] = []
        for node in chosen:
            addresses = [(number, a) for number, family in enumerate(families) for a in _addresses(node, family)]
            blocked = next((text for port in ports if (text := self._owner(node, port, service))), "")
            if blocked:
                taken = taken or blocked
            elif addresses:
                self._owners.update(((meta.name(node), port), f"Service {meta.key(service)}") for port in ports)
                found += addresses
        if found:
            # Families in the Service's order, each with its nodes in theirs.
            addresses_found = tuple(dict.fromkeys(address for _, address in sorted(found, key=lambda pair: pair[0])))
            return Outcome(addresses_found, eligible.FROM_NODES, "served at addresses of the nodes")
        if taken:
            return Outcome((), "PortConflict", taken)
        kinds = " or ".join(family.kind for family in families)
        return Outcome((), "NoNodes", f"no available node has an {kinds} address")

    def _owner(self, node: Object, port: Port, service: Object) -> str:
        owner = self._owners.get((meta.name(node), port)) or self._busy(meta.name(node), port, service)
        return f"port {_said(port)} of the nodes is taken by {owner}" if owner else ""


def _said(port: Port) -> str:
    return f"{port[1]}/{port[0]}"


def _kubelet_port(node: Object) -> int:
    endpoints = (node.get("status") or {}).get("daemonEndpoints") or {}
    return int((endpoints.get("kubeletEndpoint") or {}).get("Port") or 10250)


def _addresses(node: Object, family: Family) -> list[str]:
    """Its external addresses, or where it has none its internal ones."""
    known = (node.get("status") or {}).get("addresses") or ()
    for kind in ("ExternalIP", "InternalIP"):
        found = [a["address"] for a in known if a.get("type") == kind and family.owns(a.get("address") or "")]
        if found:
            return found
    return []


# --- addresses of pools


class _Allocation:
    """One pass over all Services: first everyone keeps what he has, then the others get theirs, the oldest first."""

    def __init__(
        self, pools: Sequence[Pool], nodes: Sequence[Object], ours: list[Object], given: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._pools, self._ours, self._given = pools, ours, given
        self._text = ",".join(pool.text for pool in pools)
        addresses = [a.get("address") or "" for node in nodes for a in (node.get("status") or {}).get("addresses") or ()]
        # A host's own address in a pool is a mistake that must not cut the host off.
        self._taken: dict[Address, str] = {a: "a node" for text in addresses if (a := parse_address(text)) is not None}
        self._mine: dict[str, dict[int, Address]] = {}

    def outcomes(self) -> dict[str, Outcome]:
        for service in self._ours:
            self._keep(service)
        return {meta.key(service): self._serve(service) for service in self._ours}

    def _keep(self, service: Object) -> None:
        mine = self._mine[meta.key(service)] = {}
        wanted, fault = wanted_addresses(service)
        if fault:
            return
        versions = {family.version for family in families_of(service)}
        for text in _before(service, self._given):
            address = parse_address(text)
            if address is None or address.version not in versions or address.version in mine:
                continue
            refused = wanted.get(address.version, address) != address
            if not refused and holds(self._pools, address) and address not in self._taken:
                self._taken[address] = f"Service {meta.key(service)}"
                mine[address.version] = address

    def _serve(self, service: Object) -> Outcome:
        mine = self._mine[meta.key(service)]
        wanted, fault = wanted_addresses(service)
        if fault:
            return Outcome((), "InvalidAddress", fault)
        faults: list[tuple[str, str]] = []
        for family in families_of(service):
            if family.version in mine:
                continue
            address = wanted.get(family.version)
            refusal = self._refusal(address) if address is not None else None
            if refusal is not None:
                faults.append(refusal)
                continue
            address = address or first_free(self._pools, family.version, self._taken)
            if address is None:
                faults.append(("PoolExhausted", self._exhausted(family)))
                continue
            self._taken[address] = f"Service {meta.key(service)}"
            mine[family.version] = address
        if not mine or any(reason != "PoolExhausted" for reason, _ in faults):
            return Outcome((), *faults[0])
        # Of two families one is better than none, as when the nodes have but one.
        addresses = tuple(str(mine[family.version]) for family in families_of(service) if family.version in mine)
        return Outcome(addresses, eligible.FROM_POOL, "; ".join(["from the pool", *(text for _, text in faults)]))

    def _refusal(self, address: Address) -> tuple[str, str] | None:
        if not holds(self._pools, address):
            return "AddressNotInPool", f"{address} is not in {OPTION} {self._text}"
        if address in self._taken:
            return "AddressInUse", f"{address} is the address of {self._taken[address]}"
        return None

    def _exhausted(self, family: Family) -> str:
        if not any(pool.version == family.version for pool in self._pools):
            return f"{OPTION} {self._text} has no {family.kind} addresses"
        return f"no {family.kind} address of {OPTION} {self._text} is free"


def wanted_addresses(service: Object) -> tuple[dict[int, Address], str]:
    """By family version, what the Service asks for; and what is wrong with it."""
    texts = [service["spec"].get("loadBalancerIP") or ""]
    texts += [meta.annotations(service).get(name) or "" for name in WANTED_ANNOTATIONS]
    wanted: dict[int, Address] = {}
    for text in (part.strip() for joined in texts for part in joined.split(",")):
        if not text:
            continue
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return {}, f"{text!r} is asked for, and is no address"
        if wanted.setdefault(address.version, address) != address:
            return {}, f"{wanted[address.version]} and {address} are both asked for: a Service has one address of a family"
    versions = {family.version for family in families_of(service)}
    if strangers := [str(address) for version, address in wanted.items() if version not in versions]:
        return {}, f"{strangers[0]} is asked for, and is of none of the Service's IP families"
    return wanted, ""
