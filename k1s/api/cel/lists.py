"""Functions of lists in CEL: apiserver/pkg/cel/library/lists.go and cel-go's ext/lists.go, version 3."""

from __future__ import annotations

from collections.abc import Callable
from functools import cmp_to_key
from itertools import pairwise
from typing import Any

from k1s.api.cel.operators import OPERATORS, compare, equal, no_overload
from k1s.api.cel.optional import NONE, Optional

_MAX_RANGE = 1_000_000
_MAX_PAIRS = 1_000_000


def _is_sorted(items: list[Any]) -> bool:
    return all(compare(a, b) <= 0 for a, b in pairwise(items))


def _sum(items: list[Any]) -> Any:
    if not items:
        return 0
    add, total = OPERATORS["_+_"], items[0]
    if isinstance(total, str | bytes | list | bool):
        raise no_overload()
    for item in items[1:]:
        total = add(total, item)
    return total


def _extreme(name: str, sign: int) -> Callable[[list[Any]], Any]:
    def find(items: list[Any]) -> Any:
        if not items:
            raise ValueError(f"{name} called on empty list")
        best = items[0]
        for item in items[1:]:
            if compare(item, best) * sign > 0:
                best = item
        return best

    return find


def _index(items: list[Any], wanted: Any) -> int:
    return next((at for at, item in enumerate(items) if equal(item, wanted)), -1)


def _last_index(items: list[Any], wanted: Any) -> int:
    return next((at for at in range(len(items) - 1, -1, -1) if equal(items[at], wanted)), -1)


def _slice(items: list[Any], start: int, end: int) -> list[Any]:
    if start < 0 or end < 0:
        raise ValueError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise ValueError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(items):
        raise ValueError(f"cannot slice({start}, {end}), list is length {len(items)}")
    return items[start:end]


def _flatten(items: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise ValueError("level must be non-negative")
    out: list[Any] = []
    for item in items:
        if isinstance(item, list) and depth > 0:
            out += _flatten(item, depth - 1)
        else:
            out.append(item)
    return out


def _sort(items: list[Any]) -> list[Any]:
    return sorted(items, key=cmp_to_key(compare))


def _by_key(a: tuple[Any, Any], b: tuple[Any, Any]) -> int:
    return compare(a[0], b[0])


def _sort_by(items: list[Any], keys: list[Any]) -> list[Any]:
    pairs = sorted(zip(keys, items, strict=True), key=cmp_to_key(_by_key))
    return [item for _, item in pairs]


def _distinct(items: list[Any]) -> list[Any]:
    if len(items) ** 2 > _MAX_PAIRS:
        raise ValueError("operation cancelled: actual cost limit exceeded")
    out: list[Any] = []
    for item in items:
        if not any(equal(item, other) for other in out):
            out.append(item)
    return out


def _range(count: int) -> list[int]:
    if count > _MAX_RANGE:
        raise ValueError(f"lists.range is limited to {_MAX_RANGE} items")
    return list(range(max(0, count)))


FUNCTIONS = (
    ("isSorted", True, ("LIST",), _is_sorted),
    ("sum", True, ("LIST",), _sum),
    ("min", True, ("LIST",), _extreme("min", -1)),
    ("max", True, ("LIST",), _extreme("max", 1)),
    ("indexOf", True, ("LIST", "ANY"), _index),
    ("lastIndexOf", True, ("LIST", "ANY"), _last_index),
    ("includes", True, ("LIST", "ANY"), lambda items, wanted: _index(items, wanted) >= 0),
    ("slice", True, ("LIST", "INT", "INT"), _slice),
    ("flatten", True, ("LIST",), _flatten),
    ("flatten", True, ("LIST", "INT"), _flatten),
    ("sort", True, ("LIST",), _sort),
    ("lists.@sortByAssociatedKeys", True, ("LIST", "LIST"), _sort_by),
    ("distinct", True, ("LIST",), _distinct),
    ("reverse", True, ("LIST",), lambda items: items[::-1]),
    ("lists.range", False, ("INT",), _range),
    ("first", True, ("LIST",), lambda items: Optional(True, items[0]) if items else NONE),
    ("last", True, ("LIST",), lambda items: Optional(True, items[-1]) if items else NONE),
)
