"""What extends the server: webhook configurations, admission policies, custom resource definitions, API services.

Called by: table.py. Never does: check a structural schema in depth (structural.py does).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation import policy_expressions
from k1s.api.validation.rules import Errors, immutable, named, one_of, port, strings
from k1s.api.validation.selectors import label_selector

_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_REVIEWS = ("v1", "v1beta1")


def client_config(errs: Errors, at: str, config: Object) -> None:
    """A webhook's address: an https URL or a service."""
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        errs.append(required(at, "exactly one of url or service is required"))
        return
    if service is not None:
        for key in ("name", "namespace"):
            if not service.get(key):
                errs.append(required(f"{at}.service.{key}", f"service {key} is required"))
        port(errs, f"{at}.service.port", service.get("port") if service.get("port") is not None else 443)
        path = service.get("path")
        if path and not path.startswith("/"):
            errs.append(invalid_value(f"{at}.service.path", path, "must start with a '/'"))
        return
    parts = urlsplit(str(url))
    if parts.scheme != "https":
        text = f"'https' is the only allowed URL scheme; desired format: https://host[/path]; not {parts.scheme!r}"
        errs.append(invalid_value(f"{at}.url", url, text))
    if not parts.netloc:
        errs.append(invalid_value(f"{at}.url", url, "host must be specified; desired format: https://host[/path]"))
    for bad, what in ((parts.username, "user information"), (parts.fragment, "fragments"), (parts.query, "query parameters")):
        if bad:
            errs.append(invalid_value(f"{at}.url", url, f"{what} are not permitted in the URL"))


def _rule(errs: Errors, at: str, rule: Object) -> None:
    for key in ("apiGroups", "apiVersions", "resources"):
        values = rule.get(key) or []
        if not values:
            errs.append(required(f"{at}.{key}"))
        if "*" in values and len(values) > 1 and key != "resources":
            errs.append(invalid_value(f"{at}.{key}", values, f"if '*' is present, must not specify other {_SAYS[key]}"))
    operations = rule.get("operations") or []
    if not operations:
        errs.append(required(f"{at}.operations"))
    if "*" in operations and len(operations) > 1:
        errs.append(invalid_value(f"{at}.operations", operations, "if '*' is present, must not specify other operations"))
    for index, operation in enumerate(operations):
        one_of(errs, f"{at}.operations[{index}]", operation, _OPERATIONS, needed=True)
    one_of(errs, f"{at}.scope", rule.get("scope"), ("*", "Cluster", "Namespaced"))


_SAYS = {"apiGroups": "API groups", "apiVersions": "API versions"}


def _webhook(errs: Errors, at: str, hook: Object, *, mutating: bool) -> None:
    if not hook.get("name"):
        errs.append(required(f"{at}.name"))
    else:
        strings(errs, f"{at}.name", hook["name"], names.fully_qualified_name)
    label_selector(errs, f"{at}.namespaceSelector", hook.get("namespaceSelector"))
    label_selector(errs, f"{at}.objectSelector", hook.get("objectSelector"))
    for index, rule in enumerate(hook.get("rules") or ()):
        _rule(errs, f"{at}.rules[{index}]", rule)
    one_of(errs, f"{at}.failurePolicy", hook.get("failurePolicy"), ("Fail", "Ignore"))
    one_of(errs, f"{at}.matchPolicy", hook.get("matchPolicy"), ("Equivalent", "Exact"))
    one_of(errs, f"{at}.sideEffects", hook.get("sideEffects"), ("None", "NoneOnDryRun"), needed=True)
    if mutating:
        one_of(errs, f"{at}.reinvocationPolicy", hook.get("reinvocationPolicy"), ("IfNeeded", "Never"))
    timeout = hook.get("timeoutSeconds")
    if isinstance(timeout, int) and not 1 <= timeout <= 30:
        errs.append(invalid_value(f"{at}.timeoutSeconds", timeout, "the timeout value must be between 1 and 30 seconds"))
    client_config(errs, f"{at}.clientConfig", hook.get("clientConfig") or {})
    _reviews(errs, f"{at}.admissionReviewVersions", hook.get("admissionReviewVersions") or [])
    policy_expressions.conditions(errs, f"{at}.matchConditions", hook.get("matchConditions"), policy_expressions.WEBHOOK)


def _reviews(errs: Errors, at: str, versions: list[str]) -> None:
    accepted = ", ".join(_REVIEWS)
    if not versions:
        errs.append(required(at, f"must specify one of {accepted}"))
    elif not set(versions) & set(_REVIEWS):
        errs.append(invalid_value(at, versions, f"must include at least one of {accepted}"))


def webhooks(errs: Errors, obj: Object) -> None:
    mutating = obj.get("kind") == "MutatingWebhookConfiguration"
    seen: set[Any] = set()
    for index, hook in enumerate(obj.get("webhooks") or ()):
        at = f"webhooks[{index}]"
        _webhook(errs, at, hook, mutating=mutating)
        if hook.get("name") in seen:
            errs.append(duplicate(f"{at}.name", hook.get("name")))
        seen.add(hook.get("name"))


def _match(errs: Errors, at: str, match: Object, *, rules_needed: bool) -> None:
    if rules_needed and not match.get("resourceRules"):
        errs.append(required(f"{at}.resourceRules"))
    for key in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(key) or ()):
            _rule(errs, f"{at}.{key}[{index}]", rule)
    one_of(errs, f"{at}.matchPolicy", match.get("matchPolicy"), ("Equivalent", "Exact"))
    for key in ("namespaceSelector", "objectSelector"):
        label_selector(errs, f"{at}.{key}", match.get(key))


def admission_policy(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    one_of(errs, "spec.failurePolicy", spec.get("failurePolicy"), ("Fail", "Ignore"))
    if spec.get("matchConstraints") is None:
        errs.append(required("spec.matchConstraints"))
    else:
        _match(errs, "spec.matchConstraints", spec["matchConstraints"], rules_needed=True)
    policy_expressions.policy(errs, spec)
    if obj.get("kind") == "MutatingAdmissionPolicy":
        if not spec.get("mutations"):
            errs.append(required("spec.mutations", "mutations must contain at least one item"))
        return
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        text = "validations or auditAnnotations must be non-empty"
        errs.append(required("spec.validations", text))


def admission_policy_binding(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    named(errs, "spec.policyName", spec.get("policyName"), names.dns1123_subdomain)
    ref = spec.get("paramRef")
    if ref is not None:
        if ref.get("name") and ref.get("selector") is not None:
            errs.append(forbidden_field("spec.paramRef.name", "name and selector are mutually exclusive"))
        elif not ref.get("name") and ref.get("selector") is None:
            errs.append(required("spec.paramRef", "one of name or selector must be specified"))
        one_of(errs, "spec.paramRef.parameterNotFoundAction", ref.get("parameterNotFoundAction"), ("Allow", "Deny"), needed=True)
    if spec.get("matchResources") is not None:
        _match(errs, "spec.matchResources", spec["matchResources"], rules_needed=False)
    if obj.get("kind") != "ValidatingAdmissionPolicyBinding":
        return
    actions = spec.get("validationActions") or []
    if not actions:
        errs.append(required("spec.validationActions", "at least one validation action is required"))
    for index, action in enumerate(actions):
        one_of(errs, f"spec.validationActions[{index}]", action, ("Audit", "Deny", "Warn"), needed=True)
    if "Deny" in actions and "Warn" in actions:
        text = "must not contain both Deny and Warn (repeating the same validation failure information in the API response)"
        errs.append(invalid_value("spec.validationActions", actions, text))


def api_service(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    name = (obj.get("metadata") or {}).get("name") or ""
    group, version = spec.get("group") or "", spec.get("version") or ""
    wanted = f"{version}.{group}"
    if name != wanted:
        errs.append(invalid_value("metadata.name", name, f'must be `spec.version+"."+spec.group`: {wanted!r}'))
    if group:
        strings(errs, "spec.group", group, names.dns1123_subdomain)
    strings(errs, "spec.version", version, names.dns1035_label)
    for key, most in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        value = spec.get(key) or 0
        if not 0 < value <= most:
            errs.append(invalid_value(f"spec.{key}", value, f"must be positive and less than {most}"))
    service = spec.get("service")
    if service is None:
        if spec.get("caBundle"):
            errs.append(invalid_value("spec.caBundle", "", "local APIServices may not have a caBundle"))
        return
    for key in ("namespace", "name"):
        if not service.get(key):
            errs.append(required(f"spec.service.{key}"))
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        errs.append(invalid_value("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))


def immutable_spec(errs: Errors, obj: Object, old: Object) -> None:
    """Kinds whose spec never changes."""
    immutable(errs, "spec", obj.get("spec"), old.get("spec"))
