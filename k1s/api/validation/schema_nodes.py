"""The rules for every node of a CRD version's schema: keywords, list and map types, and the CEL rules.

schema_nodes(at, schema, ...) -> FieldErrors. Called by: definitions.py. Never does: structure (structural.py), defaults
(schema_defaults.py), or what an expression means (rule_check.py).
Source: ValidateCustomResourceDefinitionOpenAPISchema in apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from k1s.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rule_check import Budget, check_expressions, check_texts
from k1s.api.validation.rules import Errors
from k1s.api.validation.structural import EMBEDDED, PRESERVE

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_META_FIELDS = ("metadata", "kind", "apiVersion")
_LIST_TYPE, _MAP_TYPE, _KEYS = "x-kubernetes-list-type", "x-kubernetes-map-type", "x-kubernetes-list-map-keys"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a schema a node is. `uncorrelated`: the path of the highest list above whose items cannot be told apart, so that
    there is no oldSelf; or empty. `cardinality`: how often its value may occur in one object, None if no schema says so.
    `no_default`: why it may have none, or empty."""

    root: bool = False
    uncorrelated: str = ""
    cardinality: float | None = 1.0
    no_default: str = ""
    in_meta: bool = False


@dataclass(slots=True)
class _Found:
    """Faults of schema and of expressions apart: where a schema is faulty at or below a node, its rules are not looked at."""

    schema: Errors
    rules: Errors

    def add(self, other: _Found) -> None:
        self.schema += other.schema
        self.rules += other.rules


def schema_nodes(at: str, schema: Object, budget: Budget | None) -> list[FieldError]:
    """What is wrong with the nodes of a schema. Without a `budget` expressions are not looked at."""
    found = _node(at, schema, Place(root=True), budget)
    return found.schema + found.rules


def _node(at: str, schema: Object, place: Place, budget: Budget | None) -> _Found:
    found = _Found([], [])
    errs = found.schema
    _keywords(errs, at, schema, place)
    _children(found, at, schema, place, budget)
    if schema.get(PRESERVE) is False:
        errs.append(invalid_value(f"{at}.{PRESERVE}", False, "must be true or undefined"))
    _types(errs, at, schema)
    if schema.get(_LIST_TYPE) == "map":
        _map_items(errs, at, schema)
    if schema.get(_LIST_TYPE) in ("set", "map"):
        _identity(errs, at, schema)
    errs += check_texts(at, schema)
    if not errs and budget is not None:
        found.rules += check_expressions(at, schema, budget, place.root, place.uncorrelated, place.cardinality)
    return found


def _keywords(errs: Errors, at: str, schema: Object, place: Place) -> None:
    kind = schema.get("type")
    if kind and kind not in _TYPES:
        errs.append(not_supported(f"{at}.type", kind, _TYPES))
    if schema.get("default") is not None and place.no_default:
        errs.append(forbidden_field(f"{at}.default", f"must not be set {place.no_default}"))
    for key in _UNSUPPORTED:
        if schema.get(key) not in (None, "", {}):
            errs.append(forbidden_field(f"{at}.{key}", f"{key} is not supported"))
    if kind == "null":
        errs.append(forbidden_field(f"{at}.type", "type cannot be set to null, use nullable as an alternative"))
    if isinstance(schema.get("items"), list):
        errs.append(forbidden_field(f"{at}.items", "items must be a schema object and not an array"))
    if place.in_meta and schema.get(EMBEDDED):
        errs.append(forbidden_field(f"{at}.{EMBEDDED}", "must not be used inside of resource meta"))
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        errs.append(forbidden_field(f"{at}.uniqueItems", text))
    more = schema.get("additionalProperties")
    if schema.get("properties") and (more is False or isinstance(more, dict)):
        errs.append(forbidden_field(f"{at}.additionalProperties", "additionalProperties and properties are mutual exclusive"))


def _children(found: _Found, at: str, schema: Object, place: Place, budget: Budget | None) -> None:
    own = _limit(schema)
    many = None if place.cardinality is None or own is None else place.cardinality * own
    inside = replace(place, root=False, cardinality=place.cardinality)
    more, items = schema.get("additionalProperties"), schema.get("items")
    if isinstance(more, dict):
        why = "inside additionalProperties applying to object metadata" if place.in_meta else place.no_default
        found.add(_node(f"{at}.additionalProperties", more, replace(inside, cardinality=many, no_default=why), budget))
    for key, child in (schema.get("properties") or {}).items():
        here = inside
        if (place.root or schema.get(EMBEDDED)) and key in _META_FIELDS:
            here = replace(inside, in_meta=True, no_default=f"in top-level {key}" if place.root else place.no_default)
        found.add(_node(f"{at}.properties[{key}]", child or {}, here, budget))
    plain = replace(inside, cardinality=None)
    if isinstance(schema.get("not"), dict):
        found.add(_node(f"{at}.not", schema["not"], plain, None))
    for junctor in ("allOf", "oneOf", "anyOf"):
        for index, part in enumerate(schema.get(junctor) or ()):
            found.add(_node(f"{at}.{junctor}[{index}]", part, plain, None))
    if isinstance(items, dict):
        # Only the items of map-like lists can be told apart.
        apart = place.uncorrelated or ("" if schema.get(_LIST_TYPE) == "map" else at)
        found.add(_node(f"{at}.items", items, replace(inside, cardinality=many, uncorrelated=apart), budget))


def _limit(schema: Object) -> float | None:
    """How many items or values a schema allows at most, 1 where it holds neither; None: as many as fit in a request."""
    found: float | None = 1
    if schema.get("type") == "array":
        found = schema.get("maxItems")
    elif schema.get("additionalProperties") is not None:
        found = schema.get("maxProperties")
    return None if found is None else max(0.0, float(found))


def _needs(errs: Errors, at: str, kind: Any, wanted: str, key: str) -> None:
    text = f"must be {wanted} if {key} is specified"
    errs.append(invalid_value(f"{at}.type", kind, text) if kind else required(f"{at}.type", text))


def _types(errs: Errors, at: str, schema: Object) -> None:
    kind, list_type, map_type = schema.get("type") or "", schema.get(_LIST_TYPE), schema.get(_MAP_TYPE)
    if map_type is not None and kind != "object":
        _needs(errs, at, kind, "object", _MAP_TYPE)
    if map_type is not None and map_type not in ("atomic", "granular"):
        errs.append(not_supported(f"{at}.{_MAP_TYPE}", map_type, ("atomic", "granular")))
    items = schema.get("items")
    if list_type is not None and kind != "array":
        _needs(errs, at, kind, "array", _LIST_TYPE)
    elif list_type == "set" and isinstance(items, dict):
        text = f"must be atomic as item of a list with {_LIST_TYPE}=set"
        if items.get("type") == "array" and items.get(_LIST_TYPE) not in (None, "atomic"):
            errs.append(invalid_value(f"{at}.items.{_LIST_TYPE}", items.get(_LIST_TYPE), text))
        if items.get("type") == "object" and items.get(_MAP_TYPE) != "atomic":
            errs.append(invalid_value(f"{at}.items.{_MAP_TYPE}", items.get(_LIST_TYPE), text))
    if list_type is not None and list_type not in ("atomic", "set", "map"):
        errs.append(not_supported(f"{at}.{_LIST_TYPE}", list_type, ("atomic", "set", "map"), as_given=True))
    if schema.get(_KEYS) and list_type != "map":
        text = f"must be map if {_KEYS} is non-empty"
        where = f"{at}.{_LIST_TYPE}"
        errs.append(required(where, text) if list_type is None else invalid_value(where, list_type, text))


def _map_items(errs: Errors, at: str, schema: Object) -> None:
    keys, items = schema.get(_KEYS) or [], schema.get("items")
    if not keys:
        errs.append(required(f"{at}.{_KEYS}", f"must not be empty if {_LIST_TYPE} is map"))
    if items is None:
        errs.append(required(f"{at}.items", f"must have a schema if {_LIST_TYPE} is map"))
    elif not isinstance(items, dict):
        errs.append(invalid_value(f"{at}.items", items, f"must only have a single schema if {_LIST_TYPE} is map"))
    elif items.get("type") != "object":
        text = f"must be object if parent array's {_LIST_TYPE} is map"
        errs.append(invalid_value(f"{at}.items.type", items.get("type") or "", text))
    else:
        _map_keys(errs, at, keys, items)


def _map_keys(errs: Errors, at: str, keys: list[str], items: Object) -> None:
    seen: set[str] = set()
    properties = items.get("properties") or {}
    for key in keys:
        child = properties.get(key)
        if child is None:
            errs.append(invalid_value(f"{at}.{_KEYS}", keys, "entries must all be names of item properties"))
        elif child.get("type") in ("array", "object"):
            text = f"must be a scalar type if parent array's {_LIST_TYPE} is map"
            errs.append(invalid_value(f"{at}.items.properties[{key}].type", items["type"], text))
        if key in seen:
            errs.append(invalid_value(f"{at}.{_KEYS}", keys, "must not contain duplicate entries"))
        seen.add(key)


def _identity(errs: Errors, at: str, schema: Object) -> None:
    """What tells items apart is always there."""
    items = schema.get("items")
    if not isinstance(items, dict):
        return
    if items.get("nullable"):
        text = f"cannot be nullable when {_LIST_TYPE} is {schema[_LIST_TYPE]}"
        errs.append(forbidden_field(f"{at}.items.nullable", text))
    if schema[_LIST_TYPE] != "map":
        return
    properties, needed = items.get("properties") or {}, items.get("required") or ()
    for key in schema.get(_KEYS) or ():
        child, where = properties.get(key), f"{at}.items.properties[{key}]"
        if child is None:
            continue
        said = f"this property is in {_KEYS}, so it"
        if key not in needed and child.get("default") is None:
            errs.append(required(f"{where}.default", f"{said} must have a default or be a required property"))
        if child.get("nullable"):
            errs.append(forbidden_field(f"{where}.nullable", f"{said} cannot be nullable"))
