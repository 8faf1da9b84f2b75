"""The type of CEL for a structural schema, with the sizes that bound what a rule over it may cost.

Owns: schema_type(). Called by: validation/rule_check, validation/policy_types. Never does: values (values.py).
Schemas that say nothing of a type are not there for expressions, nor are the unknown fields that an object preserves.
Source: apiserver/pkg/cel/common/schemas.go, limits.go.
"""

from __future__ import annotations

from typing import Any

from k1s.api.cel.types import BOOL, DOUBLE, INT, STRING, Type, list_of, map_of
from k1s.api.cel.values import escaped

Object = dict[str, Any]

MAX_REQUEST = 3 * 1024 * 1024
_ROOT = {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}}
# Of formats that are no strings in CEL: the type, the bytes of the shortest and the longest JSON.
_FORMATS = {"duration": ("duration", 3, 32), "date": ("timestamp", 12, 12), "date-time": ("timestamp", 21, 32)}
_LEAST = {"boolean": 4, "integer": 1, "number": 1}


def schema_type(schema: Object, *, resource: bool = False, name: str = "object") -> Type | None:
    """None where expressions cannot see it. `resource`: type and metadata are there, too."""
    if schema.get("x-kubernetes-int-or-string"):
        return Type("dyn", most=_text_length(schema), least=1)
    kind = schema.get("type")
    if kind == "array":
        return _list(schema, name)
    if kind == "object":
        return _object(schema, resource, name)
    if kind == "string":
        return _string(schema)
    return {"boolean": BOOL, "number": DOUBLE, "integer": INT}.get(kind or "")


def least(schema: Object, found: Type | None) -> int:
    """The bytes of the shortest JSON."""
    return _LEAST.get(schema.get("type") or "", found.least if found is not None else 1)


def _child(schema: Object, name: str) -> Type | None:
    return schema_type(schema, resource=bool(schema.get("x-kubernetes-embedded-resource")), name=name)


def _list(schema: Object, name: str) -> Type | None:
    items = schema.get("items")
    if not isinstance(items, dict):
        return None
    found = _child(items, f"{name}.@idx")
    if found is None:
        return None
    own = schema.get("maxItems")
    return list_of(found, max(0, own) if own is not None else (MAX_REQUEST - 2) // (least(items, found) + 1))


def _object(schema: Object, resource: bool, name: str) -> Type | None:
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        found = _child(more, f"{name}.@elem")
        if found is None:
            return None
        own = schema.get("maxProperties")
        most = max(0, own) if own is not None else (MAX_REQUEST - 2) // (least(more, found) + 6)
        return map_of(STRING, found, most)
    properties = schema.get("properties") or {}
    if resource:
        properties = {**properties, "kind": {"type": "string"}, "apiVersion": {"type": "string"}, "metadata": _ROOT}
    fields: dict[str, Type] = {}
    shortest, needed = 2, schema.get("required") or ()
    for key, child in properties.items():
        found = _child(child or {}, f"{name}.{key}")
        if found is None:
            continue
        if escaped(key):
            fields[escaped(key)] = found
        if key in needed and child.get("default") is None:
            shortest += len(key) + least(child, found) + 4
    # Upstream knows no size of objects and takes none for it: comparing them is free to the estimate.
    return Type("object", (), name, fields, most=0, least=shortest)


def _text_length(schema: Object) -> int:
    own = schema.get("maxLength")
    # In characters, which take up to four bytes.
    return max(0, own) * 4 if own is not None else MAX_REQUEST - 2


def _string(schema: Object) -> Type:
    form = schema.get("format") or ""
    if form in _FORMATS:
        kind, shortest, longest = _FORMATS[form]
        return Type(kind, most=longest, least=shortest)
    if form == "byte":
        own = schema.get("maxLength")
        return Type("bytes", most=max(0, own) if own is not None else MAX_REQUEST - 2, least=2)
    if schema.get("maxLength") is None and schema.get("enum"):
        return Type("string", most=max((len(v) for v in schema["enum"] if isinstance(v, str)), default=0), least=2)
    return Type("string", most=_text_length(schema), least=2)
