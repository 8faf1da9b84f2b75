"""ValidatingAdmissionPolicy: rules in CEL, bound to requests by ValidatingAdmissionPolicyBindings.

Owns: ValidatingPolicies, parameters, what becomes of failures. Called by: admission/chain. Never does: evaluate
(policy_evaluation.py), type-check expressions against schemas (values are dynamic).
Source: apiserver/pkg/admission/plugin/policy/validating/dispatcher.go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from k1s.api.catalog import Catalog, Resource, builtin
from k1s.api.errors import ApiError
from k1s.api.selectors import labels_from
from k1s.client.interface import Client, InformerFactory
from k1s.server.apiserver.admission.conditions import values_of
from k1s.server.apiserver.admission.matching import Scope, exempt
from k1s.server.apiserver.admission.policy_evaluation import Failure, evaluate
from k1s.server.apiserver.admission.step import Step, refuse
from k1s.server.apiserver.attributes import AdmissionRequest
from k1s.server.apiserver.authz.app import Authorizer

Object = Mapping[str, Any]

_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_FAILURES = "validation.policy.admission.k8s.io/validation_failure"


class _Misconfigured(Exception):
    """A policy or a binding cannot be applied to this request."""


class ValidatingPolicies(Step):
    def __init__(
        self, client: Client, informers: InformerFactory, catalog: Catalog, authorizer: Authorizer | None = None
    ) -> None:
        self._client, self._catalog, self._authorizer = client, catalog, authorizer
        self._policies = informers.informer(builtin("ValidatingAdmissionPolicy"))
        self._bindings = informers.informer(builtin("ValidatingAdmissionPolicyBinding"))
        self._scope = Scope(catalog, informers.informer(builtin("Namespace")))
        self._pairs: tuple[tuple[Object, Object], ...] = ()
        self._stale = True
        self._policies.add_handler(self._changed)
        self._bindings.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        self._stale = True

    def _bound(self) -> tuple[tuple[Object, Object], ...]:
        if self._stale:
            pairs = []
            for binding in self._bindings.list():
                policy = self._policies.get(binding["spec"].get("policyName") or "")
                if policy is not None:
                    pairs.append((policy, binding))
            self._pairs = tuple(sorted(pairs, key=lambda pair: (pair[0]["metadata"]["name"], pair[1]["metadata"]["name"])))
            self._stale = False
        return self._pairs

    async def validate(self, request: AdmissionRequest) -> None:
        """Ask every policy, note all that is to be noted, then deny for the first reason there is."""
        pairs = self._bound()
        if not pairs or exempt(request):
            return
        denials: list[ApiError] = []
        for policy, binding in pairs:
            row = self._concerned(policy, binding, request)
            if row is not None:
                denials += await self._apply(policy, binding, request, row)
        if denials:
            raise denials[0]

    def _concerned(self, policy: Object, binding: Object, request: AdmissionRequest) -> Resource | None:
        row = self._scope.matches(policy["spec"].get("matchConstraints") or {}, request)
        narrower = binding["spec"].get("matchResources")
        if row is not None and narrower:
            if not narrower.get("resourceRules"):
                narrower = {**narrower, "resourceRules": policy["spec"]["matchConstraints"].get("resourceRules")}
            if self._scope.matches(narrower, request) is None:
                return None
        return row

    async def _apply(self, policy: Object, binding: Object, request: AdmissionRequest, row: Resource) -> list[ApiError]:
        try:
            parameters = await self._params(policy, binding, request)
        except _Misconfigured as error:
            if policy["spec"].get("failurePolicy") == "Ignore":
                return []
            return [_denial(policy, binding, request, Failure(str(error)))]
        namespace = self._scope.namespace(request)
        values = values_of(request, row, namespace, stored=self._stored(request.resource), authorizer=self._authorizer)
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

    def _stored(self, resource: Resource) -> Resource:
        found = None
        if resource.storage_version:
            found = self._catalog.by_plural(
                resource.stored_group, resource.storage_version, resource.storage_plural or resource.plural
            )
        return found if found is not None else resource

    async def _params(self, policy: Object, binding: Object, request: AdmissionRequest) -> list[Any]:
        """The parameter objects, one None if the policy takes none. Raises _Misconfigured."""
        kind, ref = policy["spec"].get("paramKind"), binding["spec"].get("paramRef")
        if not kind or not ref:
            return [None]
        row = self._catalog.by_api_version(kind["apiVersion"], kind["kind"])
        if row is None:
            named = f"{kind['apiVersion']}, Kind={kind['kind']}"
            raise _Misconfigured(f"failed to configure policy: failed to find resource referenced by paramKind: '{named}'")
        namespace = ref.get("namespace") or ""
        if not row.namespaced and namespace:
            raise _Misconfigured(
                "failed to configure binding: paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
            )
        if row.namespaced and not namespace:
            namespace = request.namespace
            if not namespace:
                raise _Misconfigured(
                    "failed to configure binding: cannot use namespaced paramRef in policy binding that matches"
                    " cluster-scoped resources"
                )
        found = await self._find(row, ref, namespace)
        if not found and ref.get("parameterNotFoundAction") != "Allow":
            raise _Misconfigured(
                "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
            )
        return found

    async def _find(self, row: Resource, ref: Object, namespace: str) -> list[Any]:
        if not ref.get("name"):
            return list(await self._client.list(row, namespace, label_selector=str(labels_from(dict(ref.get("selector") or {})))))
        try:
            return [await self._client.get(row, ref["name"], namespace)]
        except ApiError as error:
            if error.code != 404:
                raise
            return []


def _named(policy: Object, binding: Object) -> str:
    return f"ValidatingAdmissionPolicy '{policy['metadata']['name']}' with binding '{binding['metadata']['name']}'"


def _denial(policy: Object, binding: Object, request: AdmissionRequest, failure: Failure) -> ApiError:
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
