"""Services and EndpointSlices as proxy and DNS want to see them.

Owns: the indexes over the informers and the set of Services that changed since the proxy last asked.
Called by: network (proxy loop), and by net.dns through its Zone protocol. Never does: copy objects; talk to the kernel.

Bound: the changed set holds each Service once, however often it changes; the proxy takes all of it at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from k1s.api.catalog import builtin
from k1s.client.interface import InformerFactory

Object = dict[str, Any]

_SERVICE_LABEL = "kubernetes.io/service-name"


class ServiceWatch:
    """A view of the informers; `lookup` is proxy.apply's, the rest is dns.answers' Zone."""

    def __init__(self, informers: InformerFactory) -> None:
        self._services = informers.informer(builtin("Service"))
        self._slices = informers.informer(builtin("EndpointSlice"))
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Return when the first lists are in; changes count from then on (`keys` has what is there)."""
        self._services.add_index("k1s.io/cluster-ip", _cluster_ips)
        self._services.add_index("k1s.io/namespace", lambda service: [service["metadata"]["namespace"]])
        self._slices.add_index("k1s.io/service", service_of)
        self._slices.add_index("k1s.io/address", _addresses)
        await self._services.synced()
        await self._slices.synced()
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)
        self._changed.clear()
        self._wake.clear()

    def keys(self) -> set[str]:
        return {_key(service) for service in self._services.list()}

    async def changed(self) -> set[str]:
        """Wait for changes and take them: `namespace/name` of Services, also of deleted ones."""
        await self._wake.wait()
        self._wake.clear()
        taken, self._changed = self._changed, set()
        return taken

    def lookup(self, key: str) -> tuple[Object | None, Iterable[Object]]:
        namespace, _, name = key.partition("/")
        return self._services.get(name, namespace), self._slices.by_index("k1s.io/service", key)

    def service(self, namespace: str, name: str) -> Object | None:
        return self._services.get(name, namespace)

    def slices(self, namespace: str, name: str) -> Iterable[Object]:
        return self._slices.by_index("k1s.io/service", f"{namespace}/{name}")

    def has_services(self, namespace: str) -> bool:
        return any(True for _ in self._services.by_index("k1s.io/namespace", namespace))

    def services_at(self, address: str) -> Iterable[Object]:
        return self._services.by_index("k1s.io/cluster-ip", address)

    def slices_at(self, address: str) -> Iterable[Object]:
        return self._slices.by_index("k1s.io/address", address)

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        service = new or old
        if service is not None:
            self._note([_key(service)])

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        self._note([*service_of(old or {}), *service_of(new or {})])

    def _note(self, keys: Iterable[str]) -> None:
        before = len(self._changed)
        self._changed.update(keys)
        if len(self._changed) > before:
            self._wake.set()


def _key(obj: Object) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def _cluster_ips(service: Object) -> list[str]:
    spec = service.get("spec") or {}
    return [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip and ip != "None"]


def service_of(piece: Object) -> list[str]:
    """The Service (namespace/name) of an EndpointSlice, if it has one."""
    meta = piece.get("metadata") or {}
    name = (meta.get("labels") or {}).get(_SERVICE_LABEL)
    return [f"{meta['namespace']}/{name}"] if name else []


def _addresses(piece: Object) -> list[str]:
    return [address for endpoint in piece.get("endpoints") or () for address in endpoint.get("addresses") or ()]
