"""The operators of CEL over its values: equality, order, arithmetic, selection.

Owns: equal(), compare(), OPERATORS, index(), select(). Called by: evaluator, the function files.
Numbers compare across types; nothing else does. Source: the CEL language definition, cel-go/common/types.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from k1s.api.cel.optional import NONE, Opaque, Optional
from k1s.api.cel.scalars import MAX_INT, Duration, EvaluationError, Timestamp, TypeValue, UInt, duration, timestamp

_MAX_UINT = 2**64 - 1


def no_overload() -> EvaluationError:
    return EvaluationError("no such overload")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(a: Any, b: Any) -> bool:
    if _number(a):
        return _number(b) and bool(a == b)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and len(a) == len(b) and all(key in b and equal(value, b[key]) for key, value in a.items())
    if isinstance(a, Optional):
        return isinstance(b, Optional) and a.present == b.present and equal(a.value, b.value)
    return type(a) is type(b) and bool(a == b)


def compare(a: Any, b: Any) -> int:
    """-1, 0 or 1. Raises EvaluationError for values without an order."""
    ordered = (str, bytes, bool, Timestamp, Duration)
    if (_number(a) and _number(b)) or (type(a) is type(b) and isinstance(a, ordered)):
        return int(a > b) - int(a < b)
    raise no_overload()


def whole(value: int, kind: type = int) -> int:
    """A number in the range of its type."""
    if kind is UInt:
        if not 0 <= value <= _MAX_UINT:
            raise EvaluationError("unsigned integer overflow")
        return UInt(value)
    if not -MAX_INT - 1 <= value <= MAX_INT:
        raise EvaluationError("integer overflow")
    return value


def _integers(a: Any, b: Any) -> bool:
    return type(a) is type(b) and isinstance(a, int) and not isinstance(a, bool)


def _add(a: Any, b: Any) -> Any:
    if _integers(a, b):
        return whole(int(a) + int(b), type(a))
    if type(a) is type(b) and isinstance(a, str | bytes | list | float):
        return a + b
    if isinstance(a, Duration) and isinstance(b, Duration):
        return duration(a.nanoseconds + b.nanoseconds)
    if isinstance(a, Timestamp | Duration) and isinstance(b, Timestamp | Duration) and type(a) is not type(b):
        return timestamp(a.nanoseconds + b.nanoseconds)
    raise no_overload()


def _subtract(a: Any, b: Any) -> Any:
    if _integers(a, b):
        return whole(int(a) - int(b), type(a))
    if isinstance(a, float) and isinstance(b, float):
        return a - b
    if isinstance(a, Timestamp) and isinstance(b, Duration):
        return timestamp(a.nanoseconds - b.nanoseconds)
    if type(a) is type(b) and isinstance(a, Timestamp | Duration):
        return duration(a.nanoseconds - b.nanoseconds)
    raise no_overload()


def _multiply(a: Any, b: Any) -> Any:
    if _integers(a, b):
        return whole(int(a) * int(b), type(a))
    if isinstance(a, float) and isinstance(b, float):
        return a * b
    raise no_overload()


def _divide(a: Any, b: Any) -> Any:
    if _integers(a, b):
        if b == 0:
            raise EvaluationError("division by zero")
        found = abs(int(a)) // abs(int(b))
        return whole(found if (a < 0) == (b < 0) else -found, type(a))
    if isinstance(a, float) and isinstance(b, float):
        if b == 0:
            return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
        return a / b
    raise no_overload()


def _modulo(a: Any, b: Any) -> Any:
    if not _integers(a, b):
        raise no_overload()
    if b == 0:
        raise EvaluationError("modulus by zero")
    return whole(int(math.copysign(1, a)) * (abs(int(a)) % abs(int(b))), type(a))


def _negate(a: Any) -> Any:
    if isinstance(a, float):
        return -a
    if isinstance(a, int) and not isinstance(a, bool | UInt):
        return whole(-a)
    raise no_overload()


def _not(a: Any) -> bool:
    if not isinstance(a, bool):
        raise no_overload()
    return not a


def key_in(value: Any, container: dict[Any, Any]) -> bool:
    # True and 1 are one key in Python.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return any(equal(value, key) for key in container)
    return value in container and not (value in (0, 1) and any(isinstance(key, bool) for key in container))


def _in(value: Any, container: Any) -> bool:
    if isinstance(container, list):
        return any(equal(value, item) for item in container)
    if isinstance(container, dict):
        return key_in(value, container)
    raise no_overload()


def index(container: Any, key: Any) -> Any:
    if isinstance(container, Optional):
        return Optional(True, index(container.value, key)) if optional_index(container, key).present else NONE
    if isinstance(container, list):
        if not _number(key):
            raise EvaluationError(f"unsupported index type '{_key_type(key)}' in list")
        if isinstance(key, float) and not key.is_integer():
            raise EvaluationError(f"unsupported index value {key} in list")
        if not 0 <= key < len(container):
            raise EvaluationError(f"index out of bounds: {int(key)}")
        return container[int(key)]
    if isinstance(container, dict):
        return select(container, key)
    raise no_overload()


def _key_type(key: Any) -> str:
    from k1s.api.cel.scalars import type_name

    return type_name(key)


def optional_index(container: Any, key: Any) -> Optional:
    if isinstance(container, Optional):
        return optional_index(container.value, key) if container.present else NONE
    if isinstance(container, list):
        good = _number(key) and float(key).is_integer() and 0 <= key < len(container)
        return Optional(True, container[int(key)]) if good else NONE
    if isinstance(container, dict):
        return Optional(True, container[key]) if key_in(key, container) else NONE
    raise no_overload()


def _missing(key: Any) -> EvaluationError:
    return EvaluationError(f"no such key: {key}")


def select(value: Any, name: Any) -> Any:
    if isinstance(value, dict):
        try:
            return value[name]
        except KeyError:
            raise _missing(name) from None
    if isinstance(value, Optional):
        return optional_index(value, name) if value.present and isinstance(value.value, dict) else NONE
    if isinstance(value, Opaque):
        if name in value.fields:
            return value.fields[name]
        raise _missing(name)
    raise no_overload()


def optional_select(value: Any, name: str) -> Optional:
    if isinstance(value, Optional):
        return optional_select(value.value, name) if value.present else NONE
    if isinstance(value, dict):
        return Optional(True, value[name]) if name in value else NONE
    raise no_overload()


def has(value: Any, name: str) -> bool:
    if isinstance(value, Optional):
        return value.present and has(value.value, name)
    if isinstance(value, dict):
        return name in value
    if isinstance(value, Opaque):
        return name in value.fields
    raise no_overload()


OPERATORS: dict[str, Callable[..., Any]] = {
    "_==_": equal,
    "_!=_": lambda a, b: not equal(a, b),
    "_<_": lambda a, b: compare(a, b) < 0,
    "_<=_": lambda a, b: compare(a, b) <= 0,
    "_>_": lambda a, b: compare(a, b) > 0,
    "_>=_": lambda a, b: compare(a, b) >= 0,
    "_+_": _add,
    "_-_": _subtract,
    "_*_": _multiply,
    "_/_": _divide,
    "_%_": _modulo,
    "-_": _negate,
    "!_": _not,
    "@in": _in,
    "_[_]": index,
    "_[?_]": optional_index,
}
TYPES = {
    name: TypeValue(name)
    for name in (
        *("bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"),
        *("google.protobuf.Timestamp", "google.protobuf.Duration"),
    )
}
