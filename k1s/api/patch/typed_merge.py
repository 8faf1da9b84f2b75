"""Laying one typed value over another, and taking fields out of one.

Owns: merge (the applied configuration wins, lists merge by item), remove_items, check_applied.
Called by: patch/apply. Never does: change its arguments; results share what did not change.
Upstream: structured-merge-diff/typed (merge.go, remove.go, validate.go).
"""

from __future__ import annotations

from typing import Any

from k1s.api.field_set import FieldSet, Path, below, field_element, member, path_text
from k1s.api.go_text import kind, plain, syntax
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


def check_applied(value: Any, schema: Schema) -> list[str]:
    """What is wrong with a configuration: unknown fields, wrong types, duplicates in lists; as upstream words it."""
    faults: list[str] = []
    _check(value, schema, (), faults)
    return faults


def _fault(path: Path, text: str) -> str:
    return f"{path_text(path)}: {text}" if path else text


def _check(value: Any, schema: Schema, path: Path, faults: list[str]) -> None:
    if value is None or schema.type == "any":
        return
    if schema.type == "object":
        if not isinstance(value, dict):
            faults.append(_fault(path, f"expected map, got &{{{plain(value)}}}"))
            return
        for field, child in value.items():
            known = schema.child(field)
            here = (*path, field_element(field))
            if known is not None:
                _check(child, known, here, faults)
            elif not schema.preserve_unknown:
                # Upstream looks no further in this map.
                faults.append(_fault(here, "field not declared in schema"))
                return
    elif schema.type == "array":
        if not isinstance(value, list):
            faults.append(_fault(path, f"expected list, got &{{{plain(value)}}}"))
            return
        _check_list(value, schema, path, faults)
    else:
        wrong = _wrong_scalar(value, schema)
        if wrong:
            faults.append(_fault(path, wrong))


def _check_list(value: list[Any], schema: Schema, path: Path, faults: list[str]) -> None:
    seen: set[str] = set()
    granular = is_granular_list(value, schema)
    for index, item in enumerate(value):
        element = f"i:{index}"
        if granular:
            try:
                element = item_element(item, schema)
            except TypeMismatch as fault:
                faults.append(_fault(path, f"element {index}: {fault}"))
                return
            if element in seen:
                faults.append(_fault(path, f"duplicate entries for key {path_text((element,))}"))
            seen.add(element)
        _check(item, item_schema(schema), (*path, element), faults)


def _wrong_scalar(value: Any, schema: Schema) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if schema.type == "string" and not isinstance(value, str):
        return f"expected string, got &value.valueUnstructured{{Value:{syntax(value)}}}"
    if schema.type in ("integer", "number") and not number:
        return f"expected numeric (int or float), got {kind(value)}"
    if schema.type == "boolean" and not isinstance(value, bool):
        return f"expected boolean, got &{{{plain(value)}}}"
    if isinstance(value, dict | list):
        return f"expected any scalar, got &{{{plain(value)}}}"
    return ""
