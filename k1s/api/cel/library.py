"""Every function of CEL and what Kubernetes adds to it: the table that the evaluator calls by.

Owns: functions(). Called by: evaluator. Never does: compute (the files named in the imports do), know types for the checker
(declarations.py does).
A row of a file's FUNCTIONS: name, whether it is a member, the kinds of its parameters (a member's target first), the function.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from k1s.api.cel import (
    addresses,
    authorizer,
    conversions,
    jsonpatch,
    lists,
    named_formats,
    optionals,
    quantities,
    regexes,
    semvers,
    sets,
    text,
    times,
    urls,
)
from k1s.api.cel.optional import Opaque, Optional
from k1s.api.cel.scalars import Duration, EvaluationError, Timestamp, UInt

Implementation = Callable[..., Any]

_MODULES = (
    *(addresses, authorizer, conversions, jsonpatch, lists, named_formats, optionals, quantities, regexes, semvers, sets),
    *(text, times, urls),
)
_KINDS: dict[str, Callable[[Any], bool]] = {
    "ANY": lambda value: True,
    "BOOL": lambda value: isinstance(value, bool),
    "BYTES": lambda value: isinstance(value, bytes),
    "DOUBLE": lambda value: isinstance(value, float),
    "DURATION": lambda value: isinstance(value, Duration),
    "INT": lambda value: isinstance(value, int) and not isinstance(value, bool | UInt),
    "LIST": lambda value: isinstance(value, list),
    "MAP": lambda value: isinstance(value, dict),
    "OPAQUE": lambda value: isinstance(value, Opaque),
    "OPTIONAL": lambda value: isinstance(value, Optional),
    "STRING": lambda value: isinstance(value, str),
    "TIMESTAMP": lambda value: isinstance(value, Timestamp),
    "UINT": lambda value: isinstance(value, UInt),
}


@cache
def _table() -> dict[tuple[str, bool], list[tuple[tuple[Callable[[Any], bool], ...], Implementation]]]:
    out: dict[tuple[str, bool], list[tuple[tuple[Callable[[Any], bool], ...], Implementation]]] = {}
    for module in _MODULES:
        for name, member, kinds, implementation in module.FUNCTIONS:
            row = (tuple(_KINDS[kind] for kind in kinds), implementation)
            out.setdefault((name, member), []).append(row)
    return out


@cache
def functions(name: str, member: bool) -> Implementation:
    """The function that chooses the overload by its arguments."""
    rows = _table().get((name, member))
    if rows is None:
        # The checker knows what there is; this is for names it has and we lack.
        raise EvaluationError(f"no such overload: {name}")

    def call(*arguments: Any) -> Any:
        for kinds, implementation in rows:
            if len(kinds) == len(arguments) and all(fits(value) for fits, value in zip(kinds, arguments, strict=True)):
                return implementation(*arguments)
        raise EvaluationError("no such overload")

    return call
