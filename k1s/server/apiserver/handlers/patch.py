"""PATCH: JSON patch, merge patch, strategic merge patch; server-side apply is passed on to handlers/apply.

Owns: handle, handle_status, patch, Patch. Called by: registry, subresources. Never does: the patching itself (api/patch).
Upstream: apiserver/pkg/endpoints/handlers/patch.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from k1s.api.clone import clone
from k1s.api.decode import duplicate_fields, find_type_error, go_kind
from k1s.api.errors import (
    ApiError,
    FieldError,
    GoText,
    bad_request,
    forbidden_field,
    invalid,
    invalid_value,
    required,
    unsupported_media_type,
)
from k1s.api.go_text import plain
from k1s.api.json_text import check_depth, parse_json
from k1s.api.patch.json import MAX_OPERATIONS, apply_json_patch, operation_faults
from k1s.api.patch.merge import apply_merge_patch
from k1s.api.patch.strategic import apply_strategic_patch
from k1s.api.prune import prune
from k1s.api.schema import Schema, schema_for
from k1s.api.strict import duplicate_field, sorted_unknown, strict_decoding_error, unknown_field
from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import PARTIAL, TABLE, object_answer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.call import Call, kind_fault
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.handlers.apply import apply_patch
from k1s.server.apiserver.negotiation import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_MERGE_PATCH,
    accepted,
    patch_type,
)
from k1s.server.apiserver.writes import Reset, reset_main, reset_status, update_object

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await patch(request, info, user, server, reset_main)


async def handle_status(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await patch(request, info, user, server, reset_status)


async def patch(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer, reset: Reset) -> Answer:
    call = Call(request, info, user, server)
    kind = checked_type(call)
    media = accepted(request, TABLE, PARTIAL, protobuf=not call.resource.custom)
    body = await call.body()
    patch_options(call, kind)
    if kind == APPLY_PATCH:
        entry, created = await apply_patch(call, body, reset)
    else:
        change = Patch(call, kind, body)

        def produce(current: Object, entry: Entry) -> Object:
            return change.typed(current)

        entry, created = await update_object(call, produce, reset=reset), False
    raw = await server.shown(call.resource, entry)
    headers = call.warning_headers() if call.warnings else ()
    status = 201 if created else 200
    return object_answer(request, call.resource, raw, server.clock.now(), media=media, status=status, headers=headers)


def checked_type(call: Call) -> str:
    """The kind of patch. Raises ApiError 415."""
    kind = patch_type(call.request)
    supported = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
    if not call.resource.custom:
        supported.insert(2, STRATEGIC_MERGE_PATCH)
    if kind not in supported:
        raise unsupported_media_type(supported)
    return kind


def patch_options(call: Call, kind: str) -> None:
    """Read the query. Raises ApiError 422."""
    errors: list[FieldError] = []
    if kind == APPLY_PATCH:
        if not call.request.param("fieldManager"):
            errors.append(required("fieldManager", "is required for apply patch"))
    elif call.request.query and call.request.params("force"):
        errors.append(forbidden_field("force", "may not be specified for non-apply patch"))
    call.options("PatchOptions", errors)
    if not call.manager:
        call.manager = call.agent()


class Patch:
    """One patch, read once, to be laid over the object as often as the write has to be tried."""

    def __init__(self, call: Call, kind: str, body: bytes, schema: Schema | None = None) -> None:
        """`schema`: the type that is patched, where it is not the resource's. Raises ApiError 400, 413."""
        self._call, self._kind = call, kind
        self._schema = schema if schema is not None else schema_for(call.resource)
        self._complaints: list[str] = []
        try:
            self._document = parse_json(body)
            check_depth(self._document)
        except ValueError:
            raise bad_request("invalid JSON patch") from None
        strict = call.field_validation != "Ignore"
        self._change = self._json_patch(body, strict) if kind == JSON_PATCH else self._merging(body, strict)

    def _json_patch(self, body: bytes, strict: bool) -> Callable[[Object], Any]:
        operations = self._document
        if operations is None:
            operations = []
        if not isinstance(operations, list):
            target = "[]handlers.jsonPatchOp" if strict else "jsonpatch.Patch"
            start = "error decoding patch: " if strict else ""
            raise bad_request(f"{start}json: cannot unmarshal {go_kind(operations)} into Go value of type {target}")
        fault, unknown = operation_faults(operations)
        if fault:
            raise bad_request(f"error decoding patch: {fault}")
        if len(operations) > MAX_OPERATIONS:
            text = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
            raise ApiError(413, "RequestEntityTooLarge", f"Request entity too large: {text}")
        if strict:
            twice = duplicate_fields(body)
            self._complaints = [f"json patch {text}" for text in (*map(unknown_field, unknown), *map(duplicate_field, twice))]
        operations = [operation or {} for operation in operations]
        return lambda obj: apply_json_patch(obj, operations)

    def _merging(self, body: bytes, strict: bool) -> Callable[[Object], Any]:
        document = {} if self._document is None and self._kind == STRATEGIC_MERGE_PATCH else self._document
        if not isinstance(document, dict):
            start = "error decoding patch: " if self._kind == MERGE_PATCH else ""
            raise bad_request(
                f"{start}json: cannot unmarshal {go_kind(document)} into Go value of type map[string]interface {{}}"
            )
        if strict:
            self._complaints = [duplicate_field(path) for path in duplicate_fields(body)]
        if self._kind == MERGE_PATCH:
            return lambda obj: apply_merge_patch(obj, document)
        return lambda obj: apply_strategic_patch(obj, document, self._schema)

    def plain(self, current: Object) -> Object:
        """The patched object, unchecked. Raises ApiError 400, 422."""
        out = self._change(current)
        if not isinstance(out, dict):
            raise self._invalid(out, f"json: cannot unmarshal {go_kind(out)} into Go value of type map[string]interface {{}}")
        if self._kind == JSON_PATCH:
            # Copies can nest deeper than the patch and the object are.
            try:
                check_depth(out)
            except ValueError as error:
                raise bad_request(f"error decoding patch: {error}") from None
        return clone(out) if out is current else out

    def typed(self, current: Object) -> Object:
        """The patched object, with everything checked that a client could have broken. Raises ApiError 400, 422."""
        call = self._call
        out = self.plain(current)
        fault = ""
        if self._kind == STRATEGIC_MERGE_PATCH:
            # Upstream patches a value of the Go type: what it is cannot change.
            out["apiVersion"], out["kind"] = current.get("apiVersion"), current.get("kind")
        else:
            fault = kind_fault(out, call.resource, call.server)
        self.check(out, fault)
        if not isinstance(out.get("metadata"), dict):
            out["metadata"] = {}
        return out

    def check(self, out: Object, fault: str = "") -> None:
        """Types and unknown fields, in place. Raises ApiError 422."""
        call = self._call
        shown = orjson.dumps(out) if fault else b""
        fault = fault or find_type_error(out, self._schema)
        if fault:
            raise self._invalid(out, fault, shown)
        unknown = prune(out, self._schema)
        call.warnings.clear()
        if call.field_validation == "Ignore" or not (unknown or self._complaints):
            return
        found = [*self._complaints, *sorted_unknown(unknown)]
        if call.field_validation == "Strict":
            raise self._invalid(out, strict_decoding_error(found))
        call.warnings += found

    def _invalid(self, out: Any, fault: str, shown: bytes = b"") -> ApiError:
        value: Any = (shown or orjson.dumps(out)).decode()
        if self._kind == STRATEGIC_MERGE_PATCH:
            value = GoText(orjson.dumps(plain(self._document)).decode())
        return invalid("", "", "", [invalid_value("patch", value, fault)])
