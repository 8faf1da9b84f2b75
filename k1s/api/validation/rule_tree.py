"""The x-kubernetes-validations of a schema, compiled: a tree of only those nodes that have rules or lead to some.

Owns: RuleNode, Rule, compile_rules (for objects), check_rules (for definitions: what is wrong with the rules themselves).
Called by: custom_rules, structural, the apiserver's crds. Never does: look at an object.
Bound: trees live as long as their definition; its size is bounded by the largest request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from k1s.api.cel.program import CompileError, Program, compile_expression, pointed, uses
from k1s.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rule_types import UndefinedField, check_types

RULES = "x-kubernetes-validations"
_SELF = frozenset({"self"})
_BOTH = frozenset({"self", "oldSelf"})
_OLD = frozenset({"oldSelf"})
REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_LOOP = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(")
_SEGMENT = re.compile(r"\.([A-Za-z_][\w-]*)|\['((?:[^'\\]|\\.)*)'\]")


@dataclass(slots=True)
class Rule:
    """`transition`: it speaks of oldSelf. `optional`: and has it as an optional value. `loops`: how many loops are in it."""

    program: Program
    text: str
    message: str
    message_program: Program | None
    reason: str
    field_path: str
    transition: bool
    optional: bool
    loops: int


@dataclass(slots=True)
class RuleNode:
    schema: Object
    rules: list[Rule] = field(default_factory=list)
    properties: dict[str, RuleNode] = field(default_factory=dict)
    items: RuleNode | None = None
    values: RuleNode | None = None

    def __bool__(self) -> bool:
        return bool(self.rules or self.properties or self.items or self.values)


def compile_rules(schema: Object, *, root: bool = True) -> RuleNode | None:
    """The tree of a valid schema; None if there is no rule in it. Raises CompileError."""
    node = RuleNode(schema)
    node.rules = [_compiled(raw) for raw in schema.get(RULES) or ()]
    for key, child in (schema.get("properties") or {}).items():
        if root and key == "metadata":
            continue
        found = compile_rules(child or {}, root=False)
        if found is not None:
            node.properties[key] = found
    if isinstance(schema.get("items"), dict):
        node.items = compile_rules(schema["items"], root=False)
    if isinstance(schema.get("additionalProperties"), dict):
        node.values = compile_rules(schema["additionalProperties"], root=False)
    return node if node else None


def _programs(raw: Object) -> tuple[Program, bool]:
    """The rule's program, and whether it is about a change. Raises CompileError."""
    text = raw.get("rule") or ""
    if raw.get("optionalOldSelf"):
        return compile_expression(text, _SELF, _OLD), uses(text, "oldSelf", _SELF)
    if uses(text, "oldSelf", _SELF):
        return compile_expression(text, _BOTH), True
    return compile_expression(text, _SELF), False


def _message_program(raw: Object) -> Program | None:
    text = raw.get("messageExpression")
    if not text:
        return None
    if raw.get("optionalOldSelf"):
        return compile_expression(text, _SELF, _OLD)
    return compile_expression(text, _BOTH if uses(text, "oldSelf", _SELF) else _SELF)


def _compiled(raw: Object) -> Rule:
    program, transition = _programs(raw)
    return Rule(
        program,
        (raw.get("rule") or "").strip(),
        (raw.get("message") or "").strip(),
        _message_program(raw),
        raw.get("reason") or "FieldValueInvalid",
        field_path(raw.get("fieldPath") or ""),
        transition,
        bool(raw.get("optionalOldSelf")),
        len(_LOOP.findall(raw.get("rule") or "")),
    )


def segments(text: str) -> list[str] | None:
    """The names in a fieldPath such as .spec['a-b'].c; None if it is none."""
    out, at = [], 0
    while at < len(text):
        match = _SEGMENT.match(text, at)
        if match is None:
            return None
        out.append(match.group(1) if match.group(1) is not None else re.sub(r"\\(.)", r"\1", match.group(2)))
        at = match.end()
    return out


def field_path(text: str) -> str:
    return "".join(f".{name}" for name in segments(text.strip()) or ())


# What is wrong with the rules of one schema node


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a schema a node is. `uncorrelated`: the path of the list above whose items cannot be told apart, so that there
    is no oldSelf; or empty. `cardinality`: how often its value may occur in one object, None if no schema says so."""

    root: bool = False
    uncorrelated: str = ""
    cardinality: float | None = 1.0


def check_rules(at: str, schema: Object, place: Place) -> Iterator[FieldError]:
    for index, raw in enumerate(schema.get(RULES) or ()):
        where = f"{at}.{RULES}[{index}]"
        if not (raw.get("rule") or "").strip():
            yield required(f"{where}.rule", "rule is not specified")
            continue
        yield from _check_texts(where, raw, schema)
        yield from _check_rule(where, raw, schema, place)


def _check_texts(where: str, raw: Object, schema: Object) -> Iterator[FieldError]:
    message = raw.get("message")
    if message is not None and not message.strip():
        yield invalid_value(f"{where}.message", message, "message must be non-empty if specified")
    elif message and "\n" in message.strip():
        yield invalid_value(f"{where}.message", message, "message must not contain line breaks")
    elif "\n" in raw["rule"].strip() and not message:
        yield required(f"{where}.message", "message must be specified if rule contains line breaks")
    expression = raw.get("messageExpression")
    if expression is not None and not expression.strip():
        yield required(f"{where}.messageExpression", "messageExpression must be non-empty if specified")
    reason = raw.get("reason")
    if reason and reason not in REASONS:
        yield not_supported(f"{where}.reason", reason, REASONS)
    path = raw.get("fieldPath")
    if path:
        if not _leads_somewhere(path, schema):
            yield invalid_value(f"{where}.fieldPath", path, "fieldPath must be a valid path: does not refer to a valid field")


def _leads_somewhere(path: str, schema: Object) -> bool:
    names = segments(path)
    if not names:
        return False
    node: Any = schema
    for name in names:
        child = (node.get("properties") or {}).get(name)
        node = child if child is not None else node.get("additionalProperties")
        if not isinstance(node, dict):
            return False
    return True


def _check_rule(where: str, raw: Object, schema: Object, place: Place) -> Iterator[FieldError]:
    try:
        program, transition = _programs(raw)
        cost = _costs(program, raw, schema, place)
    except CompileError as error:
        yield invalid_value(f"{where}.rule", raw, str(error))
        return
    if cost:
        yield forbidden_field(f"{where}.rule", cost)
    if program.result not in ("BOOL", "DYN"):
        yield invalid_value(f"{where}.rule", raw, "compilation failed: cel expression must evaluate to a bool")
    if transition and place.uncorrelated:
        text = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {place.uncorrelated}"
        yield invalid_value(f"{where}.rule", raw["rule"], text)
    if raw.get("optionalOldSelf") and not transition:
        yield invalid_value(f"{where}.optionalOldSelf", True, "may not be set if oldSelf is not used in rule")
    try:
        message = _message_program(raw)
        if message is not None:
            _costs(message, raw, schema, place)
    except CompileError as error:
        yield invalid_value(f"{where}.messageExpression", raw, f"messageExpression {error}")
        return
    if message is not None and message.result not in ("STRING", "DYN"):
        yield invalid_value(f"{where}.messageExpression", raw, "messageExpression must evaluate to a string")


def _costs(program: Program, raw: Object, schema: Object, place: Place) -> str:
    """Why it would cost too much, or nothing. Raises CompileError for fields that the schema has not."""
    variables = ("self",) if raw.get("optionalOldSelf") else ("self", "oldSelf")
    try:
        return check_types(program.syntax(), schema, variables, root=place.root, cardinality=place.cardinality)
    except UndefinedField as error:
        raise CompileError(pointed(program.expression, error.offset, str(error))) from None
