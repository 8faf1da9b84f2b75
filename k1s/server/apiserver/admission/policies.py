"""ValidatingAdmissionPolicy: rules in CEL, bound to requests by ValidatingAdmissionPolicyBindings.

Owns: ValidatingPolicies, what becomes of failures. Called by: admission/chain. Never does: evaluate (policy_evaluation.py),
find policies and parameters (policy_step.py), type-check expressions against schemas (values are dynamic).
Source: apiserver/pkg/admission/plugin/policy/validating/dispatcher.go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.server.apiserver.admission.policy_evaluation import Failure, evaluate
from k1s.server.apiserver.admission.policy_step import Misconfigured, PolicyStep
from k1s.server.apiserver.admission.step import refuse
from k1s.server.apiserver.attributes import AdmissionRequest

Object = Mapping[str, Any]

_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_FAILURES = "validation.policy.admission.k8s.io/validation_failure"


class ValidatingPolicies(PolicyStep):
    kind = "ValidatingAdmissionPolicy"

    async def validate(self, request: AdmissionRequest) -> None:
        """Ask every policy, note all that is to be noted, then deny for the first reason there is."""
        denials: list[ApiError] = []
        for policy, binding, row in self.concerned(request):
            denials += await self._apply(policy, binding, request, row)
        if denials:
            raise denials[0]

    async def _apply(self, policy: Object, binding: Object, request: AdmissionRequest, row: Resource) -> list[ApiError]:
        try:
            parameters = await self.params(policy, binding, request)
        except Misconfigured as error:
            if policy["spec"].get("failurePolicy") == "Ignore":
                return []
            return [_denial(policy, None if error.policy else binding, request, Failure(str(error)))]
        values = await self.values(request, row)
        denials = []
        for params in parameters:
            outcome = evaluate(policy, values.having(params=params))
            for key, value in outcome.annotations.items():
                before = request.annotations.get(key)
                parts = before.split(", ") if before else []
                request.annotations[key] = before if before and value in parts else ", ".join([*parts, value])
            for failure in outcome.failures:
                denials += _act(policy, binding, request, failure)
        return denials


def _named(policy: Object, binding: Object | None) -> str:
    if binding is None:
        return f"ValidatingAdmissionPolicy '{policy['metadata']['name']}'"
    return f"ValidatingAdmissionPolicy '{policy['metadata']['name']}' with binding '{binding['metadata']['name']}'"


def _denial(policy: Object, binding: Object | None, request: AdmissionRequest, failure: Failure) -> ApiError:
    message = f"{_named(policy, binding)} denied request: {failure.message}"
    error = refuse(request, message)
    error.reason = failure.reason
    error.code = _CODES.get(failure.reason, 422)
    error.details = {**(error.details or {}), "causes": [{"message": message}]}
    return error


def _act(policy: Object, binding: Object, request: AdmissionRequest, failure: Failure) -> list[ApiError]:
    """Do with a failure what the binding says; the denial, if it says so."""
    actions = binding["spec"].get("validationActions") or ()
    if "Audit" in actions:
        noted = json.loads(request.annotations.get(_FAILURES) or "[]")
        noted.append(
            {
                "message": failure.message,
                "policy": policy["metadata"]["name"],
                "binding": binding["metadata"]["name"],
                "expressionIndex": failure.index,
                "validationActions": list(actions),
            }
        )
        request.annotations[_FAILURES] = json.dumps(noted, separators=(",", ":"))
    if "Warn" in actions:
        request.warnings.append(f"Validation failed for {_named(policy, binding)}: {failure.message}")
    return [_denial(policy, binding, request, failure)] if "Deny" in actions else []
