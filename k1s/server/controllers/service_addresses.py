"""IPAddress objects: one for every cluster address of a Service, so that everybody can see what is taken.

Watches: Services (their addresses), IPAddresses (own name). Owns: the IPAddress objects with our label.
Called by: controllers.app. Never does: allocate (the apiserver's allocators look at the Services themselves; these objects
follow within milliseconds); touch an address that somebody holds for something else.
Source: upstream pkg/registry/core/service/ipallocator and its repair loop; KEP-1880.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers import keys
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, seconds_of

SERVICE, ADDRESS = builtin("Service"), builtin("IPAddress")
FAMILY, MANAGED_BY, MANAGER = (
    "ipaddress.kubernetes.io/ip-family",
    "ipaddress.kubernetes.io/managed-by",
    "ipallocator.k8s.io",
)
BY_ADDRESS = "services-by-cluster-address"
# One made by hand for a Service that is not there (yet) may stay so long.
_GRACE_SECONDS = 60.0


def addresses_of(service: Object) -> list[str]:
    spec = service.get("spec") or {}
    found = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [str(ipaddress.ip_address(ip)) for ip in found if ip and ip != "None"]


def parent_of(service: Object) -> Object:
    return {"group": "", "resource": "services", "namespace": meta.namespace(service), "name": meta.name(service)}


class ServiceAddressController(Reconciler):
    name = "service-addresses"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services, self.addresses = self.cache(SERVICE), self.cache(ADDRESS)
        self.services.add_index(BY_ADDRESS, addresses_of)

    def watches(self) -> Iterable[Watch]:
        return ((SERVICE, _changed), (ADDRESS, keys.own_key))

    async def reconcile(self, key: str) -> float | None:
        service = next(iter(self.services.by_index(BY_ADDRESS, key)), None)
        found = self.addresses.get(key)
        if found is None:
            if service is not None:
                await self._create(key, service)
            return None
        parent = (found.get("spec") or {}).get("parentRef") or {}
        if service is not None and _same(parent, parent_of(service)):
            return None
        if meta.labels(found).get(MANAGED_BY) != MANAGER:
            if (parent.get("group") or "", parent.get("resource")) != ("", "services"):
                return None
            age = self.clock.now() - seconds_of(found["metadata"].get("creationTimestamp"))
            if age < _GRACE_SECONDS:
                return _GRACE_SECONDS - age
        try:
            # Its deletion wakes us again, for the Service that has the address now.
            await self.client.delete(ADDRESS, key, uid=meta.uid(found))
        except ApiError as error:
            if error.code != 404:
                raise
        return None

    async def _create(self, key: str, service: Object) -> None:
        family = f"IPv{ipaddress.ip_address(key).version}"
        metadata = {"name": key, "labels": {FAMILY: family, MANAGED_BY: MANAGER}}
        try:
            await self.client.create(ADDRESS, {"metadata": metadata, "spec": {"parentRef": parent_of(service)}})
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise


def _changed(old: Object | None, new: Object | None) -> Iterable[str]:
    before, after = (set(addresses_of(service)) if service is not None else set() for service in (old, new))
    return before ^ after


def _same(parent: Object, other: Object) -> bool:
    return all((parent.get(field) or "") == (other.get(field) or "") for field in ("group", "resource", "namespace", "name"))
