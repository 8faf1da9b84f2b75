"""Which old value a part of a changed object had: fields by name, items of map-like lists by their keys, others not at all.

Owns: MISSING, keys, by_keys, unchanged. Called by: custom_resource, custom_lists, custom_rules. Never does: judge.
Source: apiserver/pkg/cel/common/equality.go (CorrelatedObject).
"""

from __future__ import annotations

import json
from typing import Any

from k1s.api.meta import Object

# The part has no old value, or none that can be told.
MISSING: Any = object()


def keys(schema: Object, item: Any) -> tuple[str, ...] | None:
    """What tells the items of a map-like list apart; None where nothing does."""
    names = schema.get("x-kubernetes-list-map-keys") if schema.get("x-kubernetes-list-type") == "map" else None
    if not names or not isinstance(item, dict):
        return None
    properties = (schema.get("items") or {}).get("properties") or {}
    return tuple(repr(item.get(name, (properties.get(name) or {}).get("default"))) for name in names)


def by_keys(schema: Object, old: Any) -> dict[tuple[str, ...] | None, Any]:
    """The items of an old list by what tells them apart."""
    if not isinstance(old, list):
        return {}
    found = {keys(schema, item): item for item in old}
    found.pop(None, None)
    return found


def unchanged(old: Any, new: Any) -> bool:
    # 1 equals True in Python, and 1.0 equals 1; only JSON that is written alike did not change.
    return bool(old == new) and json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
