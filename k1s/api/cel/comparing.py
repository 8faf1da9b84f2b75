"""isGreaterThan, isLessThan, compareTo, string: one name for several opaque types, so one implementation that looks.

Owns: the comparing of quantities and versions. Called by: quantities (which lists the functions).
"""

from __future__ import annotations

from typing import Any

from k1s.api.cel.optional import Opaque, holds


def _ordered(value: Any) -> Any:
    from k1s.api.cel import quantities, semvers

    if holds(value, "quantity"):
        return quantities.number(value)
    if holds(value, "semver"):
        return semvers.order(value)
    raise ValueError("no such overload")


def _kind(value: Any) -> str:
    return value.kind if isinstance(value, Opaque) else ""


def compare(left: Any, right: Any) -> int:
    if _kind(left) != _kind(right):
        raise ValueError("no such overload")
    a, b = _ordered(left), _ordered(right)
    return int(a > b) - int(a < b)


def is_greater(left: Any, right: Any) -> bool:
    return compare(left, right) > 0


def is_less(left: Any, right: Any) -> bool:
    return compare(left, right) < 0
