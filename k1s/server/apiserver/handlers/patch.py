"""PATCH: JSON patch, merge patch, strategic merge patch, and server-side apply (which also creates).

Owns: handle, handle_status, apply_patch. Called by: registry, subresources. Never does: the patching itself (api/patch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from k1s.api.clone import clone
from k1s.api.decode import decode_json, decode_yaml
from k1s.api.errors import ApiError, FieldError, bad_request, invalid, not_found, unsupported_media_type
from k1s.api.patch.apply import apply
from k1s.api.patch.json import apply_json_patch
from k1s.api.patch.merge import apply_merge_patch
from k1s.api.patch.strategic import apply_strategic_patch
from k1s.api.schema import Schema, schema_for
from k1s.base.clock import rfc3339
from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import PARTIAL, TABLE, object_answer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.call import Call, check_kind
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.negotiation import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_MERGE_PATCH,
    accepted,
    patch_type,
)
from k1s.server.apiserver.writes import Reset, create_object, reset_main, reset_status, update_object

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

# Operations in one JSON patch (upstream's maxJSONPatchOperations).
_MAX_OPERATIONS = 10000


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await patch(request, info, user, server, reset_main)


async def handle_status(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await patch(request, info, user, server, reset_status)


async def patch(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer, reset: Reset) -> Answer:
    call = Call(request, info, user, server)
    media = accepted(request, TABLE, PARTIAL)
    kind = patch_type(request)
    call.options("PatchOptions")
    _check_options(call, kind)
    body = await call.body()
    if kind == APPLY_PATCH:
        entry, created = await _apply(call, body, reset)
    else:
        change = patcher(call, kind, body)
        duplicates = decode_json(body)[1] if kind != JSON_PATCH else []
        if not call.manager:
            call.manager = call.agent()

        def produce(current: Object, entry: Entry) -> Object:
            return patched(call, current, change, duplicates)

        entry, created = await update_object(call, produce, reset=reset), False
    raw = await server.shown(call.resource, entry)
    headers = call.warning_headers() if call.warnings else ()
    status = 201 if created else 200
    return object_answer(request, call.resource, raw, server.clock.now(), media=media, status=status, headers=headers)


def _check_options(call: Call, kind: str) -> None:
    supported = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
    if not call.resource.custom:
        supported.insert(2, STRATEGIC_MERGE_PATCH)
    if kind not in supported:
        raise unsupported_media_type(supported)
    errors: list[FieldError] = []
    if kind == APPLY_PATCH:
        if not call.manager:
            errors.append(FieldError("FieldValueRequired", "fieldManager", "is required for apply patch"))
    elif any(key == "force" for key, _ in call.request.query):
        errors.append(FieldError("FieldValueForbidden", "force", "may not be specified for non-apply patch"))
    if errors:
        raise invalid("PatchOptions", "meta.k8s.io", "", errors)


def patcher(call: Call, kind: str, body: bytes, schema: Schema | None = None) -> Callable[[Object], Object]:
    """The patch as a function from object to object. Raises ApiError 400 if it cannot be read."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"error decoding patch: {error}") from None
    if kind == JSON_PATCH:
        if not isinstance(document, list):
            raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
        if len(document) > _MAX_OPERATIONS:
            raise ApiError(
                413,
                "RequestEntityTooLarge",
                f"The allowed maximum operations in a JSON patch is {_MAX_OPERATIONS}, got {len(document)}",
            )
        return lambda obj: _object(apply_json_patch(obj, document))
    if not isinstance(document, dict):
        raise bad_request("error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}")
    if kind == MERGE_PATCH:
        return lambda obj: _object(apply_merge_patch(obj, document))
    types = schema if schema is not None else schema_for(call.resource)
    return lambda obj: _object(apply_strategic_patch(obj, document, types))


def _object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise bad_request("the patched document is not an object")
    return value


def patched(call: Call, current: Object, change: Callable[[Object], Object], duplicates: Sequence[str] = ()) -> Object:
    """The current object, patched, with everything checked that a client could have broken."""
    out = change(current)
    if out is current:
        out = clone(out)
    if not isinstance(out.get("metadata"), dict):
        out["metadata"] = {}
    check_kind(out, call.resource, call.server)
    call.warnings.clear()
    call.typed(out, call.resource, duplicates)
    return out


async def _apply(call: Call, body: bytes, reset: Reset) -> tuple[Entry, bool]:
    """Server-side apply. Returns the object and whether it is new."""
    applied, duplicates = _decode_apply(body)
    check_kind(applied, call.resource, call.server)
    call.typed(applied, call.resource, duplicates)
    meta = applied["metadata"]
    if meta.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    if (meta.get("name") or call.name) != call.name:
        raise bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({call.name})")
    warnings = list(call.warnings)
    schema = schema_for(call.resource)

    def merged(live: Object | None) -> Object:
        out = apply(
            live,
            clone(applied),
            manager=call.manager,
            force=call.force,
            schema=schema,
            api_version=call.resource.api_version,
            now=rfc3339(call.server.clock.now()),
            subresource=call.info.subresource,
        )
        call.warnings[:] = warnings
        return out

    for _ in range(2):
        found = await call.server.objects.find(call.stored, call.namespace, call.name)
        if found is not None:
            return await update_object(call, lambda current, entry: merged(current), reset=reset, applied=True), False
        if reset is not reset_main or meta.get("uid"):
            break
        await call.may_create()
        try:
            return await create_object(call, merged(None), applied=True), True
        except ApiError as error:
            # Somebody created it meanwhile: apply to that.
            if error.reason != "AlreadyExists":
                raise
    raise not_found(call.stored.plural, call.stored.group, call.name)


def _decode_apply(body: bytes) -> tuple[Object, list[str]]:
    text = body.lstrip()
    obj, duplicates = decode_json(body) if text[:1] == b"{" else decode_yaml(body)
    if not isinstance(obj, dict):
        raise bad_request("error decoding YAML: the body is not an object")
    return obj, duplicates
