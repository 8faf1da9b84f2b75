"""Syntax trees made into closures that compute values, and count what that costs.

Owns: Evaluator, CostExceeded. Called by: program. Never does: parse, check types.
A loop stops at the cost limit, so an evaluation is bounded in time whatever it is given.
Source of the costs: cel-go/interpreter/runtimecost.go, apiserver/pkg/cel/library/cost.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from k1s.api.cel import call_costs
from k1s.api.cel.library import functions
from k1s.api.cel.operators import OPERATORS, TYPES, has, no_overload, optional_select, select
from k1s.api.cel.optional import Optional
from k1s.api.cel.scalars import EvaluationError, UInt
from k1s.api.cel.syntax import Node
from k1s.api.cel.values import unescaped

COST_LIMIT = 1_000_000
COST_EXCEEDED = "operation cancelled: actual cost limit exceeded"
_LIST, _MAP, _STRUCT = 10, 30, 40


class CostExceeded(EvaluationError):
    """The cost limit is exceeded."""

    def __init__(self) -> None:
        super().__init__(COST_EXCEEDED)


class Frame:
    """The variables of one evaluation, and what it has cost."""

    __slots__ = ("cost", "limit", "variables")

    def __init__(self, variables: Mapping[str, Any], limit: int) -> None:
        self.variables: dict[str, Any] = {**TYPES, **variables}
        self.cost, self.limit = 0, limit

    def spend(self, cost: int) -> None:
        self.cost += cost
        if self.cost > self.limit:
            raise CostExceeded


Step = Callable[[Frame], Any]


class _Failed:
    """An error as a value of what a loop accumulates: all() and exists() may still find an answer."""

    __slots__ = ("error",)

    def __init__(self, error: EvaluationError) -> None:
        self.error = error


class Evaluator:
    """`tree` must have been checked."""

    __slots__ = ("_run",)

    def __init__(self, tree: Node) -> None:
        self._run = _step(tree)

    def run(self, variables: Mapping[str, Any], limit: int = COST_LIMIT) -> tuple[Any, int]:
        """The value and what it cost. Raises EvaluationError."""
        frame = Frame(variables, limit)
        try:
            return self._run(frame), frame.cost
        except RecursionError:
            raise EvaluationError("the expression is nested too deeply") from None


def _step(node: Node) -> Step:
    return _MAKERS[node.kind](node)


def _constant(node: Node) -> Step:
    value = UInt(node.value) if node.type_name == "uint" else node.value
    return lambda frame: value


def _name(node: Node) -> Step:
    name = node.text.removeprefix(".")
    head, dot, rest = name.partition(".")
    if dot and name not in TYPES:
        # authorizer.requestResource is one name to the checker.
        return lambda frame: select(frame.variables.get(head), rest)

    def run(frame: Frame) -> Any:
        frame.spend(1)
        try:
            value = frame.variables[name]
        except KeyError:
            raise EvaluationError(f"no such attribute(s): {name}") from None
        if type(value) is _Failed:
            raise value.error
        return value

    return run


def _select(node: Node) -> Step:
    operand, name = _step(node.children[0]), node.text
    if node.test:
        return lambda frame: has(operand(frame), name)

    def run(frame: Frame) -> Any:
        value = operand(frame)
        frame.spend(1)
        return select(value, name)

    return run


def _list(node: Node) -> Step:
    items, optional = [_step(child) for child in node.children], frozenset(node.optional)

    def run(frame: Frame) -> Any:
        frame.spend(_LIST)
        if not optional:
            return [item(frame) for item in items]
        out = []
        for index, item in enumerate(items):
            value = item(frame)
            if index not in optional:
                out.append(value)
            elif not isinstance(value, Optional):
                raise no_overload()
            elif value.present:
                out.append(value.value)
        return out

    return run


def _struct(node: Node) -> Step:
    keys, values = [_step(child) for child in node.children[::2]], [_step(child) for child in node.children[1::2]]
    optional, message = frozenset(node.optional), bool(node.text)

    def run(frame: Frame) -> Any:
        frame.spend(_STRUCT if message else _MAP)
        out: dict[Any, Any] = {}
        for index, (key, value) in enumerate(zip(keys, values, strict=True)):
            name, found = key(frame), value(frame)
            if index in optional:
                if not isinstance(found, Optional):
                    raise no_overload()
                if not found.present:
                    continue
                found = found.value
            name = unescaped(name) if message else name
            if name in out and not message:
                raise EvaluationError(f"duplicate key: {name}")
            out[name] = found
        return out

    return run


def _call(node: Node) -> Step:
    name, children = node.text, node.children
    if name in _SPECIAL:
        return _SPECIAL[name]([_step(child) for child in children])
    if name == "_?._":
        operand, field = _step(children[0]), str(children[1].value)

        def chosen(frame: Frame) -> Any:
            value = operand(frame)
            frame.spend(1)
            return optional_select(value, field)

        return chosen
    steps = [_step(child) for child in children]
    cost = call_costs.of(name)
    function = OPERATORS.get(name) or functions(name, node.member)
    if len(steps) == 2:
        return _binary(steps[0], steps[1], function, cost)

    def run(frame: Frame) -> Any:
        arguments = [step(frame) for step in steps]
        frame.spend(cost(arguments) if cost is not None else 1)
        return _applied(function, arguments)

    return run


def _binary(left: Step, right: Step, function: Callable[..., Any], cost: call_costs.Cost | None) -> Step:
    def run(frame: Frame) -> Any:
        a, b = left(frame), right(frame)
        frame.spend(cost([a, b]) if cost is not None else 1)
        return _applied(function, (a, b))

    return run


def _applied(function: Callable[..., Any], arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (ValueError, OverflowError) as error:
        raise EvaluationError(str(error)) from None
    except TypeError:
        raise no_overload() from None


def _and(steps: list[Step]) -> Step:
    return lambda frame: _decided(steps, frame, False)


def _or(steps: list[Step]) -> Step:
    return lambda frame: _decided(steps, frame, True)


def _decided(steps: list[Step], frame: Frame, decides: bool) -> bool:
    """One operand that decides is enough, even if another cannot be computed."""
    failed: EvaluationError | None = None
    for step in steps:
        try:
            value = step(frame)
        except CostExceeded:
            raise
        except EvaluationError as error:
            failed = failed or error
            continue
        if not isinstance(value, bool):
            failed = failed or no_overload()
        elif value == decides:
            return decides
    if failed is not None:
        raise failed
    return not decides


def _conditional(steps: list[Step]) -> Step:
    condition, yes, no = steps

    def run(frame: Frame) -> Any:
        found = condition(frame)
        if found is True:
            return yes(frame)
        if found is False:
            return no(frame)
        raise no_overload()

    return run


def _not_strictly_false(steps: list[Step]) -> Step:
    (step,) = steps

    def run(frame: Frame) -> bool:
        try:
            found: Any = step(frame)
            return found is not False
        except CostExceeded:
            raise
        except EvaluationError:
            return True

    return run


_SPECIAL: dict[str, Callable[[list[Step]], Step]] = {
    "_&&_": _and,
    "_||_": _or,
    "_?_:_": _conditional,
    "@not_strictly_false": _not_strictly_false,
    "__not_strictly_false__": _not_strictly_false,
    "dyn": lambda steps: steps[0],
}


def _comprehension(node: Node) -> Step:
    over, start, condition, step, result = [_step(child) for child in node.children]
    first, second, total = node.names
    appends = _appended(node.children[3], total)

    def run(frame: Frame) -> Any:
        items = over(frame)
        variables = frame.variables
        kept = {name: variables[name] for name in (first, second, total) if name in variables}
        variables[total] = start(frame)
        try:
            for item in _items(items, bool(second)):
                if second:
                    variables[first], variables[second] = item
                else:
                    variables[first] = item
                if condition(frame) is not True:
                    break
                try:
                    variables[total] = appends(frame) if appends is not None else step(frame)
                except CostExceeded:
                    raise
                except EvaluationError as error:
                    variables[total] = _Failed(error)
            return result(frame)
        finally:
            for name in (first, second, total):
                variables.pop(name, None)
            variables.update(kept)

    return run


def _items(value: Any, two: bool) -> Iterator[Any]:
    if isinstance(value, list):
        return iter(list(enumerate(value))) if two else iter(value)
    if isinstance(value, dict):
        return iter(list(value.items())) if two else iter(list(value))
    raise no_overload()


def _appended(node: Node, total: str) -> Step | None:
    """total + [x], maybe under a condition, as map and filter have it: appended in place, or a loop would be quadratic."""
    if node.kind != "call":
        return None
    if node.text == "_?_:_" and len(node.children) == 3 and node.children[2].text == total:
        inner = _appended(node.children[1], total)
        if inner is None:
            return None
        condition, other = _step(node.children[0]), _step(node.children[2])
        return _conditional([condition, inner, other])
    if node.text != "_+_" or node.children[0].kind != "name" or node.children[0].text != total:
        return None
    if node.children[1].kind != "list" or node.children[1].optional:
        return None
    before, added = _step(node.children[0]), _step(node.children[1])

    def run(frame: Frame) -> Any:
        # The list was made by this loop and nobody else has seen it yet.
        items = before(frame)
        new = added(frame)
        frame.spend(1)
        items += new
        return items

    return run


_MAKERS: dict[str, Callable[[Node], Step]] = {
    "constant": _constant,
    "name": _name,
    "select": _select,
    "call": _call,
    "list": _list,
    "struct": _struct,
    "comprehension": _comprehension,
}
