"""Functions of optional values in CEL (cel-go/cel/library.go), and what transformMap builds with."""

from __future__ import annotations

from typing import Any

from k1s.api.cel.operators import no_overload
from k1s.api.cel.optional import NONE, Optional
from k1s.api.cel.scalars import Duration, EvaluationError


def _non_zero(value: Any) -> Optional:
    zero = value is None or (isinstance(value, bool | int | float | str | bytes | list | dict) and not value)
    return NONE if zero or value == Duration(0) else Optional(True, value)


def _value(value: Optional) -> Any:
    if not value.present:
        raise EvaluationError("optional.none() dereference")
    return value.value


def _unwrapped(items: list[Any]) -> list[Any]:
    if not all(isinstance(item, Optional) for item in items):
        raise no_overload()
    return [item.value for item in items if item.present]


def _insert(found: dict[Any, Any], key: Any, *value: Any) -> dict[Any, Any]:
    new = {key: value[0]} if value else key
    for name in new:
        if name in found:
            raise EvaluationError(f"insert failed: key {name} already exists")
    return {**found, **new}


FUNCTIONS = (
    ("optional.of", False, ("ANY",), lambda value: Optional(True, value)),
    ("optional.ofNonZeroValue", False, ("ANY",), _non_zero),
    ("optional.none", False, (), lambda: NONE),
    ("optional.unwrap", False, ("LIST",), _unwrapped),
    ("unwrapOpt", True, ("LIST",), _unwrapped),
    ("value", True, ("OPTIONAL",), _value),
    ("hasValue", True, ("OPTIONAL",), lambda value: value.present),
    ("or", True, ("OPTIONAL", "OPTIONAL"), lambda value, other: value if value.present else other),
    ("orValue", True, ("OPTIONAL", "ANY"), lambda value, other: value.value if value.present else other),
    ("cel.@mapInsert", False, ("MAP", "MAP"), _insert),
    ("cel.@mapInsert", False, ("MAP", "ANY", "ANY"), _insert),
)
