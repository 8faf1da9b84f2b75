"""Custom resources against the x-kubernetes-validations of their schema.

validate_rules(tree, obj, old) -> FieldErrors. Called by: the apiserver's crds, after the schema itself is satisfied.
Never does: compile (rule_tree.py) or change the object.
Rules about oldSelf run only where there is an old value; those that speak of the new one alone are not asked again about what did
not change (ratcheting), as upstream. Bound: 100,000 evaluations an object, each 25 steps of its loops counting for one more; then
the cost limit is exceeded.
Source: apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go.
"""

from __future__ import annotations

from typing import Any

from k1s.api.cel.optional import Optional
from k1s.api.cel.program import COST_EXCEEDED, CostExceeded, EvaluationError, Program
from k1s.api.cel.values import bound
from k1s.api.errors import FieldError, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.correlation import MISSING, by_keys, keys
from k1s.api.validation.rule_tree import Rule, RuleNode

_MAX_EVALUATIONS = 100_000
# What the runtime allows one evaluation; and how many steps take as long as an evaluation.
_MAX_STEPS = 10_000
_STEPS = 25
_MAX_MESSAGE = 5 * 1024
# What spares the rules: errors after which their variables would not have the types they count on.
_BLOCKING = ("FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid")
_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"
)


def blocked(faults: list[FieldError]) -> FieldError | None:
    """What stands for the rules of an object that is wrong already."""
    if any(fault.type in _BLOCKING for fault in faults):
        return invalid_value("<nil>", None, _UNCHECKED)
    return None


def validate_rules(tree: RuleNode, obj: Object, old: Object | None) -> list[FieldError]:
    """What the rules say of an object of a valid shape; `old` is what it replaces."""
    run = _Run()
    try:
        run.node(tree, "", obj, MISSING if old is None else old, root=True)
    except CostExceeded:
        pass  # said already, and nothing is asked after it
    return run.errors


class _Run:
    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self._left = _MAX_EVALUATIONS

    def node(self, node: RuleNode, path: str, value: Any, old: Any, *, root: bool = False) -> None:
        if value is None:
            return
        if node.rules:
            self._rules(node, path, value, old, root)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for key, child in node.properties.items():
                if key in value:
                    self.node(child, f"{path}.{key}" if path else key, value[key], before.get(key, MISSING))
            if node.values is not None:
                known = node.schema.get("properties") or {}
                for key, item in value.items():
                    if key not in known:
                        self.node(node.values, f"{path}[{key}]", item, before.get(key, MISSING))
        elif isinstance(value, list) and node.items is not None:
            previous = by_keys(node.schema, old)
            for index, item in enumerate(value):
                self.node(node.items, f"{path}[{index}]", item, previous.get(keys(node.schema, item), MISSING))

    def _rules(self, node: RuleNode, path: str, value: Any, old: Any, root: bool) -> None:
        unchanged = old is not MISSING and old == value
        wanted = [rule for rule in node.rules if _applies(rule, old, unchanged)]
        if not wanted:
            return
        new = bound(value, node.schema, root=root)
        before = bound(old, node.schema, root=root) if old is not MISSING else None
        for rule in wanted:
            bindings: dict[str, Any] = {"self": new}
            if rule.optional:
                bindings["oldSelf"] = Optional(old is not MISSING, before)
            elif old is not MISSING:
                bindings["oldSelf"] = before
            self._rule(rule, node, path, bindings)

    def _rule(self, rule: Rule, node: RuleNode, path: str, bindings: dict[str, Any]) -> None:
        kind = "" if node.schema.get("x-kubernetes-int-or-string") else node.schema.get("type") or "object"
        shown = rule.message or rule.text
        try:
            self._spend(rule, bindings["self"])
            good = rule.program.evaluate(bindings)
        except CostExceeded as error:
            text = f"'{COST_EXCEEDED}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
            self.errors.append(invalid_value(path or "<nil>", kind, text))
            raise error
        except EvaluationError as error:
            if str(error).startswith("no such overload"):
                text = (
                    f"'{error}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
                )
            else:
                text = f"{error} evaluating rule: {shown}"
            self.errors.append(invalid_value(path or "<nil>", kind, text))
            return
        if good is not True:
            message = self._message(rule, bindings) or rule.message or f"failed rule: {rule.text}"
            where = f"{path}{rule.field_path}" if path else rule.field_path.removeprefix(".")
            self.errors.append(_fault(rule.reason, where or "<nil>", kind, message))

    def _message(self, rule: Rule, bindings: dict[str, Any]) -> str:
        return evaluated_message(rule.message_program, bindings)

    def _spend(self, rule: Rule, value: Any) -> None:
        steps = min(_MAX_STEPS, _size(value, _MAX_STEPS) ** rule.loops) if rule.loops else 0
        self._left -= 1 + steps // _STEPS
        if self._left < 0:
            raise CostExceeded


def _size(value: Any, most: int) -> int:
    """How many values are in a value, as far as `most`."""
    found = 1
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if found >= most:
            break
        found += _size(item, most - found)
    return found


def _applies(rule: Rule, old: Any, unchanged: bool) -> bool:
    if rule.transition:
        return rule.optional or old is not MISSING
    return not unchanged


def _fault(reason: str, where: str, kind: str, message: str) -> FieldError:
    if reason == "FieldValueForbidden":
        return forbidden_field(where, message)
    if reason == "FieldValueRequired":
        return required(where, message)
    if reason == "FieldValueDuplicate":
        return FieldError("FieldValueDuplicate", where, "", message)
    return invalid_value(where, kind, message)


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
