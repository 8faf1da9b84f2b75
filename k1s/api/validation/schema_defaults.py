"""Defaults in a CRD's schema: pruned, and valid by the schema they stand in.

schema_defaults(at, schema) -> FieldErrors. Called by: definitions.py, for structural schemas. Never does: fill defaults in.
Source: apiextensions-apiserver/pkg/apiserver/schema/defaulting/validation.go.
"""

from __future__ import annotations

from k1s.api.clone import clone
from k1s.api.errors import FieldError, invalid_value
from k1s.api.meta import Object
from k1s.api.prune import prune
from k1s.api.schema import structural
from k1s.api.validation.custom_meta import embedded_faults
from k1s.api.validation.custom_resource import validate_value
from k1s.api.validation.custom_rules import validate_rules
from k1s.api.validation.rule_tree import compile_rules
from k1s.api.validation.rules import Errors
from k1s.api.validation.structural import EMBEDDED

_META = ("metadata", "apiVersion", "kind")


def schema_defaults(at: str, schema: Object) -> list[FieldError]:
    errs: Errors = []
    _node(errs, at, schema, inside_meta=False)
    return errs


def _node(errs: Errors, at: str, schema: Object, *, inside_meta: bool) -> None:
    inside_meta = inside_meta and not schema.get(EMBEDDED)
    if schema.get("default") is not None:
        errs += _default(f"{at}.default", schema, inside_meta=inside_meta)
    items = schema.get("items")
    if isinstance(items, dict):
        _node(errs, f"{at}.items", items, inside_meta=inside_meta)
    for key, child in (schema.get("properties") or {}).items():
        inside = inside_meta or (bool(schema.get(EMBEDDED)) and key in _META)
        _node(errs, f"{at}.properties[{key}]", child or {}, inside_meta=inside)


def _default(at: str, schema: Object, *, inside_meta: bool) -> list[FieldError]:
    value = schema["default"]
    errs: Errors = []
    if not inside_meta and isinstance(value, dict | list):
        pruned = {"default": clone(value)}
        prune(pruned, structural({"type": "object", "properties": {"default": schema}}, False))
        if pruned["default"] != value:
            errs.append(invalid_value(at, value, "must not have unknown fields"))
    if not inside_meta:
        errs += embedded_faults(value, schema, at)
    found = validate_value(value, schema, at=at)
    if found or errs:
        return errs + found
    tree = compile_rules(schema, root=False)
    if tree is None:
        return []
    # As what it may come from, and as something new.
    said = validate_rules(tree, value, value, at=at, ratchet=False)
    return said or validate_rules(tree, value, None, at=at)
