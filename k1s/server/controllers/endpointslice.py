"""EndpointSlice: the addresses behind every service with a selector.

Watches: Services (own key), Pods (the services that select them), EndpointSlices (their service), Nodes (all services when one
comes, goes or changes its zone; those with topology-mode Auto also for readiness and CPUs).
Owns: `plan` (pure): which slices to create, update and delete, changing as few as can be.
Source: upstream k8s.io/endpointslice reconciler: slices of at most 100 endpoints, one group per set of ports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.expectations import Expectations
from k1s.client.interface import Object
from k1s.server.controllers import endpointslice_hints as hints
from k1s.server.controllers import keys, pods, services
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

SERVICE, POD, NODE, SLICE = builtin("Service"), builtin("Pod"), builtin("Node"), builtin("EndpointSlice")
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
MAX_ENDPOINTS = 100
NO_SHARES: Mapping[str, float] = {}


@dataclass(slots=True)
class Plan:
    create: list[Object] = field(default_factory=list)
    update: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)


def plan(
    service: Object,
    members: Iterable[Object],
    existing: Sequence[Object],
    zone_of: Callable[[str], str],
    shares: Mapping[str, float] = NO_SHARES,
) -> Plan:
    """`members`: pods the service selects. `existing`: its slices that we manage. `shares`: the zones' CPUs, for Auto."""
    out = Plan()
    members = list(members)
    if not services.has_endpoints(service) or meta.is_deleting(service):
        out.delete = list(existing)
        return out
    families = service["spec"].get("ipFamilies") or ["IPv4"]
    out.delete = [s for s in existing if s.get("addressType") not in families]
    for family in families:
        mine = [s for s in existing if s.get("addressType") == family]
        _plan_family(service, family, members, mine, zone_of, shares, out)
    _recycle(out)
    return out


def _recycle(out: Plan) -> None:
    """A slice that is to go becomes one that is to come: one write instead of two."""
    for new in list(out.create):
        old = next((s for s in out.delete if s.get("addressType") == new["addressType"]), None)
        if old is not None:
            out.create.remove(new)
            out.delete.remove(old)
            out.update.append({**old, **new, "metadata": {**old["metadata"], "labels": new["metadata"]["labels"]}})


def _plan_family(
    service: Object,
    family: str,
    members: list[Object],
    existing: list[Object],
    zone_of: Callable[[str], str],
    shares: Mapping[str, float],
    out: Plan,
) -> None:
    groups: dict[bytes, tuple[list[Object], list[Object]]] = {}
    for pod in members:
        if not services.belongs(pod, terminating=True) or not services.address_of(pod, family):
            continue
        ports = services.endpoint_ports(service, pod)
        if not ports and not (services.is_headless(service) and not service["spec"].get("ports")):
            continue
        groups.setdefault(_ports_key(ports), (ports, []))[1].append(endpoint(service, pod, family, zone_of))
    slices: dict[bytes, list[Object]] = {}
    for s in existing:
        slices.setdefault(_ports_key(s.get("ports") or []), []).append(s)
    if not groups:
        # One empty slice says: this service is known, and has no endpoints.
        groups[_ports_key([])] = ([], [])
    for key, (ports, endpoints) in groups.items():
        if hints.is_auto(service):
            hints.balance(endpoints, shares)
        else:
            hints.distribute(service, endpoints)
        _fill(service, family, ports, endpoints, slices.pop(key, []), out)
    out.delete.extend(s for leftover in slices.values() for s in leftover)


def _fill(service: Object, family: str, ports: list[Object], endpoints: list[Object], existing: list[Object], out: Plan) -> None:
    """Keep every endpoint in the slice it is in; put new ones where there is room; then make new slices."""
    desired = {_identity(e): e for e in endpoints}
    kept: list[tuple[Object, list[Object]]] = []
    for s in sorted(existing, key=meta.name):
        stay = [found for e in s.get("endpoints") or () if (found := desired.pop(_identity(e), None)) is not None]
        kept.append((s, stay))
    new = list(desired.values())
    for _, stay in sorted(kept, key=lambda pair: -len(pair[1])):
        room = MAX_ENDPOINTS - len(stay)
        stay.extend(new[:room])
        new = new[room:]
    placeholder = not endpoints
    for s, stay in kept:
        if not stay and not placeholder:
            out.delete.append(s)
            continue
        placeholder = False
        updated = {**s, "metadata": {**s["metadata"], "labels": slice_labels(service, s)}, "endpoints": stay, "ports": ports}
        if _content(updated) != _content(s):
            out.update.append(updated)
    while new or placeholder:
        out.create.append(_new_slice(service, family, ports, new[:MAX_ENDPOINTS]))
        new, placeholder = new[MAX_ENDPOINTS:], False


def endpoint(service: Object, pod: Object, family: str, zone_of: Callable[[str], str]) -> Object:
    serving, terminating = pods.is_ready(pod), meta.is_deleting(pod)
    ready = services.publishes_unready(service) or (serving and not terminating)
    node = (pod.get("spec") or {}).get("nodeName", "")
    out: Object = {
        "addresses": [services.address_of(pod, family)],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": meta.namespace(pod), "name": meta.name(pod), "uid": meta.uid(pod)},
    }
    optional = {"hostname": services.hostname_of(pod, service), "nodeName": node, "zone": zone_of(node) if node else ""}
    out.update({k: v for k, v in optional.items() if v})
    return out


def slice_labels(service: Object, existing: Object | None = None) -> dict[str, str]:
    """The service's own labels, and ours."""
    reserved = (SERVICE_NAME, MANAGED_BY, services.HEADLESS)
    out = {k: v for k, v in meta.labels(service).items() if k not in reserved}
    if services.is_headless(service):
        out[services.HEADLESS] = ""
    return {**out, SERVICE_NAME: meta.name(service), MANAGED_BY: MANAGER}


def _new_slice(service: Object, family: str, ports: list[Object], endpoints: list[Object]) -> Object:
    return {
        "metadata": {
            "generateName": f"{meta.name(service)}-",
            "namespace": meta.namespace(service),
            "labels": slice_labels(service),
            "ownerReferences": [meta.owner_reference(service, SERVICE)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    }


def _identity(e: Object) -> tuple[str, str]:
    """Which pod an endpoint stands for; a hand-edited one without a reference is nobody's."""
    return (e.get("targetRef") or {}).get("uid", ""), ",".join(e.get("addresses") or ())


def _ports_key(ports: list[Object]) -> bytes:
    return orjson.dumps(
        sorted((p.get("name") or "", p["port"], p.get("protocol", "TCP"), p.get("appProtocol", "")) for p in ports)
    )


def _content(s: Object) -> bytes:
    endpoints = sorted(orjson.dumps(e, option=orjson.OPT_SORT_KEYS) for e in s.get("endpoints") or ())
    return orjson.dumps([meta.labels(s), _ports_key(s.get("ports") or []).decode()], option=orjson.OPT_SORT_KEYS) + b"".join(
        endpoints
    )


class EndpointSliceController(Reconciler):
    name = "endpointslice"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.services, self.pods, self.nodes = self.cache(SERVICE), self.cache(POD), self.cache(NODE)
        self.slices = self.cache(SLICE)
        services.index_selectors(self.services)
        self.slices.add_index(SERVICE_NAME, _service_of)
        self.expectations = Expectations(context.clock)

    def watches(self) -> Iterable[Watch]:
        return (
            (SERVICE, keys.own_key),
            (POD, lambda old, new: services.concerned(self.services, old, new)),
            (SLICE, self._slice_changed),
            (NODE, self._node_changed),
        )

    def _slice_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        woken = {key for s in (old, new) if s is not None for key in _service_of(s)}
        if old is None:
            for key in woken:
                self.expectations.created(key)
        return woken

    def _node_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        before, after = (None if node is None else meta.labels(node).get(hints.ZONE, "") for node in (old, new))
        if before != after:
            return [meta.key(s) for s in self.services.list() if services.has_endpoints(s)]
        if hints.weight(old) == hints.weight(new):
            return ()
        return [meta.key(s) for s in self.services.list() if services.has_endpoints(s) and hints.is_auto(s)]

    def _zone_of(self, name: str) -> str:
        node = self.nodes.get(name)
        return meta.labels(node).get(hints.ZONE, "") if node is not None else ""

    def _members(self, service: Object) -> list[Object]:
        """The pods that the service selects, but for those whose node is gone: they may run on, nobody knows."""
        found = [pod for pod in self.pods.list(meta.namespace(service)) if services.selects(service, pod)]
        if service["spec"].get("publishNotReadyAddresses"):
            return found
        return [pod for pod in found if self.nodes.get((pod.get("spec") or {}).get("nodeName") or "") is not None]

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        service = self.services.get(name, namespace)
        if service is None:
            self.expectations.forget(key)
            self.hold_back(key, 0)
            return None  # the garbage collector takes its slices
        if wait := self.expectations.wait(key):
            return wait  # a slice just made is not in the cache yet: its arrival wakes us
        existing = list(self.slices.by_index(SERVICE_NAME, key))
        if not existing and not services.has_endpoints(service):
            return None
        if pause := self.hold_back(key, sum(len(s.get("endpoints") or ()) for s in existing)):
            return pause
        shares = hints.cpu_shares(self.nodes.list()) if hints.is_auto(service) else NO_SHARES
        todo = plan(service, self._members(service), existing, self._zone_of, shares)
        if todo.create:
            self.expectations.expect_creations(key, len(todo.create))
        await asyncio.gather(
            *(self._create(key, new) for new in todo.create),
            *(self.client.update(SLICE, changed) for changed in todo.update),
            *(self._delete(gone) for gone in todo.delete),
        )
        return None

    async def _create(self, key: str, new: Object) -> None:
        try:
            await self.client.create(SLICE, new)
        except ApiError as error:
            self.expectations.created(key)
            if not pods.namespace_is_terminating(error):
                raise

    async def _delete(self, gone: Object) -> None:
        try:
            await self.client.delete(SLICE, meta.name(gone), meta.namespace(gone), uid=meta.uid(gone))
        except ApiError as error:
            if error.code != 404:
                raise


def _service_of(s: Object) -> Iterable[str]:
    labels = meta.labels(s)
    name = labels.get(SERVICE_NAME)
    return (f"{meta.namespace(s)}/{name}",) if name and labels.get(MANAGED_BY) == MANAGER else ()
