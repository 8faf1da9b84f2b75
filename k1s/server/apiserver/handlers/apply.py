"""Server-side apply: PATCH that merges what a manager wants into the object, or creates it.

Owns: apply_patch, read_applied. Called by: handlers/patch, subresources/scale. Never does: the merging (api/patch/apply).
Upstream: apiserver/pkg/endpoints/handlers/patch.go (applyPatcher).
"""

from __future__ import annotations

import asyncio
from typing import Any

from k1s.api import meta
from k1s.api.decode import check_types, decode_json, go_kind
from k1s.api.errors import ApiError, bad_request, conflict, not_found
from k1s.api.json_text import check_depth
from k1s.api.ownership import Steps
from k1s.api.patch.apply import apply_steps
from k1s.api.prune import prune
from k1s.api.schema import schema_for
from k1s.api.yaml_text import load_yaml_strictly
from k1s.base.clock import rfc3339
from k1s.server.apiserver.call import Call
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.field_owners import driven, reset_fields, schemas_of
from k1s.server.apiserver.writes import Reset, create_object, reset_main, update_object

Object = dict[str, Any]

# Bytes of YAML that are read beside the event loop.
_LONG = 128 * 1024


async def apply_patch(call: Call, body: bytes, reset: Reset) -> tuple[Entry, bool]:
    """Returns the object and whether it is new. Raises ApiError."""
    applied, complaints = await read_applied(body)
    check_applied_kind(applied, call.resource.api_version, call.resource.kind)
    warnings = list(call.warnings)

    async def merged(live: Object | None) -> Object:
        out = await driven(call, _steps(call, live, applied))
        call.warnings[:] = warnings
        note_duplicates(call, complaints)
        schema = schema_for(call.resource)
        check_types(out, schema)
        prune(out, schema)
        return out

    for _ in range(2):
        found = await call.server.objects.find(call.stored, call.namespace, call.name)
        if found is not None:
            return await update_object(call, lambda current, entry: merged(current), reset=reset, applied=True), False
        if reset is not reset_main:
            break
        await call.may_create()
        obj = await merged(None)
        if meta.uid(obj):
            why = f"uid mismatch: the provided object specified uid {meta.uid(obj)}, and no existing object was found"
            raise conflict(call.stored.plural, call.stored.group, call.name, why)
        try:
            return await create_object(call, obj, applied=True), True
        except ApiError as error:
            # Somebody created it meanwhile: apply to that.
            if error.reason != "AlreadyExists":
                raise
    raise not_found(call.stored.plural, call.stored.group, call.name)


def _steps(call: Call, live: Object | None, applied: Object) -> Steps[Object]:
    return apply_steps(
        live,
        applied,
        manager=call.manager,
        force=call.force,
        schema=schema_for(call.resource),
        api_version=call.resource.api_version,
        now=rfc3339(call.server.clock.now()),
        subresource=call.info.subresource,
        reset_fields=reset_fields(call.resource, call.info.subresource),
        schemas=schemas_of(call),
    )


async def read_applied(body: bytes) -> tuple[Object, list[str]]:
    """decode_applied, beside the event loop if that takes long."""
    if len(body) > _LONG and body.lstrip()[:1] != b"{":
        return await asyncio.to_thread(decode_applied, body)
    return decode_applied(body)


def decode_applied(body: bytes) -> tuple[Object, list[str]]:
    """The configuration, and complaints about keys that stand twice, by line. Raises ApiError 400."""
    try:
        value, complaints = _loaded(body)
    except ApiError as error:
        raise bad_request(f"error encoding patch: {error.message.rpartition('json parse error: ')[2]}") from None
    except ValueError as error:
        raise bad_request(f"error encoding patch: {error}") from None
    if not isinstance(value, dict):
        raise bad_request(
            "error decoding patch: error unmarshaling JSON: while decoding JSON: "
            f"json: cannot unmarshal {go_kind(value)} into Go value of type map[string]interface {{}}"
        )
    return value, complaints


def _loaded(body: bytes) -> tuple[Any, list[str]]:
    """JSON by the fast way; what only begins like it is YAML in braces: {a: b}."""
    if body.lstrip()[:1] != b"{":
        value, complaints = load_yaml_strictly(body)
        check_depth(value)
        return value, complaints
    try:
        value, twice = decode_json(body)
    except ApiError:
        if len(body) > _LONG:
            raise
        value, complaints = load_yaml_strictly(body)
        check_depth(value)
        return value, complaints
    # Upstream reads JSON as the YAML it is, and counts lines.
    return value, load_yaml_strictly(body)[1] if twice else []


def check_applied_kind(applied: Object, api_version: str, kind: str) -> None:
    """Raises ApiError 400."""
    given = (applied.get("apiVersion") or "", applied.get("kind") or "")
    if given == (api_version, kind):
        return
    version = given[0] if isinstance(given[0], str) and "/" in given[0] else f"/{given[0]}"
    raise bad_request(f"invalid object type: {version}, Kind={given[1]}")


def note_duplicates(call: Call, complaints: list[str]) -> None:
    """Refuse or tell, as asked. Raises ApiError 400."""
    if not complaints or call.field_validation == "Ignore":
        return
    if call.field_validation == "Strict":
        lines = "\n  ".join(complaints)
        raise bad_request(f"error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n  {lines}")
    call.warnings += complaints
