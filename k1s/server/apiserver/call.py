"""One request on its way through a handler: who, what, and the options it came with.

Owns: Call, the reading of write options and of bodies. Called by: handlers, subresources. Never does: store.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from k1s.api.catalog import Resource, Subresource
from k1s.api.decode import check_types, decode_json, decode_yaml, go_kind
from k1s.api.errors import (
    ApiError,
    FieldError,
    GoText,
    bad_request,
    invalid,
    invalid_value,
    not_supported,
    request_entity_too_large,
    too_long,
)
from k1s.api.managed_fields import MANAGER_LENGTH, manager_from_user_agent
from k1s.api.protobuf import decode_protobuf
from k1s.api.prune import prune
from k1s.api.schema import Schema, schema_for
from k1s.api.strict import (
    duplicate_field,
    in_document_order,
    sorted_unknown,
    strict_decoding_error,
    unknown_field,
)
from k1s.base.http import BodyTooLarge, Request
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.negotiation import JSON, PROTOBUF, YAML, body_form
from k1s.storage.interface import Origin

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

MAX_BODY = 3 * 1024 * 1024
# Bytes of YAML that are read beside the event loop.
_LONG_YAML = 128 * 1024
# Characters of all warnings of an answer, above which each is cut (upstream's filters/warning.go).
_WARNINGS, _LONG_WARNING = 4096, 256
# What upstream's scheme is called in messages.
_SCHEME = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"


class Call:
    """The state of one request that handlers share. `resource` is as asked for, `stored` the version it is kept in."""

    __slots__ = (
        "dry_run",
        "field_validation",
        "force",
        "info",
        "manager",
        "name",
        "namespace",
        "origin",
        "pending",
        "request",
        "resource",
        "server",
        "stored",
        "subresource",
        "user",
        "warnings",
    )

    def __init__(self, request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> None:
        assert info.resource is not None
        self.request, self.info, self.user, self.server = request, info, user, server
        self.resource: Resource = info.resource
        self.stored: Resource = server.stored(info.resource)
        self.subresource: Subresource | None = self.resource.subresource(info.subresource) if info.subresource else None
        self.namespace = info.namespace if self.resource.namespaced else ""
        self.name = info.name
        self.dry_run = False
        self.force = False
        self.field_validation = "Warn"
        self.manager = ""
        self.warnings: list[str] = []
        # Called once the write is stored (and in the cache) or refused: ends reservations in allocators.
        self.pending: list[Callable[[], None]] = []
        self.origin = Origin(user.name, info.verb, request.context.get("cause", 0))

    def options(self, kind: str, errors: Sequence[FieldError] = ()) -> None:
        """Read dryRun, fieldManager, fieldValidation and force from the query. Raises ApiError 422, also for `errors`."""
        if not self.request.query and not errors:
            if kind != "PatchOptions":
                self.manager = self.agent()
            return
        dry_run = self.request.params("dryRun")
        self.manager = self.request.param("fieldManager")
        self.field_validation = self.request.param("fieldValidation") or "Warn"
        force = self.request.params("force")
        # As Go reads a boolean of a query: there and not denied.
        self.force = bool(force) and force[0].lower() not in ("0", "false")
        self.dry_run = bool(dry_run)
        errors = [*errors, *manager_errors(self.manager)]
        errors += dry_run_errors(dry_run)
        if self.field_validation not in ("Ignore", "Warn", "Strict"):
            errors.append(not_supported("fieldValidation", self.field_validation, ("", "Ignore", "Strict", "Warn")))
        if errors:
            raise invalid(kind, "meta.k8s.io", "", errors)
        if not self.manager and kind != "PatchOptions":
            self.manager = self.agent()

    @property
    def annotations(self) -> dict[str, str]:
        """What admission notes for the audit log."""
        found: dict[str, str] = self.request.context.setdefault("annotations", {})
        return found

    def options_object(self, kind: str) -> Object:
        """The request's options as admission sees them: CreateOptions, UpdateOptions."""
        out: Object = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
        if self.dry_run:
            out["dryRun"] = ["All"]
        for name in ("fieldManager", "fieldValidation"):
            if self.request.param(name):
                out[name] = self.request.param(name)
        return out

    async def may_create(self) -> None:
        """A PUT or apply that turns out to create needs the right to create, too. Raises ApiError 403."""
        await self.server.authorizer.authorize(self.user, replace(self.info, verb="create"))

    def settle(self) -> None:
        for done in self.pending:
            done()
        self.pending.clear()

    def agent(self) -> str:
        """The client's name as its User-Agent begins."""
        return manager_from_user_agent(self.request.headers.get("User-Agent", ""))

    async def body(self) -> bytes:
        return await read_body(self.request)

    async def object(self, resource: Resource) -> Object:
        """The body as an object of `resource`: decoded, its types checked, unknown fields treated as asked."""
        data, form = await self.body(), body_form(self.request)
        if form == YAML and len(data) > _LONG_YAML:
            # Reading it takes a second per megabyte; nobody else is to wait for that.
            obj, complaints = await asyncio.to_thread(decode_body, data, form, resource.kind)
        else:
            obj, complaints = decode_body(data, form, resource.kind)
        if resource.custom and not obj.get("kind"):
            # Of built-in kinds the URL tells what it is; custom resources have to say it.
            text = f"Object 'Kind' is missing in '{data.decode('utf-8', 'replace')}'"
            raise bad_request(f"the object provided is unrecognized (must be of type {resource.kind}): {text} ({_summary(data)})")
        check_kind(obj, resource, self.server)
        self.typed(obj, resource, complaints, body=data if form == JSON else b"")
        return obj

    def typed(
        self,
        obj: Object,
        resource: Resource,
        complaints: Sequence[str] = (),
        schema: Schema | None = None,
        body: bytes = b"",
    ) -> None:
        """Check types and unknown fields of a decoded object, in place; `body` is its JSON, if it was. Raises ApiError 400."""
        if schema is None:
            schema = schema_for(resource)
        check_types(obj, schema)
        unknown = prune(obj, schema)
        if (unknown or complaints) and self.field_validation != "Ignore":
            if resource.custom or not body:
                found = [*complaints, *sorted_unknown(unknown)]
            elif complaints and unknown:
                found = in_document_order(body, schema)
            else:
                found = [*complaints, *map(unknown_field, unknown)]
            if self.field_validation == "Strict":
                kind, version = resource.kind, resource.version
                text = strict_decoding_error(found)
                raise bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {text}')
            self.warnings += found
        if not isinstance(obj.get("metadata"), dict):
            obj["metadata"] = {}

    def warning_headers(self) -> list[tuple[str, str]]:
        """What kubectl prints before its answer: each once, all of them short if they are many."""
        texts = list(dict.fromkeys(self.warnings))
        if sum(map(len, texts)) <= _WARNINGS:
            return [warning(text) for text in texts]
        short = [text[:_LONG_WARNING] for text in texts]
        told = itertools.accumulate(map(len, short))
        return [warning(text) for text, so_far in zip(short, told, strict=True) if so_far - len(text) <= _WARNINGS]


def warning(text: str) -> tuple[str, str]:
    """A Warning header (RFC 7234), as client-go reads it."""
    flat = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
    return "Warning", f'299 - "{flat}"'


async def read_body(request: Request) -> bytes:
    """The body. Raises ApiError 413."""
    try:
        return await request.body.read(MAX_BODY)
    except BodyTooLarge:
        raise request_entity_too_large(f"limit is {MAX_BODY}") from None


def decode_body(data: bytes, form: str, kind: str = "") -> tuple[Object, list[str]]:
    """The object, and complaints about what stands in it twice. `kind` is what it should be. Raises ApiError 400."""
    try:
        if form == PROTOBUF:
            return decode_protobuf(data), []
        if form == YAML:
            return decode_yaml(data)
        obj, twice = decode_json(data)
        return obj, list(map(duplicate_field, twice)) if twice else twice
    except ApiError as error:
        if kind:
            error.message = f"the object provided is unrecognized (must be of type {kind}): {error.message} ({_summary(data)})"
        raise


def _summary(data: bytes) -> str:
    """The beginning of a body that is no object, as upstream shows it."""
    if not data:
        return "<empty>"
    start = data[:30]
    text = start.decode("utf-8", "replace") if data[:1] == b"{" else start.hex()
    return f"{text} ..." if len(data) > len(start) else text


def check_kind(obj: Object, resource: Resource, server: ApiServer, kind: str = "") -> None:
    """Fill in or check apiVersion and kind. Raises ApiError 400 when the body is something else."""
    kind = kind or resource.kind
    for key in ("apiVersion", "kind"):
        if not isinstance(obj.get(key) or "", str):
            raise bad_request(
                f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: "
                f"json: cannot unmarshal {go_kind(obj[key])} into Go struct field .{key} of type string"
            )
    why = kind_fault(obj, resource, server, kind)
    if why.startswith("the API version"):
        raise bad_request(why)
    if why:
        raise bad_request(
            f'{obj["kind"]} in version "{obj["apiVersion"].rpartition("/")[2]}" cannot be handled as a {kind}: {why}'
        )


def kind_fault(obj: Object, resource: Resource, server: ApiServer, kind: str = "") -> str:
    """Fill in apiVersion and kind; why the object is not what it should be, or ""."""
    kind = kind or resource.kind
    for key in ("apiVersion", "kind"):
        if not isinstance(obj.get(key) or "", str):
            return f"json: cannot unmarshal {go_kind(obj[key])} into Go struct field .{key} of type string"
    version = obj.get("apiVersion") or resource.api_version
    given = obj.get("kind") or kind
    obj["apiVersion"], obj["kind"] = version, given
    if given == kind and version == resource.api_version:
        return ""
    if given != kind or not resource.custom:
        if server.catalog.by_api_version(version, given) is None:
            return f'no kind "{given}" is registered for version "{version}" in scheme "{_SCHEME}"'
        if given != kind:
            package = (resource.group or "core").partition(".")[0]
            return f"converting ({version.rpartition('/')[2]}.{given}) to ({package}.{kind}): unknown conversion"
    return f"the API version in the data ({version}) does not match the expected API version ({resource.api_version})"


def manager_errors(manager: str, field: str = "fieldManager") -> list[FieldError]:
    if len(manager.encode("utf-8", "replace")) > MANAGER_LENGTH:
        return [too_long(field, MANAGER_LENGTH)]
    if manager.isprintable():
        return []
    return [
        invalid_value(field, manager, f"invalid character U+{ord(character):04X} (at position {position})")
        for position, character in enumerate(manager)
        if not character.isprintable()
    ]


def dry_run_errors(values: Sequence[str]) -> list[FieldError]:
    if all(value == "All" for value in values):
        return []
    return [not_supported("dryRun", GoText("[]string{" + ", ".join(map(json.dumps, values)) + "}"), ("All",))]
