"""ValidatingAdmissionPolicy: rules in CEL, bound to requests by ValidatingAdmissionPolicyBindings.

Owns: ValidatingPolicies. Called by: admission/chain. Never does: type-check expressions against schemas (values are dynamic).
Source: apiserver/pkg/admission/plugin/policy/validating.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from k1s.api.catalog import Catalog, Resource, builtin
from k1s.api.cel.program import CelError, compile_expression
from k1s.api.cel.variables import ADMISSION
from k1s.api.errors import ApiError
from k1s.client.interface import Client, InformerFactory
from k1s.server.apiserver.admission.conditions import match, values_of
from k1s.server.apiserver.admission.matching import Scope, exempt
from k1s.server.apiserver.admission.step import Step, refuse
from k1s.server.apiserver.attributes import AdmissionRequest

Object = Mapping[str, Any]

_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}


class ValidatingPolicies(Step):
    def __init__(self, client: Client, informers: InformerFactory, catalog: Catalog) -> None:
        self._client, self._catalog = client, catalog
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
            for binding in sorted(self._bindings.list(), key=lambda b: str(b["metadata"]["name"])):
                policy = self._policies.get(binding["spec"].get("policyName") or "")
                if policy is not None:
                    pairs.append((policy, binding))
            self._pairs, self._stale = tuple(pairs), False
        return self._pairs

    async def validate(self, request: AdmissionRequest) -> None:
        pairs = self._bound()
        if not pairs or exempt(request):
            return
        for policy, binding in pairs:
            row = self._concerned(policy, binding, request)
            if row is not None:
                await self._apply(policy, binding, request, row)

    def _concerned(self, policy: Object, binding: Object, request: AdmissionRequest) -> Resource | None:
        row = self._scope.matches(policy["spec"].get("matchConstraints") or {}, request)
        narrower = binding["spec"].get("matchResources")
        if row is not None and narrower:
            if not narrower.get("resourceRules"):
                narrower = {**narrower, "resourceRules": policy["spec"]["matchConstraints"].get("resourceRules")}
            if self._scope.matches(narrower, request) is None:
                return None
        return row

    async def _apply(self, policy: Object, binding: Object, request: AdmissionRequest, row: Resource) -> None:
        spec = policy["spec"]
        fails = spec.get("failurePolicy") != "Ignore"
        values = values_of(request, row, self._scope.namespace(request))
        try:
            async for params in self._params(policy, binding, request):
                values["params"] = params
                if match(spec.get("matchConditions") or (), values):
                    self._judge(policy, binding, request, values)
        except CelError as error:
            if fails:
                _decide(policy, binding, request, str(error), "")

    def _judge(self, policy: Object, binding: Object, request: AdmissionRequest, values: dict[str, Any]) -> None:
        spec = policy["spec"]
        values["variables"] = known = {}
        for variable in spec.get("variables") or ():
            try:
                known[variable["name"]] = compile_expression(variable["expression"], ADMISSION).evaluate(values)
            except CelError:
                continue  # an expression that needs it says that it is missing
        for validation in spec.get("validations") or ():
            expression = validation["expression"]
            try:
                if compile_expression(expression, ADMISSION).evaluate(values) is True:
                    continue
            except CelError as error:
                if spec.get("failurePolicy") == "Ignore":
                    continue
                _decide(policy, binding, request, f"expression '{expression}' resulted in error: {error}", "")
                continue
            _decide(policy, binding, request, _message(validation, values), validation.get("reason") or "")

    async def _params(self, policy: Object, binding: Object, request: AdmissionRequest) -> AsyncIterator[Object | None]:
        """The parameter objects, None once if the policy has none. Raises CelError if they are to be there and are not."""
        kind, ref = policy["spec"].get("paramKind"), binding["spec"].get("paramRef")
        if not kind or not ref:
            yield None
            return
        row = self._catalog.by_api_version(kind["apiVersion"], kind["kind"])
        if row is None:
            raise CelError(f"failed to find resource referenced by paramKind: '{kind['apiVersion']}, Kind={kind['kind']}'")
        namespace = (ref.get("namespace") or request.namespace) if row.namespaced else ""
        found: list[Any] = []
        if ref.get("name"):
            try:
                found = [await self._client.get(row, ref["name"], namespace)]
            except ApiError as error:
                if error.code != 404:
                    raise
        else:
            wanted = _selector(ref.get("selector") or {})
            found = await self._client.list(row, namespace, label_selector=wanted)
        if not found and ref.get("parameterNotFoundAction") != "Allow":
            raise CelError("no params found for policy binding with `Deny` parameterNotFoundAction")
        for params in found:
            yield params


def _selector(selector: Object) -> str:
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for e in selector.get("matchExpressions") or ():
        key, operator, values = e["key"], e["operator"], ",".join(e.get("values") or ())
        text = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key, "DoesNotExist": f"!{key}"}
        parts.append(text[operator])
    return ",".join(parts)


def _message(validation: Object, values: Mapping[str, Any]) -> str:
    if validation.get("messageExpression"):
        try:
            text = compile_expression(validation["messageExpression"], ADMISSION).evaluate(values)
            if isinstance(text, str) and text.strip():
                return text.strip()
        except CelError:
            pass  # as upstream: the plain message stands in for one that cannot be made
    return validation.get("message") or f"failed expression: {validation['expression'].strip()}"


def _decide(policy: Object, binding: Object, request: AdmissionRequest, message: str, reason: str) -> None:
    """Act on a failed validation as the binding says. Raises ApiError to deny."""
    actions = binding["spec"].get("validationActions") or ()
    names = f"ValidatingAdmissionPolicy '{policy['metadata']['name']}' with binding '{binding['metadata']['name']}'"
    if "Audit" in actions:
        request.annotations["validation.policy.admission.k8s.io/validation_failure"] = f"{names}: {message}"
    if "Warn" in actions:
        request.warnings.append(f"Validation failed for {names}: {message}")
    if "Deny" in actions:
        error = refuse(request, f"{names} denied request: {message}")
        error.reason = reason or "Invalid"
        error.code = _CODES.get(error.reason, 422)
        error.details = {**(error.details or {}), "causes": [{"message": f"{names} denied request: {message}"}]}
        raise error
