"""Endpoints: the older form of EndpointSlice, for clients that still read it.

Watches: Services (own key), Pods (the services that select them), Endpoints (their service). Owns: `plan` (pure).
Source: upstream pkg/controller/endpoint: addresses grouped by equal ports, at most 1000 in all.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers import keys, pods, services
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

SERVICE, POD, ENDPOINTS = builtin("Service"), builtin("Pod"), builtin("Endpoints")
MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MAX_ADDRESSES = 1000


def plan(service: Object, members: Iterable[Object]) -> Object:
    """The Endpoints object the service should have."""
    family = (service["spec"].get("ipFamilies") or ["IPv4"])[0]
    unready_too = services.publishes_unready(service)
    # ports -> (ready, not ready)
    groups: dict[bytes, tuple[list[Object], list[Object]]] = {}
    total = 0
    for pod in sorted(members, key=meta.name):
        ip = services.address_of(pod, family)
        if not ip or not services.belongs(pod, terminating=unready_too):
            continue
        ports = services.endpoint_ports(service, pod)
        if not ports and not (services.is_headless(service) and not service["spec"].get("ports")):
            continue
        total += 1
        if total > MAX_ADDRESSES:
            continue
        ready = unready_too or pods.is_ready(pod)
        key = orjson.dumps([{k: v for k, v in port.items() if v} for port in ports])
        groups.setdefault(key, ([], []))[0 if ready else 1].append(_address(service, pod, ip))
    labels = {k: v for k, v in meta.labels(service).items() if k != services.HEADLESS}
    if services.is_headless(service):
        labels[services.HEADLESS] = ""
    labels[MANAGED_BY] = MANAGER
    metadata: Object = {"name": meta.name(service), "namespace": meta.namespace(service), "labels": labels}
    if total > MAX_ADDRESSES:
        metadata["annotations"] = {OVER_CAPACITY: "truncated"}
    return {"metadata": metadata, "subsets": [_subset(key, *group) for key, group in sorted(groups.items())]}


def _subset(key: bytes, ready: list[Object], unready: list[Object]) -> Object:
    parts = {"addresses": ready, "notReadyAddresses": unready, "ports": orjson.loads(key)}
    return {k: v for k, v in parts.items() if v}


def _address(service: Object, pod: Object, ip: str) -> Object:
    node = (pod.get("spec") or {}).get("nodeName")
    target = {"kind": "Pod", "namespace": meta.namespace(pod), "name": meta.name(pod), "uid": meta.uid(pod)}
    out: Object = {"ip": ip, "targetRef": target}
    if node:
        out["nodeName"] = node
    if hostname := services.hostname_of(pod, service):
        out["hostname"] = hostname
    return out


class EndpointsController(Reconciler):
    name = "endpoint"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services, self.pods, self.endpoints = self.cache(SERVICE), self.cache(POD), self.cache(ENDPOINTS)
        services.index_selectors(self.services)

    def watches(self) -> Iterable[Watch]:
        return (
            (SERVICE, keys.own_key),
            (POD, lambda old, new: services.concerned(self.services, old, new)),
            (ENDPOINTS, lambda old, new: keys.own_key(old, new) if old is not None else ()),
        )

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        service, existing = self.services.get(name, namespace), self.endpoints.get(name, namespace)
        if service is None:
            self.hold_back(key, 0)
            await self._delete(existing)
            return None
        if not services.has_endpoints(service):
            return None
        present = (existing or {}).get("subsets") or ()
        if pause := self.hold_back(key, sum(len(s.get("addresses") or ()) for s in present)):
            return pause
        members = [pod for pod in self.pods.list(namespace) if services.selects(service, pod)]
        new = plan(service, members)
        try:
            if existing is None:
                await self.client.create(ENDPOINTS, new)
            elif _differs(existing, new):
                await self.client.update(ENDPOINTS, {**existing, **new, "metadata": _merged(existing, new)})
        except ApiError as error:
            if error.reason != "AlreadyExists" and not pods.namespace_is_terminating(error):
                raise
        return None

    async def _delete(self, existing: Object | None) -> None:
        """A service that is gone takes its Endpoints along, as long as they are ours and not, say, a leader's lock."""
        if existing is None or meta.labels(existing).get(MANAGED_BY) != MANAGER:
            return
        try:
            await self.client.delete(ENDPOINTS, meta.name(existing), meta.namespace(existing), uid=meta.uid(existing))
        except ApiError as error:
            if error.code != 404:
                raise


def _differs(existing: Object, new: Object) -> bool:
    over = meta.annotations(existing).get(OVER_CAPACITY) != meta.annotations(new).get(OVER_CAPACITY)
    return over or (existing.get("subsets") or []) != new["subsets"] or meta.labels(existing) != meta.labels(new)


def _merged(existing: Object, new: Object) -> Object:
    annotations = {k: v for k, v in meta.annotations(existing).items() if k != OVER_CAPACITY}
    annotations.update(meta.annotations(new))
    return {**existing["metadata"], "labels": meta.labels(new), "annotations": annotations}
