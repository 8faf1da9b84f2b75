"""matchConditions: CEL expressions that say whether a webhook or a policy is asked at all; and the variables of admission.

Owns: Values, values_of, match. Called by: webhooks/steps, policies. Never does: decide what an error means (the failure policy
does).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any, Protocol

from k1s.api.catalog import Resource
from k1s.api.cel.authorizer import Decide, Question, answered_by, variable
from k1s.api.cel.program import CelError, compile_expression
from k1s.api.cel.variables import ADMISSION
from k1s.api.convert import convert
from k1s.server.apiserver.admission.request_value import describe
from k1s.server.apiserver.attributes import AdmissionRequest, RequestInfo, UserInfo
from k1s.server.apiserver.authz.app import Authorizer

Object = Mapping[str, Any]


class Evaluator(Protocol):
    def evaluate(self, expression: str) -> Any:
        """The value of an expression. Raises CelError."""


class Values:
    """The variables of one request, and who answers `authorizer`."""

    def __init__(self, bindings: dict[str, Any], decide: Decide | None) -> None:
        self.bindings, self._decide = bindings, decide

    def evaluate(self, expression: str) -> Any:
        with answered_by(self._decide) if self._decide is not None else nullcontext():
            return compile_expression(expression, ADMISSION).evaluate(self.bindings)

    def having(self, **more: Any) -> Values:
        return Values({**self.bindings, **more}, self._decide)


def values_of(
    request: AdmissionRequest,
    row: Resource,
    namespace: Object | None,
    *,
    stored: Resource | None = None,
    authorizer: Authorizer | None = None,
) -> Values:
    """`row`: the version in which the object is wanted; `stored`: the one that the request holds it in."""
    asked, sub = request.resource, request.subresource
    name = sub.name if sub is not None else ""
    bindings = {
        "object": _in_version(request.obj, stored, row),
        "oldObject": _in_version(request.old, stored, row),
        "request": describe(request, row),
        "namespaceObject": namespace if asked.qualified != "namespaces" else None,
        "params": None,
        "variables": {},
        "authorizer": variable(asked.group, asked.plural, name, request.namespace, request.name),
    }
    return Values(bindings, None if authorizer is None else _asking(authorizer, request.user))


def _in_version(obj: dict[str, Any] | None, stored: Resource | None, row: Resource) -> Object | None:
    # What a subresource takes (a Scale, an Eviction) has one version only.
    if obj is None or stored is None or obj.get("kind") != stored.kind:
        return obj
    return convert(obj, stored, row)


def _asking(authorizer: Authorizer, user: UserInfo) -> Decide:
    def decide(q: Question) -> tuple[bool, str]:
        who = _service_account(q.service_account) if q.service_account else user
        if q.path:
            return authorizer.decide(who, RequestInfo(False, q.path, q.verb))
        return authorizer.decide(who, RequestInfo(True, "", q.verb, q.group, "*", q.resource, q.subresource, q.namespace, q.name))

    return decide


def _service_account(text: str) -> UserInfo:
    namespace, _, name = text.partition("/")
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return UserInfo(f"system:serviceaccount:{namespace}:{name}", groups)


def match(conditions: Iterable[Object], values: Evaluator) -> bool:
    """One that is false decides; otherwise one that cannot be evaluated raises CelError."""
    failed: list[str] = []
    for condition in conditions:
        try:
            if values.evaluate(condition["expression"]) is not True:
                return False
        except CelError as error:
            failed.append(f"expression '{condition['expression']}' resulted in error: {error}")
    if failed:
        raise CelError(failed[0] if len(failed) == 1 else f"[{', '.join(failed)}]")
    return True
