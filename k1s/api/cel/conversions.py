"""Conversions between the types of CEL, and size(). Source: the CEL language definition, cel-go/common/stdlib."""

from __future__ import annotations

import math
from typing import Any

from k1s.api.cel.operators import TYPES, whole
from k1s.api.cel.scalars import Duration, EvaluationError, Timestamp, TypeValue, UInt, timestamp, type_name

_SECOND = 1_000_000_000


def _size(value: Any) -> int:
    return len(value)


def to_string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise EvaluationError("invalid UTF-8 in bytes, cannot convert to string") from None
    return str(value)


def _float(value: float) -> str:
    """As Go's strconv with the shortest digits: 1e+06, 0.5, 100."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    digits = repr(value)
    power = int(format(value, "e").partition("e")[2])
    if -5 < power < 21:
        text = format(value, "f") if "e" in digits else digits
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = digits.partition("e")
    if not exponent:
        return digits
    sign, number = (exponent[0], exponent[1:]) if exponent[0] in "+-" else ("+", exponent)
    return f"{mantissa.removesuffix('.0')}e{sign}{number.zfill(2)}"


def _int(value: Any) -> int:
    if isinstance(value, float):
        if not math.isfinite(value) or not -(2**63) < value < 2**63:
            raise EvaluationError("integer overflow")
        return int(value)
    if isinstance(value, Timestamp):
        return value.nanoseconds // _SECOND
    if isinstance(value, Duration):
        return value.nanoseconds
    return whole(int(value))


def _parsed_int(text: str) -> int:
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not digits.isascii() or not digits.isdigit():
        raise EvaluationError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return whole(int(text))


def _uint(value: Any) -> int:
    if isinstance(value, float):
        if not math.isfinite(value) or not 0 <= value < 2**64:
            raise EvaluationError("unsigned integer overflow")
        return UInt(int(value))
    return whole(int(value), UInt)


def _parsed_uint(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise EvaluationError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return whole(int(text), UInt)


def _parsed_double(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise EvaluationError(f'strconv.ParseFloat: parsing "{text}": invalid syntax') from None


def _bool(text: str) -> bool:
    if text in ("true", "True", "TRUE", "t", "1"):
        return True
    if text in ("false", "False", "FALSE", "f", "0"):
        return False
    raise EvaluationError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _type(value: Any) -> TypeValue:
    name = type_name(value)
    return TYPES.get(name) or TypeValue(name)


def _same(value: Any) -> Any:
    return value


FUNCTIONS = (
    *(("size", member, (kind,), _size) for member in (False, True) for kind in ("STRING", "BYTES", "LIST", "MAP")),
    *(("string", False, (kind,), to_string) for kind in ("STRING", "BOOL", "UINT", "INT", "DOUBLE", "BYTES")),
    *(("string", False, (kind,), str) for kind in ("TIMESTAMP", "DURATION")),
    *(("int", False, (kind,), _int) for kind in ("INT", "UINT", "DOUBLE", "TIMESTAMP", "DURATION")),
    ("int", False, ("STRING",), _parsed_int),
    *(("uint", False, (kind,), _uint) for kind in ("INT", "UINT", "DOUBLE")),
    ("uint", False, ("STRING",), _parsed_uint),
    *(("double", False, (kind,), float) for kind in ("INT", "UINT", "DOUBLE")),
    ("double", False, ("STRING",), _parsed_double),
    ("bool", False, ("BOOL",), _same),
    ("bool", False, ("STRING",), _bool),
    ("bytes", False, ("BYTES",), _same),
    ("bytes", False, ("STRING",), lambda text: text.encode()),
    ("timestamp", False, ("TIMESTAMP",), _same),
    ("timestamp", False, ("STRING",), Timestamp.parse),
    ("timestamp", False, ("INT",), lambda seconds: timestamp(seconds * _SECOND)),
    ("duration", False, ("DURATION",), _same),
    ("duration", False, ("STRING",), Duration.parse),
    ("duration", False, ("INT",), Duration),
    ("type", False, ("ANY",), _type),
)
