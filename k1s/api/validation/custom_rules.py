"""Custom resources against the x-kubernetes-validations of their schema.

validate_rules(tree, obj, old) -> FieldErrors. Called by: the apiserver's custom resources, after the schema itself is satisfied,
and schema_defaults. Never does: compile (rule_tree.py) or change the object.
Rules about oldSelf run only where there is an old value. What fails but did not change is only warned of (ratcheting).
Bounds: upstream's cost units, 1,000,000 for one evaluation and 3,000,000 for one object.
Source: apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k1s.api.cel.optional import Optional
from k1s.api.cel.program import CostExceeded, EvaluationError, Program
from k1s.api.cel.values import bound
from k1s.api.errors import OMIT, FieldError, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.correlation import MISSING, by_keys, keys, unchanged
from k1s.api.validation.rule_tree import Rule, RuleNode

# Upstream allows 10,000,000; Python takes ten times as long for one as Go does, and nothing else runs meanwhile.
_BUDGET = 3_000_000
_MAX_MESSAGE = 5 * 1024
# What spares the rules: errors after which their variables would not have the types they count on.
_BLOCKING = ("FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid")
_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"
)
_SPENT = "validation failed due to running out of cost budget, no further validation rules will be run"


def blocked(faults: list[FieldError]) -> FieldError | None:
    """What stands for the rules of an object that is wrong already."""
    if any(fault.type in _BLOCKING for fault in faults):
        return invalid_value("<nil>", None, _UNCHECKED)
    return None


def validate_rules(
    tree: RuleNode, obj: Any, old: Any, *, at: str = "", ratchet: bool = True, warnings: list[str] | None = None
) -> list[FieldError]:
    """What the rules say of an object of a valid shape; `old` is what it replaces. `ratchet`: what did not change is only put
    into `warnings`."""
    run = _Run(warnings if warnings is not None else [])
    # The root is always told apart from what it was.
    same = _lazily(old, obj) if ratchet and old is not None else _never
    try:
        run.node(tree, at, obj, MISSING if old is None else old, same, root=not at)
    except _Stop:
        pass  # said already, and nothing is asked after it
    return run.errors


class _Stop(Exception):
    """The budget is spent."""


def _never() -> bool:
    return False


def _lazily(old: Any, new: Any) -> Callable[[], bool]:
    """Compared at most once, and only if somebody asks."""
    known: list[bool] = []

    def same() -> bool:
        if not known:
            known.append(unchanged(old, new))
        return known[0]

    return same


class _Run:
    def __init__(self, warnings: list[str]) -> None:
        self.errors: list[FieldError] = []
        self._warnings = warnings
        self._left = _BUDGET

    def node(self, node: RuleNode, path: str, value: Any, old: Any, same: Callable[[], bool], *, root: bool = False) -> None:
        """`same`: whether this value, or the next one above that has an old value, did not change."""
        if value is None:
            return
        if node.rules:
            self._rules(node, path, value, old, same, root)
        if isinstance(value, dict):
            self._fields(node, path, value, old, same)
        elif isinstance(value, list) and node.items is not None:
            previous = by_keys(node.schema, old)
            for index, item in enumerate(value):
                before = previous.get(keys(node.schema, item), MISSING)
                here = _lazily(before, item) if before is not MISSING and same is not _never else same
                self.node(node.items, f"{path}[{index}]", item, before, here)

    def _fields(self, node: RuleNode, path: str, value: Object, old: Any, same: Callable[[], bool]) -> None:
        before = old if isinstance(old, dict) else {}
        # An atomic map's fields have old values, but what is in it counts as changed with it.
        apart = same is not _never and node.schema.get("x-kubernetes-map-type") != "atomic"

        def here(key: str, item: Any) -> Callable[[], bool]:
            return _lazily(before[key], item) if apart and key in before else (_never if apart else same)

        for key, child in node.properties.items():
            if key in value:
                where = f"{path}.{key}" if path else key
                self.node(child, where, value[key], before.get(key, MISSING), here(key, value[key]))
        if node.values is not None:
            known = node.schema.get("properties") or {}
            for key, item in value.items():
                if key not in known:
                    self.node(node.values, f"{path}[{key}]", item, before.get(key, MISSING), here(key, item))

    def _rules(self, node: RuleNode, path: str, value: Any, old: Any, same: Callable[[], bool], root: bool) -> None:
        wanted = [rule for rule in node.rules if not rule.transition or rule.optional or old is not MISSING]
        if not wanted:
            return
        new = bound(value, node.schema, root=root)
        before = bound(old, node.schema, root=root) if old is not MISSING and old is not None else None
        for rule in wanted:
            bindings: dict[str, Any] = {"self": new}
            if rule.optional:
                bindings["oldSelf"] = Optional(old is not MISSING, before)
            elif old is not MISSING:
                bindings["oldSelf"] = before
            self._rule(rule, node, path, value, bindings, same)

    def _rule(
        self, rule: Rule, node: RuleNode, path: str, value: Any, bindings: dict[str, Any], same: Callable[[], bool]
    ) -> None:
        kind, where = node.schema.get("type") or "", path or "<nil>"
        shown = rule.message or rule.text
        if self._left <= 0:
            self._stop(where, kind, _SPENT)
        try:
            good, cost = rule.program.measured(bindings)
            self._left -= cost
            if self._left < 0:
                self._stop(where, kind, _SPENT)
        except CostExceeded as error:
            text = f"'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
            self._stop(where, kind, text)
        except EvaluationError as error:
            text = f"{error} evaluating rule: {shown}"
            if str(error).startswith("no such overload"):
                text = (
                    f"'{error}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
                )
            self.errors.append(invalid_value(where, kind, text))
            return
        if good is not True:
            message = evaluated_message(rule.message_program, bindings) or rule.message or f"failed rule: {rule.text}"
            fault = _fault(rule, path, OMIT if isinstance(value, dict | list) else value, message)
            if not rule.transition and same():
                self._warnings.append(str(fault))
            else:
                self.errors.append(fault)

    def _stop(self, where: str, kind: str, text: str) -> None:
        self.errors.append(invalid_value(where, kind, text))
        raise _Stop


def _fault(rule: Rule, path: str, value: Any, message: str) -> FieldError:
    where = (f"{path}{rule.field_path}" if path else rule.field_path.removeprefix(".")) or "<nil>"
    if rule.reason == "FieldValueForbidden":
        return forbidden_field(where, message)
    if rule.reason == "FieldValueRequired":
        return required(where, message)
    if rule.reason == "FieldValueDuplicate":
        return FieldError("FieldValueDuplicate", where, "", value)
    return invalid_value(where, value, message)


def evaluated_message(program: Program | None, bindings: dict[str, Any]) -> str:
    """What a messageExpression says; empty where it has no usable value, so that the next best message is taken."""
    if program is None:
        return ""
    try:
        found = program.evaluate(bindings)
    except EvaluationError:
        return ""
    if not isinstance(found, str):
        return ""
    text = found.strip()
    return "" if "\n" in text or len(text) > _MAX_MESSAGE else text
