"""One Service and its EndpointSlices as elements of the proxy's nftables maps.

Owns: the rules of Service traffic: which frontends there are, what each leads to. Called by: proxy.apply; pure.
Never does: I/O; diffs (apply). proxy/table.py holds the maps and chains that these elements live in.

The shape (a "slot map"): a frontend with n targets is one entry of a verdict map, `goto ip-tcp-n`, and n entries of a slot
map, (frontend, 0..n-1) -> target. Chain ip-tcp-n draws a number below n and looks the slot up. So rules never change when
Services do, every target gets the same share, and one changed endpoint is an element or two, however many Services there are.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k1s.net.announce.eligible import pool_addresses
from k1s.net.family import Family, parse_address, parse_network
from k1s.net.proxy.endpoints import Place, choose

Object = dict[str, Any]
# (map or set, key) -> value; sets have the value "".
Elements = dict[tuple[str, str], str]

PROTOCOLS = ("tcp", "udp", "sctp")
# Who sets one of these on a Service or slice does not want it proxied, or not by us.
_NOT_OURS = ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless")
# Slots of targets on this node begin here, so that both lists of a frontend live in one map.
LOCAL_SLOTS = 1 << 16
_DEFAULT_STICKY_SECONDS = 10800


@dataclass(frozen=True, slots=True, order=True)
class Balance:
    """A chain that spreads over `targets` slots. `over`: "ip" or "port", what a frontend is."""

    over: str
    protocol: str
    targets: int
    local: bool
    sticky: bool

    @property
    def name(self) -> str:
        return (
            f"{self.over}-{self.protocol}-{self.targets}" + ("-local" if self.local else "") + ("-sticky" if self.sticky else "")
        )


@dataclass(frozen=True, slots=True, order=True)
class Stick:
    """A chain that remembers for `seconds` which target a client got."""

    protocol: str
    seconds: int

    @property
    def name(self) -> str:
        return f"stick-{self.protocol}-{self.seconds}"


@dataclass(frozen=True, slots=True, order=True)
class Sources:
    """A chain that drops what does not come from `ranges` (loadBalancerSourceRanges)."""

    ranges: tuple[str, ...]

    @property
    def name(self) -> str:
        return "from-" + hashlib.sha256(",".join(self.ranges).encode()).hexdigest()[:12]


Chain = Balance | Stick | Sources


@dataclass(slots=True)
class ServicePlan:
    """What one Service puts into one family's table.

    `frontends` holds the elements by frontend, which is what two Services can both claim (an external address, a port).
    `slots` remembers which target stands in which slot, by (map, frontend, first slot); `sticky` the frontends with
    affinity; both with their current targets.
    """

    frontends: dict[str, Elements] = field(default_factory=dict)
    chains: set[Chain] = field(default_factory=set)
    slots: dict[tuple[str, str, int], tuple[str, ...]] = field(default_factory=dict)
    sticky: dict[str, frozenset[str]] = field(default_factory=dict)

    def elements(self, but: Collection[str] = ()) -> Elements:
        """All elements, without those of the frontends in `but`, which are somebody else's."""
        found: Elements = {}
        for frontend, elements in self.frontends.items():
            if frontend not in but:
                found.update(elements)
        return found

    def put(self, frontend: str, name: str, key: str, value: str) -> None:
        self.frontends.setdefault(frontend, {})[(name, key)] = value

    def is_local(self, frontend: str) -> bool:
        """Outsiders are led to this node's targets only."""
        elements = self.frontends.get(frontend, {})
        return ("local-ips", frontend) in elements or ("local-ports", frontend) in elements

    def udp_targets(self) -> dict[str, frozenset[str]]:
        """Frontend -> targets of what is UDP: flows there outlive their target and must be cut when it goes."""
        found: dict[str, frozenset[str]] = {}
        for (_, frontend, _), targets in self.slots.items():
            if "udp . " in frontend:
                found[frontend] = found.get(frontend, frozenset()) | frozenset(targets)
        return found


EMPTY = ServicePlan()


def concerns_proxy(service: Object) -> bool:
    """Not for the proxy: headless, ExternalName, and what is marked as somebody else's."""
    spec = service.get("spec") or {}
    return spec.get("type") != "ExternalName" and spec.get("clusterIP") not in (None, "", "None") and _is_ours(service)


def _is_ours(obj: Object) -> bool:
    labels = (obj.get("metadata") or {}).get("labels") or {}
    return not any(label in labels for label in _NOT_OURS)


def plan_service(
    service: Object,
    slices: Iterable[Object],
    *,
    family: Family,
    place: Place,
    before: ServicePlan = EMPTY,
    own_addresses: frozenset[str] = frozenset(),
) -> ServicePlan:
    """The Service's elements. `before` keeps targets in their slots; `own_addresses` are served by the agent itself (DNS)."""
    plan = ServicePlan()
    if not concerns_proxy(service):
        return plan
    spec = service["spec"]
    slices = [piece for piece in slices if _is_ours(piece)]
    cluster_ips = [ip for ip in spec.get("clusterIPs") or [spec["clusterIP"]] if family.owns(ip) and ip not in own_addresses]
    for ip in cluster_ips:
        plan.put(ip, "cluster-ips", ip, "")
    for ip in filter(family.owns, pool_addresses(service)):
        plan.put(ip, "pool-ips", ip, "")
    outside_ips = _outside_addresses(service, family)
    guards = _source_ranges(service, family, place)
    exposed = spec.get("type") in ("NodePort", "LoadBalancer")
    for port in spec.get("ports") or ():
        protocol = (port.get("protocol") or "TCP").lower()
        if protocol not in PROTOCOLS:
            continue
        targets = choose(port, slices, family, place)
        writer = _Port(plan, before, protocol, targets.cluster, targets.local, _sticky_seconds(spec))
        for ip in cluster_ips:
            writer.inside(ip, port["port"], only_local=spec.get("internalTrafficPolicy") == "Local")
        only_local = spec.get("externalTrafficPolicy") == "Local"
        for ip in outside_ips:
            writer.outside_ip(ip, port["port"], only_local=only_local)
            if guards and ip in _balancer_addresses(service, family):
                plan.chains.add(guards)
                key = f"{ip} . {protocol} . {port['port']}"
                plan.put(key, "guarded-ips", key, f"goto {guards.name}")
        if exposed and port.get("nodePort"):
            writer.outside_port(port["nodePort"], only_local=only_local)
    return plan


def arrange(before: Sequence[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """Put `wanted` into slots so that as few as possible change: stayers stay, gaps are filled from newcomers, then the end."""
    remaining = set(wanted)
    slots: list[str | None] = [target if target in remaining else None for target in before]
    newcomers = sorted(remaining - set(before), reverse=True)
    slots = [target if target is not None else (newcomers.pop() if newcomers else None) for target in slots]
    slots += reversed(newcomers)
    while None in slots:
        last = slots.pop()
        if last is not None:
            slots[slots.index(None)] = last
    return tuple(target for target in slots if target is not None)


@dataclass(slots=True)
class _Port:
    """Writes the frontends of one Service port into a plan."""

    plan: ServicePlan
    before: ServicePlan
    protocol: str
    cluster: tuple[str, ...]
    local: tuple[str, ...]
    sticky_seconds: int

    def inside(self, ip: str, number: int, *, only_local: bool) -> None:
        """A cluster IP. With internalTrafficPolicy Local and nobody here, traffic is dropped, not sent elsewhere."""
        key = f"{ip} . {self.protocol} . {number}"
        if only_local and self.cluster and not self.local:
            self.plan.put(key, "dead-ips", key, "drop")
            return
        targets = self.local if only_local else self.cluster
        self._frontend("ip", key, targets)
        self._stick("ips", f"{ip} . {number}", key, targets)

    def outside_ip(self, ip: str, number: int, *, only_local: bool) -> None:
        """An external or load balancer address."""
        key = f"{ip} . {self.protocol} . {number}"
        self._outside("ip", key, only_local)
        self.plan.put(key, f"outside-ips-{self.protocol}", f"{ip} . {number}", "")
        self._stick("ips", f"{ip} . {number}", key, (*self.cluster, *self.local))

    def outside_port(self, number: int, *, only_local: bool) -> None:
        """A node port, on every address of the node but loopback."""
        key = f"{self.protocol} . {number}"
        self._outside("port", key, only_local)
        self.plan.put(key, f"outside-ports-{self.protocol}", str(number), "")
        self._stick("ports", str(number), key, (*self.cluster, *self.local))

    def _outside(self, over: str, key: str, only_local: bool) -> None:
        # Pods and the node itself may use every target also under externalTrafficPolicy Local: they keep their address.
        self._frontend(over, key, self.cluster)
        if only_local and self.cluster:
            if self.local:
                self._spread(over, key, self.local, local=True)
            else:
                self.plan.put(key, f"local-{over}s", key, "accept")
                self.plan.put(key, f"dead-local-{over}s", key, "")

    def _frontend(self, over: str, key: str, targets: tuple[str, ...]) -> None:
        if targets:
            self._spread(over, key, targets, local=False)
        else:
            self.plan.put(key, f"dead-{over}s", key, "goto refuse")

    def _spread(self, over: str, key: str, targets: tuple[str, ...], *, local: bool) -> None:
        chain = Balance(over, self.protocol, len(targets), local, self.sticky_seconds > 0)
        self.plan.chains.add(chain)
        self.plan.put(key, f"{'local' if local else 'service'}-{over}s", key, f"goto {chain.name}")
        first = LOCAL_SLOTS if local else 0
        slot_map = f"{over}-slots-{self.protocol}"
        place = (slot_map, key, first)
        arranged = arrange(self.before.slots.get(place, ()), targets)
        self.plan.slots[place] = arranged
        for number, target in enumerate(arranged, first):
            # The protocol is in the map's name.
            self.plan.put(key, slot_map, f"{key.replace(f'{self.protocol} . ', '')} . {number}", target)

    def _stick(self, kind: str, key: str, frontend: str, targets: tuple[str, ...]) -> None:
        if self.sticky_seconds > 0 and targets:
            chain = Stick(self.protocol, self.sticky_seconds)
            self.plan.chains.add(chain)
            self.plan.put(frontend, f"sticky-{kind}-{self.protocol}", key, f"goto {chain.name}")
            self.plan.sticky[frontend] = frozenset(targets)


def _outside_addresses(service: Object, family: Family) -> list[str]:
    found = [ip for ip in service["spec"].get("externalIPs") or () if family.owns(ip)]
    found += _balancer_addresses(service, family)
    return list(dict.fromkeys(found))


def _balancer_addresses(service: Object, family: Family) -> list[str]:
    if service["spec"].get("type") != "LoadBalancer":
        return []
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    # ipMode Proxy: the balancer wants to see the traffic itself.
    return [entry["ip"] for entry in ingress if family.owns(entry.get("ip") or "") and entry.get("ipMode") != "Proxy"]


def _source_ranges(service: Object, family: Family, place: Place) -> Sources | None:
    spec = service["spec"]
    ranges = spec.get("loadBalancerSourceRanges") or ()
    if spec.get("type") != "LoadBalancer" or not ranges:
        return None
    parsed = [network for text in ranges if (network := parse_network(text.strip())) and network.version == family.version]
    own = [address for text in place.addresses if (address := parse_address(text))]
    if any(address in network for address in own for network in parsed):
        # A node that holds the balancer's address itself calls it from that address.
        parsed += [network for ip in _balancer_addresses(service, family) if (network := parse_network(ip))]
    # Collapsed: nft takes no overlapping ranges into one set, people do.
    return Sources(tuple(str(network) for network in ipaddress.collapse_addresses(parsed)))  # type: ignore[type-var]


def _sticky_seconds(spec: Mapping[str, Any]) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    client = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(client.get("timeoutSeconds") or _DEFAULT_STICKY_SECONDS)
