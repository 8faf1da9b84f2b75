"""scale: the replicas of a workload, in one form for all kinds (autoscaling/v1 Scale).

Owns: get, update, patch. Called by: registry. Never does: scale anything (the kind's controller does).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from k1s.api.clone import clone
from k1s.api.errors import FieldError, bad_request, conflict, invalid
from k1s.api.schema import schema_for_kind
from k1s.api.selectors import labels_from
from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import encoded
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.call import Call, decode_body
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.handlers.patch import patcher
from k1s.server.apiserver.negotiation import APPLY_PATCH, accepted, body_form, patch_type
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
    scale, _ = decode_body(await call.body(), body_form(request))
    return await _write(call, lambda current: clone(scale))


async def patch(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    call = Call(request, info, user, server)
    call.options("PatchOptions")
    kind = patch_type(request)
    if kind == APPLY_PATCH:
        raise bad_request("server-side apply is not supported for the scale subresource")
    if not call.manager:
        call.manager = call.agent()
    change = patcher(call, kind, await call.body(), schema_for_kind("autoscaling", "v1", "Scale"))
    return await _write(call, change)


def _paths(call: Call) -> Object | None:
    if not call.resource.custom:
        return None
    found: Object = (call.server.custom.version(call.resource).get("subresources") or {}).get("scale") or {}
    return found


async def _write(call: Call, change: Callable[[Object], Object]) -> Answer:
    paths = _paths(call)

    def produce(current: Object, entry: Entry) -> Object:
        scale = change(scale_of(current, paths))
        _check(call, scale, current)
        put(current, scale)
        return current

    def put(parent: Object, scale: Object) -> None:
        *above, last = (paths or {}).get("specReplicasPath", ".spec.replicas").strip(".").split(".")
        for part in above:
            parent = parent.setdefault(part, {})
        parent[last] = (scale.get("spec") or {}).get("replicas") or 0

    entry = await update_object(call, produce, view=View(lambda obj: scale_of(obj, paths), put))
    shown = await call.server.convert(entry.obj(), call.stored, call.resource)
    return encoded(scale_of(shown, paths), accepted(call.request), headers=call.warning_headers())


def _check(call: Call, scale: Object, current: Object) -> None:
    """Raises ApiError 400, 409, 422."""
    if scale.get("kind") not in (None, "", "Scale"):
        raise bad_request(f'{scale["kind"]} in version "v1" cannot be handled as a Scale: unexpected kind')
    meta = scale.get("metadata") or {}
    if not isinstance(meta, dict) or not isinstance(scale.get("spec") or {}, dict):
        raise bad_request('Scale in version "v1" cannot be handled as a Scale: json: cannot unmarshal into Go struct field Scale')
    version = meta.get("resourceVersion")
    if version and version != current["metadata"]["resourceVersion"]:
        raise conflict(call.stored.plural, call.stored.group, call.name)
    if meta.get("uid") and meta["uid"] != current["metadata"]["uid"]:
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {current['metadata']['uid']}"
        raise conflict(call.stored.plural, call.stored.group, call.name, why)
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    if isinstance(replicas, bool) or not isinstance(replicas, int):
        raise bad_request(
            'Scale in version "v1" cannot be handled as a Scale: '
            "json: cannot unmarshal into Go struct field ScaleSpec.spec.replicas of type int32"
        )
    if replicas < 0:
        error = FieldError("FieldValueInvalid", "spec.replicas", "must be greater than or equal to 0", replicas)
        raise invalid("Scale", "autoscaling", call.name, [error])
