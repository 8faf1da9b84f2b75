"""Compile an expression once, evaluate it often; refusals in upstream's words.

Owns: compile_expression, Program, the cache of programs, the errors. Called by: rules of custom resources, admission policies,
match conditions. Never does: know schemas or requests.
The C++ runtime behind it is loaded at the first expression (docs/adr/0006-cel.md).
Bounds: 512 programs and 16 environments (least used dropped), just under 10,000 comprehension steps an evaluation (the
runtime's own limit), 16 KiB an expression.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from k1s.api.cel.constructors import plain
from k1s.api.cel.optional import Optional, unwrapped
from k1s.api.cel.syntax import Node, tree

_MAX_EXPRESSION = 16 * 1024
_BUDGET = "Iteration budget exceeded"
COST_EXCEEDED = "operation cancelled: actual cost limit exceeded"


class CelError(Exception):
    """The base of what goes wrong with an expression."""


class CompileError(CelError):
    """The text is not an expression over these variables: upstream's `compilation failed: ERROR: <input>:1:1: ...`."""


class EvaluationError(CelError):
    """The expression has no value here: `no such key: x`, `division by zero`, ..."""


class CostExceeded(EvaluationError):
    """The cost budget is exceeded."""

    def __init__(self) -> None:
        super().__init__(COST_EXCEEDED)


class Program:
    """A compiled expression. Stateless: one is shared by all who wrote the same text over the same variables."""

    __slots__ = ("_compiled", "_optionals", "_prefix", "expression", "result")

    def __init__(self, expression: str, compiled: Any, optionals: frozenset[str], prefix: int) -> None:
        self.expression, self._compiled, self._optionals, self._prefix = expression, compiled, optionals, prefix
        # The type that the checker found: "BOOL", "STRING", "DYN", ...
        self.result: str = compiled.return_type().name()

    def syntax(self) -> Node:
        """The checked syntax tree, positions counted in `expression`."""
        node = tree(self._compiled.serialize())
        _shift(node, -self._prefix)
        return node

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """The value as plain Python. Raises EvaluationError."""
        data = {k: _listed(v) if k in self._optionals else v for k, v in bindings.items()} if self._optionals else bindings
        try:
            value = self._compiled.eval(data=data)
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            raise _evaluation_error(str(error)) from None
        failed = value.type().name() == "ERROR"
        try:
            plain = value.plain_value()
        except TypeError:
            # Optional values do not leave the runtime.
            raise EvaluationError("unexpected optional result: unwrap it with orValue() or value()") from None
        if failed:
            raise _evaluation_error(str(plain))
        return unwrapped(plain)


def compile_expression(
    expression: str, variables: frozenset[str] | set[str], optionals: frozenset[str] | set[str] = frozenset()
) -> Program:
    """A program over these variables (of any type; `optionals` hold optional values). Raises CompileError."""
    if len(expression) > _MAX_EXPRESSION:
        raise CompileError(f"compilation failed: the expression is longer than {_MAX_EXPRESSION} bytes")
    return _compiled(expression, frozenset(variables), frozenset(optionals))


@lru_cache(maxsize=512)
def _compiled(expression: str, variables: frozenset[str], optionals: frozenset[str]) -> Program:
    text = written = plain(expression)
    for name in sorted(optionals):
        # The runtime takes no optional values from outside, but makes one of a list that may be empty.
        text = f"[{name}[?0]].map({name}, ({text}\n))[0]"
    try:
        return Program(expression, _environment(variables | optionals).compile(text), optionals, text.index(written))
    except (RuntimeError, ValueError) as error:
        text = _DOTTED.sub(r"undeclared reference to '\1'", _without_code(str(error)))
        raise CompileError(f"compilation failed: {text}") from None


@lru_cache(maxsize=16)
def _environment(variables: frozenset[str]) -> Any:
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_optional, ext_strings

    from k1s.api.cel.library import extension

    # The other extensions (math, encoders, bindings) are not Kubernetes', and each takes 2 to 3 MB.
    extensions = [ext_strings.ExtStrings(), ext_optional.ExtOptional(), extension(cel)]
    return cel.NewEnv(variables=dict.fromkeys(sorted(variables), cel.Type.DYN), extensions=extensions)


def _shift(node: Node, by: int) -> None:
    node.offset += by if node.offset >= 0 else 0
    for child in node.children:
        _shift(child, by)


def pointed(expression: str, offset: int, message: str) -> str:
    """An error of compilation that points into the expression."""
    offset = max(0, min(offset, len(expression)))
    line = expression.count("\n", 0, offset)
    column = offset - (expression.rfind("\n", 0, offset) + 1)
    return (
        f"compilation failed: ERROR: <input>:{line + 1}:{column + 1}: {message}\n | {expression.splitlines()[line]}"
        f"\n | {'.' * column}^"
    )


def uses(expression: str, variable: str, others: frozenset[str] | set[str]) -> bool:
    """Whether a valid expression over `others` and `variable` speaks of `variable`."""
    if variable not in expression:
        return False
    try:
        compile_expression(expression, frozenset(others) - {variable})
    except CompileError as error:
        return f"undeclared reference to '{variable}'" in str(error)
    return False


def _listed(value: Any) -> list[Any]:
    if isinstance(value, Optional):
        return [value.value] if value.present else []
    return [value]


# Upstream names the variable, not what was selected from it.
_DOTTED = re.compile(r"undeclared reference to '([^'.]+)\.[^']*'")
_CODE = re.compile(r"^[A-Z_]{2,}: (?=.)")
_TAIL = re.compile(r" \[[A-Z_]+\]$")


def _without_code(text: str) -> str:
    return _TAIL.sub("", _CODE.sub("", text, count=1))


# What the C++ runtime says, and what upstream's Go runtime says instead.
_WORDS = (
    (re.compile(r'^Key not found in map : "?(.*?)"?$', re.DOTALL), r"no such key: \1"),
    (re.compile(r"^No matching overloads found : .*", re.DOTALL), "no such overload"),
    (re.compile(r"^Applying SELECT to non-message type.*", re.DOTALL), "no such overload"),
    (re.compile(r"^divide by zero$"), "division by zero"),
    (re.compile(r"^modul(?:o|us) by zero$"), "modulus by zero"),
    (re.compile(r"^Index error: index=(-?\d+) size=\d+$"), r"index out of bounds: \1"),
    (re.compile(r"^(?:integer|int64|uint64|unsigned integer) overflow$", re.IGNORECASE), "integer overflow"),
)


def _evaluation_error(text: str) -> EvaluationError:
    if _BUDGET in text:
        return CostExceeded()
    text = _without_code(text)
    for pattern, words in _WORDS:
        said = pattern.sub(words, text)
        if said != text:
            return EvaluationError(said)
    return EvaluationError(text)
