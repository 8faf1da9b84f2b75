"""The simple JSON paths of additionalPrinterColumns: .a.b, ['a'], [0], [*], [?(@.x=="y")], with escaped dots.

compile_path(text) -> a function object -> found values. Called by: custom.py. Never does: ranges, unions, recursive descent;
a path that uses them raises ValueError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

Step = Callable[[Any], list[Any]]

_FIELD = re.compile(r"\.((?:[^.\[\]\\]|\\.)+)")
_QUOTED = re.compile(r"\[(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")\]")
_INDEX = re.compile(r"\[(-?\d+)\]")
_FILTER = re.compile(r"\[\?\(\s*@((?:\.(?:[^.\[\]\\\s=!<>()]|\\.)+)+)\s*(?:(==|!=|<=|>=|<|>)\s*([^)]+?))?\s*\)\]")


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _field(name: str) -> Step:
    if name == "*":
        return _all
    return lambda value: [value[name]] if isinstance(value, dict) and name in value else []


def _all(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return list(value.values()) if isinstance(value, dict) else []


def _index(number: int) -> Step:
    def step(value: Any) -> list[Any]:
        if isinstance(value, list) and -len(value) <= number < len(value):
            return [value[number]]
        return []

    return step


def _literal(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"unrecognized literal {text} in filter") from error


def _compare(left: Any, operator: str, right: Any) -> bool:
    if operator == "==":
        return bool(left == right)
    if operator == "!=":
        return bool(left != right)
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    if not (isinstance(left, int | float) and isinstance(right, int | float)) and not (
        isinstance(left, str) and isinstance(right, str)
    ):
        return False
    order = (left > right) - (left < right)  # type: ignore[operator]
    return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[operator]


def _filter(path: str, operator: str | None, literal: str | None) -> Step:
    inner = compile_path(path)
    wanted = None if literal is None else _literal(literal)

    def matches(item: Any) -> bool:
        found = inner(item)
        if operator is None:
            return bool(found)
        return bool(found) and _compare(found[0], operator, wanted)

    return lambda value: [item for item in value if matches(item)] if isinstance(value, list) else []


def _next(text: str, at: int) -> tuple[Step, int]:
    """The step at a position, and where the next one begins."""
    match = _FIELD.match(text, at)
    if match:
        return _field(_unescape(match.group(1))), match.end()
    match = _QUOTED.match(text, at)
    if match:
        return _field(_unescape(match.group(1) if match.group(1) is not None else match.group(2))), match.end()
    if text.startswith("[*]", at):
        return _all, at + 3
    match = _INDEX.match(text, at)
    if match:
        return _index(int(match.group(1))), match.end()
    match = _FILTER.match(text, at)
    if match:
        return _filter(*match.groups()), match.end()
    raise ValueError(f"JSON path not understood at {text[at:]!r}")


def compile_path(text: str) -> Callable[[Any], list[Any]]:
    """A function that finds the values at a path. ValueError if the path is not a simple one."""
    text = text.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps: list[Step] = []
    at = 0
    while at < len(text):
        step, at = _next(text, at)
        steps.append(step)

    def find(value: Any) -> list[Any]:
        found = [value]
        for step in steps:
            found = [result for item in found for result in step(item)]
        return found

    return find
