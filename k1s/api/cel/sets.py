"""sets.contains, sets.equivalent, sets.intersects in CEL (cel-go's ext.Sets)."""

from __future__ import annotations

from typing import Any

from k1s.api.cel.operators import equal

# Every element is compared with every other: a bound for what one call may cost.
_MAX_PAIRS = 1_000_000


def _bounded(a: list[Any], b: list[Any]) -> tuple[list[Any], list[Any]]:
    if len(a) * len(b) > _MAX_PAIRS:
        raise ValueError("operation cancelled: actual cost limit exceeded")
    return list(a), list(b)


def _contains(a: list[Any], b: list[Any]) -> bool:
    whole, part = _bounded(a, b)
    return all(any(equal(x, y) for x in whole) for y in part)


def _equivalent(a: list[Any], b: list[Any]) -> bool:
    return _contains(a, b) and _contains(b, a)


def _intersects(a: list[Any], b: list[Any]) -> bool:
    left, right = _bounded(a, b)
    return any(any(equal(x, y) for x in left) for y in right)


FUNCTIONS = (
    ("sets.contains", False, ("LIST", "LIST"), _contains),
    ("sets.equivalent", False, ("LIST", "LIST"), _equivalent),
    ("sets.intersects", False, ("LIST", "LIST"), _intersects),
)
