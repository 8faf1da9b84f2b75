"""quantity(): resource quantities in CEL. Source: apiserver/pkg/cel/library/quantity.go."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from k1s.api import quantity
from k1s.api.cel.comparing import compare, is_greater, is_less
from k1s.api.cel.optional import Opaque, opaque, opened

_MAX_INT = 2**63 - 1


def _is(text: str) -> bool:
    try:
        quantity.parse(text)
    except ValueError:
        return False
    return True


def _make(text: str) -> Opaque:
    return _of(quantity.parse(text))


def _of(number: Decimal) -> Opaque:
    # One text for one number, so that == compares quantities.
    return opaque("quantity", format(number.normalize(), "f") if number else "0")


def number(value: Any) -> Decimal:
    return Decimal(opened(value, "quantity"))


def _operand(value: Any) -> Decimal:
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    return number(value)


def _add(left: Any, right: Any) -> Opaque:
    return _of(number(left) + _operand(right))


def _sub(left: Any, right: Any) -> Opaque:
    return _of(number(left) - _operand(right))


def _sign(value: Any) -> int:
    found = number(value)
    return (found > 0) - (found < 0)


def _is_integer(value: Any) -> bool:
    found = number(value)
    return found == found.to_integral_value() and abs(found) <= _MAX_INT


def _as_integer(value: Any) -> int:
    if not _is_integer(value):
        raise ValueError("cannot convert value to integer")
    return int(number(value))


FUNCTIONS = (
    ("isQuantity", False, ("STRING",), _is),
    ("quantity", False, ("STRING",), _make),
    ("add", True, ("OPAQUE", "ANY"), _add),
    ("sub", True, ("OPAQUE", "ANY"), _sub),
    ("sign", True, ("OPAQUE",), _sign),
    ("isInteger", True, ("OPAQUE",), _is_integer),
    ("asInteger", True, ("OPAQUE",), _as_integer),
    ("asApproximateFloat", True, ("OPAQUE",), lambda value: float(number(value))),
    ("isGreaterThan", True, ("OPAQUE", "OPAQUE"), is_greater),
    ("isLessThan", True, ("OPAQUE", "OPAQUE"), is_less),
    ("compareTo", True, ("OPAQUE", "OPAQUE"), compare),
)
