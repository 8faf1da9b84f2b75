"""Values of CEL that Python has no type for: unsigned numbers, moments, durations, types.

Owns: UInt, Timestamp, Duration, TypeValue, EvaluationError, type_name(). Called by: the whole evaluator.
Times are nanoseconds, as precise as RFC 3339 texts are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000_000
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)
MAX_INT = 2**63 - 1
_LOWEST, _HIGHEST = -62135596800 * _SECOND, 253402300800 * _SECOND


class CelError(Exception):
    """The base of what goes wrong with an expression."""


class EvaluationError(CelError):
    """The expression has no value here: `no such key: x`, `division by zero`, ..."""


class UInt(int):
    """An unsigned number, which is another type than int."""


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    nanoseconds: int

    @classmethod
    def parse(cls, text: str) -> Duration:
        """As Go's time.ParseDuration. Raises ValueError."""
        sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
        parts = _PART.findall(digits)
        if digits != "0" and (not parts or "".join(number + unit for number, unit in parts) != digits):
            raise ValueError(f'time: invalid duration "{text}"')
        total = 0
        for number, unit in parts:
            whole, _, fraction = number.partition(".")
            scale = _UNITS[unit]
            total += int(whole or 0) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
        if total > MAX_INT:
            raise ValueError(f'time: invalid duration "{text}"')
        return cls(sign * total)

    def __str__(self) -> str:
        """In seconds, as string() has it."""
        whole, rest = divmod(abs(self.nanoseconds), _SECOND)
        fraction = f".{rest:09d}".rstrip("0") if rest else ""
        return f"{'-' if self.nanoseconds < 0 else ''}{whole}{fraction}s"


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    nanoseconds: int

    @classmethod
    def parse(cls, text: str) -> Timestamp:
        """RFC 3339. Raises ValueError."""
        match = _STAMP.match(text)
        if match is None:
            raise ValueError(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}"')
        moment = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
        fraction = int((match[2] or ".0")[1:10].ljust(9, "0"))
        since = moment - _EPOCH
        return cls((since.days * 86400 + since.seconds) * _SECOND + fraction)

    def moment(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.nanoseconds // 1000)

    def __str__(self) -> str:
        rest = self.nanoseconds % _SECOND
        fraction = f".{rest:09d}".rstrip("0") if rest else ""
        return f"{self.moment().strftime('%Y-%m-%dT%H:%M:%S').rjust(19, '0')}{fraction}Z"


def duration(nanoseconds: int) -> Duration:
    if not -MAX_INT - 1 <= nanoseconds <= MAX_INT:
        raise EvaluationError("integer overflow")
    return Duration(nanoseconds)


def timestamp(nanoseconds: int) -> Timestamp:
    if not _LOWEST <= nanoseconds < _HIGHEST:
        raise EvaluationError("timestamp overflow")
    return Timestamp(nanoseconds)


@dataclass(frozen=True, slots=True)
class TypeValue:
    """What type() gives."""

    name: str


def type_name(value: Any) -> str:
    """The name of a value's type, as messages and type() have it."""
    if value is None:
        return "null_type"
    for kind, name in _NAMES:
        if isinstance(value, kind):
            return name
    return getattr(value, "type_name", "dyn")


_NAMES: tuple[tuple[type, str], ...] = (
    (bool, "bool"),
    (UInt, "uint"),
    (int, "int"),
    (float, "double"),
    (str, "string"),
    (bytes, "bytes"),
    (list, "list"),
    (dict, "map"),
    (Timestamp, "google.protobuf.Timestamp"),
    (Duration, "google.protobuf.Duration"),
    (TypeValue, "type"),
)
