"""Addresses and ports of services.

Owns: Allocators: which cluster addresses and node ports are taken, from the services in the cache plus those that are being
written right now; the ranges come from the configuration and from ServiceCIDR objects. Called by: strategies/service. Never
does: I/O; nothing of its own is stored, so nothing can leak (IPAddress objects follow: a controller writes them).
Source: upstream pkg/registry/core/service/storage/alloc.go; KEP-1880 (ServiceCIDR), KEP-3070 (the lower band is left to those
who ask by name).
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from k1s.api.catalog import builtin
from k1s.api.errors import FieldError, internal, invalid, invalid_value
from k1s.client.interface import InformerFactory
from k1s.server.apiserver import service_spec
from k1s.server.config import ServerConfig

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IP_INDEX, _PORT_INDEX = "allocators/clusterIP", "allocators/nodePort"
_RANDOM_TRIES, _MOST_TRIES = 64, 1 << 16


def _ips(service: Object) -> list[str]:
    spec = service.get("spec") or {}
    found = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [_canonical(ip) for ip in found if ip and ip != "None"]


def _canonical(ip: str) -> str:
    return str(ipaddress.ip_address(ip)) if ":" in ip else ip


def _ports(service: Object) -> list[str]:
    spec = service.get("spec") or {}
    found = {str(port["nodePort"]) for port in spec.get("ports") or [] if port.get("nodePort")}
    if spec.get("healthCheckNodePort"):
        found.add(str(spec["healthCheckNodePort"]))
    return sorted(found)


class Allocators:
    def __init__(self, informers: InformerFactory, config: ServerConfig) -> None:
        self._services = informers.informer(builtin("Service"))
        self._services.add_index(_IP_INDEX, _ips)
        self._services.add_index(_PORT_INDEX, _ports)
        self._cidrs, self._addresses = informers.informer(builtin("ServiceCIDR")), informers.informer(builtin("IPAddress"))
        self._configured = [ipaddress.ip_network(part.strip()) for part in config.service_cidr.split(",")]
        self.families = list(dict.fromkeys(f"IPv{network.version}" for network in self._configured))
        low, _, high = config.service_node_port_range.partition("-")
        self._low, self._high = int(low), int(high or low)
        # Granted only to who asks for them by name: the DNS addresses, and the first one, the `kubernetes` service's.
        self._reserved = {*config.cluster_dns.split(","), *(str(network[1]) for network in self._configured)}
        self._pending: set[str] = set()

    def assign(self, call: Call, obj: Object, old: Object | None) -> None:
        """Give a service what its type needs and take away what it does not. Raises ApiError 422."""
        spec, before = obj.get("spec"), (old or {}).get("spec") or {}
        if not isinstance(spec, dict):
            return
        service_spec.carry_over(spec, before)
        service_spec.normalize(spec, before)
        service_spec.drop_foreign(spec, before)
        taken: list[str] = []
        errors = service_spec.choose_families(spec, before, self.families)
        if not errors and service_spec.needs_address(spec) and not service_spec.keeps_dual_stack(spec, before):
            self._cluster_ips(spec, before, taken, errors)
        if not errors:
            self._node_ports(spec, before, taken, errors)
        if not errors:
            self._health_port(spec, before, taken, errors)
        self._pending.update(taken)
        call.pending.append(lambda: self._pending.difference_update(taken))
        if errors:
            raise invalid("Service", "", obj["metadata"].get("name") or "", errors)

    # Addresses

    def _cluster_ips(self, spec: Object, before: Object, taken: list[str], errors: list[FieldError]) -> None:
        if spec.get("clusterIP") == "None":
            return
        mine = set(_ips({"spec": before})) if service_spec.needs_address(before) else set()
        addresses = list(spec.get("clusterIPs") or [])[: len(spec["ipFamilies"])]
        for family, ip in zip(spec["ipFamilies"], [*addresses, "", ""], strict=False):
            if not ip:
                addresses.append(self._free_ip(family))
                taken.append(addresses[-1])
            elif _canonical(ip) not in mine:
                fault = self._ip_fault(ip)
                if fault:
                    text = f"failed to allocate IP {ip}: {fault}"
                    errors.append(invalid_value("spec.clusterIPs", spec.get("clusterIPs") or [], text))
                    return
                taken.append(_canonical(ip))
        spec["clusterIP"], spec["clusterIPs"] = addresses[0], addresses

    def _networks(self) -> list[Network]:
        """Where addresses may be taken from: a ServiceCIDR must be ready (or not judged yet) and not on its way out."""
        ready, leaving = list(self._configured), set()
        for obj in self._cidrs.list():
            networks = [ipaddress.ip_network(text, strict=False) for text in (obj.get("spec") or {}).get("cidrs") or ()]
            conditions = (obj.get("status") or {}).get("conditions") or ()
            status = next((c.get("status") for c in conditions if c.get("type") == "Ready"), "True")
            if obj["metadata"].get("deletionTimestamp") or status != "True":
                leaving.update(networks)
            else:
                ready = [*(n for n in networks if n not in ready), *ready]
                leaving.difference_update(networks)
        return [network for network in ready if network not in leaving]

    def _ip_fault(self, ip: str) -> str:
        address = ipaddress.ip_address(ip)
        networks = [network for network in self._networks() if network.version == address.version]
        if not any(address in network and not _is_edge(address, network) for network in networks):
            valid = ", ".join(map(str, networks))
            return f"the provided IP ({ip}) is not in the valid range. The range of valid IPs is {valid}"
        return "provided IP is already allocated" if self._used_ip(str(address)) else ""

    def _used_ip(self, ip: str) -> bool:
        if self._used(_IP_INDEX, ip):
            return True
        # An address can be taken for something that is no Service; those of Services only follow them.
        parent: Object = ((self._addresses.get(ip) or {}).get("spec") or {}).get("parentRef") or {}
        return bool(parent) and (parent.get("group") or "", parent.get("resource")) != ("", "services")

    def _used(self, index: str, value: str) -> bool:
        return value in self._pending or next(iter(self._services.by_index(index, value)), None) is not None

    def _free_ip(self, family: str) -> str:
        networks = [network for network in self._networks() if f"IPv{network.version}" == family]
        random.shuffle(networks)
        for network in networks:
            for position in _positions(network):
                ip = str(network[position])
                if ip not in self._reserved and not self._used_ip(ip):
                    return ip
        raise internal("failed to allocate a serviceIP: range is full")

    # Ports

    def _node_ports(self, spec: Object, before: Object, taken: list[str], errors: list[FieldError]) -> None:
        if spec.get("type") not in ("NodePort", "LoadBalancer"):
            return
        ports, mine = spec.get("ports") or [], set(_ports({"spec": before}))
        # TCP and UDP of one number (DNS) get one node port.
        chosen = {port.get("port"): port["nodePort"] for port in reversed(ports) if port.get("nodePort")}
        seen: set[tuple[str, int]] = set()
        for position, port in enumerate(ports):
            number, protocol = port.get("nodePort"), port.get("protocol") or "TCP"
            if number:
                fault = "" if str(number) in mine or str(number) in taken else self._port_fault(number)
                if fault:
                    errors.append(invalid_value(f"spec.ports[{position}].nodePort", number, fault))
                    return
            elif service_spec.needs_node_ports(spec):
                number = chosen.get(port.get("port"))
                if not number or (protocol, number) in seen:
                    number = self._free_port(taken)
                port["nodePort"] = chosen[port.get("port")] = number
            if number:
                taken.append(str(number))
                seen.add((protocol, number))

    def _health_port(self, spec: Object, before: Object, taken: list[str], errors: list[FieldError]) -> None:
        if not service_spec.needs_health_port(spec):
            return
        number, held = spec.get("healthCheckNodePort"), before.get("healthCheckNodePort")
        if not number:
            spec["healthCheckNodePort"] = number = self._free_port(taken)
        elif number != held:
            fault = "provided port is already allocated" if str(number) in taken else self._port_fault(number)
            if fault:
                text = f"failed to allocate requested HealthCheck NodePort {number}: {fault}"
                errors.append(invalid_value("spec.healthCheckNodePort", number, text))
                return
        taken.append(str(number))

    def _port_fault(self, number: int) -> str:
        if not self._low <= number <= self._high:
            return f"provided port is not in the valid range. The range of valid ports is {self._low}-{self._high}"
        return "provided port is already allocated" if self._used(_PORT_INDEX, str(number)) else ""

    def _free_port(self, taken: list[str]) -> int:
        tries = random.choices(range(self._low, self._high + 1), k=_RANDOM_TRIES)
        for number in chain(tries, range(self._low, self._high + 1)):
            if str(number) not in taken and not self._used(_PORT_INDEX, str(number)):
                return number
        raise internal("failed to allocate a nodePort: range is full")


def _is_edge(address: Address, network: Network) -> bool:
    """The network's own address and, in IPv4, that of everybody in it."""
    if network.num_addresses <= 2:
        return False
    return address == network.network_address or (address.version == 4 and address == network.broadcast_address)


def _positions(network: Network) -> Iterator[int]:
    """Of candidates: random ones above the band that is left to those who ask by name, then all in order."""
    size = network.num_addresses
    last = max(size - (2 if network.version == 4 and size > 2 else 1), 1)
    band = min(max(16, size // 16), 256)
    if band < last:
        for _ in range(_RANDOM_TRIES):
            yield random.randint(band, last)
    first = 1 if size > 2 else 0
    yield from range(max(band, first), min(last + 1, _MOST_TRIES))
    yield from range(first, min(band, last + 1))
