"""JSON merge patch (RFC 7386).

Owns: apply_merge_patch. Called by: the patch handler. Never does: know types.
"""

from __future__ import annotations

from typing import Any

from k1s.api.clone import clone
from k1s.api.errors import bad_request

Object = dict[str, Any]


def apply_merge_patch(doc: Object, patch: Any) -> Object:
    """A new document. ApiError 400 if the patch is not an object."""
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}")
    merged: Object = _merge(clone(doc), patch)
    return merged


def _merge(target: Object, patch: Object) -> Object:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
            continue
        old = target.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            _merge(old, value)
        else:
            target[key] = without_nulls(value)
    return target


def without_nulls(value: Any) -> Any:
    """A copy in which no object has a null field; a null in a new value means nothing, as there is nothing to remove."""
    if isinstance(value, dict):
        return {key: without_nulls(child) for key, child in value.items() if child is not None}
    if isinstance(value, list):
        return [without_nulls(child) for child in value]
    return value


def create_merge_patch(old: Object, new: Object) -> Object:
    """The patch that makes `new` of `old`. (Where `new` itself holds nulls there is none; they read as absent.)"""
    patch: Object = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if key in old and same(before, value):
            continue
        if isinstance(before, dict) and isinstance(value, dict):
            patch[key] = create_merge_patch(before, value)
        else:
            patch[key] = value
    return patch


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: Python takes True for 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
