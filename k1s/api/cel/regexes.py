"""find() and findAll() in CEL. Source: apiserver/pkg/cel/library/regex.go.

Upstream's regular expressions run in linear time whatever they are; Python's do not. So texts are bounded, and patterns that
could take exponential time (a repetition inside a repetition) are refused. matches() is the runtime's own and has no such limit.
"""

from __future__ import annotations

import re
from functools import lru_cache
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_MAX_TEXT = 4096
_MAX_PATTERN = 1024
_REPEATS = (constants.MAX_REPEAT, constants.MIN_REPEAT)


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    if len(text) > _MAX_PATTERN:
        raise ValueError(f"Illegal regex: longer than {_MAX_PATTERN} characters")
    text = text.replace(r"\z", r"\Z")
    try:
        if _nested(parser.parse(text), False):
            raise ValueError("Illegal regex: find and findAll take no repetition inside a repetition")
        return re.compile(text, re.ASCII)
    except re.error as error:
        raise ValueError(f"Illegal regex: error parsing regexp: {error}") from None


def _nested(node: Any, repeated: bool) -> bool:
    if isinstance(node, tuple) and len(node) == 2 and node[0] in _REPEATS:
        _, high, body = node[1]
        many = high is constants.MAXREPEAT or high > 16
        return (many and repeated) or _nested(body, repeated or many)
    if isinstance(node, parser.SubPattern | list | tuple):
        return any(_nested(part, repeated) for part in node)
    return False


def _bounded(text: str) -> str:
    if len(text) > _MAX_TEXT:
        raise ValueError(f"find and findAll take texts of up to {_MAX_TEXT} characters")
    return text


def _find(text: str, pattern: str) -> str:
    match = _pattern(pattern).search(_bounded(text))
    return match.group(0) if match is not None else ""


def _find_all(text: str, pattern: str, most: int = -1) -> list[str]:
    found: list[str] = []
    for match in _pattern(pattern).finditer(_bounded(text)):
        if len(found) == most:
            break
        found.append(match.group(0))
    return found


FUNCTIONS = (
    ("find", True, ("STRING", "STRING"), "STRING", _find),
    ("findAll", True, ("STRING", "STRING"), "LIST", _find_all),
    ("findAll", True, ("STRING", "STRING", "INT"), "LIST", _find_all),
)
