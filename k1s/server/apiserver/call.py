"""One request on its way through a handler: who, what, and the options it came with.

Owns: Call, the reading of write options and of bodies. Called by: handlers, subresources. Never does: store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from k1s.api.catalog import Resource, Subresource
from k1s.api.decode import check_types, decode_json, decode_yaml
from k1s.api.errors import FieldError, bad_request, invalid, request_entity_too_large
from k1s.api.protobuf import decode_protobuf
from k1s.api.prune import prune
from k1s.api.schema import Schema, schema_for
from k1s.base.http import BodyTooLarge, Request
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.negotiation import PROTOBUF, YAML, body_form
from k1s.storage.interface import Origin

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

MAX_BODY = 3 * 1024 * 1024
_MANAGER_LENGTH = 128
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

    def options(self, kind: str) -> None:
        """Read dryRun, fieldManager, fieldValidation and force from the query. Raises ApiError 422."""
        dry_run: list[str] = []
        for key, value in self.request.query:
            if key == "fieldManager":
                self.manager = value
            elif key == "fieldValidation":
                self.field_validation = value or "Warn"
            elif key == "dryRun":
                dry_run.append(value)
            elif key == "force":
                self.force = value.lower() not in ("0", "false", "")
        errors: list[FieldError] = dry_run_errors(dry_run)
        self.dry_run = bool(dry_run)
        if self.field_validation not in ("Ignore", "Warn", "Strict"):
            errors.append(_unsupported("fieldValidation", self.field_validation, ("", "Ignore", "Strict", "Warn")))
        if len(self.manager) > _MANAGER_LENGTH:
            errors.append(FieldError("FieldValueTooLong", "fieldManager", f"may not be more than {_MANAGER_LENGTH} bytes"))
        elif not self.manager.isprintable():
            errors.append(
                FieldError("FieldValueInvalid", "fieldManager", "should only contain printable characters", self.manager)
            )
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
        return self.request.headers.get("User-Agent", "").partition("/")[0][:_MANAGER_LENGTH] or "unknown"

    async def body(self) -> bytes:
        return await read_body(self.request)

    async def object(self, resource: Resource) -> Object:
        """The body as an object of `resource`: decoded, its types checked, unknown fields treated as asked."""
        data = await self.body()
        obj, duplicates = decode_body(data, body_form(self.request))
        check_kind(obj, resource, self.server)
        self.typed(obj, resource, duplicates)
        return obj

    def typed(self, obj: Object, resource: Resource, duplicates: Sequence[str] = (), schema: Schema | None = None) -> None:
        """Check types and unknown fields of a decoded object, in place. Raises ApiError 400."""
        if schema is None:
            schema = schema_for(resource)
        check_types(obj, schema)
        unknown = prune(obj, schema)
        if (unknown or duplicates) and self.field_validation != "Ignore":
            faults = [f'unknown field "{path}"' for path in unknown] + [f'duplicate field "{path}"' for path in duplicates]
            if self.field_validation == "Strict":
                kind, version = resource.kind, resource.version
                raise bad_request(
                    f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: {", ".join(faults)}'
                )
            self.warnings += faults
        if not isinstance(obj.get("metadata"), dict):
            obj["metadata"] = {}

    def warning_headers(self) -> list[tuple[str, str]]:
        """What kubectl prints before its answer."""
        return [warning(text) for text in dict.fromkeys(self.warnings)]


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


def decode_body(data: bytes, form: str) -> tuple[Object, list[str]]:
    """The object and the paths of fields that were there twice. Raises ApiError 400."""
    if form == PROTOBUF:
        return decode_protobuf(data), []
    if not data.strip():
        raise bad_request("unexpected end of JSON input" if form != YAML else "the body is empty")
    obj, duplicates = decode_yaml(data) if form == YAML else decode_json(data)
    if not isinstance(obj, dict):
        raise bad_request("couldn't get version/kind; json parse error: json: cannot unmarshal into Go value of type struct")
    return obj, duplicates


def check_kind(obj: Object, resource: Resource, server: ApiServer, kind: str = "") -> None:
    """Fill in or check apiVersion and kind. Raises ApiError 400 when the body is something else."""
    kind = kind or resource.kind
    for key in ("apiVersion", "kind"):
        if not isinstance(obj.get(key) or "", str):
            raise bad_request(
                f"couldn't get version/kind; json parse error: json: cannot unmarshal into Go struct field .{key} of type string"
            )
    version = obj.get("apiVersion") or resource.api_version
    given = obj.get("kind") or kind
    if given != kind:
        short = version.rpartition("/")[2]
        if server.catalog.by_api_version(version, given) is None:
            why = f'no kind "{given}" is registered for version "{version}" in scheme "{_SCHEME}"'
        else:
            package = (resource.group or "core").partition(".")[0]
            why = f"converting ({short}.{given}) to ({package}.{kind}): unknown conversion"
        raise bad_request(f'{given} in version "{short}" cannot be handled as a {kind}: {why}')
    if version != resource.api_version:
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version ({resource.api_version})"
        )
    obj["apiVersion"], obj["kind"] = version, given


def dry_run_errors(values: Sequence[str]) -> list[FieldError]:
    if all(value == "All" for value in values):
        return []
    return [_unsupported("dryRun", next(v for v in values if v != "All"), ("All",))]


def _unsupported(field: str, value: str, supported: Sequence[str]) -> FieldError:
    names = ", ".join(f'"{name}"' for name in supported)
    return FieldError("FieldValueNotSupported", field, f"supported values: {names}", value)
