"""Regular expressions as Go has them: RE2's syntax, in linear time whatever the pattern is.

Owns: compiled(), faulty(). Called by: validation of custom resources, CEL. Never does: Python's own syntax.
The library behind it is loaded at the first pattern. Bound: 512 patterns (least used dropped), 1 MiB of automaton a pattern.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

_MEMORY = 1 << 20

# What RE2 says first, and what Go's regexp/syntax says of the same fault.
_WORDS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "unexpected )": "unexpected )",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid escape sequence": "invalid escape sequence",
    "invalid character class range": "invalid character class range",
    "invalid character class": "invalid character class",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "trailing \\": "trailing backslash at end of expression",
    "invalid named capture group": "invalid named capture",
    "invalid UTF-8": "invalid UTF-8",
}


class PatternError(ValueError):
    """The text is not a regular expression: `error parsing regexp: missing closing ): ...`."""


@lru_cache(maxsize=512)
def compiled(pattern: str) -> Any:
    """An object with re's search, match, fullmatch and finditer. Raises PatternError."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0]
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise PatternError(f"error parsing regexp: {_worded(text)}") from None


def _worded(text: str) -> str:
    head, colon, rest = text.partition(": ")
    word = _WORDS.get(head)
    return f"{word}: `{rest}`" if word is not None and colon else text


def faulty(pattern: str) -> str:
    """What is wrong with a pattern, in Go's words; empty if nothing is."""
    try:
        compiled(pattern)
    except PatternError as error:
        return str(error)
    return ""
