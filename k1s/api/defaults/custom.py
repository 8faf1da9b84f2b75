"""Defaults of custom resources: those that the CRD's structural schema gives.

Called by: the apiserver, for objects of custom resources, with the version's openAPIV3Schema. Never does: validate or prune.
Idempotent. A null stands for nothing where the schema does not allow null: it gets the default, or goes, as upstream has it.
"""

from __future__ import annotations

from typing import Any

from k1s.api.clone import clone
from k1s.api.meta import Object

# These are ObjectMeta's business, whatever the schema says of them.
_NOT_DEFAULTED = ("apiVersion", "kind", "metadata")


def apply_schema_defaults(obj: Object, schema: Object) -> None:
    """Fill in `obj`, in place, every default of its schema."""
    properties = {key: child for key, child in (schema.get("properties") or {}).items() if key not in _NOT_DEFAULTED}
    _object(obj, {**schema, "properties": properties})


def _object(value: Object, schema: Object) -> None:
    properties = schema.get("properties") or {}
    if None in value.values():
        _drop_nulls(value, properties, schema.get("additionalProperties"))
    for key, child in properties.items():
        if "default" in child and (key not in value or (value[key] is None and not child.get("nullable"))):
            value[key] = clone(child["default"])
        if value.get(key) is not None:
            _value(value[key], child)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        for key, item in value.items():
            if key not in properties:
                if item is None and "default" in more and not more.get("nullable"):
                    value[key] = item = clone(more["default"])
                _value(item, more)


def _drop_nulls(value: Object, properties: Object, more: Any) -> None:
    for key in [key for key, item in value.items() if item is None]:
        child = properties.get(key, more)
        if isinstance(child, dict) and not child.get("nullable") and "default" not in child:
            del value[key]


def _value(value: Any, schema: Object) -> None:
    if isinstance(value, dict):
        _object(value, schema)
    elif isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for index, item in enumerate(value):
                if item is None and "default" in items and not items.get("nullable"):
                    value[index] = item = clone(items["default"])
                _value(item, items)
