"""The x-kubernetes-validations of a schema, compiled: a tree of only those nodes that have rules or lead to some.

Owns: RuleNode, Rule, compile_rules. Called by: custom_rules, schema_defaults, the apiserver's custom resources.
Never does: look at an object, or at what is wrong with the rules themselves (rule_check.py).
Bound: trees live as long as their definition; its size is bounded by the largest request.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from k1s.api.cel.program import Program, compile_expression, mentions
from k1s.api.meta import Object
from k1s.api.validation.field_path import PathError, resolved, shown

RULES = "x-kubernetes-validations"
_BOTH = frozenset({"self", "oldSelf"})
REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


@dataclass(slots=True)
class Rule:
    """`transition`: it speaks of oldSelf. `optional`: and has it as an optional value."""

    program: Program
    text: str
    message: str
    message_program: Program | None
    reason: str
    field_path: str
    transition: bool
    optional: bool


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
    node.rules = [_compiled(raw, schema) for raw in schema.get(RULES) or () if (raw.get("rule") or "").strip()]
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
    program = compile_expression(raw.get("rule") or "", _BOTH)
    return program, mentions(program.tree, "oldSelf")


def _message_program(raw: Object) -> Program | None:
    text = raw.get("messageExpression")
    return compile_expression(text, _BOTH) if text else None


def _field_path(text: str, schema: Object) -> str:
    try:
        return shown(resolved(text, schema)[0])
    except PathError:
        return ""


def _compiled(raw: Object, schema: Object) -> Rule:
    program, transition = _programs(raw)
    return Rule(
        program,
        (raw.get("rule") or "").strip(),
        (raw.get("message") or "").strip(),
        _message_program(raw),
        raw.get("reason") or "FieldValueInvalid",
        _field_path(raw.get("fieldPath") or "", schema),
        transition,
        bool(raw.get("optionalOldSelf")),
    )
