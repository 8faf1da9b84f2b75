"""matchConditions: CEL expressions that say whether a webhook or a policy is asked at all.

Owns: values_of, match. Called by: webhooks/steps, policies. Never does: decide what an error means (the failure policy does).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k1s.api.catalog import Resource
from k1s.api.cel.program import CelError, compile_expression
from k1s.api.cel.variables import ADMISSION
from k1s.server.apiserver.admission.request_value import describe
from k1s.server.apiserver.attributes import AdmissionRequest

Object = Mapping[str, Any]


def values_of(request: AdmissionRequest, row: Resource, namespace: Object | None) -> dict[str, Any]:
    """The variables of an expression in admission."""
    return {
        "object": request.obj,
        "oldObject": request.old,
        "request": describe(request, row),
        "namespaceObject": namespace,
        "params": None,
        "variables": {},
        "authorizer": None,
    }


def match(conditions: Iterable[Object], values: Mapping[str, Any]) -> bool:
    """One that is false decides; otherwise one that cannot be evaluated raises CelError."""
    failed: CelError | None = None
    for condition in conditions:
        try:
            if compile_expression(condition["expression"], ADMISSION).evaluate(values) is not True:
                return False
        except CelError as error:
            failed = failed or CelError(f"match condition {condition.get('name')!r}: {error}")
    if failed is not None:
        raise failed
    return True
