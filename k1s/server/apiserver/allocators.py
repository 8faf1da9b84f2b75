"""Addresses and ports of services.

Owns: Allocators: which cluster addresses and node ports are taken, from the services in the cache plus those that are being
written right now. Called by: strategies/service. Never does: I/O; nothing of its own is stored, so nothing can leak.
"""

from __future__ import annotations

import ipaddress
import random
from typing import TYPE_CHECKING, Any

from k1s.api.catalog import builtin
from k1s.api.errors import FieldError, internal, invalid
from k1s.client.interface import InformerFactory
from k1s.server.config import ServerConfig

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]

_IP_INDEX, _PORT_INDEX = "allocators/clusterIP", "allocators/nodePort"
_RANDOM_TRIES = 64


def _ips(service: Object) -> list[str]:
    spec = service.get("spec") or {}
    found = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [ip for ip in found if ip and ip != "None"]


def _ports(service: Object) -> list[str]:
    spec = service.get("spec") or {}
    found = {str(port["nodePort"]) for port in spec.get("ports") or [] if port.get("nodePort")}
    if spec.get("healthCheckNodePort"):
        found.add(str(spec["healthCheckNodePort"]))
    return sorted(found)


# Fields that mean something for some types only -> those types.
_TYPE_FIELDS = {
    "externalTrafficPolicy": ("NodePort", "LoadBalancer"),
    "allocateLoadBalancerNodePorts": ("LoadBalancer",),
    "loadBalancerClass": ("LoadBalancer",),
    "healthCheckNodePort": ("LoadBalancer",),
}


def _drop_foreign(spec: Object, before: Object, kind: str) -> None:
    """When the type changes, what the old type needed goes, unless the client has just set it anew."""
    old_kind = before.get("type") or "ClusterIP"
    for field, kinds in _TYPE_FIELDS.items():
        if old_kind in kinds and kind not in kinds and spec.get(field) == before.get(field):
            spec.pop(field, None)


class Allocators:
    def __init__(self, informers: InformerFactory, config: ServerConfig) -> None:
        self._services = informers.informer(builtin("Service"))
        self._services.add_index(_IP_INDEX, _ips)
        self._services.add_index(_PORT_INDEX, _ports)
        self.network = ipaddress.ip_network(config.service_cidr.partition(",")[0])
        low, _, high = config.service_node_port_range.partition("-")
        self._low, self._high = int(low), int(high or low)
        # Granted only to who asks for them by name: the DNS address, and the first one, which is the `kubernetes` service's.
        self._reserved = {config.cluster_dns, str(self.network[1])}
        self._pending: set[str] = set()

    def assign(self, call: Call, obj: Object, old: Object | None) -> None:
        """Give a service what its type needs and take away what it does not. Raises ApiError 422."""
        spec = obj.get("spec")
        if not isinstance(spec, dict):
            return
        errors: list[FieldError] = []
        taken: list[str] = []
        kind = spec.get("type") or "ClusterIP"
        before = (old or {}).get("spec") or {}
        _drop_foreign(spec, before, kind)
        self._addresses(obj, spec, before, kind, taken, errors)
        if not errors:
            self._node_ports(obj, spec, before, kind, taken, errors)
        self._pending.update(taken)
        call.pending.append(lambda: self._pending.difference_update(taken))
        if errors:
            raise invalid("Service", "", obj["metadata"].get("name") or "", errors)

    def _addresses(
        self, obj: Object, spec: Object, before: Object, kind: str, taken: list[str], errors: list[FieldError]
    ) -> None:
        if kind == "ExternalName":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(field, None)
            return
        ip = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or []), "")
        if not ip and before.get("clusterIP") and (before.get("type") or "ClusterIP") != "ExternalName":
            ip = before["clusterIP"]
        if not ip:
            ip = self._free_ip()
            taken.append(ip)
        elif ip not in ("None", before.get("clusterIP")):
            fault = self._ip_fault(ip)
            if fault:
                errors.append(FieldError("FieldValueInvalid", "spec.clusterIPs", fault, [ip]))
                return
            taken.append(ip)
        spec["clusterIP"] = ip
        spec["clusterIPs"] = spec.get("clusterIPs") or [ip]
        if not spec.get("ipFamilies"):
            spec["ipFamilies"] = ["IPv6" if self.network.version == 6 else "IPv4"]
        if not spec.get("ipFamilyPolicy"):
            spec["ipFamilyPolicy"] = "SingleStack"

    def _ip_fault(self, ip: str) -> str:
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return f"failed to allocate IP {ip}: not a valid IP address"
        if address not in self.network:
            why = f"the provided IP ({ip}) is not in the valid range. The range of valid IPs is {self.network}"
            return f"failed to allocate IP {ip}: {why}"
        if self._used(_IP_INDEX, ip):
            return f"failed to allocate IP {ip}: provided IP is already allocated"
        return ""

    def _used(self, index: str, value: str) -> bool:
        return value in self._pending or bool(list(self._services.by_index(index, value)))

    def _free_ip(self) -> str:
        size = self.network.num_addresses
        for _ in range(_RANDOM_TRIES):
            ip = str(self.network[random.randrange(1, max(size - 1, 2))])
            if ip not in self._reserved and not self._used(_IP_INDEX, ip):
                return ip
        for position in range(1, size - 1):
            ip = str(self.network[position])
            if ip not in self._reserved and not self._used(_IP_INDEX, ip):
                return ip
        raise internal("failed to allocate a serviceIP: range is full")

    def _node_ports(
        self, obj: Object, spec: Object, before: Object, kind: str, taken: list[str], errors: list[FieldError]
    ) -> None:
        ports = spec.get("ports") or []
        wanted = kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False)
        mine = {str(p.get("nodePort")) for p in before.get("ports") or []} | {str(before.get("healthCheckNodePort"))}
        if kind not in ("NodePort", "LoadBalancer"):
            old_ports = {p.get("nodePort") for p in before.get("ports") or []}
            for port in ports:
                # Changing the type back takes the ports away, as long as the client did not choose new ones.
                if port.get("nodePort") in old_ports:
                    port.pop("nodePort", None)
            return
        by_key = {(p.get("protocol") or "TCP", p.get("port")): p.get("nodePort") for p in before.get("ports") or []}
        seen: dict[int, str] = {}
        for position, port in enumerate(ports):
            protocol = port.get("protocol") or "TCP"
            number = port.get("nodePort") or by_key.get((protocol, port.get("port")))
            if number:
                fault = "" if str(number) in mine or seen.get(number, protocol) != protocol else self._port_fault(number)
                if fault:
                    errors.append(FieldError("FieldValueInvalid", f"spec.ports[{position}].nodePort", fault, number))
                    continue
            elif wanted:
                number = self._free_port(taken)
            if number:
                port["nodePort"] = number
                seen[number] = protocol
                taken.append(str(number))
        if kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local" and not spec.get("healthCheckNodePort"):
            number = before.get("healthCheckNodePort") or self._free_port(taken)
            spec["healthCheckNodePort"] = number
            taken.append(str(number))

    def _port_fault(self, number: int) -> str:
        if not self._low <= number <= self._high:
            return f"provided port is not in the valid range. The range of valid ports is {self._low}-{self._high}"
        return "provided port is already allocated" if self._used(_PORT_INDEX, str(number)) else ""

    def _free_port(self, taken: list[str]) -> int:
        for _ in range(_RANDOM_TRIES):
            number = random.randint(self._low, self._high)
            if str(number) not in taken and not self._used(_PORT_INDEX, str(number)):
                return number
        for number in range(self._low, self._high + 1):
            if str(number) not in taken and not self._used(_PORT_INDEX, str(number)):
                return number
        raise internal("failed to allocate a nodePort: range is full")
