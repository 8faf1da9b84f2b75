"""The objects that every cluster has, made at first start and kept right at every later one.

Owns: comparing what is there with k1s/server/defaults and writing the difference. Called by: server/app, once the API server
serves in-process calls and its informers have synced. Never does: overwrite what a person took over (autoupdate: "false").

A start at which nothing changed writes nothing: everything is compared with the informers' copies.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterable
from typing import Any

from k1s.api.catalog import Catalog, Resource, builtin, builtin_catalog
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.api.rules import missing_rules
from k1s.client.interface import Client, InformerFactory, Object
from k1s.server.config import ServerConfig
from k1s.server.defaults import flow_control, objects, rbac

log = logging.getLogger("k1s.server.bootstrap")

# Writes under way at once: enough for the store to commit them in groups.
_PARALLEL = 32


async def ensure_defaults(
    client: Client,
    informers: InformerFactory,
    config: ServerConfig,
    *,
    advertise_address: str,
    client_ca: bytes,
    request_header_ca: bytes,
) -> int:
    """Bring the default objects up to date; how many had to be written. `advertise_address`: the API server's, an IP."""
    port = config.https_listen_port
    bootstrap = _Bootstrap(client, informers)
    written = await bootstrap.write(objects.namespaces(), _absent)
    written += await bootstrap.write(rbac.objects(), plan_rbac)
    written += await bootstrap.write(flow_control.objects(), flow_control.plan)
    once = [*objects.priority_classes(), objects.service_cidr(config.service_cidr)]
    # The Service's address must come out of a range that exists.
    written += await bootstrap.write(once, _absent)
    kept = [
        objects.kubernetes_service(config.service_cidr, port),
        *await _dns_service(informers, config.cluster_dns.split(",")),
        objects.extension_authentication(client_ca.decode(), request_header_ca.decode()),
    ]
    if ipaddress.ip_address(advertise_address).is_loopback:
        # A machine without a network must still start; pods will find the API when it has an address.
        log.warning("no address to advertise but %s: the service 'kubernetes' has no endpoints", advertise_address)
    else:
        kept += objects.kubernetes_endpoints(advertise_address, port)
    written += await bootstrap.write(kept, plan_content)
    if written:
        log.info("wrote %d default objects", written)
    return written


async def _dns_service(informers: InformerFactory, addresses: list[str]) -> list[Object]:
    """None where a Service of somebody's has an address: they were free to take before there was one of this name."""
    services = informers.informer(builtin("Service"))
    await services.synced()
    for service in services.list():
        meta = service["metadata"]
        if (service.get("spec") or {}).get("clusterIP") in addresses and meta["name"] != "kube-dns":
            log.warning("service %s/%s has the address of the cluster's DNS: no kube-dns", meta["namespace"], meta["name"])
            return []
    return objects.dns_service(addresses)


async def ensure_endpoints(client: Client, informers: InformerFactory, address: str, port: int) -> None:
    """The API server has another address: the endpoints of default/kubernetes say so. Raises ApiError."""
    await _Bootstrap(client, informers).write(objects.kubernetes_endpoints(address, port), plan_content)


class _Bootstrap:
    def __init__(self, client: Client, informers: InformerFactory) -> None:
        self._client, self._informers = client, informers
        self._catalog: Catalog = builtin_catalog()

    async def write(self, wanted: Iterable[Object], plan: Any) -> int:
        """Write what `plan(wanted, found)` says; None means that nothing is to be done."""
        slots = asyncio.Semaphore(_PARALLEL)
        todo: list[tuple[Resource, Object, bool]] = []
        for obj in wanted:
            resource = self._resource(obj)
            informer = self._informers.informer(resource)
            await informer.synced()
            meta = obj["metadata"]
            found = informer.get(meta["name"], meta.get("namespace", ""))
            result = plan(obj, found)
            if result is not None:
                todo.append((resource, result, found is None))

        async def one(resource: Resource, obj: Object, new: bool) -> None:
            async with slots:
                await self._write(resource, obj, new)

        async with asyncio.TaskGroup() as tasks:
            for item in todo:
                tasks.create_task(one(*item))
        return len(todo)

    async def _write(self, resource: Resource, obj: Object, new: bool) -> None:
        meta = obj["metadata"]
        if not new and "resourceVersion" not in meta:  # what cannot be changed in place (a binding's role)
            await self._client.delete(resource, meta["name"], meta.get("namespace", ""))
            new = True
        if not new:
            await self._client.update(resource, obj)
            return
        try:
            await self._client.create(resource, obj, meta.get("namespace", ""))
        except ApiError as error:
            if error.reason != "AlreadyExists":  # another server of this cluster was quicker
                raise

    def _resource(self, obj: Object) -> Resource:
        resource = self._catalog.by_api_version(obj["apiVersion"], obj["kind"])
        if resource is None:
            raise KeyError(f"{obj['apiVersion']} {obj['kind']}")
        return resource


def _absent(wanted: Object, found: Object | None) -> Object | None:
    return wanted if found is None else None


def plan_rbac(wanted: Object, found: Object | None) -> Object | None:
    """As upstream reconciles: add missing rules, subjects, labels; take nothing away; a changed roleRef makes a new binding."""
    if found is None:
        return wanted
    if (found["metadata"].get("annotations") or {}).get(rbac.AUTOUPDATE) == "false":
        return None
    if "roleRef" in wanted and wanted["roleRef"] != found.get("roleRef"):
        return wanted
    out = clone(found)
    changed = _add_metadata(out, wanted)
    if wanted.get("aggregationRule"):
        # Its rules are the aggregation controller's.
        if found.get("aggregationRule") != wanted["aggregationRule"]:
            out["aggregationRule"], changed = wanted["aggregationRule"], True
    elif "rules" in wanted:
        missing = missing_rules(found.get("rules") or [], wanted["rules"])
        if missing:
            out["rules"], changed = [*(found.get("rules") or []), *missing], True
    absent = [s for s in wanted.get("subjects") or () if s not in (found.get("subjects") or ())]
    if absent:
        out["subjects"], changed = [*(found.get("subjects") or []), *absent], True
    return out if changed else None


def plan_content(wanted: Object, found: Object | None) -> Object | None:
    """Objects that k1s alone writes: whatever they hold beside metadata is made as wanted, what was added is left."""
    if found is None:
        return wanted
    content = {k: v for k, v in wanted.items() if k != "metadata"}
    out = clone(found)
    changed = _add_metadata(out, wanted)
    if not contains(found, content):
        spec = {**(found.get("spec") or {}), **content["spec"]} if "spec" in content else None
        out.update(content)
        if spec is not None:
            out["spec"] = spec
        changed = True
    return out if changed else None


def contains(found: Any, wanted: Any) -> bool:
    """Whether `found` says all that `wanted` says; defaults that the API server filled in do not count as differences."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(contains(found.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(contains(f, w) for f, w in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)


def _add_metadata(out: Object, wanted: Object) -> bool:
    changed = False
    for key in ("labels", "annotations"):
        given = wanted["metadata"].get(key) or {}
        present = out["metadata"].get(key) or {}
        if any(present.get(k) != v for k, v in given.items()):
            out["metadata"][key] = {**present, **given}
            changed = True
    return changed
