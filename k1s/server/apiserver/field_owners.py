"""managedFields of a request's object: in which version, by whose endpoint, without what the endpoint resets.

Owns: reset_fields, track_write, and driving ownership's generators with the server's conversions.
Called by: writes, handlers/apply. Never does: decide who owns what (api/ownership).
Upstream: GetResetFields and the filters of each kind's strategy, pkg/registry/<group>/<kind>/strategy.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.api.managed_fields import fault_of
from k1s.api.ownership import Reset, Schemas, Steps, included, track_steps
from k1s.api.schema import Schema, schema_for
from k1s.server.apiserver.call import Call

Object = dict[str, Any]
T = TypeVar("T")

_STATUS, _SPEC = ("status",), ("spec",)
_ALL_BUT_STATUS = ("metadata", "spec")
# (group, plural, subresource) -> what a request to it cannot set; of every other status the spec, of main endpoints the status.
_RESET: dict[tuple[str, str, str], Sequence[str]] = {
    ("", "namespaces", "finalize"): _STATUS,
    ("", "pods", "status"): ("spec", "metadata.deletionTimestamp", "metadata.ownerReferences"),
    ("apps", "deployments", "status"): ("spec", "metadata.labels"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "status"): _ALL_BUT_STATUS,
    ("apiregistration.k8s.io", "apiservices", "status"): _ALL_BUT_STATUS,
    ("certificates.k8s.io", "certificatesigningrequests", "status"): ("spec", "status.conditions"),
    ("certificates.k8s.io", "certificatesigningrequests", "approval"): ("spec", "status.certificate"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", "status"): _ALL_BUT_STATUS,
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", "status"): _ALL_BUT_STATUS,
    ("resource.k8s.io", "resourceclaims", "status"): _ALL_BUT_STATUS,
    ("storage.k8s.io", "volumeattachments", "status"): _ALL_BUT_STATUS,
}
_RESIZED = {"*": {"f:resources": None, "f:resizePolicy": None}}
# Here it is said what a request can set.
_ONLY: dict[str, Reset] = {
    "ephemeralcontainers": included({"f:spec": {"f:ephemeralContainers": None}}),
    "resize": included({"f:spec": {"f:containers": _RESIZED, "f:initContainers": _RESIZED, "f:resources": None}}),
}
_INVALID = (
    ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission "
    "controller; please fix your requests: {}"
)


def reset_fields(resource: Resource, subresource: str) -> Reset | Sequence[str]:
    """What the endpoint keeps a request from setting, so that nobody comes to own it there."""
    if not subresource:
        return () if resource.custom and resource.subresource("status") is None else _STATUS
    if subresource in _ONLY:
        return _ONLY[subresource]
    if resource.custom:
        return _ALL_BUT_STATUS if subresource == "status" else ()
    return _RESET.get((resource.group, resource.plural, subresource), _SPEC if subresource == "status" else ())


def schemas_of(call: Call) -> Schemas:
    """The type of the request's kind by apiVersion."""
    resource, catalog = call.resource, call.server.catalog

    def find(version: str) -> Schema | None:
        if version == resource.api_version:
            return schema_for(resource)
        found = catalog.by_api_version(version, resource.kind)
        if found is not None:
            return schema_for(found)
        # A version that is not served: its entries are kept and compared as they stand.
        return schema_for(resource) if resource.custom else None

    return find


async def driven(call: Call, steps: Steps[T]) -> T:
    """The steps' result, with every object converted that they ask for. Raises ApiError."""
    try:
        obj, version = next(steps)
        while True:
            obj, version = steps.send(await _converted(call, obj, version))
    except StopIteration as end:
        result: T = end.value
        return result


async def _converted(call: Call, obj: Object, version: str) -> Object:
    catalog, kind = call.server.catalog, call.resource.kind
    source, target = catalog.by_api_version(obj.get("apiVersion") or "", kind), catalog.by_api_version(version, kind)
    if source is None or target is None:
        return obj
    return await call.server.convert(obj, source, target)


def asks_before_conversion(call: Call) -> bool:
    """Whether ownership is noted in the version asked for before the object is converted: conversion may cost calls."""
    return call.resource.custom and call.resource.api_version != call.stored.api_version


async def track_write(call: Call, old: Object | None, new: Object, now: str) -> None:
    """Note in `new` that the request's manager made it of `old`; both as they are stored, or both in the version asked for."""
    resource, stored = call.resource, call.stored
    before, shown = old, new
    if new.get("apiVersion") != resource.api_version:
        shown = await call.server.convert(new, stored, resource)
        before = None if old is None else await call.server.convert(old, stored, resource)
    steps = track_steps(
        before,
        shown,
        manager=call.manager or call.agent(),
        schema=schema_for(resource),
        api_version=resource.api_version,
        now=now,
        subresource=call.info.subresource,
        reset_fields=reset_fields(resource, call.info.subresource),
        schemas=schemas_of(call),
    )
    try:
        await driven(call, steps)
    except ApiError:
        # A conversion webhook that fails must not make objects unwritable: the record stays as it was.
        put(new["metadata"], old["metadata"].get("managedFields") if old is not None else None)
        return
    if shown is not new:
        put(new["metadata"], shown["metadata"].get("managedFields"))


def put(meta: Object, record: Any) -> None:
    if record:
        meta["managedFields"] = record
    else:
        meta.pop("managedFields", None)


def after_admission(call: Call, meta: Object, before: Any) -> None:
    """A mutating step may have broken the record: then it is as it was, and the client is told."""
    after = meta.get("managedFields")
    if after is before:
        return
    if not after:
        meta.pop("managedFields", None)
    fault = fault_of(after)
    if fault:
        put(meta, before)
        call.warnings.append(_INVALID.format(fault))
