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
from k1s.server.controllers.service_lb_pool import OPTION, Pool, addresses, holds

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


@dataclass(frozen=True, slots=True)
class _Seat:
    """What matters of a node, read once for all Services. `addresses` by IP version."""

    name: str
    kubelet: Port
    addresses: Mapping[int, list[str]]


class _Dispute:
    """One pass over all Services, the oldest first: each takes its ports on the nodes where nobody has them yet."""

    def __init__(self, nodes: Sequence[Object], slices: Slices, reserved: frozenset[Port], busy: Busy) -> None:
        self._nodes, self._slices = sorted(nodes, key=meta.name), slices
        self._reserved, self._busy = reserved, busy
        self._owners: dict[tuple[str, Port], str] = {}
        # By lbpool label, of which there are few.
        self._seats: dict[str, list[_Seat]] = {}

    def outcomes(self, ours: list[Object]) -> dict[str, Outcome]:
        return {meta.key(service): self._serve(service) for service in ours}

    def _serve(self, service: Object) -> Outcome:
        chosen = self._candidates(service)
        if not chosen:
            pool = meta.labels(service).get(eligible.POOL_LABEL)
            return Outcome(
                (), "NoNodes", "there are no available nodes" + (f" labelled {eligible.POOL_LABEL}={pool}" if pool else "")
            )
        if eligible.is_local(service):
            local = eligible.nodes_with_endpoints(self._slices(service))
            chosen = [seat for seat in chosen if seat.name in local]
            if not chosen:
                text = "no available node has a ready endpoint (externalTrafficPolicy: Local)"
                return Outcome((), "NoLocalEndpoints", text, expected=True)
        ports = [(p.get("protocol") or "TCP", int(p["port"])) for p in service["spec"].get("ports") or ()]
        nodes_own = self._reserved.union(seat.kubelet for seat in chosen)
        for port in ports:
            if port in nodes_own:
                text = f"port {_said(port)} is used by the nodes themselves: take another one, or a pool ({OPTION})"
                return Outcome((), "PortReserved", text)
        return self._take(service, chosen, ports)

    def _candidates(self, service: Object) -> list[_Seat]:
        pool = meta.labels(service).get(eligible.POOL_LABEL, "")
        if pool not in self._seats:
            ready = (node for node in eligible.candidates(service, self._nodes) if meta.is_true(node, "Ready"))
            self._seats[pool] = [_seat(node) for node in ready]
        return self._seats[pool]

    def _take(self, service: Object, chosen: list[_Seat], ports: list[Port]) -> Outcome:
        families, key, taken = families_of(service), f"Service {meta.key(service)}", ""
        # Families in the Service's order, each with its nodes in theirs.
        found: list[list[str]] = [[] for _ in families]
        for seat in chosen:
            owner = next((text for port in ports if (text := self._owner(seat.name, port, service))), "")
            if owner:
                taken = taken or owner
                continue
            if any(seat.addresses[family.version] for family in families):
                self._owners.update(((seat.name, port), key) for port in ports)
            for number, family in enumerate(families):
                found[number] += seat.addresses[family.version]
        if any(found):
            every = tuple(dict.fromkeys(address for part in found for address in part))
            return Outcome(every, eligible.FROM_NODES, "served at addresses of the nodes")
        if taken:
            return Outcome((), "PortConflict", taken)
        kinds = " or ".join(family.kind for family in families)
        return Outcome((), "NoNodes", f"no available node has an {kinds} address")

    def _owner(self, node: str, port: Port, service: Object) -> str:
        owner = self._owners.get((node, port)) or self._busy(node, port, service)
        return f"port {_said(port)} of the nodes is taken by {owner}" if owner else ""


def _said(port: Port) -> str:
    return f"{port[1]}/{port[0]}"


def _seat(node: Object) -> _Seat:
    endpoints = (node.get("status") or {}).get("daemonEndpoints") or {}
    kubelet = ("TCP", int((endpoints.get("kubeletEndpoint") or {}).get("Port") or 10250))
    return _Seat(meta.name(node), kubelet, {family.version: _addresses(node, family) for family in (IPV4, IPV6)})


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
    """One pass over all Services: everyone keeps what he has; of the others, those that ask for an address come first, then the
    oldest."""

    def __init__(
        self, pools: Sequence[Pool], nodes: Sequence[Object], ours: list[Object], given: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._pools, self._ours, self._given = pools, ours, given
        self._text = ",".join(pool.text for pool in pools)
        own = [a.get("address") or "" for node in nodes for a in (node.get("status") or {}).get("addresses") or ()]
        # A host's own address in a pool is a mistake that must not cut the host off.
        self._taken: dict[Address, str] = {a: "a node" for text in own if (a := parse_address(text)) is not None}
        self._mine: dict[str, dict[int, Address]] = {}
        # Addresses that are taken stay so within a pass: each search goes on where the last one ended.
        self._rest = {version: addresses(pools, version) for version in (4, 6)}

    def outcomes(self) -> dict[str, Outcome]:
        for service in self._ours:
            self._keep(service)
        # What is asked for is not given to somebody who takes any.
        choosy = sorted(self._ours, key=lambda service: not any(wanted_addresses(service)))
        return {meta.key(service): self._serve(service) for service in choosy}

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
            address = address or next((a for a in self._rest[family.version] if a not in self._taken), None)
            if address is None:
                faults.append(("PoolExhausted", self._exhausted(family)))
                continue
            self._taken[address] = f"Service {meta.key(service)}"
            mine[family.version] = address
        if not mine or any(reason != "PoolExhausted" for reason, _ in faults):
            return Outcome((), *faults[0])
        # Of two families one is better than none, as when the nodes have but one.
        found = tuple(str(mine[family.version]) for family in families_of(service) if family.version in mine)
        return Outcome(found, eligible.FROM_POOL, "; ".join(["from the pool", *(text for _, text in faults)]))

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
