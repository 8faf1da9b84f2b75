"""Take out the fields that a type does not have.

Owns: prune(). Called by: the decoding of request bodies and patch results. Never does: judge whether that is an error; the
caller does, by fieldValidation, from the paths it gets.
"""

from __future__ import annotations

from typing import Any

from k1s.api.schema import Schema, schema_of

_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def prune(obj: dict[str, Any], schema: Schema) -> list[str]:
    """Remove unknown fields in place; return their paths, such as spec.containers[0].foo, in document order."""
    unknown: list[str] = []
    _prune(obj, schema, "", unknown)
    return unknown


def _prune(value: Any, schema: Schema, path: str, unknown: list[str]) -> None:
    if isinstance(value, dict):
        if schema.type == "object":
            _prune_object(value, schema, path, unknown)
    elif isinstance(value, list):
        items = schema.items
        if items is not None and items.type in ("object", "array"):
            for index, item in enumerate(value):
                _prune(item, items, f"{path}[{index}]", unknown)


def _prune_object(value: dict[str, Any], schema: Schema, path: str, unknown: list[str]) -> None:
    properties, values = schema.properties, schema.values
    for field in list(value):
        child = properties.get(field) or values
        if child is None:
            if not schema.preserve_unknown:
                unknown.append(f"{path}.{field}" if path else field)
                del value[field]
        elif child.type in ("object", "array"):
            _prune(value[field], child, f"{path}.{field}" if path else field, unknown)
        elif child.embedded and isinstance(value[field], dict) and isinstance(value[field].get("metadata"), dict):
            _prune(value[field]["metadata"], schema_of(_OBJECT_META), f"{path}.{field}.metadata", unknown)
