"""Functions of strings in CEL: the standard ones and cel-go's ext/strings.go, version 2."""

from __future__ import annotations

import math
import re
from typing import Any

from k1s.api.cel.conversions import to_string
from k1s.api.cel.operators import no_overload
from k1s.api.cel.scalars import Duration, Timestamp, TypeValue, UInt
from k1s.api.regex import PatternError, compiled

# What one call may make: replace and join can make much of little.
_MAX_TEXT = 4 * 1024 * 1024
_MAX_PRECISION = 100


def _matches(value: str, pattern: str) -> bool:
    try:
        return compiled(pattern).search(value) is not None
    except PatternError as error:
        raise ValueError(str(error)) from None


def _char(value: str, at: int) -> str:
    if not 0 <= at <= len(value):
        raise ValueError(f"index out of range: {at}")
    return value[at : at + 1]


def _index(value: str, part: str, start: int = 0) -> int:
    if not part:
        return start
    if not 0 <= start <= len(value):
        raise ValueError(f"index out of range: {start}")
    return value.find(part, start)


def _last_index(value: str, part: str, start: int | None = None) -> int:
    if start is not None and not 0 <= start <= len(value):
        raise ValueError(f"index out of range: {start}")
    if not part:
        return len(value) if start is None else start
    return value.rfind(part, 0, None if start is None else start + len(part))


def _bounded(value: str) -> str:
    if len(value) > _MAX_TEXT:
        raise ValueError(f"the text would be longer than {_MAX_TEXT} characters")
    return value


def _join(items: list[Any], separator: str = "") -> str:
    if not all(isinstance(item, str) for item in items):
        raise no_overload()
    return _bounded(separator.join(items))


def _replace(value: str, old: str, new: str, most: int = -1) -> str:
    count = value.count(old) if most < 0 else min(most, value.count(old))
    if len(value) + count * (len(new) - len(old)) > _MAX_TEXT:
        raise ValueError(f"the text would be longer than {_MAX_TEXT} characters")
    return value.replace(old, new, most)


def _split(value: str, separator: str, most: int = -1) -> list[str]:
    if most == 0:
        return []
    if not separator:
        return list(value) if most < 0 else [*value[: most - 1], value[most - 1 :]]
    return value.split(separator, most - 1) if most > 0 else value.split(separator)


def _substring(value: str, start: int, end: int | None = None) -> str:
    stop = len(value) if end is None else end
    if not 0 <= start <= len(value):
        raise ValueError(f"index out of range: {start}")
    if not 0 <= stop <= len(value):
        raise ValueError(f"index out of range: {stop}")
    if start > stop:
        raise ValueError(f"invalid substring range. start: {start}, end: {stop}")
    return value[start:stop]


def _ascii(value: str, upper: bool) -> str:
    change = str.upper if upper else str.lower
    return "".join(change(c) if c.isascii() else c for c in value)


_QUOTED = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"'}


def _quote(value: str) -> str:
    return '"' + "".join(_QUOTED.get(c, c) for c in value) + '"'


_CLAUSE = re.compile(r"%(?:\.(\d+))?(.?)", re.DOTALL)


def _format(template: str, arguments: list[Any]) -> str:
    rest = iter(arguments)

    def clause(match: re.Match[str]) -> str:
        kind = match[2]
        if kind == "%":
            return "%"
        try:
            value = next(rest)
        except StopIteration:
            raise ValueError(f"index {len(arguments)} out of range") from None
        precision = 6 if match[1] is None else int(match[1])
        if precision > _MAX_PRECISION:
            raise ValueError(f"could not parse formatting clause: precision {precision} is too large")
        return _formatted(kind, value, precision)

    return _bounded(_CLAUSE.sub(clause, template))


def _formatted(kind: str, value: Any, precision: int) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "s":
        return _shown(value)
    if kind == "d" and number:
        return str(int(value)) if isinstance(value, int) else _float(value)
    if kind in "fe" and kind and number:
        if not math.isfinite(value):
            return _float(value)
        return format(float(value), f".{precision}{kind}")
    if kind == "b" and isinstance(value, bool | int):
        return format(int(value), "b")
    if kind in "xX" and kind:
        if isinstance(value, str | bytes):
            text = (value.encode() if isinstance(value, str) else value).hex()
            return text.upper() if kind == "X" else text
        if number and isinstance(value, int):
            return format(value, kind)
    if kind == "o" and number and isinstance(value, int):
        return format(value, "o")
    if kind not in ("s", "d", "f", "e", "b", "x", "X", "o"):
        raise ValueError(f'could not parse formatting clause: unrecognized formatting clause "{kind}"')
    raise ValueError(f"error during formatting: {_FITS.get(kind, 'a value')} only, was given {_name(value)}")


_FITS = {
    "d": "decimal clause can only be used on integers",
    "x": "only integers, byte buffers, and strings can be formatted as hex",
}


def _name(value: Any) -> str:
    from k1s.api.cel.scalars import type_name

    return type_name(value)


def _float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return to_string(value)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{_shown(key)}: {_shown(item)}" for key, item in sorted(value.items(), key=lambda p: str(p[0])))
            + "}"
        )
    if isinstance(value, TypeValue):
        return value.name
    if isinstance(value, bool | int | float | UInt | Timestamp | Duration | bytes):
        return _float(value) if isinstance(value, float) else to_string(value)
    raise no_overload()


FUNCTIONS = (
    ("contains", True, ("STRING", "STRING"), lambda value, part: part in value),
    ("startsWith", True, ("STRING", "STRING"), lambda value, part: value.startswith(part)),
    ("endsWith", True, ("STRING", "STRING"), lambda value, part: value.endswith(part)),
    ("matches", True, ("STRING", "STRING"), _matches),
    ("matches", False, ("STRING", "STRING"), _matches),
    ("charAt", True, ("STRING", "INT"), _char),
    ("indexOf", True, ("STRING", "STRING"), _index),
    ("indexOf", True, ("STRING", "STRING", "INT"), _index),
    ("lastIndexOf", True, ("STRING", "STRING"), _last_index),
    ("lastIndexOf", True, ("STRING", "STRING", "INT"), _last_index),
    ("join", True, ("LIST",), _join),
    ("join", True, ("LIST", "STRING"), _join),
    ("lowerAscii", True, ("STRING",), lambda value: _ascii(value, False)),
    ("upperAscii", True, ("STRING",), lambda value: _ascii(value, True)),
    ("replace", True, ("STRING", "STRING", "STRING"), _replace),
    ("replace", True, ("STRING", "STRING", "STRING", "INT"), _replace),
    ("split", True, ("STRING", "STRING"), _split),
    ("split", True, ("STRING", "STRING", "INT"), _split),
    ("substring", True, ("STRING", "INT"), _substring),
    ("substring", True, ("STRING", "INT", "INT"), _substring),
    ("trim", True, ("STRING",), str.strip),
    ("format", True, ("STRING", "LIST"), _format),
    ("strings.quote", False, ("STRING",), _quote),
)
