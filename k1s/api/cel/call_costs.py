"""What calls cost while an expression runs: 1, but for those that take longer the more they are given.

Owns: of(). Called by: evaluator. Source: cel-go/interpreter/runtimecost.go, apiserver/pkg/cel/library/cost.go (CallCost).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

Cost = Callable[[Sequence[Any]], int]

_TEXT = 0.1
_REGEX = 0.25


def size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | dict) else 1


def _traversed(index: int, factor: float = _TEXT) -> Cost:
    return lambda arguments: ceil(size(arguments[index]) * factor) if len(arguments) > index else 1


def _smaller(arguments: Sequence[Any]) -> int:
    a, b = arguments
    if isinstance(a, str | bytes | list | dict) and isinstance(b, str | bytes | list | dict):
        return ceil(min(len(a), len(b)) * _TEXT)
    return 1


def _joined(arguments: Sequence[Any]) -> int:
    if isinstance(arguments[0], str | bytes):
        return ceil((size(arguments[0]) + size(arguments[1])) * _TEXT)
    # Lists are copied here, unlike in Go.
    return 1 + size(arguments[0]) // 16 if isinstance(arguments[0], list) else 1


def _matched(arguments: Sequence[Any]) -> int:
    return ceil((size(arguments[0]) + 1) * _TEXT) * ceil(size(arguments[1]) * _REGEX)


def _contained(arguments: Sequence[Any]) -> int:
    return ceil(size(arguments[0]) * _TEXT) * ceil(size(arguments[1]) * _TEXT)


def _tree(value: Any) -> int:
    """Roughly how much there is to look at."""
    if isinstance(value, str | bytes):
        return int(len(value) * _TEXT)
    if isinstance(value, list):
        return sum(map(_tree, value))
    if isinstance(value, dict):
        return sum(_tree(key) + _tree(item) for key, item in value.items())
    return 1


def _every(arguments: Sequence[Any]) -> int:
    return _tree(arguments[0]) + 1 if arguments else 1


def _pairs(arguments: Sequence[Any]) -> int:
    return 1 + size(arguments[0]) * size(arguments[1])


_COSTS: dict[str, Cost] = {
    **dict.fromkeys(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"), _smaller),
    **dict.fromkeys(("startsWith", "endsWith"), _traversed(1)),
    **dict.fromkeys(
        ("bytes", "string", "strings.quote", "format", "url", "lowerAscii", "upperAscii", "substring"), _traversed(0)
    ),
    **dict.fromkeys(("trim", "jsonpatch.escapeKey", "cidr", "ip", "isIP", "isCIDR", "quantity", "isQuantity"), _traversed(0)),
    **dict.fromkeys(("semver", "isSemver", "isURL", "containsIP", "containsCIDR"), _traversed(0)),
    **dict.fromkeys(("replace", "split", "join", "ip.isCanonical"), _traversed(0, 2 * _TEXT)),
    **dict.fromkeys(
        ("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf", "includes", "distinct", "sort", "reverse"), _every
    ),
    **dict.fromkeys(("flatten", "slice", "lists.@sortByAssociatedKeys"), _every),
    **dict.fromkeys(("sets.contains", "sets.equivalent", "sets.intersects"), _pairs),
    "_+_": _joined,
    "@in": lambda arguments: size(arguments[1]) if isinstance(arguments[1], list) else 1,
    "contains": _contained,
    "matches": _matched,
    "find": _matched,
    "findAll": _matched,
    "validate": lambda arguments: ceil((size(arguments[1]) + 1) * _TEXT) * 32,
    "check": lambda arguments: 350_000,
    "lists.range": lambda arguments: 1 + max(0, arguments[0]) if isinstance(arguments[0], int) else 1,
    "cel.@mapInsert": lambda arguments: 1 + size(arguments[0]) // 16,
}


def of(name: str) -> Cost | None:
    """None for what costs 1 whatever it is given."""
    return _COSTS.get(name)
