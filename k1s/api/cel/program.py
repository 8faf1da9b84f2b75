"""Compile an expression once, evaluate it often; refusals in upstream's words.

Owns: compile_expression, checked, Program, the cache of programs, the errors. Called by: rules of custom resources, admission
policies, match conditions. Never does: know schemas or requests.
The parser behind it is C++ and is loaded at the first expression (docs/adr/0006-cel.md); checking and evaluating are ours.
Bounds: 512 programs (least used dropped), 16 KiB an expression, 1,000,000 cost units an evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from k1s.api.cel.checker import check
from k1s.api.cel.declarations import opaque
from k1s.api.cel.evaluator import COST_LIMIT, CostExceeded, Evaluator
from k1s.api.cel.literals import literal_faults
from k1s.api.cel.scalars import CelError, EvaluationError
from k1s.api.cel.syntax import Node, tree
from k1s.api.cel.types import DYN, Type

__all__ = ["CelError", "CompileError", "CostExceeded", "EvaluationError", "Program", "checked", "compile_expression"]

_MAX_EXPRESSION = 16 * 1024


class CompileError(CelError):
    """The text is not an expression over these variables: upstream's `compilation failed: ERROR: <input>:1:1: ...`."""


class Program:
    """A compiled expression. Stateless: one is shared by all who wrote the same text over the same variables."""

    __slots__ = ("_evaluator", "expression", "tree")

    def __init__(self, expression: str, tree: Node) -> None:
        self.expression, self.tree, self._evaluator = expression, tree, Evaluator(tree)

    @property
    def type(self) -> Type:
        return self.tree.type or DYN

    @property
    def result(self) -> str:
        """The kind of its type: BOOL, STRING, LIST, MAP, DYN, ..."""
        return self.type.kind.upper()

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """The value. Raises EvaluationError."""
        return self._evaluator.run(bindings)[0]

    def measured(self, bindings: Mapping[str, Any], limit: int = COST_LIMIT) -> tuple[Any, int]:
        """The value and what it cost. Raises EvaluationError."""
        return self._evaluator.run(bindings, limit)


def compile_expression(expression: str, variables: frozenset[str] | set[str]) -> Program:
    """A program over these variables, of any type. Raises CompileError."""
    return _compiled(expression, frozenset(variables))


@lru_cache(maxsize=512)
def _compiled(expression: str, variables: frozenset[str]) -> Program:
    types = dict.fromkeys(variables, DYN)
    if "authorizer" in types:
        types |= {"authorizer": opaque("authorizer"), "authorizer.requestResource": opaque("resourceCheck")}
    return Program(expression, checked(expression, types, _ANY_STRUCT))


class _AnyStruct(dict[str, Type]):
    """Object{...} and JSONPatch{...}: what comes out of them is checked as a whole."""

    def get(self, name: str, default: Any = None) -> Any:
        return Type("object", (), name) if name == "JSONPatch" or name.partition(".")[0] == "Object" else default


_ANY_STRUCT = _AnyStruct()


def parsed(expression: str) -> Node:
    """The syntax tree. Raises CompileError."""
    if len(expression) > _MAX_EXPRESSION:
        raise CompileError(f"compilation failed: the expression is longer than {_MAX_EXPRESSION} bytes")
    try:
        return tree(_parser().compile(expression, disable_check=True).serialize())
    except (RuntimeError, ValueError) as error:
        raise CompileError(f"compilation failed: {_without_code(str(error))}") from None


@cache
def _parser() -> Any:
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_optional

    return cel.NewEnv(extensions=[ext_optional.ExtOptional()])


def checked(expression: str, variables: Mapping[str, Type], structs: Mapping[str, Type] | None = None) -> Node:
    """The syntax tree with its types. Raises CompileError with every fault."""
    node = parsed(expression)
    faults = check(node, variables, structs) or literal_faults(node)
    if faults:
        said = [pointed(expression, offset, text) for offset, text in sorted(faults)]
        raise CompileError("compilation failed: " + "\n".join(said))
    return node


def mentions(node: Node, variable: str) -> bool:
    """Whether a tree speaks of a variable."""
    stack = [node]
    while stack:
        node = stack.pop()
        if node.kind == "name" and node.text == variable:
            return True
        stack += node.children
    return False


def pointed(expression: str, offset: int, message: str) -> str:
    """A fault that points into the expression."""
    offset = max(0, min(offset, len(expression)))
    line = expression.count("\n", 0, offset)
    column = offset - (expression.rfind("\n", 0, offset) + 1)
    shown = (expression.split("\n")[line]).replace("\t", " ")
    return f"ERROR: <input>:{line + 1}:{column + 1}: {message}\n | {shown}\n | {'.' * column}^"


_CODE = re.compile(r"^[A-Z_]{2,}: (?=.)")
_TAIL = re.compile(r" \[[A-Z_]+\]$")


def _without_code(text: str) -> str:
    return _TAIL.sub("", _CODE.sub("", text, count=1))
