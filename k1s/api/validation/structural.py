"""Whether the schema of a CRD version is structural: typed throughout, nothing in it that pruning or defaults cannot follow.

structural(at, schema) -> FieldErrors. Called by: definitions.py, the apiserver (condition NonStructuralSchema).
Never does: rules of single nodes (schema_nodes.py), defaults (schema_defaults.py).
Source: apiextensions-apiserver/pkg/apiserver/schema/{validation,complete}.go.
"""

from __future__ import annotations

from typing import Any

from k1s.api.errors import FieldError, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.regex import faulty
from k1s.api.validation.rules import Errors

INT_OR_STRING = "x-kubernetes-int-or-string"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
EMBEDDED = "x-kubernetes-embedded-resource"
_EITHER = [{"type": "integer"}, {"type": "string"}]
_JUNCTORS = ("anyOf", "allOf", "oneOf")
_ROOT, _ITEM, _FIELD = "at the root", "for specified array items", "for specified object fields"
_META = ("name", "generateName")

# What may stand only outside of allOf, anyOf, oneOf and not, and how that is said.
_OUTSIDE = (
    ("title", "empty"),
    ("description", "empty"),
    ("nullable", "false"),
    (PRESERVE, "false"),
    (EMBEDDED, "false"),
    (INT_OR_STRING, "false"),
    ("x-kubernetes-list-map-keys", "empty"),
    ("x-kubernetes-list-type", "undefined"),
    ("x-kubernetes-map-type", "undefined"),
    ("x-kubernetes-validations", "empty"),
)


def structural(at: str, schema: Object) -> list[FieldError]:
    """What is wrong with the openAPIV3Schema of a version; `at` is its path."""
    errs: Errors = []
    _node(errs, at, schema, _ROOT)
    _complete(errs, at, schema)
    return sorted(errs, key=str)


def _node(errs: Errors, at: str, schema: Object, level: str) -> None:
    kind, items, more = schema.get("type") or "", schema.get("items"), schema.get("additionalProperties")
    if kind == "array" and items is None:
        errs.append(required(f"{at}.items", "must be specified"))
    if isinstance(items, dict):
        _node(errs, f"{at}.items", items, _ITEM)
    for key, child in (schema.get("properties") or {}).items():
        _node(errs, f"{at}.properties[{key}]", child or {}, _FIELD)
    if more is not None:
        if level == _ROOT:
            errs.append(forbidden_field(f"{at}.additionalProperties", "must not be used at the root"))
        if isinstance(more, dict):
            _node(errs, f"{at}.additionalProperties", more, _FIELD)
    for key in (PRESERVE, EMBEDDED):
        if schema.get(INT_OR_STRING) and schema.get(key):
            errs.append(invalid_value(f"{at}.{key}", True, f"must be false if {INT_OR_STRING} is true"))
    _values(errs, at, schema, skip_any=schema.get("anyOf") == _EITHER, skip_all=_either_in_all(schema))
    _type(errs, at, schema, level)
    _resource(errs, at, schema, level)


def _either_in_all(schema: Object) -> bool:
    parts = schema.get("allOf") or []
    return bool(parts) and parts[0].get("anyOf") == _EITHER


def _type(errs: Errors, at: str, schema: Object, level: str) -> None:
    kind = schema.get("type") or ""
    if schema.get(EMBEDDED) and kind != "object":
        text = f"must be object if {EMBEDDED} is true"
        errs.append(invalid_value(f"{at}.type", kind, text) if kind else required(f"{at}.type", text))
    elif not kind and not schema.get(INT_OR_STRING) and not schema.get(PRESERVE):
        errs.append(required(f"{at}.type", f"must not be empty {level}"))
    if level == _ROOT and kind and kind != "object":
        errs.append(invalid_value(f"{at}.type", kind, "must be object at the root"))


def _resource(errs: Errors, at: str, schema: Object, level: str) -> None:
    """apiVersion, kind and metadata, at the root and in embedded resources."""
    embedded, properties = bool(schema.get(EMBEDDED)), schema.get("properties") or {}
    if embedded and schema.get("additionalProperties") is not None:
        errs.append(forbidden_field(f"{at}.additionalProperties", f"must not be used if {EMBEDDED} is set"))
    if embedded and not schema.get(PRESERVE) and not properties:
        text = f"must not be empty if {EMBEDDED} is true without {PRESERVE}"
        errs.append(required(f"{at}.properties", text))
    checked = embedded or level == _ROOT
    for key in ("kind", "apiVersion"):
        if checked and key in properties and properties[key].get("type") != "string":
            errs.append(invalid_value(f"{at}.properties[{key}].type", properties[key].get("type") or "", "must be string"))
    metadata = properties.get("metadata")
    if metadata is None:
        return
    if checked and metadata.get("type") != "object":
        errs.append(invalid_value(f"{at}.properties[metadata].type", metadata.get("type") or "", "must be object"))
    if level == _ROOT and not _only_names(metadata):
        text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        errs.append(forbidden_field(f"{at}.properties[metadata]", text))


def _only_names(metadata: Object) -> bool:
    properties = metadata.get("properties") or {}
    others = {k for k, v in metadata.items() if v not in (None, "", False, [], {})} - {"type", "properties", "default"}
    return not others and all(key in _META for key in properties)


def _values(errs: Errors, at: str, schema: Object, *, skip_any: bool = False, skip_all: bool = False) -> None:
    """The value validations of a node."""
    for junctor in _JUNCTORS:
        for index, part in enumerate(schema.get(junctor) or ()):
            if junctor == "anyOf" and skip_any:
                continue
            _nested(errs, f"{at}.{junctor}[{index}]", part, skip_any=junctor == "allOf" and skip_all and index == 0)
    if schema.get("not") is not None:
        _nested(errs, f"{at}.not", schema["not"])
    pattern = schema.get("pattern")
    said = faulty(pattern) if pattern else ""
    if said:
        errs.append(invalid_value(f"{at}.pattern", pattern, f"must be a valid regular expression, but isn't: {said}"))


def _nested(errs: Errors, at: str, schema: Object, *, skip_any: bool = False) -> None:
    """A part of allOf, anyOf, oneOf or not: only value validations, about what is typed outside."""
    _values(errs, at, schema, skip_any=skip_any)
    if isinstance(schema.get("items"), dict):
        _nested(errs, f"{at}.items", schema["items"])
    properties = schema.get("properties") or {}
    for key, child in properties.items():
        _nested(errs, f"{at}.properties[{key}]", child or {})
    if schema.get("type"):
        errs.append(forbidden_field(f"{at}.type", "must be empty to be structural"))
    for key in ("additionalProperties", "default"):
        if schema.get(key) is not None:
            errs.append(forbidden_field(f"{at}.{key}", "must be undefined to be structural"))
    for key, state in _OUTSIDE:
        if schema.get(key):
            errs.append(forbidden_field(f"{at}.{key}", f"must be {state} to be structural"))
    if "metadata" in properties:
        errs.append(forbidden_field(f"{at}.properties[metadata]", "must not be specified in a nested context"))


def _complete(errs: Errors, at: str, schema: Object) -> None:
    """Every field that the root's value validations speak of is specified outside of them."""
    _parts(errs, schema, schema, at, at)


def _parts(errs: Errors, values: Object, outer: Object, outer_at: str, at: str) -> None:
    if values.get("not") is not None:
        _covered(errs, values["not"], outer, outer_at, f"{at}.not")
    for junctor in ("allOf", "anyOf", "oneOf"):
        for index, part in enumerate(values.get(junctor) or ()):
            _covered(errs, part, outer, outer_at, f"{at}.{junctor}[{index}]")


def _covered(errs: Errors, values: Object, outer: Any, outer_at: str, at: str) -> None:
    if not isinstance(outer, dict):
        errs.append(required(outer_at, f"because it is defined in {at}"))
        return
    _parts(errs, values, outer, outer_at, at)
    if isinstance(values.get("items"), dict):
        _covered(errs, values["items"], outer.get("items"), f"{outer_at}.items", f"{at}.items")
    known = outer.get("properties") or {}
    for key, child in (values.get("properties") or {}).items():
        where = f".properties[{key}]"
        if key not in known:
            errs.append(required(f"{outer_at}{where}", f"because it is defined in {at}{where}"))
        else:
            _covered(errs, child or {}, known[key] or {}, f"{outer_at}{where}", f"{at}{where}")
