"""Expressions in CEL (the Common Expression Language), as admission and custom resources use them.

Owns: compile_expression, Program, the environments. Called by: apiserver (match conditions, admission policies, rules of custom
resources), validation. Never does: type checks against a schema; every variable is dynamic.
The library is imported at the first expression: clusters without any do not pay for it.
Bound: MAX_PROGRAMS compiled programs are kept (the least recently used goes).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MAX_PROGRAMS = 512

ADMISSION = ("object", "oldObject", "request", "params", "namespaceObject", "variables", "authorizer")
RULE = ("self", "oldSelf")


class CelError(ValueError):
    """The expression does not compile, or it cannot be evaluated with these values."""


class Program:
    """A compiled expression."""

    __slots__ = ("_program", "returns")

    def __init__(self, program: Any) -> None:
        self._program = program
        # bool, string, dyn, ...
        self.returns: str = program.return_type().name().lower()

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Raises CelError."""
        from cel_expr_python import cel

        try:
            result = self._program.eval(data=dict(values))
            if result.type() == cel.Type.ERROR:
                raise CelError(_worded(result.value()))
            return result.plain_value()
        except RuntimeError as error:
            raise CelError(_worded(error)) from error


@lru_cache(maxsize=MAX_PROGRAMS)
def compile_expression(expression: str, variables: tuple[str, ...]) -> Program:
    """Raises CelError: "compilation failed: ..."."""
    try:
        return Program(_environment(variables).compile(expression))
    except (RuntimeError, ValueError) as error:
        raise CelError(f"compilation failed: {_worded(error)}") from error


def _worded(error: object) -> str:
    """The library's text as Kubernetes users know it."""
    text = re.sub(r'^NOT_FOUND: Key not found in map : "?([^"]*)"?', r"no such key: \1", str(error))
    text = re.sub(r"^[A-Z]+(_[A-Z]+)*: ", "", text)
    return re.sub(r" \[[A-Z_]+\]$", "", text)


@lru_cache(maxsize=4)
def _environment(variables: tuple[str, ...]) -> Any:
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_bindings, ext_math, ext_optional, ext_strings

    extensions = [ext_strings.ExtStrings(), ext_math.ExtMath(), ext_optional.ExtOptional(), ext_bindings.ExtBindings()]
    return cel.NewEnv(variables=dict.fromkeys(variables, cel.Type.DYN), extensions=extensions)
