"""Admission policies and their bindings, but for the CEL in them (policy_expressions.py).

Called by: table.py. Never does: evaluate.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation import policy_expressions
from k1s.api.validation.conditions import conditions
from k1s.api.validation.extension import rule
from k1s.api.validation.rules import Errors, strings
from k1s.api.validation.selectors import label_selector

_POLICIES = ("Equivalent", "Exact")
_ACTIONS = ("Audit", "Deny", "Warn")
_MAX_ANNOTATIONS = 20


def _named_rule(errs: Errors, at: str, item: Object) -> None:
    found = item.get("resourceNames") or []
    for index, name in enumerate(found):
        here = f"{at}.resourceNames[{index}]"
        strings(errs, here, name, names.path_segment_name)
        if name in found[:index]:
            errs.append(duplicate(here, name))
    rule(errs, at, item)


def _match(errs: Errors, at: str, match: Object) -> None:
    policy = match.get("matchPolicy")
    if policy is None:
        errs.append(required(f"{at}.matchPolicy"))
    elif policy not in _POLICIES:
        errs.append(not_supported(f"{at}.matchPolicy", policy, _POLICIES))
    for key in ("namespaceSelector", "objectSelector"):
        if match.get(key) is None:
            errs.append(required(f"{at}.{key}"))
        else:
            label_selector(errs, f"{at}.{key}", match[key])
    for key in ("resourceRules", "excludeResourceRules"):
        for index, item in enumerate(match.get(key) or ()):
            _named_rule(errs, f"{at}.{key}[{index}]", item)


def _param_kind(errs: Errors, at: str, param: Object) -> None:
    version, kind = param.get("apiVersion") or "", param.get("kind") or ""
    if not version:
        errs.append(required(f"{at}.apiVersion"))
    elif version.count("/") > 1:
        errs.append(invalid_value(f"{at}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
    else:
        group, _, version = version.rpartition("/")
        faults = names.dns1123_subdomain(group) if group else []
        if faults:
            errs.append(invalid_value(f"{at}.apiVersion", group, ",".join(faults)))
        if not version:
            errs.append(invalid_value(f"{at}.apiVersion", param["apiVersion"], "version must be specified"))
        elif names.dns1035_label(version):
            errs.append(invalid_value(f"{at}.apiVersion", version, ",".join(names.dns1035_label(version))))
    faults = names.dns1035_label(kind.lower())
    if not kind:
        errs.append(required(f"{at}.kind"))
    elif faults:
        text = "may have mixed case, but should otherwise match: " + ",".join(faults)
        errs.append(invalid_value(f"{at}.kind", kind, text))


def _one_of(errs: Errors, at: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value is None:
        errs.append(required(at))
    elif value not in allowed:
        errs.append(not_supported(at, value, allowed))


def policy(errs: Errors, obj: Object) -> None:
    """Of either kind."""
    spec = obj.get("spec") or {}
    _one_of(errs, "spec.failurePolicy", spec.get("failurePolicy"), ("Fail", "Ignore"))
    if spec.get("paramKind") is not None:
        _param_kind(errs, "spec.paramKind", spec["paramKind"])
    match = spec.get("matchConstraints")
    if match is None:
        errs.append(required("spec.matchConstraints"))
    else:
        _match(errs, "spec.matchConstraints", match)
        if not match.get("resourceRules"):
            errs.append(required("spec.matchConstraints.resourceRules"))
    policy_expressions.policy(errs, spec)
    if obj.get("kind") == "MutatingAdmissionPolicy":
        if not spec.get("mutations"):
            errs.append(required("spec.mutations", "mutations must contain at least one item"))
        _one_of(errs, "spec.reinvocationPolicy", spec.get("reinvocationPolicy"), ("IfNeeded", "Never"))
        return
    notes = spec.get("auditAnnotations") or []
    if not spec.get("validations") and not notes:
        text = "validations or auditAnnotations must contain at least one item"
        errs.extend(required(f"spec.{key}", text) for key in ("validations", "auditAnnotations"))
    if len(notes) > _MAX_ANNOTATIONS:
        text = f"must not have more than {_MAX_ANNOTATIONS} auditAnnotations"
        errs.append(invalid_value("spec.auditAnnotations", notes, text))


def policy_status(errs: Errors, obj: Object, old: Object) -> None:
    status = obj.get("status") or {}
    at = "status.typeChecking.expressionWarnings"
    for index, warning in enumerate((status.get("typeChecking") or {}).get("expressionWarnings") or ()):
        for key in ("warning", "fieldRef"):
            if not (warning.get(key) or "").strip():
                errs.append(required(f"{at}[{index}].{key}"))
    conditions(errs, "status.conditions", status.get("conditions"))


def _param_ref(errs: Errors, at: str, ref: Object) -> None:
    name, selector = ref.get("name"), ref.get("selector")
    if name:
        strings(errs, f"{at}.name", name, names.path_segment_name)
    if name and selector is not None:
        errs.append(forbidden_field(f"{at}.name", "name and selector are mutually exclusive"))
    if selector is not None:
        label_selector(errs, f"{at}.selector", selector)
    if name and selector is not None:
        errs.append(forbidden_field(f"{at}.selector", "name and selector are mutually exclusive"))
    if not name and selector is None:
        errs.append(required(at, "one of name or selector must be specified"))
    action, here = ref.get("parameterNotFoundAction"), f"{at}.parameterNotFoundAction"
    if not action:
        errs.append(required(here))
    elif action not in ("Deny", "Allow"):
        errs.append(not_supported(here, action, ("Deny", "Allow"), as_given=True))


def binding(errs: Errors, obj: Object) -> None:
    """Of either kind. The misspelt path is upstream's."""
    spec = obj.get("spec") or {}
    if not spec.get("policyName"):
        errs.append(required("spec.policyName"))
    else:
        strings(errs, "spec.policyName", spec["policyName"], names.dns1123_subdomain)
    if spec.get("paramRef") is not None:
        _param_ref(errs, "spec.paramRef", spec["paramRef"])
    if spec.get("matchResources") is not None:
        _match(errs, "spec.matchResouces", spec["matchResources"])
    if obj.get("kind") == "ValidatingAdmissionPolicyBinding":
        _actions(errs, "spec.validationActions", spec.get("validationActions") or [])


def _actions(errs: Errors, at: str, actions: list[str]) -> None:
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            errs.append(not_supported(f"{at}[{index}]", action, _ACTIONS))
        if action in actions[:index]:
            errs.append(duplicate(f"{at}[{index}]", action))
    if "Deny" in actions and "Warn" in actions:
        text = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response "
            "and headers serves no purpose)"
        )
        errs.append(invalid_value(at, actions, text))
    if not actions:
        errs.append(required(at, "at least one validation action is required"))
