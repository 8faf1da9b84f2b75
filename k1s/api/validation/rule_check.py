"""The x-kubernetes-validations of a schema's node when a definition is written: texts, types, and what they may cost.

Owns: Budget, check_texts(), check_expressions(). Called by: schema_nodes.py. Never does: look at an object (custom_rules.py).
Source: apiextensions-apiserver/pkg/apis/apiextensions/validation/{validation,cel_validation}.go, pkg/apiserver/schema/cel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from k1s.api.cel.cost import most_expensive
from k1s.api.cel.program import CompileError, checked, mentions
from k1s.api.cel.schema_types import MAX_REQUEST, least, schema_type
from k1s.api.cel.types import Type, optional_of
from k1s.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.field_path import PathError, resolved
from k1s.api.validation.rule_tree import REASONS, RULES

_RULE_LIMIT = 10_000_000
_SCHEMA_LIMIT = 100_000_000
_MOST_SHOWN = 4
_HINT = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
)
_LINE_BREAK = re.compile(r"[\n\r]")


def _too_much(what: str, cost: float, limit: int) -> str:
    factor = cost / limit
    by = "more than 100x" if factor > 100 else f"{factor:f}x" if factor < 1.5 else f"{factor:.1f}x"
    return f"{what} exceeds budget by factor of {by} {_HINT}"


class Budget:
    """Of a whole schema. `cheap`: single expressions may cost what they like, as they did before."""

    def __init__(self, cheap: bool = False) -> None:
        self.cheap = cheap
        self._total = 0.0
        self._highest: list[tuple[float, str]] = []

    def spend(self, at: str, cost: float) -> None:
        self._total += cost
        if cost >= _SCHEMA_LIMIT / 100:
            self._highest = sorted([*self._highest, (cost, at)], reverse=True)[:_MOST_SHOWN]

    def verdict(self, at: str) -> Iterator[FieldError]:
        if self._total <= _SCHEMA_LIMIT:
            return
        for _, where in self._highest:
            text = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            yield forbidden_field(where, text)
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        yield forbidden_field(at, _too_much(what, self._total, _SCHEMA_LIMIT))


def check_texts(at: str, schema: Object) -> Iterator[FieldError]:
    for index, raw in enumerate(schema.get(RULES) or ()):
        where = f"{at}.{RULES}[{index}]"
        yield from _texts(where, raw)
        reason = raw.get("reason")
        if reason and reason not in REASONS:
            yield not_supported(f"{where}.reason", reason, REASONS)
        path = raw.get("fieldPath")
        if path:
            if not path.strip():
                yield invalid_value(f"{where}.fieldPath", path, "must be non-empty if specified")
            if _LINE_BREAK.search(path):
                yield invalid_value(f"{where}.fieldPath", path, "must not contain line breaks")
            try:
                resolved(path, schema)
            except PathError:
                yield invalid_value(f"{where}.fieldPath", path, "must be a valid path")


def _texts(where: str, raw: Object) -> Iterator[FieldError]:
    rule, message, expression = raw.get("rule") or "", raw.get("message") or "", raw.get("messageExpression") or ""
    if not rule.strip():
        yield required(f"{where}.rule", "rule is not specified")
    elif message and not message.strip():
        yield invalid_value(f"{where}.message", message, "must be non-empty if specified")
    elif _LINE_BREAK.search(message.strip()):
        yield invalid_value(f"{where}.message", message, "must not contain line breaks")
    elif _LINE_BREAK.search(rule.strip()) and not message.strip():
        yield required(f"{where}.message", "message must be specified if rule contains line breaks")
    if expression and not expression.strip():
        yield required(f"{where}.messageExpression", "messageExpression must be non-empty if specified")


def check_expressions(
    at: str, schema: Object, budget: Budget, root: bool, uncorrelated: str, cardinality: float | None
) -> list[FieldError]:
    """The rules of one node. `cardinality`: how often its value may occur, None if only the size of a request limits that."""
    rules = schema.get(RULES) or ()
    if not rules:
        return []
    self_type = schema_type(schema, resource=root or bool(schema.get("x-kubernetes-embedded-resource")), name="selfType")
    if self_type is None:
        text = (
            "internal error: failed to construct type information for x-kubernetes-validations rules: "
            "unable to convert structural schema to CEL declarations"
        )
        return [FieldError("InternalError", f"{at}.{RULES}", text)]
    times = cardinality if cardinality is not None else float(MAX_REQUEST // (least(schema, self_type) + 1))
    errs: list[FieldError] = []
    for index, raw in enumerate(rules):
        errs += _Rule(f"{at}.{RULES}[{index}]", raw, self_type, budget, times).faults(uncorrelated)
    return errs


class _Rule:
    def __init__(self, where: str, raw: Object, self_type: Type, budget: Budget, times: float) -> None:
        self._where, self._raw, self._budget, self._times = where, raw, budget, times
        old = optional_of(self_type) if raw.get("optionalOldSelf") else self_type
        self._variables = {"self": self_type, "oldSelf": old}

    def faults(self, uncorrelated: str) -> Iterator[FieldError]:
        where, raw, text = f"{self._where}.rule", self._raw, self._raw["rule"]
        try:
            tree = checked(text, self._variables)
        except CompileError as error:
            yield invalid_value(where, _struct(raw), str(error))
            return
        if tree.type is None or tree.type.kind != "bool":
            yield invalid_value(where, _struct(raw), "cel expression must evaluate to a bool")
            return
        yield from self._spend(where, "estimated rule cost", most_expensive(tree) * self._times)
        yield from self._message()
        if mentions(tree, "oldSelf"):
            if uncorrelated:
                said = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelated}"
                yield invalid_value(where, text, said)
        elif raw.get("optionalOldSelf") is not None:
            at = f"{self._where}.optionalOldSelf"
            yield invalid_value(at, raw["optionalOldSelf"], "may not be set if oldSelf is not used in rule")

    def _message(self) -> Iterator[FieldError]:
        text, where = self._raw.get("messageExpression"), f"{self._where}.messageExpression"
        if not text:
            return
        try:
            tree = checked(text, self._variables)
        except CompileError as error:
            yield invalid_value(where, _struct(self._raw), f"messageExpression {error}")
            return
        if tree.type is None or tree.type.kind != "string":
            yield invalid_value(where, _struct(self._raw), "messageExpression must evaluate to a string")
            return
        yield from self._spend(where, "estimated messageExpression cost", float(most_expensive(tree)))

    def _spend(self, where: str, what: str, cost: float) -> Iterator[FieldError]:
        if cost > _RULE_LIMIT and not self._budget.cheap:
            yield forbidden_field(where, _too_much(what, cost, _RULE_LIMIT))
        self._budget.spend(where, cost)


def _struct(raw: Object) -> Any:
    """A rule as upstream's internal type is written."""
    names = ("rule", "message", "messageExpression", "reason", "fieldPath", "optionalOldSelf")
    missing = {"reason": None, "optionalOldSelf": None}
    return {name[0].upper() + name[1:]: raw.get(name, missing.get(name, "")) for name in names}
