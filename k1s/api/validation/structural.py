"""Whether the schema of a CRD version is structural: typed throughout, nothing in it that pruning or defaults cannot follow.

Called by: definitions.py. x-kubernetes-validations are compiled by rule_tree.py.
"""

from __future__ import annotations

from typing import Any

from k1s.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.custom_resource import validate_schema
from k1s.api.validation.rule_tree import Place, check_rules
from k1s.api.validation.rule_types import limit
from k1s.api.validation.rules import Errors

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_UNSUPPORTED = ("$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties")
_ONLY_OUTSIDE = ("additionalProperties", "default", "description", "nullable", "title", "type")
_JUNCTORS = ("allOf", "anyOf", "oneOf")
_INT_OR_STRING = "x-kubernetes-int-or-string"
_PRESERVE = "x-kubernetes-preserve-unknown-fields"


def structural(errs: Errors, at: str, schema: Object) -> None:
    """Check the openAPIV3Schema of a version; `at` is its path."""
    _node(errs, at, schema, "at the root", Place(root=True))


def _node(errs: Errors, at: str, schema: Object, where: str, place: Place) -> None:
    kind = schema.get("type")
    if not kind:
        if not schema.get(_INT_OR_STRING) and not schema.get(_PRESERVE):
            errs.append(required(f"{at}.type", f"must not be empty {where}"))
    elif kind not in _TYPES:
        errs.append(not_supported(f"{at}.type", kind, _TYPES))
    elif where == "at the root" and kind != "object":
        errs.append(invalid_value(f"{at}.type", kind, "must be object at the root"))
    for key in _UNSUPPORTED:
        if schema.get(key):
            errs.append(forbidden_field(f"{at}.{key}", f"{key} is not supported"))
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        errs.append(forbidden_field(f"{at}.uniqueItems", text))
    _extensions(errs, at, schema)
    errs.extend(check_rules(at, schema, place))
    _children(errs, at, schema, place)
    _value_rules(errs, at, schema)
    _default(errs, at, schema)


def _extensions(errs: Errors, at: str, schema: Object) -> None:
    kind = schema.get("type")
    if schema.get(_PRESERVE) is False:
        errs.append(invalid_value(f"{at}.{_PRESERVE}", False, "must be true or undefined"))
    if schema.get(_INT_OR_STRING) and kind:
        errs.append(forbidden_field(f"{at}.type", f"must be empty if {_INT_OR_STRING} is true"))
    if schema.get("x-kubernetes-embedded-resource"):
        if kind != "object":
            errs.append(invalid_value(f"{at}.type", kind or "", "must be object if x-kubernetes-embedded-resource is true"))
        if not schema.get(_PRESERVE) and not schema.get("properties"):
            text = f"must not be empty if x-kubernetes-embedded-resource is true without {_PRESERVE}"
            errs.append(required(f"{at}.properties", text))
    list_type = schema.get("x-kubernetes-list-type")
    if list_type is not None:
        if list_type not in ("atomic", "map", "set"):
            errs.append(not_supported(f"{at}.x-kubernetes-list-type", list_type, ("atomic", "map", "set")))
        if kind != "array":
            errs.append(invalid_value(f"{at}.type", kind or "", "must be array if x-kubernetes-list-type is specified"))
    _map_keys(errs, at, schema, list_type)
    map_type = schema.get("x-kubernetes-map-type")
    if map_type is not None and map_type not in ("atomic", "granular"):
        errs.append(not_supported(f"{at}.x-kubernetes-map-type", map_type, ("atomic", "granular")))


def _map_keys(errs: Errors, at: str, schema: Object, list_type: Any) -> None:
    keys, field = schema.get("x-kubernetes-list-map-keys") or [], f"{at}.x-kubernetes-list-map-keys"
    if list_type == "map":
        if not keys:
            errs.append(required(field, "must not be empty if x-kubernetes-list-type is map"))
    elif keys:
        errs.append(forbidden_field(field, "must not be set unless x-kubernetes-list-type is map"))
    items = schema.get("items") or {}
    needed = items.get("required") or ()
    for key in keys:
        child = (items.get("properties") or {}).get(key)
        if child is None:
            errs.append(invalid_value(field, keys, "entries must all be names of item properties"))
        elif key not in needed and "default" not in child:
            text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            errs.append(required(f"{at}.items.properties[{key}].default", text))


def _children(errs: Errors, at: str, schema: Object, place: Place) -> None:
    apart = place.uncorrelated or (at if schema.get("x-kubernetes-map-type") == "atomic" else "")
    inside = Place(False, apart, place.cardinality)
    own = limit(schema)
    many = Place(False, apart, place.cardinality * own if place.cardinality is not None and own is not None else None)
    for key, child in (schema.get("properties") or {}).items():
        if not (at.endswith("openAPIV3Schema") and key == "metadata"):
            _node(errs, f"{at}.properties[{key}]", child or {}, "for specified object fields", inside)
    more = schema.get("additionalProperties")
    if more is False:
        errs.append(forbidden_field(f"{at}.additionalProperties", "additionalProperties cannot be set to false"))
    elif isinstance(more, dict):
        if schema.get("properties"):
            text = "additionalProperties and properties are mutual exclusive"
            errs.append(forbidden_field(f"{at}.additionalProperties", text))
        _node(errs, f"{at}.additionalProperties", more, "for specified object fields", many)
    items = schema.get("items")
    if isinstance(items, dict):
        keyed = schema.get("x-kubernetes-list-type") == "map"
        apart = apart or ("" if keyed else at)
        _node(errs, f"{at}.items", items, "for specified array items", Place(False, apart, many.cardinality))
    elif isinstance(items, list):
        errs.append(forbidden_field(f"{at}.items", "items must be a schema object and not an array"))
    elif schema.get("type") == "array":
        errs.append(required(f"{at}.items", "must be specified"))


def _value_rules(errs: Errors, at: str, schema: Object) -> None:
    """Inside allOf, anyOf, oneOf and not only value rules may stand, about fields that are typed outside."""
    typed = bool(schema.get(_INT_OR_STRING))
    for junctor in _JUNCTORS:
        for index, part in enumerate(schema.get(junctor) or ()):
            _nested(errs, f"{at}.{junctor}[{index}]", part, typed=typed)
    if schema.get("not"):
        _nested(errs, f"{at}.not", schema["not"], typed=typed)


def _nested(errs: Errors, at: str, schema: Object, *, typed: bool) -> None:
    for key in _ONLY_OUTSIDE:
        # anyOf: [{type: integer}, {type: string}] is how an int-or-string is written.
        if schema.get(key) not in (None, "", False) and not (typed and key == "type"):
            errs.append(forbidden_field(f"{at}.{key}", "must be empty to be structural"))
    errs.extend(
        forbidden_field(f"{at}.{key}", "must be empty to be structural") for key in schema if key.startswith("x-kubernetes-")
    )
    for key, child in (schema.get("properties") or {}).items():
        _nested(errs, f"{at}.properties[{key}]", child or {}, typed=False)
    if isinstance(schema.get("items"), dict):
        _nested(errs, f"{at}.items", schema["items"], typed=False)
    _value_rules(errs, at, {key: schema.get(key) for key in (*_JUNCTORS, "not")})


def _default(errs: Errors, at: str, schema: Object) -> None:
    if schema.get("default") is None:
        return
    found: list[FieldError] = validate_schema(
        {"default": schema["default"]}, {"type": "object", "properties": {"default": schema}}
    )
    prefix = f"{at}."
    errs.extend(FieldError(e.type, prefix + e.field, e.detail, e.value) for e in found)
