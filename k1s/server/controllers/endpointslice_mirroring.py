"""EndpointSlice mirroring: hand-made Endpoints of services without a selector, as slices, which is what proxies read.

Watches: Endpoints (own key), Services (own key), EndpointSlices that we made (their Endpoints). Owns: `plan` (pure).
Source: upstream pkg/controller/endpointslicemirroring: at most 1000 addresses per subset.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.expectations import Expectations
from k1s.client.interface import Object
from k1s.server.controllers import keys
from k1s.server.controllers.endpointslice import MANAGED_BY, SERVICE_NAME
from k1s.server.controllers.pods import namespace_is_terminating
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

SERVICE, ENDPOINTS, SLICE = builtin("Service"), builtin("Endpoints"), builtin("EndpointSlice")
MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
MAX_PER_SUBSET = 1000
# Annotations that speak of the Endpoints object itself.
_OWN_ANNOTATIONS = ("kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time")
INDEX = "mirrored-endpoints"


def is_mirrored(endpoints: Object, service: Object | None) -> bool:
    if service is None or service["spec"].get("selector"):
        return False
    return meta.labels(endpoints).get(SKIP) != "true" and LEADER not in meta.annotations(endpoints)


def plan(endpoints: Object) -> list[Object]:
    """The slices that say the same: one per subset and address family."""
    out = []
    reserved = (SERVICE_NAME, MANAGED_BY)
    labels = {k: v for k, v in meta.labels(endpoints).items() if k not in reserved}
    labels.update({SERVICE_NAME: meta.name(endpoints), MANAGED_BY: MANAGER})
    annotations = {k: v for k, v in meta.annotations(endpoints).items() if k not in _OWN_ANNOTATIONS}
    for subset in endpoints.get("subsets") or ():
        ports = [{"name": p.get("name", ""), **p} for p in subset.get("ports") or ()]
        addresses = [(a, True) for a in subset.get("addresses") or ()]
        addresses += [(a, False) for a in subset.get("notReadyAddresses") or ()]
        for family in ("IPv4", "IPv6"):
            mine = [(a, ready) for a, ready in addresses if (":" in a["ip"]) == (family == "IPv6")][:MAX_PER_SUBSET]
            if mine:
                metadata = {
                    "generateName": f"{meta.name(endpoints)}-",
                    "namespace": meta.namespace(endpoints),
                    "labels": dict(labels),
                    **({"annotations": dict(annotations)} if annotations else {}),
                    "ownerReferences": [meta.owner_reference(endpoints, ENDPOINTS)],
                }
                items = [_endpoint(a, ready) for a, ready in mine]
                out.append({"metadata": metadata, "addressType": family, "endpoints": items, "ports": ports})
    return out


def _endpoint(address: Object, ready: bool) -> Object:
    conditions = {"ready": ready} if ready is False else {"ready": True}
    out: Object = {"addresses": [address["ip"]], "conditions": conditions}
    out.update({k: address[k] for k in ("hostname", "nodeName", "targetRef") if address.get(k)})
    return out


def _content(s: Object) -> bytes:
    fields = [s.get("addressType"), s.get("endpoints") or [], s.get("ports") or [], meta.labels(s), meta.annotations(s)]
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


class EndpointSliceMirroringController(Reconciler):
    name = "endpointslicemirroring"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services, self.endpoints, self.slices = self.cache(SERVICE), self.cache(ENDPOINTS), self.cache(SLICE)
        self.slices.add_index(INDEX, _mirrored)
        self.expectations = Expectations(context.clock)

    def watches(self) -> Iterable[Watch]:
        return ((ENDPOINTS, keys.own_key), (SERVICE, keys.own_key), (SLICE, self._slice_changed))

    def _slice_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        woken = {key for s in (old, new) if s is not None for key in _mirrored(s)}
        if old is None:
            for key in woken:
                self.expectations.created(key)
        return woken

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        endpoints = self.endpoints.get(name, namespace)
        if wait := self.expectations.wait(key):
            return wait
        wanted: list[Object] = []
        if endpoints is not None and is_mirrored(endpoints, self.services.get(name, namespace)):
            wanted = plan(endpoints)
        free = list(self.slices.by_index(INDEX, key))
        missing = []
        for new in wanted:
            same = next((s for s in free if _content(s) == _content(new)), None)
            if same is not None:
                free.remove(same)
            else:
                missing.append(new)
        for new in missing:
            old = next((s for s in free if s.get("addressType") == new["addressType"]), None)
            if old is not None:
                free.remove(old)
                metadata = {**old["metadata"], "labels": meta.labels(new), "annotations": meta.annotations(new)}
                await self.client.update(SLICE, {**old, **new, "metadata": metadata})
            else:
                await self._create(key, new)
        for old in free:
            await self._delete(old)
        return None

    async def _create(self, key: str, new: Object) -> None:
        self.expectations.expect_creations(key, 1)
        try:
            await self.client.create(SLICE, new)
        except ApiError as error:
            self.expectations.created(key)
            if not namespace_is_terminating(error):
                raise

    async def _delete(self, old: Object) -> None:
        try:
            await self.client.delete(SLICE, meta.name(old), meta.namespace(old), uid=meta.uid(old))
        except ApiError as error:
            if error.code != 404:
                raise


def _mirrored(s: Object) -> Iterable[str]:
    labels = meta.labels(s)
    return (f"{meta.namespace(s)}/{labels.get(SERVICE_NAME, '')}",) if labels.get(MANAGED_BY) == MANAGER else ()
