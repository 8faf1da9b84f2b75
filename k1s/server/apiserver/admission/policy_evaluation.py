"""One policy over one request (and one parameter object): which validations fail, and what goes to the audit log.

Owns: evaluate(). Called by: policies. Never does: choose policies, or act on what fails (bindings say how).
Source: apiserver/pkg/admission/plugin/policy/validating/validator.go, apiserver/pkg/admission/plugin/cel/composition.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from k1s.api.cel.program import CelError, CostExceeded
from k1s.api.cel.variables import composed
from k1s.server.apiserver.admission.conditions import Values, match

Object = Mapping[str, Any]

_MAX_MESSAGE = 5 * 1024
_MAX_AUDIT_VALUE = 10 * 1024
_NO_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"


@dataclass(frozen=True, slots=True)
class Failure:
    """`index`: which of the policy's validations; -1 where it is none of them."""

    message: str
    reason: str = "Invalid"
    index: int = -1


@dataclass(slots=True)
class Outcome:
    failures: list[Failure] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)


class Composition:
    """Evaluates expressions; the policy's own variables when the first expression needs them, once."""

    def __init__(self, variables: list[Object], values: Values) -> None:
        self._expressions = {v["name"]: v["expression"] for v in variables}
        self._known: dict[str, Any] = {}
        self._errors: dict[str, str] = {}
        self._values = values.having(variables=self._known)

    def evaluate(self, expression: str) -> Any:
        names = [name for name, _ in composed(expression)]
        for name in names:
            self._make(name)
        try:
            return self._values.evaluate(expression)
        except CostExceeded:
            raise
        except CelError as error:
            # Missing in the map because it could not be made: that is the reason to tell.
            made = next((name for name in names if name in self._errors), "")
            if made and f"no such key: {made}" in str(error):
                raise CelError(f'composited variable "{made}" fails to evaluate: {self._errors[made]}') from error
            raise

    def _make(self, name: str) -> None:
        if name in self._known or name in self._errors or name not in self._expressions:
            return
        self._errors[name] = "it refers to itself"
        try:
            value = self.evaluate(self._expressions[name])
        except CelError as error:
            self._errors[name] = str(error)
            return
        del self._errors[name]
        self._known[name] = value


def evaluate(policy: Object, values: Values) -> Outcome:
    """What the policy says, by its failure policy where an expression has no value."""
    spec = policy["spec"]
    ignore = spec.get("failurePolicy") == "Ignore"
    run = Composition(spec.get("variables") or [], values)
    outcome = Outcome()
    try:
        if not match(spec.get("matchConditions") or (), run):
            return outcome
    except CelError as error:
        if not ignore:
            outcome.failures.append(Failure(str(error)))
        return outcome
    for index, validation in enumerate(spec.get("validations") or ()):
        try:
            failure = _validate(run, validation, index)
        except CostExceeded:
            if not ignore:
                outcome.failures.append(Failure(_NO_BUDGET, index=index))
            return outcome
        except CelError as error:
            text = f"expression '{validation['expression']}' resulted in error: {error}"
            failure = None if ignore else Failure(text, index=index)
        if failure is not None:
            outcome.failures.append(failure)
    for annotation in spec.get("auditAnnotations") or ():
        _annotate(run, policy["metadata"]["name"], annotation, outcome, ignore)
    return outcome


def _validate(run: Composition, validation: Object, index: int) -> Failure | None:
    if run.evaluate(validation["expression"]) is True:
        return None
    message = _text(run, validation.get("messageExpression")) or (validation.get("message") or "").strip()
    message = message or f"failed expression: {validation['expression'].strip()}"
    return Failure(message, validation.get("reason") or "Invalid", index)


def _text(run: Composition, expression: str | None) -> str:
    """What a messageExpression says; empty if it has nothing usable to say."""
    if not expression:
        return ""
    try:
        found = run.evaluate(expression)
    except CelError:
        return ""  # as upstream: the next best message stands in for it
    text = found.strip() if isinstance(found, str) else ""
    return "" if "\n" in text or len(text) > _MAX_MESSAGE else text


def _annotate(run: Composition, policy: str, annotation: Object, outcome: Outcome, ignore: bool) -> None:
    expression = annotation["valueExpression"]
    try:
        found = run.evaluate(expression)
        if found is not None and not isinstance(found, str):
            raise CelError("unsupported return type: Return type must be either string or null")
    except CelError as error:
        if not ignore:
            outcome.failures.append(Failure(f"valueExpression '{expression}' resulted in error: {error}"))
        return
    if found and found.strip():
        outcome.annotations[f"{policy}/{annotation['key']}"] = found.strip()[:_MAX_AUDIT_VALUE]
