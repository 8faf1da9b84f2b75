"""JSON the way Kubernetes reads it: Go's leniencies, and Go's words when the text is broken.

Owns: parse_json. Called by: decode, the patch handler. Never does: notice duplicate fields (decode does).
What the fast parser refuses is read again slowly: Go takes bytes that are no UTF-8 and halves of surrogate pairs as U+FFFD.
Bound: MAX_DEPTH; upstream's own is 10,000, but no real object comes near either.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

# What orjson writes at most; deeper objects could not be stored.
MAX_DEPTH = 254

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_FAULTS = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Extra data": "after top-level value",
    "Invalid control character at": "in string literal",
    "Invalid \\escape": "in string escape code",
    "Invalid \\uXXXX escape": "in \\u hexadecimal character escape",
}


def parse_json(body: bytes) -> Any:
    """The value. ValueError as Go's decoder words it."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _slowly(body)


def check_depth(value: Any) -> None:
    """ValueError if the value is nested deeper than what can be stored."""
    try:
        orjson.dumps(value)
    except TypeError:
        raise ValueError("exceeded max depth") from None


def _slowly(body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_int=_integer)
        whole = json.dumps(value, ensure_ascii=False)
    except json.JSONDecodeError as error:
        raise ValueError(_go_words(text, error)) from None
    except RecursionError:
        raise ValueError("exceeded max depth") from None
    try:
        return orjson.loads(whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except orjson.JSONDecodeError:
        # It is well formed, so what is left is its depth.
        raise ValueError("exceeded max depth") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"invalid character {_quoted(name[0])} looking for beginning of value")


def _integer(text: str) -> int | float:
    # The bound keeps Python from parsing thousands of digits.
    return int(text) if len(text) < 20 else float(text)


def _go_words(text: str, error: json.JSONDecodeError) -> str:
    if error.pos >= len(text) or error.msg.startswith("Unterminated string"):
        return "unexpected end of JSON input"
    place = _FAULTS.get(error.msg)
    if place is None:
        place = "after object key:value pair" if _innermost(text[: error.pos]) == "{" else "after array element"
    at = error.pos
    if error.msg.startswith("Invalid \\"):
        # Python names the backslash, Go the character after it that is wrong.
        at = min(at + (1 if error.msg == "Invalid \\escape" else 0), len(text) - 1)
    return f"invalid character {_quoted(text[at])} {place}"


def _innermost(text: str) -> str:
    """The bracket that is open at the end of the text."""
    opened: list[str] = []
    for token in _TOKENS.findall(text):
        if token in "[{":
            opened.append(token)
        elif token in "]}" and opened:
            opened.pop()
    return opened[-1] if opened else ""


def _quoted(character: str) -> str:
    if character in "'\"":
        return "'\\''" if character == "'" else "'\"'"
    return "'" + json.dumps(character, ensure_ascii=False)[1:-1] + "'"
