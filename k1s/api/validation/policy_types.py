"""ValidatingAdmissionPolicies against the types of the kinds they match: what would go wrong, as warnings in their status.

expression_warnings(policy, resolve) -> expressionWarnings. Called by: the controller of their status. Never does: refuse.
Source: apiserver/pkg/admission/plugin/policy/validating/typechecking.go.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from k1s.api.cel.declarations import opaque
from k1s.api.cel.kind_types import builtin_type, request_type
from k1s.api.cel.program import CompileError, checked
from k1s.api.cel.types import DYN, Type
from k1s.api.meta import Object

# A policy that matches more than this is not checked any further.
_MOST_TYPES = 10

# By group, version and resource: the kind and its type, None if there is none.
Resolve = Callable[[str, str, str], tuple[str, Type] | None]


def expression_warnings(policy: Object, resolve: Resolve, params: Type | None) -> list[Object]:
    """`params`: the type of the parameters, None if it is not known."""
    spec = policy.get("spec") or {}
    kinds = _matched(spec, resolve)
    out: list[Object] = []
    for index, validation in enumerate(spec.get("validations") or ()):
        for key in ("expression", "messageExpression"):
            text = validation.get(key)
            said = [_said(text, found, name, spec, params) for name, found in kinds] if text else []
            said = [line for line in said if line]
            if said:
                out.append({"fieldRef": f"spec.validations[{index}].{key}", "warning": "\n".join(said)})
    return out


def _matched(spec: Object, resolve: Resolve) -> list[tuple[str, Type]]:
    """`apps/v1, Kind=Deployment` and its type, of every resource that is named without wildcards."""
    found: dict[str, Type] = {}
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        parts = [rule.get(key) or [] for key in ("apiGroups", "apiVersions", "resources")]
        if any("*" in value for part in parts for value in part):
            continue
        for group, version, resource in product(*parts):
            # Subresources have types of their own.
            known = None if "/" in resource else resolve(group, version, resource)
            if known is not None:
                found[f"{f'{group}/' if group else ''}{version}, Kind={known[0]}"] = known[1]
    return sorted(found.items(), key=lambda pair: pair[0])[:_MOST_TYPES]


def _said(text: str, kind: Type, name: str, spec: Object, params: Type | None) -> str:
    try:
        checked(text, _variables(kind, spec, params))
    except CompileError as error:
        return f"{name}: {error}\n"
    return ""


def _variables(kind: Type, spec: Object, params: Type | None) -> dict[str, Type]:
    variables = {
        "object": kind,
        "oldObject": kind,
        "request": request_type(),
        "namespaceObject": builtin_type("", "v1", "Namespace"),
        "authorizer": opaque("authorizer"),
        "authorizer.requestResource": opaque("resourceCheck"),
    }
    if spec.get("paramKind"):
        variables["params"] = params if params is not None else DYN
    own: dict[str, Type] = {}
    variables["variables"] = Type("object", (), "kubernetes.variables", own)
    for variable in spec.get("variables") or ():
        try:
            own[variable["name"]] = checked(variable["expression"], variables).type or DYN
        except CompileError:
            # What depends on it is not complained of a second time.
            own[variable["name"]] = DYN
    return variables
