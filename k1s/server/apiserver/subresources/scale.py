"""scale: the replicas of a workload, in one form for all kinds (autoscaling/v1 Scale).

Owns: get, update, patch. Called by: registry. Never does: scale anything (the kind's controller does).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from k1s.api.catalog import Resource
from k1s.api.clone import clone
from k1s.api.errors import conflict, invalid, invalid_value
from k1s.api.field_set import Path
from k1s.api.ownership import track
from k1s.api.patch.apply import apply
from k1s.api.scale_fields import SCALE_VERSION, path_of, to_parent, to_scale
from k1s.api.schema import Schema, schema_for_kind
from k1s.api.selectors import labels_from
from k1s.base.clock import rfc3339
from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import encoded
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.call import Call, check_kind, decode_body
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.field_owners import put as put_record
from k1s.server.apiserver.handlers.apply import check_applied_kind, note_duplicates, read_applied
from k1s.server.apiserver.handlers.patch import Patch, checked_type, patch_options
from k1s.server.apiserver.negotiation import APPLY_PATCH, JSON, accepted, body_form
from k1s.server.apiserver.write_meta import check_place
from k1s.server.apiserver.writes import View, update_object

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]


def _at(obj: Object, path: str) -> Any:
    value: Any = obj
    for part in filter(None, path.split(".")):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def scale_of(obj: Object, paths: Object | None = None) -> Object:
    """The Scale of a workload; `paths` is a CRD's subresources.scale."""
    meta = obj["metadata"]
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if paths is not None:
        # As if the custom resource were one of ours.
        spec = {"replicas": _at(obj, paths.get("specReplicasPath", "")) or 0}
        status = {"replicas": _at(obj, paths.get("statusReplicasPath", "")) or 0}
        if paths.get("labelSelectorPath"):
            status["selector"] = _at(obj, paths["labelSelectorPath"]) or ""
    kept = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp") if key in meta}
    selector = spec.get("selector")
    if isinstance(selector, dict) and obj.get("apiVersion") == "v1":
        text = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    else:
        text = str(labels_from(selector)) if selector is not None else status.get("selector", "")
    out: Object = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": kept,
        "spec": {"replicas": spec.get("replicas", 0)},
        "status": {"replicas": status.get("replicas", 0)},
    }
    if text:
        out["status"]["selector"] = text
    return out


async def get(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    call = Call(request, info, user, server)
    entry = await server.objects.get(call.stored, call.namespace, call.name)
    return encoded(scale_of(await server.convert(entry.obj(), call.stored, call.resource), _paths(call)), accepted(request))


async def update(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    call = Call(request, info, user, server)
    call.options("UpdateOptions")
    data, form = await call.body(), body_form(request)
    given, complaints = decode_body(data, form, "Scale")
    check_kind(given, _as_scale(call), server)
    call.typed(given, _as_scale(call), complaints, _schema(), data if form == JSON else b"")
    return await _write(call, lambda scale: clone(given))


async def patch(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    call = Call(request, info, user, server)
    kind = checked_type(call)
    body = await call.body()
    patch_options(call, kind)
    if kind == APPLY_PATCH:
        applied, complaints = await read_applied(body)
        check_applied_kind(applied, SCALE_VERSION, "Scale")

        def merged(scale: Object) -> Object:
            out = apply(
                scale,
                clone(applied),
                manager=call.manager,
                force=call.force,
                schema=_schema(),
                api_version=SCALE_VERSION,
                now=rfc3339(server.clock.now()),
                subresource="scale",
                reset_fields=(),
            )
            call.warnings.clear()
            note_duplicates(call, complaints)
            return out

        return await _write(call, merged, applied=True)
    change = Patch(call, kind, body, _schema())

    def patched(scale: Object) -> Object:
        out = change.plain(scale)
        change.check(out)
        return out

    return await _write(call, patched)


def _schema() -> Schema:
    return schema_for_kind("autoscaling", "v1", "Scale")


def _as_scale(call: Call) -> Resource:
    """What messages call the body's type."""
    return replace(call.resource, group="autoscaling", version="v1", kind="Scale", custom=False)


def _paths(call: Call) -> Object | None:
    if not call.resource.custom:
        return None
    found: Object = (call.server.custom.version(call.resource).get("subresources") or {}).get("scale") or {}
    return found


def _replicas_of(call: Call) -> dict[str, Path]:
    """Where the replicas stand, by version of the kind."""
    resource, server = call.resource, call.server
    if not resource.custom:
        return {resource.api_version: path_of(".spec.replicas")}
    out: dict[str, Path] = {}
    for row in server.catalog:
        if row.custom and (row.group, row.plural) == (resource.group, resource.plural):
            scale = (server.custom.version(row).get("subresources") or {}).get("scale") or {}
            out[row.api_version] = path_of(scale.get("specReplicasPath") or "")
    return out


async def _write(call: Call, change: Callable[[Object], Object], applied: bool = False) -> Answer:
    """`applied`: the change has noted who owns the replicas."""
    paths, versions = _paths(call), _replicas_of(call)
    now = rfc3339(call.server.clock.now())

    def produce(current: Object, entry: Entry) -> Object:
        scale, record = scale_of(current, paths), current["metadata"].get("managedFields")
        put_record(scale["metadata"], to_scale(record, versions))
        new = change(clone(scale))
        _check(call, new, current)
        if not applied:
            options = {"schema": _schema(), "api_version": SCALE_VERSION, "subresource": "scale", "reset_fields": ()}
            track(scale, new, manager=call.manager, now=now, **options)
        put(current, new)
        put_record(
            current["metadata"],
            to_parent(record, new["metadata"].get("managedFields"), versions, call.resource.api_version),
        )
        return current

    def put(parent: Object, scale: Object) -> None:
        *above, last = (paths or {}).get("specReplicasPath", ".spec.replicas").strip(".").split(".")
        for part in above:
            parent = parent.setdefault(part, {})
        parent[last] = (scale.get("spec") or {}).get("replicas") or 0

    entry = await update_object(call, produce, view=View(lambda obj: scale_of(obj, paths), put), applied=True)
    shown = await call.server.convert(entry.obj(), call.stored, call.resource)
    return encoded(scale_of(shown, paths), accepted(call.request), headers=call.warning_headers())


def _check(call: Call, scale: Object, current: Object) -> None:
    """Raises ApiError 400, 409, 422."""
    if not isinstance(scale.get("metadata"), dict):
        scale["metadata"] = {}
    meta, found = scale["metadata"], current["metadata"]
    check_place(call, meta)
    if meta.get("resourceVersion") and meta["resourceVersion"] != found["resourceVersion"]:
        raise conflict(call.stored.plural, call.stored.group, call.name)
    if meta.get("uid") and meta["uid"] != found["uid"]:
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {found['uid']}"
        raise conflict(f"{call.stored.plural}/scale", call.stored.group, call.name, why)
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    if isinstance(replicas, int) and replicas < 0:
        error = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid("Scale", "autoscaling", call.name, [error])
