"""isSorted, sum, min, max, indexOf, lastIndexOf of lists in CEL. Source: apiserver/pkg/cel/library/lists.go."""

from __future__ import annotations

from itertools import pairwise
from typing import Any


def _alike(items: list[Any]) -> list[Any]:
    kinds = {"number" if type(item) in (int, float) else type(item).__name__ for item in items}
    if len(kinds) > 1 or "dict" in kinds or "list" in kinds or "NoneType" in kinds:
        raise ValueError("no such overload")
    return items


def _is_sorted(items: list[Any]) -> bool:
    items = _alike(list(items))
    return all(a <= b for a, b in pairwise(items))


def _sum(items: list[Any]) -> Any:
    items = _alike(list(items))
    if any(type(item) not in (int, float) for item in items):
        raise ValueError("no such overload")
    total = sum(items)
    if isinstance(total, int) and not -(2**63) <= total < 2**63:
        raise ValueError("integer overflow")
    return total


def _min(items: list[Any]) -> Any:
    if not items:
        raise ValueError("min called on empty list")
    return min(_alike(list(items)))


def _max(items: list[Any]) -> Any:
    if not items:
        raise ValueError("max called on empty list")
    return max(_alike(list(items)))


def same(a: Any, b: Any) -> bool:
    """Equal as CEL has it: 1 is 1.0, but neither is true."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _index(items: list[Any], wanted: Any) -> int:
    return next((at for at, item in enumerate(items) if same(item, wanted)), -1)


def _last_index(items: list[Any], wanted: Any) -> int:
    items = list(items)
    return next((at for at in range(len(items) - 1, -1, -1) if same(items[at], wanted)), -1)


FUNCTIONS = (
    ("isSorted", True, ("LIST",), "BOOL", _is_sorted),
    ("sum", True, ("LIST",), "DYN", _sum),
    ("min", True, ("LIST",), "DYN", _min),
    ("max", True, ("LIST",), "DYN", _max),
    ("indexOf", True, ("LIST", "DYN"), "INT", _index),
    ("lastIndexOf", True, ("LIST", "DYN"), "INT", _last_index),
)
