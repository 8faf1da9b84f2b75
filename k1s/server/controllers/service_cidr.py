"""ServiceCIDRs: ranges of cluster addresses, ready to be used, and kept while somebody has an address of theirs.

Watches: ServiceCIDRs (own name), IPAddresses and Services (the ranges that are being deleted and hold theirs).
Owns: the finalizer and the condition Ready. Called by: controllers.app. Never does: allocate.
Source: upstream pkg/controller/servicecidrs; KEP-1880.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.client.interface import Object
from k1s.server.controllers import keys
from k1s.server.controllers.reconciler import Context, Reconciler, Watch
from k1s.server.controllers.service_addresses import MANAGED_BY, MANAGER, addresses_of

CIDR, ADDRESS, SERVICE = builtin("ServiceCIDR"), builtin("IPAddress"), builtin("Service")
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
READY, TERMINATING = "Kubernetes Service CIDR is ready", "There are still IPAddresses referencing the ServiceCIDR, {}"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks_of(cidr: Object) -> list[Network]:
    return [ipaddress.ip_network(text, strict=False) for text in (cidr.get("spec") or {}).get("cidrs") or ()]


class ServiceCidrController(Reconciler):
    name = "service-cidrs"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.cidrs, self.addresses, self.services = self.cache(CIDR), self.cache(ADDRESS), self.cache(SERVICE)

    def watches(self) -> Iterable[Watch]:
        return (
            (CIDR, self._cidr_changed),
            (ADDRESS, lambda old, new: self._leaving() if new is None else ()),
            (SERVICE, lambda old, new: self._leaving() if new is None else ()),
        )

    def _cidr_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        # A new range may hold the addresses of one that waits to go.
        return {*keys.own_key_unless_deleted(old, new), *self._leaving()}

    def _leaving(self) -> list[str]:
        return [meta.name(cidr) for cidr in self.cidrs.list() if meta.is_deleting(cidr)]

    async def reconcile(self, key: str) -> float | None:
        cidr = self.cidrs.get(key)
        if cidr is None:
            return None
        finalizers = cidr["metadata"].get("finalizers") or []
        if not meta.is_deleting(cidr):
            if FINALIZER not in finalizers:
                cidr = await self._finalizers(cidr, [*finalizers, FINALIZER])
            await self._condition(cidr, {"type": "Ready", "status": "True", "reason": "", "message": READY})
        elif FINALIZER in finalizers:
            if self._is_needed(cidr):
                message = TERMINATING.format("please remove them or create a new ServiceCIDR")
                await self._condition(cidr, {"type": "Ready", "status": "False", "reason": "Terminating", "message": message})
            else:
                await self._finalizers(cidr, [name for name in finalizers if name != FINALIZER])
        return None

    def _is_needed(self, cidr: Object) -> bool:
        """Does an address of the range belong to no other range?"""
        others = [network for other in self.cidrs.list() if not meta.is_deleting(other) for network in networks_of(other)]
        mine = networks_of(cidr)
        taken = {meta.name(found) for found in self.addresses.list() if meta.labels(found).get(MANAGED_BY) == MANAGER}
        taken.update(ip for service in self.services.list() for ip in addresses_of(service))
        parsed = map(ipaddress.ip_address, taken)
        return any(any(ip in network for network in mine) and not any(ip in network for network in others) for ip in parsed)

    async def _finalizers(self, cidr: Object, finalizers: list[str]) -> Object:
        return await self.client.update(CIDR, {**cidr, "metadata": {**cidr["metadata"], "finalizers": finalizers}})

    async def _condition(self, cidr: Object, wanted: Object) -> None:
        conditions = [dict(condition) for condition in meta.conditions(cidr)]
        if meta.set_condition(conditions, wanted, self.stamp()):
            status = {**(cidr.get("status") or {}), "conditions": conditions}
            await self.client.update(CIDR, {**cidr, "status": status}, subresource="status")
