"""Rules that many kinds share, each adding FieldErrors to a list.

Owns: the wording of the plain cases (non-negative, enum, immutable, names) and semantic equality.
Called by: every file of this package. Never does: know a kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from k1s.api import names, quantity
from k1s.api.errors import FieldError, invalid_value, not_supported, required
from k1s.api.meta import Object

Errors = list[FieldError]
Check = Callable[[str], list[str]]

NEGATIVE = "must be greater than or equal to 0"
NOT_POSITIVE = "must be greater than 0"
IMMUTABLE = "field is immutable"
MAX_INT32 = 2**31 - 1


def strings(errs: Errors, field: str, value: Any, check: Check) -> None:
    """Every message `check` has about `value`, as Invalid."""
    errs.extend(invalid_value(field, value, message) for message in check(str(value)))


def named(errs: Errors, field: str, value: Any, check: Check) -> None:
    """Required, and valid by `check`."""
    if not value:
        errs.append(required(field))
    else:
        strings(errs, field, value, check)


def non_negative(errs: Errors, field: str, value: Any) -> None:
    if isinstance(value, int | float) and value < 0:
        errs.append(invalid_value(field, value, NEGATIVE))


def positive(errs: Errors, field: str, value: Any) -> None:
    if isinstance(value, int | float) and value <= 0:
        errs.append(invalid_value(field, value, NOT_POSITIVE))


def in_range(errs: Errors, field: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, int) and not low <= value <= high:
        errs.append(invalid_value(field, value, names.inclusive_range(low, high)))


def one_of(errs: Errors, field: str, value: Any, allowed: Iterable[str], *, needed: bool = False) -> None:
    """An enum. An absent value passes unless `needed`."""
    if value is None or value == "":
        if needed:
            errs.append(required(field))
        elif value == "":
            errs.append(not_supported(field, value, allowed))
        return
    options = tuple(allowed)
    if value not in options:
        errs.append(not_supported(field, value, options))


def port(errs: Errors, field: str, value: Any) -> None:
    """A port number."""
    if not isinstance(value, int) or names.port_number(value):
        errs.append(invalid_value(field, value, names.inclusive_range(1, 65535)))


def port_or_name(errs: Errors, field: str, value: Any) -> None:
    """An int-or-string port."""
    if isinstance(value, str):
        strings(errs, field, value, names.port_name)
    else:
        port(errs, field, value)


def ip(errs: Errors, field: str, value: Any) -> None:
    strings(errs, field, value, names.ip_address)


def quantities(errs: Errors, field: str, value: Any) -> bool:
    """A quantity that is not negative; True if it can be used further."""
    try:
        amount = quantity.parse(value)
    except ValueError as error:
        errs.append(invalid_value(field, value, str(error)))
        return False
    if amount < 0:
        errs.append(invalid_value(field, value, NEGATIVE))
        return False
    return True


def immutable(errs: Errors, field: str, new: Any, old: Any) -> None:
    if not same(new, old):
        errs.append(invalid_value(field, new, IMMUTABLE))


def percent_or_count(errs: Errors, field: str, value: Any) -> None:
    """PositiveIntOrPercent: a count that is not negative, or "25%"."""
    if isinstance(value, str):
        if names.percent(value):
            errs.append(invalid_value(field, value, names.percent(value)[0]))
    elif isinstance(value, int):
        non_negative(errs, field, value)


def at_most_hundred_percent(errs: Errors, field: str, value: Any) -> None:
    if isinstance(value, str) and value.endswith("%") and value[:-1].isdigit() and int(value[:-1]) > 100:
        errs.append(invalid_value(field, value, "must not be greater than 100%"))


def percent_value(value: Any) -> int:
    """The number of an int-or-percent, whichever it is."""
    if isinstance(value, str):
        digits = value.removesuffix("%")
        return int(digits) if digits.isdigit() else 0
    return int(value or 0)


def _empty(value: Any) -> bool:
    return value is None or value == "" or value == {} or value == []


def same(a: Any, b: Any) -> bool:
    """apiequality.Semantic.DeepEqual on decoded JSON: nothing, empty and absent are the same. Types were checked before."""
    if a == b:
        return True
    if _empty(a) and _empty(b):
        return True
    if isinstance(a, dict) and isinstance(b, dict):
        return all(same(a.get(key), b.get(key)) for key in {*a, *b})
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    # Go does not write a false that is no pointer.
    return (a is False and b is None) or (a is None and b is False)


def difference(new: Object, old: Object) -> str:
    """The fields that differ: `-` what stands, `+` what was asked for (upstream shows a diff of Go's structs)."""
    lines = []
    for key in sorted({*new, *old}):
        if not same(new.get(key), old.get(key)):
            lines += [f"- {key}: {json.dumps(old.get(key))}", f"+ {key}: {json.dumps(new.get(key))}"]
    return "\n".join(lines)
