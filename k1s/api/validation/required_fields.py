"""Kinds without rules of their own: the fields that their schema requires.

Called by: table.py. Never does: custom resources (their OpenAPI schema is validated by the apiserver's crds).
"""

from __future__ import annotations

from typing import Any

from k1s.api.catalog import Resource
from k1s.api.errors import required
from k1s.api.meta import Object
from k1s.api.schema import Schema, schema_for
from k1s.api.validation.rules import Errors

_SKIPPED = ("apiVersion", "kind", "metadata", "status")


def check(errs: Errors, resource: Resource, obj: Object) -> None:
    """Required, for each required field that is absent; the status is the server's own."""
    schema = schema_for(resource)
    for key in schema.required:
        if key not in _SKIPPED and obj.get(key) is None:
            errs.append(required(key))
    for key, child in schema.properties.items():
        if key not in _SKIPPED and obj.get(key) is not None:
            _walk(errs, key, obj[key], child)


def _walk(errs: Errors, at: str, value: Any, schema: Schema) -> None:
    if isinstance(value, list):
        if schema.items is not None:
            for index, item in enumerate(value):
                _walk(errs, f"{at}[{index}]", item, schema.items)
    elif isinstance(value, dict):
        for key in schema.required:
            if value.get(key) is None:
                errs.append(required(f"{at}.{key}"))
        for key, item in value.items():
            child = schema.properties.get(key)
            if child is not None:
                _walk(errs, f"{at}.{key}", item, child)
            elif schema.values is not None:
                _walk(errs, f"{at}[{key}]", item, schema.values)
