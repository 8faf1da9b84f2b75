"""What the cluster's zone answers.

Owns: the records of Services, endpoints and pods. Called by: dns.resolver; pure: a question and a Zone in, records out.
Never does: forward, cache, bytes of messages (wire). Source: Kubernetes DNS-Based Service Discovery 1.1.0; where it leaves
room, what CoreDNS's kubernetes plugin does (pods "insecure": a-b-c-d.ns.pod answers without a look at the pod; TTL 5).
A question for ANY gets one kind of records (RFC 8482). Names between others exist without records (RFC 8020).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from k1s.net.dns import wire
from k1s.net.dns.wire import Name, Record
from k1s.net.family import Address, Network, parse_address

Object = dict[str, Any]
TTL = 5
# Negative answers live as long as positive ones: a Service that a client asked for too early shows up as fast as it can.
_SOA_NUMBERS = struct.pack(">IIIII", 1, 7200, 1800, 86400, TTL)
_SCHEMA_VERSION = b"1.1.0"
ANY_SERVICE = ""


class Zone(Protocol):
    """The Services and EndpointSlices there are, by the ways DNS looks them up. Objects are read-only."""

    def service(self, namespace: str, name: str) -> Object | None: ...
    def slices(self, namespace: str, name: str) -> Iterable[Object]: ...
    def has_services(self, namespace: str) -> bool: ...
    def services_at(self, address: str) -> Iterable[Object]: ...
    def slices_at(self, address: str) -> Iterable[Object]: ...


@dataclass(slots=True)
class Answer:
    """`alias` is set where the answer ends in a CNAME whose target somebody has to look up. `endpoints`: the Services
    (namespace/name) whose EndpointSlices were looked at, so that a change of one may change the answer; ANY_SERVICE for all.
    """

    code: int = wire.NOERROR
    records: list[Record] = field(default_factory=list)
    authority: list[Record] = field(default_factory=list)
    additional: list[Record] = field(default_factory=list)
    alias: Name = ()
    endpoints: tuple[str, ...] = ()


class ClusterZone:
    """Answers for `domain`, and for the addresses of `reverse`."""

    def __init__(self, zone: Zone, domain: str, addresses: Sequence[str], reverse: Sequence[Network]) -> None:
        self._zone = zone
        self.domain: Name = tuple(domain.lower().strip(".").split("."))
        self._addresses = tuple(addresses)
        self._reverse = tuple(reverse)
        apex = ("ns", "dns", *self.domain)
        self._soa_data = wire.pack_name(apex) + wire.pack_name(("hostmaster", *self.domain)) + _SOA_NUMBERS

    def owns(self, name: Name) -> bool:
        """Is the name ours to answer, also with "no such name"? The rest is forwarded."""
        if name[-len(self.domain) :] == self.domain:
            return True
        address = reversed_address(name)
        if address is None:
            return False
        # Endpoints may be anywhere (hosts, machines outside); of other addresses there the host's resolvers may know more.
        inside = any(address in network for network in self._reverse if network.version == address.version)
        return inside or bool(self._names_at(str(address)))

    def answer(self, name: Name, kind: int) -> Answer:
        """Only for names that are `owns`."""
        if name[-len(self.domain) :] != self.domain:
            return self._pointer(name, kind)
        inside = name[: len(name) - len(self.domain)]
        if not inside:
            return self._apex(name, kind)
        match inside[-1]:
            case "svc":
                return self._service(name, inside[:-1], kind)
            case "pod":
                return self._pod(name, inside[:-1], kind)
            case "dns-version" if len(inside) == 1:
                text = bytes((len(_SCHEMA_VERSION),)) + _SCHEMA_VERSION
                return self._found(name, kind, {wire.TXT: [text]})
            case "dns":
                if inside == ("dns",):
                    return self._empty(wire.NOERROR)
                return self._found(name, kind, _by_family(self._addresses)) if inside == ("ns", "dns") else self._missing()
        return self._missing()

    def _apex(self, name: Name, kind: int) -> Answer:
        if kind == wire.SOA:
            return Answer(records=[self._soa()])
        return self._found(name, kind, {wire.NS: [wire.pack_name(("ns", "dns", *self.domain))]})

    def _soa(self) -> Record:
        return Record(self.domain, wire.SOA, TTL, self._soa_data)

    def _empty(self, code: int) -> Answer:
        return Answer(code, authority=[self._soa()])

    def _missing(self) -> Answer:
        return self._empty(wire.NXDOMAIN)

    def _found(self, name: Name, kind: int, data: dict[int, list[bytes]]) -> Answer:
        """The records of that type; a name that has only others exists all the same (NODATA)."""
        if kind == wire.ANY:
            kind = next(iter(data), wire.ANY)
        records = [Record(name, kind, TTL, value) for value in data.get(kind, ())]
        return Answer(records=records) if records else self._empty(wire.NOERROR)

    def _pod(self, name: Name, inside: Name, kind: int) -> Answer:
        if len(inside) < 2:
            return self._empty(wire.NOERROR)
        address = _dashed_address(inside[0]) if len(inside) == 2 else None
        return self._found(name, kind, _by_family([address])) if address else self._missing()

    def _service(self, name: Name, inside: Name, kind: int) -> Answer:
        """inside: (), (ns), (svc, ns), (host, svc, ns), (_port, _proto, svc, ns)."""
        if not inside:
            return self._empty(wire.NOERROR)
        namespace = inside[-1]
        if len(inside) == 1:
            return self._empty(wire.NOERROR) if self._zone.has_services(namespace) else self._missing()
        service = self._zone.service(namespace, inside[-2])
        if service is None:
            return self._missing()
        front, spec = inside[:-2], service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            return self._external(name, spec) if not front else self._missing()
        if len(front) > 2 or (len(front) == 2 and not (front[0].startswith("_") and front[1].startswith("_"))):
            return self._missing()
        if len(front) != 1 and spec.get("clusterIP") not in (None, "", "None"):
            return self._cluster_ip(name, front, service, kind)
        if len(front) != 1:
            answer = self._headless(name, front, service, kind)
        elif front[0].startswith("_"):
            answer = self._protocol(front[0][1:], service)
        else:
            answer = self._endpoint(name, front[0], service, kind)
        answer.endpoints = (f"{namespace}/{inside[-2]}",)
        return answer

    def _external(self, name: Name, spec: Object) -> Answer:
        target = tuple(str(spec.get("externalName") or "").lower().strip(".").split("."))
        if not all(0 < len(label) < 64 and label.isascii() for label in target) or sum(map(len, target)) + len(target) > 254:
            return self._empty(wire.SERVFAIL)
        return Answer(records=[Record(name, wire.CNAME, TTL, wire.pack_name(target))], alias=target)

    def _cluster_ip(self, name: Name, ports: Name, service: Object, kind: int) -> Answer:
        spec, meta = service["spec"], service["metadata"]
        target = (meta["name"], meta["namespace"], "svc", *self.domain)
        addresses = _by_family(spec.get("clusterIPs") or [spec["clusterIP"]])
        numbers = [port["port"] for port in spec.get("ports") or () if _matches(ports, port)]
        if ports and not numbers:
            return self._missing()
        if kind == wire.SRV:
            return self._srv(name, [(target, number, addresses) for number in numbers])
        return self._found(name, kind, {} if ports else addresses)

    def _headless(self, name: Name, ports: Name, service: Object, kind: int) -> Answer:
        meta = service["metadata"]
        base = (meta["name"], meta["namespace"], "svc", *self.domain)
        targets: list[tuple[Name, int, dict[int, list[bytes]]]] = []
        addresses: dict[int, dict[bytes, None]] = {}
        there = False
        for piece, endpoint in _endpoints(self._zone.slices(meta["namespace"], meta["name"])):
            slice_ports: Sequence[Object] = piece.get("ports") or ({},)
            numbers = [port.get("port") for port in slice_ports if _matches(ports, port)]
            if ports and not numbers:
                continue
            found = _by_family(endpoint["addresses"])
            there = True
            if kind == wire.SRV:
                targets += [((_hostname(endpoint), *base), number, found) for number in numbers if number]
            for family, values in found.items():
                addresses.setdefault(family, {}).update(dict.fromkeys(values))
        if not there:
            return self._missing()
        if kind == wire.SRV:
            return self._srv(name, targets)
        return self._found(name, kind, {} if ports else {family: list(values) for family, values in addresses.items()})

    def _protocol(self, protocol: str, service: Object) -> Answer:
        """_tcp.web.shop.svc: there because of what is below it, if there is anything."""
        meta, spec = service["metadata"], service.get("spec") or {}
        slices = self._zone.slices(meta["namespace"], meta["name"])
        holders = [spec] if spec.get("clusterIP") not in (None, "", "None") else [piece for piece, _ in _endpoints(slices)]
        ports = [port for holder in holders for port in holder.get("ports") or ()]
        found = any(port.get("name") and (port.get("protocol") or "TCP").lower() == protocol for port in ports)
        return self._empty(wire.NOERROR) if found else self._missing()

    def _endpoint(self, name: Name, hostname: str, service: Object, kind: int) -> Answer:
        meta = service["metadata"]
        found: list[tuple[Name, int, dict[int, list[bytes]]]] = []
        addresses: list[str] = []
        for piece, endpoint in _endpoints(self._zone.slices(meta["namespace"], meta["name"])):
            if _hostname(endpoint) == hostname:
                addresses += endpoint["addresses"]
                data = _by_family(endpoint["addresses"])
                found += [(name, port["port"], data) for port in piece.get("ports") or () if port.get("port")]
        if not addresses:
            return self._missing()
        return self._srv(name, found) if kind == wire.SRV else self._found(name, kind, _by_family(dict.fromkeys(addresses)))

    def _srv(self, name: Name, targets: Sequence[tuple[Name, int, dict[int, list[bytes]]]]) -> Answer:
        """SRV records, and the addresses of their targets beside them."""
        answer = Answer()
        weight = max(1, 100 // max(len(targets), 1))
        unique: dict[bytes, None] = {}
        beside: dict[Record, None] = {}
        for target, port, addresses in targets:
            unique[struct.pack(">HHH", 0, weight, port) + wire.pack_name(target)] = None
            beside |= {Record(target, k, TTL, value): None for k, values in addresses.items() for value in values}
        answer.additional = list(beside)
        answer.records = [Record(name, wire.SRV, TTL, data) for data in unique]
        return answer if answer.records else self._empty(wire.NOERROR)

    def _pointer(self, name: Name, kind: int) -> Answer:
        names = self._names_at(str(reversed_address(name)))
        data = [wire.pack_name(target) for target in dict.fromkeys(names)]
        answer = self._found(name, kind, {wire.PTR: data}) if names else self._missing()
        if answer.authority:
            answer.authority = [Record(name[-2:], wire.SOA, TTL, self._soa_data)]
        answer.endpoints = (ANY_SERVICE,)
        return answer

    def _names_at(self, address: str) -> list[Name]:
        names = [
            (s["metadata"]["name"], s["metadata"]["namespace"], "svc", *self.domain) for s in self._zone.services_at(address)
        ]
        for piece in self._zone.slices_at(address):
            names += self._endpoint_names(piece, address)
        return names

    def _endpoint_names(self, piece: Object, address: str) -> list[Name]:
        """Endpoints of headless Services have names of their own."""
        meta = piece["metadata"]
        owner = (meta.get("labels") or {}).get("kubernetes.io/service-name", "")
        service = self._zone.service(meta["namespace"], owner)
        if service is None or (service.get("spec") or {}).get("clusterIP") != "None":
            return []
        return [
            (_hostname(endpoint), owner, meta["namespace"], "svc", *self.domain)
            for _, endpoint in _endpoints([piece])
            if address in endpoint["addresses"]
        ]


def _endpoints(slices: Iterable[Object]) -> Iterator[tuple[Object, Object]]:
    """(slice, endpoint) of those that take traffic; publishNotReadyAddresses shows as ready here already."""
    for piece in slices:
        if piece.get("addressType") != "FQDN":
            for endpoint in piece.get("endpoints") or ():
                if endpoint.get("addresses") and (endpoint.get("conditions") or {}).get("ready") is not False:
                    yield piece, endpoint


def _hostname(endpoint: Object) -> str:
    return str(endpoint.get("hostname") or endpoint["addresses"][0].replace(".", "-").replace(":", "-")).lower()


def _matches(ports: Name, port: Object) -> bool:
    """Does `_name._protocol` name this port? With nothing asked every port does."""
    if not ports:
        return True
    return ports[0][1:] == (port.get("name") or "") and ports[1][1:] == (port.get("protocol") or "TCP").lower()


def _by_family(addresses: Iterable[str]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for address in addresses:
        if ":" in address:
            found.setdefault(wire.AAAA, []).append(socket.inet_pton(socket.AF_INET6, address))
        else:
            found.setdefault(wire.A, []).append(socket.inet_aton(address))
    return found


def _dashed_address(label: str) -> str:
    """10-42-0-5 and fd00--5 are addresses; anything else gives ""."""
    for text in (label.replace("-", "."), label.replace("-", ":")):
        if parse_address(text) is not None:
            return text
    return ""


def reversed_address(name: Name) -> Address | None:
    """The address that 7.0.43.10.in-addr.arpa or its like in ip6.arpa stands for."""
    if name[-2:] == ("in-addr", "arpa") and len(name) == 6:
        return parse_address(".".join(reversed(name[:4])))
    if name[-2:] == ("ip6", "arpa") and len(name) == 34:
        digits = "".join(reversed(name[:32]))
        return parse_address(":".join(digits[at : at + 4] for at in range(0, 32, 4)))
    return None
