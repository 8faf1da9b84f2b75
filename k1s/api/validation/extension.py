"""What extends the server: webhook configurations and API services.

Called by: table.py; definitions.py takes client_config. Never does: admission policies (admission_policies.py).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from k1s.api import names
from k1s.api.errors import duplicate, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation import policy_expressions
from k1s.api.validation.rules import Errors, strings
from k1s.api.validation.selectors import label_selector

_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_REVIEWS = ("v1", "v1beta1")
_FORM = "; desired format: https://host[/path]"
_ENUMS = (("failurePolicy", ("Fail", "Ignore")), ("matchPolicy", ("Equivalent", "Exact")))
_CONDITION_STATUS = ("False", "True", "Unknown")


def client_config(errs: Errors, at: str, config: Object) -> None:
    """A webhook's address: an https URL or a service."""
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        errs.append(required(at, "exactly one of url or service is required"))
    elif service is not None:
        _service(errs, f"{at}.service", service)
    else:
        _url(errs, f"{at}.url", str(url))


def _url(errs: Errors, at: str, url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        errs.append(required(at, f'url must be a valid URL: parse "{url}": {error}{_FORM}'))
        return
    if parts.scheme != "https":
        errs.append(invalid_value(at, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}"))
    user, at_sign, host = parts.netloc.rpartition("@")
    if not host:
        errs.append(invalid_value(at, host, f"host must be specified{_FORM}"))
    if at_sign:
        errs.append(invalid_value(at, user, "user information is not permitted in the URL"))
    if parts.fragment:
        errs.append(invalid_value(at, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        errs.append(invalid_value(at, parts.query, "query parameters are not permitted in the URL"))


def _port(errs: Errors, at: str, number: Any) -> None:
    faults = names.port_number(number if isinstance(number, int) else 0)
    if faults:
        errs.append(invalid_value(at, number, f"port is not valid: {','.join(faults)}"))


def _service(errs: Errors, at: str, service: Object) -> None:
    for key in ("name", "namespace"):
        if not service.get(key):
            errs.append(required(f"{at}.{key}", f"service {key} is required"))
    _port(errs, f"{at}.port", 443 if service.get("port") is None else service["port"])
    path, here = service.get("path"), f"{at}.path"
    if not path or path == "/":
        return
    if path == "//":
        errs.append(invalid_value(here, path, "segment[0] may not be empty"))
        return
    if not path.startswith("/"):
        errs.append(invalid_value(here, path, "must start with a '/'"))
    for index, step in enumerate(path[1:].removesuffix("/").split("/")):
        if not step:
            errs.append(invalid_value(here, path, f"segment[{index}] may not be empty"))
        else:
            faults = names.dns1123_subdomain(step)
            errs.extend(invalid_value(here, path, f"segment[{index}]: {message}") for message in faults)


def _resources(errs: Errors, at: str, resources: list[str]) -> None:
    """Resources and subresources; a wildcard leaves nothing to add that it covers."""
    if not resources:
        errs.append(required(at))
    of_resource: set[str] = set()
    of_subresource: set[str] = set()
    plain = False
    for index, text in enumerate(resources):
        here = f"{at}[{index}]"
        if not text:
            errs.append(required(here))
            continue
        resource, slash, sub = text.partition("/")
        if not slash:
            plain = text != "*"
            continue
        if resource in of_resource:
            errs.append(invalid_value(here, text, f"if '{resource}/*' is present, must not specify {text}"))
        if sub in of_subresource:
            errs.append(invalid_value(here, text, f"if '*/{sub}' is present, must not specify {text}"))
        if sub == "*":
            of_resource.add(resource)
        if resource == "*":
            of_subresource.add(sub)
    if len(resources) > 1 and "*/*" in resources:
        errs.append(invalid_value(at, resources, "if '*/*' is present, must not specify other resources"))
    if "*" in resources and plain:
        text = "if '*' is present, must not specify other resources without subresources"
        errs.append(invalid_value(at, resources, text))


def rule(errs: Errors, at: str, item: Object) -> None:
    """RuleWithOperations."""
    operations = item.get("operations") or []
    if not operations:
        errs.append(required(f"{at}.operations"))
    if "*" in operations and len(operations) > 1:
        text = "if '*' is present, must not specify other operations"
        errs.append(invalid_value(f"{at}.operations", operations, text))
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            errs.append(not_supported(f"{at}.operations[{index}]", operation, _OPERATIONS))
    for key, says in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = item.get(key) or []
        if not values:
            errs.append(required(f"{at}.{key}"))
        if "*" in values and len(values) > 1:
            errs.append(invalid_value(f"{at}.{key}", values, f"if '*' is present, must not specify other {says}"))
    for index, version in enumerate(item.get("apiVersions") or ()):
        if not version:
            errs.append(required(f"{at}.apiVersions[{index}]"))
    _resources(errs, f"{at}.resources", item.get("resources") or [])
    if item.get("scope") is not None and item["scope"] not in _SCOPES:
        errs.append(not_supported(f"{at}.scope", item["scope"], _SCOPES))


def _name(errs: Errors, at: str, name: str) -> None:
    faults = names.dns1123_subdomain(name)
    if not name:
        errs.append(required(at))
    elif faults:
        errs.append(invalid_value(at, name, ",".join(faults)))
    elif name.count(".") < 2:
        errs.append(invalid_value(at, name, "should be a domain with at least three segments separated by dots"))


def _webhook(errs: Errors, at: str, hook: Object, *, mutating: bool) -> None:
    _name(errs, f"{at}.name", hook.get("name") or "")
    for index, item in enumerate(hook.get("rules") or ()):
        rule(errs, f"{at}.rules[{index}]", item)
    for key, allowed in _ENUMS:
        if hook.get(key) is not None and hook[key] not in allowed:
            errs.append(not_supported(f"{at}.{key}", hook[key], allowed))
    effects = hook.get("sideEffects")
    if effects is None:
        errs.append(required(f"{at}.sideEffects", "must specify one of None, NoneOnDryRun"))
    elif effects not in ("None", "NoneOnDryRun"):
        errs.append(not_supported(f"{at}.sideEffects", effects, ("None", "NoneOnDryRun")))
    timeout = hook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= 30:
        errs.append(invalid_value(f"{at}.timeoutSeconds", timeout, "the timeout value must be between 1 and 30 seconds"))
    label_selector(errs, f"{at}.namespaceSelector", hook.get("namespaceSelector"))
    label_selector(errs, f"{at}.objectSelector", hook.get("objectSelector"))
    policy = hook.get("reinvocationPolicy")
    if mutating and policy is not None and policy not in ("IfNeeded", "Never"):
        errs.append(not_supported(f"{at}.reinvocationPolicy", policy, ("IfNeeded", "Never")))
    client_config(errs, f"{at}.clientConfig", hook.get("clientConfig") or {})
    policy_expressions.conditions(errs, f"{at}.matchConditions", hook.get("matchConditions"), policy_expressions.WEBHOOK)


def _reviews(errs: Errors, at: str, versions: list[str]) -> None:
    accepted = ", ".join(_REVIEWS)
    if not versions:
        errs.append(required(at, f"must specify one of {accepted}"))
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            errs.append(invalid_value(f"{at}[{index}]", version, "duplicate version"))
        else:
            strings(errs, f"{at}[{index}]", version, names.dns1035_label)
    if not set(versions) & set(_REVIEWS):
        errs.append(invalid_value(at, versions, f"must include at least one of {accepted}"))


def webhooks(errs: Errors, obj: Object) -> None:
    mutating = obj.get("kind") == "MutatingWebhookConfiguration"
    seen: set[Any] = set()
    for index, hook in enumerate(obj.get("webhooks") or ()):
        at = f"webhooks[{index}]"
        _webhook(errs, at, hook, mutating=mutating)
        _reviews(errs, f"{at}.admissionReviewVersions", hook.get("admissionReviewVersions") or [])
        name = hook.get("name")
        if name and name in seen:
            errs.append(duplicate(f"{at}.name", name))
        seen.add(name)


def api_service(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    name = (obj.get("metadata") or {}).get("name") or ""
    group, version = spec.get("group") or "", spec.get("version") or ""
    wanted = f"{version}.{group}"
    if name and name != wanted and not names.path_segment_name(name):
        errs.append(invalid_value("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{wanted}"'))
    if group:
        strings(errs, "spec.group", group, names.dns1123_subdomain)
    elif version != "v1":
        errs.append(required("spec.group", "only v1 may have an empty group and it better be legacy kube"))
    strings(errs, "spec.version", version, names.dns1035_label)
    for key, most in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        value = spec.get(key) or 0
        if not 0 < value <= most:
            errs.append(invalid_value(f"spec.{key}", value, f"must be positive and less than {most}"))
    service, bundle, insecure = spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify")
    if service is None:
        if bundle:
            size = f"{len(bundle) * 3 // 4 - bundle.count('=')} bytes"
            errs.append(invalid_value("spec.caBundle", size, "local APIServices may not have a caBundle"))
        if insecure:
            text = "local APIServices may not have insecureSkipTLSVerify"
            errs.append(invalid_value("spec.insecureSkipTLSVerify", True, text))
        return
    for key in ("namespace", "name"):
        if not service.get(key):
            errs.append(required(f"spec.service.{key}"))
    _port(errs, "spec.service.port", 443 if service.get("port") is None else service["port"])
    if insecure and bundle:
        errs.append(invalid_value("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present"))


def api_service_status(errs: Errors, obj: Object, old: Object) -> None:
    for index, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        if condition.get("status") not in _CONDITION_STATUS:
            at = f"status.conditions[{index}].status"
            errs.append(not_supported(at, condition.get("status") or "", _CONDITION_STATUS))
