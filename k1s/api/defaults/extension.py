"""Defaults of what extends the server: webhooks, admission policies, custom resource definitions, API services.

Called by: table.py. Never does: schemas of custom resources (their own defaults are the apiserver's crds).
"""

from __future__ import annotations

from typing import Any

from k1s.api.meta import Object


def _set(obj: Object, **values: Any) -> None:
    for key, value in values.items():
        if obj.get(key) is None:
            obj[key] = value


def _service_port(holder: Object | None) -> None:
    service = (holder or {}).get("service")
    if service is not None and service.get("port") is None:
        service["port"] = 443


def _rule_scopes(rules: Any) -> None:
    for rule in rules or ():
        if rule.get("scope") is None:
            rule["scope"] = "*"


def _webhook(webhook: Object) -> None:
    _set(webhook, failurePolicy="Fail", matchPolicy="Equivalent", timeoutSeconds=10)
    webhook.setdefault("namespaceSelector", {})
    webhook.setdefault("objectSelector", {})
    _service_port(webhook.get("clientConfig"))
    _rule_scopes(webhook.get("rules"))


def validating_webhooks(obj: Object) -> None:
    for webhook in obj.get("webhooks") or ():
        _webhook(webhook)


def mutating_webhooks(obj: Object) -> None:
    for webhook in obj.get("webhooks") or ():
        _webhook(webhook)
        _set(webhook, reinvocationPolicy="Never")


def _match_resources(match: Object | None) -> None:
    if match is None:
        return
    _set(match, matchPolicy="Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    _rule_scopes(match.get("resourceRules"))
    _rule_scopes(match.get("excludeResourceRules"))


def admission_policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _set(spec, failurePolicy="Fail")
    _match_resources(spec.get("matchConstraints"))
    if obj.get("kind") == "ValidatingAdmissionPolicy":
        obj.setdefault("status", {})


def admission_policy_binding(obj: Object) -> None:
    _match_resources(obj.setdefault("spec", {}).get("matchResources"))


def custom_resource_definition(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.get("names")
    if names is not None and names.get("kind"):
        if not names.get("singular"):
            names["singular"] = names["kind"].lower()
        if not names.get("listKind"):
            names["listKind"] = names["kind"] + "List"
    if not spec.get("conversion"):
        spec["conversion"] = {"strategy": "None"}
    webhook = spec["conversion"].get("webhook")
    if webhook is not None:
        _service_port(webhook.get("clientConfig"))


def api_service(obj: Object) -> None:
    _service_port(obj.setdefault("spec", {}))
    obj.setdefault("status", {})
