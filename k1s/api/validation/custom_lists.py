"""Lists that are sets or maps hold nothing twice (x-kubernetes-list-type).

validate_lists(obj, schema, old) -> FieldErrors. Called by: the apiserver's custom resources. Never does: other rules.
Source: apiextensions-apiserver/pkg/apiserver/schema/listtype/validation.go.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from k1s.api.errors import FieldError, duplicate, invalid_value
from k1s.api.meta import Object


def validate_lists(obj: Object, schema: Object, old: Object | None = None) -> list[FieldError]:
    """What is there twice; nothing is said if it was in `old` already."""
    found = list(_value("", obj, schema))
    if found and old is not None and next(_value("", old, schema), None) is not None:
        return []
    return found


def has_lists(schema: Object) -> bool:
    """Whether any list in a schema is a set or a map, so that objects need not be searched in vain."""
    if schema.get("x-kubernetes-list-type") in ("set", "map"):
        return True
    children = list((schema.get("properties") or {}).values())
    children += [schema.get("items"), schema.get("additionalProperties")]
    return any(isinstance(child, dict) and has_lists(child) for child in children)


def _value(path: str, value: Any, schema: Object) -> Iterator[FieldError]:
    if isinstance(value, dict):
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, item in value.items():
            if isinstance(more, dict):
                yield from _value(f"{path}[{key}]", item, more)
            elif key in properties:
                yield from _value(f"{path}.{key}" if path else key, item, properties[key])
    elif isinstance(value, list):
        kind, items = schema.get("x-kubernetes-list-type"), schema.get("items")
        if kind == "set":
            yield from _twice(path, value)
        elif kind == "map":
            yield from _map(path, value, schema)
        if isinstance(items, dict):
            for index, item in enumerate(value):
                yield from _value(f"{path}[{index}]", item, items)


def _twice(path: str, values: list[Any], shown: list[Any] | None = None) -> Iterator[FieldError]:
    """The first repetition of each value."""
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        text = json.dumps(value, sort_keys=True)
        seen[text] = seen.get(text, 0) + 1
        if seen[text] == 2:
            yield duplicate(f"{path}[{index}]", value if shown is None else shown[index])


def _map(path: str, values: list[Any], schema: Object) -> Iterator[FieldError]:
    for index, value in enumerate(values):
        if value is not None and not isinstance(value, dict):
            yield invalid_value(f"{path}[{index}]", value, "must be an object for an array of list-type map")
            return
    names = schema.get("x-kubernetes-list-map-keys") or ()
    found = [{name: value[name] for name in names if name in value} if value else {} for value in values]
    yield from _twice(path, found)
