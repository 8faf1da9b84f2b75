"""Laying one typed value over another, and taking fields out of one.

Owns: merge (the applied configuration wins, lists merge by item), remove_items, check_applied.
Called by: patch/apply. Never does: change its arguments; results share what did not change.
Upstream: structured-merge-diff/typed (merge.go, remove.go, validate.go).
"""

from __future__ import annotations

from typing import Any

import orjson

from k1s.api.field_set import FieldSet, Path, below, field_element, member, path_text
from k1s.api.schema import Schema
from k1s.api.typed import (
    ABSENT,
    TypeMismatch,
    field_schema,
    index_items,
    is_granular_list,
    is_granular_map,
    item_element,
    item_schema,
)


def merge(live: Any, applied: Any, schema: Schema) -> Any:
    """`live` with everything that `applied` says."""
    if applied is ABSENT:
        return live
    if live is ABSENT or live is None:
        return applied
    if is_granular_map(applied, schema) and is_granular_map(live, schema) and (live or applied):
        out = {
            field: merge(value, applied[field], field_schema(schema, field)) if field in applied else value
            for field, value in live.items()
        }
        out.update({field: value for field, value in applied.items() if field not in live})
        return out
    if is_granular_list(applied, schema) and is_granular_list(live, schema) and (live or applied):
        return _merge_lists(live, applied, schema)
    return applied


def _merge_lists(live: list[Any], applied: list[Any], schema: Schema) -> list[Any]:
    """Items of both, in an order that keeps the applied one for what is applied and the live one for the rest."""
    items = item_schema(schema)
    left, in_left, twice = index_items(live, schema)
    right, in_right, _ = index_items(applied, schema)
    shared = [element for element in right if element in in_left]
    following = 0  # shared[following] is the shared item whose turn is next
    merged: set[str] = set()
    out: list[Any] = []

    def take_right(element: str) -> None:
        merged.add(element)
        # Of items that stand twice none can be merged with: the applied one takes their place.
        base = ABSENT if element in twice else in_left.get(element, ABSENT)
        out.append(merge(base, in_right[element], items))

    i = j = 0
    while i < len(left) or j < len(right):
        if i < len(left) and j < len(right):
            if left[i] == right[j]:
                take_right(right[j])
                i, j, following = i + 1, j + 1, following + 1
                continue
            if left[i] in in_right and following < len(shared) and shared[following] != left[i]:
                # Shared, but not the one whose turn it is.
                i += 1
                continue
        if i < len(left):
            if left[i] not in in_right:
                out.append(live[i])
                i += 1
                continue
            if left[i] in merged:
                i += 1
        if j < len(right):
            element = right[j]
            take_right(element)
            j += 1
            if following < len(shared) and shared[following] == element:
                following += 1
    return out


def remove_items(value: Any, fields: FieldSet, schema: Schema) -> Any:
    """`value` without the fields of the set. A list that loses its last item goes as well: ABSENT."""
    if not fields:
        return value
    if is_granular_map(value, schema):
        out = {}
        for field, child in value.items():
            element = field_element(field)
            if member(fields, element):
                continue
            left = remove_items(child, below(fields, element), field_schema(schema, field))
            if left is not ABSENT:
                out[field] = left
        # Empty, it stays: were it nobody's, it would have been in the set itself.
        return out
    if is_granular_list(value, schema):
        elements, _, _ = index_items(value, schema)
        kept = []
        for element, item in zip(elements, value, strict=True):
            if member(fields, element):
                continue
            left = remove_items(item, below(fields, element), item_schema(schema))
            if left is not ABSENT:
                kept.append(left)
        return kept if kept or not value else ABSENT
    return value


def check_applied(value: Any, schema: Schema, path: Path = ()) -> None:
    """Is the configuration well formed, lists without duplicates? TypeMismatch as upstream words it."""
    if value is None or schema.type == "any":
        return
    if schema.type == "object":
        if not isinstance(value, dict):
            raise TypeMismatch(f"{path_text(path)}: expected map, got {_shown(value)}")
        for field, child in value.items():
            known = schema.child(field)
            here = (*path, field_element(field))
            if known is None:
                if not schema.preserve_unknown:
                    raise TypeMismatch(f"{path_text(here)}: field not declared in schema")
                continue
            check_applied(child, known, here)
    elif schema.type == "array":
        if not isinstance(value, list):
            raise TypeMismatch(f"{path_text(path)}: expected list, got {_shown(value)}")
        _check_list(value, schema, path)
    else:
        _check_scalar(value, schema, path)


def _check_list(value: list[Any], schema: Schema, path: Path) -> None:
    seen: set[str] = set()
    for index, item in enumerate(value):
        element = f"i:{index}"
        if is_granular_list(value, schema):
            try:
                element = item_element(item, schema)
            except TypeMismatch as fault:
                raise TypeMismatch(f"{path_text(path)}: element {index}: {fault}") from None
            if element in seen:
                raise TypeMismatch(f"{path_text(path)}: duplicate entries for key {path_text((element,))}")
            seen.add(element)
        check_applied(item, item_schema(schema), (*path, element))


def _check_scalar(value: Any, schema: Schema, path: Path) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    wrong = ""
    if schema.type == "string" and not isinstance(value, str):
        wrong = "string"
    elif schema.type in ("integer", "number") and not number:
        wrong = "numeric (int or float)"
    elif schema.type == "boolean" and not isinstance(value, bool):
        wrong = "boolean"
    elif isinstance(value, dict | list):
        wrong = "scalar"
    if wrong:
        raise TypeMismatch(f"{path_text(path)}: expected {wrong}, got {_shown(value)}")


def _shown(value: Any) -> str:
    return orjson.dumps(value).decode()
