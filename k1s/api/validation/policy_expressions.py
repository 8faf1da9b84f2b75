"""The CEL in webhooks and admission policies: that it compiles, gives the right type, and speaks of what there is.

Called by: extension.py. Never does: check against the schemas of the kinds a policy matches.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import names
from k1s.api.cel.program import CompileError, compile_expression
from k1s.api.cel.variables import ADMISSION, composed
from k1s.api.errors import duplicate, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, named, one_of

# Webhooks have neither parameters nor variables of their own.
WEBHOOK = ADMISSION - {"params", "variables", "namespaceObject"}
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")
_BOOL = ("BOOL", "DYN")
_STRING = ("STRING", "DYN")
# By patch type: the field, the types that its expression may have, what is said of others.
_PATCHES = {
    "ApplyConfiguration": ("applyConfiguration", ("OBJECT", "DYN"), "must evaluate to Object"),
    "JSONPatch": ("jsonPatch", ("LIST", "DYN"), "must evaluate to list(JSONPatch)"),
}
_TEXT = ("STRING", "NULL", "DYN")


def _compiles(
    errs: Errors,
    at: str,
    expression: str,
    allowed: tuple[str, ...],
    says: str,
    variables: frozenset[str],
    known: Iterable[str] = (),
) -> None:
    try:
        result = compile_expression(expression, variables).result
    except CompileError as error:
        errs.append(invalid_value(at, expression, str(error)))
        return
    known = set(known)
    if "variables" in variables:
        for name, column in composed(expression):
            if name not in known:
                text = f"compilation failed: ERROR: <input>:1:{column}: undefined field '{name}'"
                errs.append(invalid_value(at, expression, text))
                return
    if allowed and result.partition("<")[0] not in allowed:
        errs.append(invalid_value(at, expression, says))


def conditions(
    errs: Errors, at: str, items: Iterable[Object] | None, variables: frozenset[str], known: Iterable[str] = ()
) -> None:
    """matchConditions."""
    seen: set[str] = set()
    listed = list(items or ())
    if len(listed) > 64:
        errs.append(invalid_value(at, len(listed), "must have at most 64 items"))
    for index, condition in enumerate(listed):
        where, name = f"{at}[{index}]", condition.get("name")
        named(errs, f"{where}.name", name, names.qualified_name)
        expression = condition.get("expression") or ""
        if not expression.strip():
            errs.append(required(f"{where}.expression"))
        else:
            _compiles(errs, f"{where}.expression", expression, _BOOL, "must evaluate to bool", variables, known)
        if name in seen:
            errs.append(duplicate(f"{where}.name", name))
        seen.add(name or "")


def policy(errs: Errors, spec: Object) -> None:
    """Every expression of a ValidatingAdmissionPolicy's or MutatingAdmissionPolicy's spec."""
    scope = ADMISSION if spec.get("paramKind") else ADMISSION - {"params"}
    known = _variables(errs, spec, scope)
    conditions(errs, "spec.matchConditions", spec.get("matchConditions"), scope, known)
    for index, validation in enumerate(spec.get("validations") or ()):
        _validation(errs, f"spec.validations[{index}]", validation, scope, known)
    for index, mutation in enumerate(spec.get("mutations") or ()):
        _mutation(errs, f"spec.mutations[{index}]", mutation, scope, known)
    seen: set[str] = set()
    for index, annotation in enumerate(spec.get("auditAnnotations") or ()):
        where, key = f"spec.auditAnnotations[{index}]", annotation.get("key") or ""
        named(errs, f"{where}.key", key, names.qualified_name)
        if key in seen:
            errs.append(duplicate(f"{where}.key", key))
        seen.add(key)
        expression = annotation.get("valueExpression") or ""
        if not expression.strip():
            errs.append(required(f"{where}.valueExpression", "valueExpression is not specified"))
        else:
            says = "must evaluate to one of string null_type"
            _compiles(errs, f"{where}.valueExpression", expression, _TEXT, says, scope, known)


def _mutation(errs: Errors, where: str, mutation: Object, scope: frozenset[str], known: list[str]) -> None:
    kind = mutation.get("patchType")
    one_of(errs, f"{where}.patchType", kind, ("ApplyConfiguration", "JSONPatch"), needed=True)
    if kind not in _PATCHES:
        return
    key, allowed, says = _PATCHES[kind]
    expression = (mutation.get(key) or {}).get("expression") or ""
    if not expression.strip():
        errs.append(required(f"{where}.{key}.expression", "expression is not specified"))
    else:
        _compiles(errs, f"{where}.{key}.expression", expression, allowed, says, scope, known)
    for other in ("applyConfiguration", "jsonPatch"):
        if other != key and mutation.get(other) is not None:
            errs.append(invalid_value(f"{where}.{other}", "", f"must not be specified when patchType is {kind}"))


def _variables(errs: Errors, spec: Object, scope: frozenset[str]) -> list[str]:
    known: list[str] = []
    for index, variable in enumerate(spec.get("variables") or ()):
        where, name = f"spec.variables[{index}]", variable.get("name") or ""
        if not name:
            errs.append(required(f"{where}.name", "name is not specified"))
        elif not name.isidentifier() or not name.isascii():
            errs.append(invalid_value(f"{where}.name", name, "name is not a valid CEL identifier"))
        elif name in known:
            errs.append(duplicate(f"{where}.name", name))
        expression = variable.get("expression") or ""
        if not expression.strip():
            errs.append(required(f"{where}.expression", "expression is not specified"))
        else:
            _compiles(errs, f"{where}.expression", expression, (), "", scope, known)
        known.append(name)
    return known


def _validation(errs: Errors, where: str, validation: Object, scope: frozenset[str], known: list[str]) -> None:
    expression, message = validation.get("expression") or "", validation.get("message")
    if not expression.strip():
        errs.append(required(f"{where}.expression", "expression is not specified"))
    else:
        _compiles(errs, f"{where}.expression", expression, _BOOL, "must evaluate to bool", scope, known)
    if message is not None and not message.strip():
        errs.append(invalid_value(f"{where}.message", message, "message must be non-empty if specified"))
    elif message and "\n" in message.strip():
        errs.append(invalid_value(f"{where}.message", message, "message must not contain line breaks"))
    elif "\n" in expression.strip() and not message:
        errs.append(required(f"{where}.message", "message must be specified if expression contains line breaks"))
    text = validation.get("messageExpression")
    if text:
        # A message may not depend on what the caller is allowed to do.
        _compiles(errs, f"{where}.messageExpression", text, _STRING, "must evaluate to string", scope - {"authorizer"}, known)
    one_of(errs, f"{where}.reason", validation.get("reason"), _REASONS)
