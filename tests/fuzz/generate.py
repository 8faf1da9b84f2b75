"""Random requests that look like real ones: bodies from the OpenAPI definitions, then spoiled; patches, selectors, queries."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from k1s.api.catalog import Resource, builtin_catalog
from k1s.api.schema import Schema, schema_for

Object = dict[str, Any]

STRINGS = (
    "", "a", "b", "a-b", "A_b", "a.b", "x" * 64, "y" * 254, "é", "\u0000", "\ud7ff", "a b", "{{x}}", "*", "/", "a/b",
    "..", "%2f", "1", "-1", "0", "1Gi", "10m", "1e999", "50%", "-5%", "10.0.0.1", "fd00::1", "10.0.0.0/8",
    "300.1.1.1", "http://a/b", "* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000Z", "TCP", "ClusterIP",
    "None", "Always", "true", "null", "~", "cpu", "memory", "nvidia.com/gpu", "kubernetes.io/x", "In", "Exists",
    "a=b", "self.x > 1", "true && (", "object.metadata.name", ".spec.x", "[a-z]+", "(", "YQ==", "!!", "e2E=",
    "Zm9v" * 100,
)  # fmt: skip
NUMBERS = (0, 1, 2, -1, 65535, 65536, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 1.5, -0.5, 1e308)
OTHERS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    "",
    "a",
    [],
    {},
    [None],
    [[]],
    {"": ""},
    {"a": None},
    [{}],
    {"a": {"b": []}},
)
FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "status.phase",
    "spec.unschedulable",
    "type",
    "x",
    "",
    "metadata.labels",
)
_TABLE, _META = "application/json;as=Table;g=meta.k8s.io", "application/json;as=PartialObjectMetadata"
ACCEPTS = (
    "application/json", "application/yaml", "*/*", "", "text/html", "application/vnd.kubernetes.protobuf", ";;;,",
    "application/json;q=x", f"{_TABLE};v=v1", f"{_TABLE};v=v1beta1,application/json", f"{_META};g=meta.k8s.io;v=v1",
    f"{_META}List;g=meta.k8s.io;v=v1", "application/json;as=X;g=;v=", "application/json;stream=watch",
)  # fmt: skip
PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
_DEEPEST = 9


def resources() -> list[Resource]:
    """What is written to with random bodies. Namespaces stay: everything else lives in one."""
    return [r for r in builtin_catalog() if "create" in r.verbs and r.kind not in ("Namespace", "CustomResourceDefinition")]


class Generator:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._resources = resources()

    def resource(self) -> Resource:
        return self.random.choice(self._resources)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def body(self, resource: Resource, name: str) -> Object:
        """An object with fields of the right types and random values; one in four has something of a wrong type in it."""
        schema = schema_for(resource)
        out = self._struct(schema, 0, 0.5)
        meta = out.get("metadata") if isinstance(out.get("metadata"), dict) else {}
        out.update({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {**(meta or {}), "name": name}})
        for field in ("namespace", "uid", "resourceVersion", "deletionTimestamp", "finalizers", "ownerReferences"):
            if not self.chance(0.1):
                out["metadata"].pop(field, None)
        if self.chance(0.25):
            out = self.spoiled(out)
        return out

    def _value(self, schema: Schema | None, depth: int, share: float) -> Any:
        if schema is None or self.chance(0.01):
            return copy.deepcopy(self.random.choice(OTHERS))
        if schema.enum and self.chance(0.8):
            return self.random.choice(schema.enum)
        kind = schema.type
        if kind == "array":
            return [self._value(schema.items, depth + 1, share) for _ in range(self.random.choice((0, 1, 1, 2)))]
        if kind == "object" and schema.is_map:
            return {
                self.random.choice(STRINGS[:20]): self._value(schema.values, depth + 1, share)
                for _ in range(self.random.choice((0, 1, 2)))
            }
        if kind == "object":
            return self._struct(schema, depth + 1, share * 0.6)
        if kind in ("integer", "number"):
            return self.random.choice(NUMBERS[:5] if self.chance(0.8) else NUMBERS)
        if kind == "boolean":
            return self.chance(0.5)
        if kind == "int-or-string":
            return self.random.choice((1, 0, "50%", "x", -1, "http"))
        if kind == "quantity":
            return self.random.choice(("1", "10m", "1Gi", 1, "-1", "x", "1e3", 1.5))
        return self.random.choice(STRINGS)

    def _struct(self, schema: Schema, depth: int, share: float) -> Object:
        if depth > _DEEPEST:
            return {}
        out = {}
        for field, child in schema.properties.items():
            if (field in schema.required and not self.chance(0.03)) or self.chance(share):
                out[field] = self._value(child, depth, share)
        return out

    def spoiled(self, value: Any) -> Any:
        """A copy with one to three places overwritten, removed or doubled."""
        out = copy.deepcopy(value)
        for _ in range(self.random.choice((1, 1, 2, 3))):
            places = list(_places(out))
            if not places:
                return out
            holder, key = self.random.choice(places)
            if self.chance(0.2) and isinstance(holder, dict):
                del holder[key]
            elif self.chance(0.2) and isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            else:
                holder[key] = copy.deepcopy(self.random.choice((*OTHERS, *STRINGS, *NUMBERS)))
        return out

    def raw(self, body: Object) -> bytes:
        """As bytes; now and then cut short, with a byte changed, a key doubled, or very deep."""
        data = orjson.dumps(_encodable(body))
        choice = self.random.random()
        if choice < 0.03:
            return data[: self.random.randrange(len(data) + 1)]
        if choice < 0.06:
            place = self.random.randrange(len(data))
            return data[:place] + bytes([self.random.randrange(256)]) + data[place + 1 :]
        if choice < 0.08:
            return data.replace(b'"metadata":', b'"metadata":{"name":"z"},"metadata":', 1)
        if choice < 0.09:
            return b'{"metadata":' + b"[" * 5000 + b"]" * 5000 + b"}"
        return data

    def patch(self, resource: Resource, base: Object, name: str) -> tuple[str, bytes]:
        """(content type, body)."""
        kind = self.random.choice(list(PATCHES))
        if kind == "json":
            body: Any = [self._operation(base) for _ in range(self.random.choice((1, 1, 2, 5)))]
            if self.chance(0.1):
                body = self.spoiled(body)
        else:
            body = self.body(resource, name)
            if kind != "apply":
                body = {
                    key: value for key, value in body.items() if key in ("metadata", "spec", "status", "data") or self.chance(0.3)
                }
                if isinstance(body.get("metadata"), dict):
                    body["metadata"].pop("name", None)
            if kind == "strategic" and self.chance(0.4):
                places = [(h, k) for h, k in _places(body) if isinstance(h[k], dict)]
                if places:
                    holder, key = self.random.choice(places)
                    holder[key][
                        self.random.choice(("$patch", "$retainKeys", "$setElementOrder/x", "$deleteFromPrimitiveList/x"))
                    ] = self.random.choice(("delete", "replace", "merge", "x", ["a"], None, 1))
            if kind == "apply":
                body = _nulls_removed(body)
        return PATCHES[kind], self.raw(body)

    def _operation(self, base: Object) -> Object:
        paths = ["/" + "/".join(path) for path in _paths(base)] + [
            "",
            "/",
            "/x/y",
            "/metadata/labels/-",
            "/spec/-",
            "/metadata/finalizers/9",
        ]
        operation: Object = {"op": self.random.choice(("add", "remove", "replace", "test", "move", "copy", "x"))}
        operation["path"] = self.random.choice(paths)
        if self.chance(0.8):
            operation["value"] = copy.deepcopy(self.random.choice((*OTHERS, *STRINGS, *NUMBERS)))
        if self.chance(0.5):
            operation["from"] = self.random.choice(paths)
        return operation

    def query(self, *, read: bool) -> str:
        """Parameters of a request, right and wrong ones; starts with "?" unless it is empty."""
        values: Mapping[str, tuple[str, ...]] = {
            "labelSelector": ("a=b", "a in (b,c)", "!a", "a!=b", "a in (", ",", "=", "a==b,,", "a notin ()", "x" * 300, "\u00e9"),
            "fieldSelector": tuple(f"{f}{op}{v}" for f in FIELDS for op, v in (("=", "a"), ("!=", ""), ("==", "\\,"))),
            "limit": ("1", "0", "-1", "x", "99999999999999999999"),
            "continue": ("x", "", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ", "e30", "bnVsbA"),
            "resourceVersion": ("0", "1", "-1", "x", "18446744073709551616", "5"),
            "resourceVersionMatch": ("Exact", "NotOlderThan", "x"),
            "timeoutSeconds": ("1", "x", "-1"),
            "pretty": ("true", "x"),
            "includeObject": ("None", "Metadata", "Object", "x"),
            "dryRun": ("All", "All", "All", "x", ""),
            "fieldValidation": ("Strict", "Warn", "Ignore", "x"),
            "fieldManager": ("me", "x" * 200, "\u0001", ""),
            "force": ("true", "false", "x"),
            "propagationPolicy": ("Foreground", "Background", "Orphan", "x"),
            "gracePeriodSeconds": ("0", "-1", "x", "30"),
            "orphanDependents": ("true", "x"),
            "unknown": ("x",),
        }
        names = list(values)[: 9 if read else None] if read else list(values)[7:]
        chosen = self.random.sample(names, self.random.choice((0, 0, 1, 1, 2, 3)))
        pairs = [f"{name}={quote(self.random.choice(values[name]), safe='')}" for name in chosen]
        return "?" + "&".join(pairs) if pairs else ""

    def accept(self) -> str:
        return self.random.choice(ACCEPTS)


def _places(value: Any) -> Any:
    """(holder, key) of everything below."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield value, key
            yield from _places(child)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield value, index
            yield from _places(child)


def _paths(value: Any, before: tuple[str, ...] = ()) -> Any:
    if before:
        yield before
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from _paths(child, (*before, str(key).replace("~", "~0").replace("/", "~1")))


def _encodable(value: Any) -> Any:
    """orjson takes integers of 64 bits."""
    if isinstance(value, dict):
        return {key: _encodable(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_encodable(child) for child in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return float(value)
    return value


def _nulls_removed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulls_removed(child) for key, child in value.items() if child is not None}
    if isinstance(value, list):
        return [_nulls_removed(child) for child in value]
    return value
