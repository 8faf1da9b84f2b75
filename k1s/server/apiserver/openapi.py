"""OpenAPI documents: v3 by group and version, and v2 in one piece.

Owns: OpenApi. Called by: non_resource. Never does: know types (api/definitions has them).
Documents are made in a thread when first asked for, and kept gzipped. kubectl reads them to explain fields, and to learn that the
server validates them (the query parameter fieldValidation on operations).
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Iterable
from typing import Any

import orjson

from k1s.api import definitions
from k1s.api.catalog import Catalog, Resource
from k1s.api.errors import path_not_found
from k1s.base.http import Request, Response
from k1s.server.apiserver.negotiation import takes_gzip
from k1s.server.apiserver.openapi_custom import V2, V3, custom_definitions, definition_name
from k1s.server.apiserver.openapi_protobuf import MEDIA_TYPE, asked_for, encode_document
from k1s.version import GIT_VERSION

Object = dict[str, Any]

_V2_PROTOBUF = "v2 as protobuf"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"


class OpenApi:
    """Bound: one gzipped document per group and version."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._documents: dict[str, bytes] = {}
        # Counts changes, so that a document that was being made during one is not kept.
        self._changes = 0
        # Custom types: definition name -> resource and openAPIV3Schema, for the group and version in the key.
        self.custom: dict[tuple[str, str], dict[str, tuple[Resource, Object]]] = {}
        # Of other servers, gzipped: the v3 document, and paths and definitions for v2; empty where one has none.
        self._remote: dict[tuple[str, str], tuple[bytes, bytes]] = {}

    def remote_type(self, group: str, version: str, v3: bytes, v2: bytes) -> None:
        """What another server says of a group and version that it serves."""
        if self._remote.get((group, version)) != (v3, v2):
            self._remote[group, version] = (v3, v2)
            self.invalidate(group, version)

    def forget_remote(self, group: str, version: str) -> None:
        if self._remote.pop((group, version), None) is not None:
            self.invalidate(group, version)

    def custom_type(self, resource: Resource, schema: Object) -> None:
        """The schema of a custom resource in one version, as its definition has it."""
        self.custom.setdefault((resource.group, resource.version), {})[definition_name(resource)] = (resource, schema)
        self.invalidate(resource.group, resource.version)

    def forget_type(self, resource: Resource) -> None:
        self.custom.get((resource.group, resource.version), {}).pop(definition_name(resource), None)
        self.invalidate(resource.group, resource.version)

    def invalidate(self, group: str = "", version: str = "") -> None:
        """The resources of a group and version have changed."""
        self._changes += 1
        for slot in ("v2", _V2_PROTOBUF, "index", _slot(group, version)):
            self._documents.pop(slot, None)

    async def answer(self, request: Request) -> Response:
        """/openapi/v2, /openapi/v3, /openapi/v3/api/v1, /openapi/v3/apis/GROUP/VERSION. Raises ApiError 404."""
        path = request.path.rstrip("/")
        if path == "/openapi/v2":
            if asked_for(part.partition(";")[0].strip() for part in request.headers.get("Accept", "").split(",")):
                return await self._send(request, _V2_PROTOBUF, MEDIA_TYPE)
            return await self._send(request, "v2")
        if path == "/openapi/v3":
            return await self._send(request, "index")
        slot = path.removeprefix("/openapi/v3/")
        if slot not in self._slots():
            raise path_not_found()
        return await self._send(request, slot)

    def _slots(self) -> list[str]:
        own = [_slot(group, version) for group, versions in self._catalog.groups().items() for version in versions]
        others = (_slot(*slot) for slot, (v3, _) in self._remote.items() if v3)
        return list(dict.fromkeys([*own, *others]))

    async def _send(self, request: Request, slot: str, kind: str = "application/json") -> Response:
        packed = self._documents.get(slot)
        if packed is None:
            changes = self._changes
            packed = await asyncio.to_thread(self._pack, slot)
            if changes == self._changes:
                self._documents[slot] = packed
        etag = f'"{hashlib.sha256(packed).hexdigest().upper()[:32]}"'
        headers = [("ETag", etag), ("Vary", "Accept-Encoding, Accept")]
        if etag in request.headers.get("If-None-Match", ""):
            return Response(304, b"", headers=headers)
        if takes_gzip(request):
            return Response(200, packed, kind, [*headers, ("Content-Encoding", "gzip")])
        return Response(200, zlib.decompress(packed, 31), kind, headers)

    def _pack(self, slot: str) -> bytes:
        remote = next((v3 for gv, (v3, _) in self._remote.items() if v3 and _slot(*gv) == slot), b"")
        if remote:
            return remote
        packer = zlib.compressobj(6, zlib.DEFLATED, 31)
        data = encode_document(self._v2()) if slot == _V2_PROTOBUF else orjson.dumps(self._make(slot))
        return packer.compress(data) + packer.flush()

    def _make(self, slot: str) -> Object:
        if slot == "index":
            return {"paths": {s: {"serverRelativeURL": f"/openapi/v3/{s}?hash={self._hash(s)}"} for s in self._slots()}}
        if slot == "v2":
            return self._v2()
        group, version = ("", slot[4:]) if slot.startswith("api/") else (slot.split("/")[1], slot.split("/")[2])
        return self._v3(group, version)

    def _hash(self, slot: str) -> str:
        """Changes when a document does: the definitions are fixed, so the catalog's rows and the custom types say it all."""
        group, version = ("", slot[4:]) if slot.startswith("api/") else (slot.split("/")[1], slot.split("/")[2])
        rows = [repr(r) for r in self._catalog if (r.group, r.version) == (group, version)]
        text = GIT_VERSION + "".join(rows) + repr(self.custom.get((group, version)))
        remote = self._remote.get((group, version), (b"", b""))[0]
        return hashlib.sha256(text.encode() + remote).hexdigest()[:32].upper()

    def _v3(self, group: str, version: str) -> Object:
        resources = [r for r in self._catalog if (r.group, r.version) == (group, version)]
        paths: Object = {}
        roots: set[str] = set()
        for resource in resources:
            roots.update(_roots(resource))
            paths.update(_paths(resource, v3=True))
        schemas = _closure(roots, V3)
        for resource, schema in list(self.custom.get((group, version), {}).values()):
            schemas.update(custom_definitions(resource, schema, v2=False))
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": GIT_VERSION},
            "paths": paths,
            "components": {"schemas": schemas},
        }

    def _v2(self) -> Object:
        paths: Object = {}
        roots: set[str] = set()
        for resource in self._catalog:
            roots.update(_roots(resource))
            paths.update(_paths(resource, v3=False))
        found = _closure(roots, V2)
        for types in list(self.custom.values()):
            for resource, schema in list(types.values()):
                found.update(custom_definitions(resource, schema, v2=True))
        for _, v2 in list(self._remote.values()):
            if v2:
                theirs = orjson.loads(zlib.decompress(v2, 31))
                paths.update(theirs["paths"])
                # Ours win: the same name is meant to be the same type.
                found = {**theirs["definitions"], **found}
        return {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": GIT_VERSION},
            "paths": paths,
            "definitions": found,
        }


def _slot(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _name(group: str, version: str, kind: str) -> str:
    try:
        return definitions.definition_name(group, version, kind)
    except KeyError:
        return ""


def _roots(resource: Resource) -> Iterable[str]:
    if resource.custom:
        yield from (definitions.OBJECT_META, f"{definitions.META_V1}.ListMeta", f"{definitions.META_V1}.Status")
        yield f"{definitions.META_V1}.DeleteOptions"
        return
    for kind in (resource.kind, resource.list_kind):
        name = _name(resource.group, resource.version, kind)
        if name:
            yield name
    for sub in resource.subresources:
        name = _name(sub.group, sub.version, sub.kind) if sub.version else ""
        if name:
            yield name
    for name in (f"{definitions.META_V1}.Status", f"{definitions.META_V1}.DeleteOptions"):
        if definitions.exists(name):
            yield name


def _closure(roots: Iterable[str], prefix: str) -> Object:
    """The definitions and all they refer to, in OpenAPI's own dialect."""
    out: Object = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in out or not definitions.exists(name):
            continue
        found: set[str] = set()
        out[name] = _special(name, prefix) or _clean(definitions.definition(name), prefix, found)
        waiting.extend(found)
    return dict(sorted(out.items()))


def _special(name: str, prefix: str) -> Object | None:
    if name == _QUANTITY:
        text = "Quantity is a fixed-point representation of a number."
        return (
            {"description": text, "type": "string"}
            if prefix == V2
            else {"description": text, "oneOf": [{"type": "string"}, {"type": "number"}]}
        )
    if name == _INT_OR_STRING:
        text = "IntOrString is a type that can hold an int32 or a string."
        if prefix == V2:
            return {"description": text, "type": "string", "format": "int-or-string"}
        return {"description": text, "format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
    return None


def _clean(node: Any, prefix: str, found: set[str]) -> Any:
    """JSON schema as the file has it -> OpenAPI: no "null" types, no enums that pin apiVersion and kind, other refs."""
    if isinstance(node, list):
        return [_clean(item, prefix, found) for item in node]
    if not isinstance(node, dict):
        return node
    out: Object = {}
    for key, value in node.items():
        if key == "$ref":
            name = definitions.ref_target(value).removeprefix(V3)
            found.add(name)
            out[key] = prefix + name
        elif key == "type" and isinstance(value, list):
            out[key] = next((t for t in value if t != "null"), "object")
        elif key == "properties" and isinstance(value, dict):
            out[key] = {field: _clean(child, prefix, found) for field, child in value.items()}
        elif key in ("enum", "additionalProperties") and value is not None and not isinstance(value, dict):
            if key == "enum" and len(value) > 1:
                out[key] = [v for v in value if v is not None]
        elif key == "x-kubernetes-group-version-kind":
            out[key] = value
        else:
            out[key] = _clean(value, prefix, found)
    if "$ref" in out and len(out) > 1 and prefix == V3:
        # In v3 nothing may stand beside a $ref.
        out["allOf"] = [{"$ref": out.pop("$ref")}]
    return out


_WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")
_LIST_PARAMETERS = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_BODY_TYPES = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
# verb -> (HTTP method, x-kubernetes-action, parameters); the first table is the collection's, the second the object's.
_COLLECTION = {
    "create": ("post", "post", _WRITE_PARAMETERS),
    "list": ("get", "list", _LIST_PARAMETERS),
    "deletecollection": ("delete", "deletecollection", ("dryRun", "fieldSelector", "labelSelector", "propagationPolicy")),
}
_OBJECT = {
    "get": ("get", "get", ("pretty",)),
    "update": ("put", "put", _WRITE_PARAMETERS),
    "patch": ("patch", "patch", (*_WRITE_PARAMETERS, "force")),
    "delete": ("delete", "delete", ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")),
}


def _paths(resource: Resource, *, v3: bool) -> Object:
    base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    home = f"{base}/namespaces/{{namespace}}/{resource.plural}" if resource.namespaced else f"{base}/{resource.plural}"
    ref = definition_name(resource) if resource.custom else ""
    if not resource.custom:
        ref = _name(resource.group, resource.version, resource.kind)
    list_ref = definition_name(resource, "List")
    if not resource.custom:
        list_ref = _name(resource.group, resource.version, resource.list_kind)
    out: Object = {home: _operations(resource, _COLLECTION, resource.verbs, home, v3, ref, list_ref)}
    if resource.namespaced and "list" in resource.verbs:
        everywhere = f"{base}/{resource.plural}"
        out[everywhere] = _operations(resource, _COLLECTION, ("list",), everywhere, v3, ref, list_ref)
    if resource.persisted:
        one = f"{home}/{{name}}"
        out[one] = _operations(resource, _OBJECT, resource.verbs, one, v3, ref, list_ref)
        for sub in resource.subresources:
            if set(sub.verbs) <= {"get", "patch", "update"}:
                path = f"{one}/{sub.name}"
                out[path] = _operations(resource, _OBJECT, sub.verbs, path, v3, ref, list_ref)
    return {path: operations for path, operations in out.items() if operations}


def _operations(
    resource: Resource, table: dict[str, Any], verbs: Iterable[str], path: str, v3: bool, ref: str, list_ref: str
) -> Object:
    out: Object = {}
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    for verb in verbs:
        if verb not in table:
            continue
        method, action, names = table[verb]
        parameters = [_parameter(name, v3) for name in names]
        parameters += [_path_parameter(name, v3) for name in ("namespace", "name") if f"{{{name}}}" in path]
        prefix = V3 if v3 else V2
        target = (
            {"$ref": prefix + (list_ref if verb == "list" else ref)}
            if (list_ref if verb == "list" else ref)
            else {"type": "object"}
        )
        operation: Object = {
            "description": f"{verb} {resource.kind}",
            "operationId": verb + "".join(part.strip("{}").title() for part in path.split("/")),
            "tags": [(resource.group or "core").partition(".")[0] + "_" + resource.version],
            "parameters": parameters,
            "responses": {"200": _response(target, v3)},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        }
        if method in ("post", "put", "patch"):
            # kubectl takes from here which kind of patch it may send.
            types = _PATCH_TYPES[: -1 if resource.custom else None] if method == "patch" else _BODY_TYPES
            _body(operation, {"type": "object"} if method == "patch" else target, types, v3)
        out[method] = operation
    return out


def _response(target: Object, v3: bool) -> Object:
    if v3:
        return {"description": "OK", "content": {"application/json": {"schema": target}}}
    return {"description": "OK", "schema": target}


def _body(operation: Object, target: Object, types: Iterable[str], v3: bool) -> None:
    if v3:
        operation["requestBody"] = {"content": {kind: {"schema": target} for kind in types}, "required": True}
    else:
        operation["consumes"] = list(types)
        operation["parameters"].append({"in": "body", "name": "body", "required": True, "schema": target})


_TYPES = {"limit": "integer", "timeoutSeconds": "integer", "gracePeriodSeconds": "integer"}
_BOOLEANS = ("allowWatchBookmarks", "watch", "sendInitialEvents", "force", "orphanDependents")


def _parameter(name: str, v3: bool) -> Object:
    kind = "boolean" if name in _BOOLEANS else _TYPES.get(name, "string")
    typed = {"schema": {"type": kind, "uniqueItems": True}} if v3 else {"type": kind, "uniqueItems": True}
    return {"in": "query", "name": name, **typed}


def _path_parameter(name: str, v3: bool) -> Object:
    typed = {"schema": {"type": "string"}} if v3 else {"type": "string"}
    return {"in": "path", "name": name, "required": True, **typed}
