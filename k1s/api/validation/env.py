"""Environment of a container: env, valueFrom, envFrom, and the downward API's field references.

Called by: containers.py, volumes.py. Never does: look whether a config map or secret exists (the agent does).
"""

from __future__ import annotations

import re
from typing import Any

from k1s.api import names, quantity
from k1s.api.errors import invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, named, strings

ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_RESOURCES = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_HUGE = ("limits.hugepages-", "requests.hugepages-")
_SUBSCRIPT = re.compile(r"([^\[]+)\['(.*)'\]\Z", re.DOTALL)
_BYTES = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_CHOICES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


# What the downward API knows at all; ENV_FIELDS and VOLUME_FIELDS say what is allowed where.
_LABELS = (*ENV_FIELDS, *VOLUME_FIELDS, "spec.restartPolicy", "spec.schedulerName", "status.phase")


def field_ref(errs: Errors, field: str, ref: Object, allowed: tuple[str, ...]) -> None:
    """ObjectFieldSelector."""
    version, label = ref.get("apiVersion"), ref.get("fieldPath")
    if not version:
        errs.append(required(f"{field}.apiVersion"))
        return
    if not label:
        errs.append(required(f"{field}.fieldPath"))
        return
    path, subscript = _split(label)
    wrong = _unknown_label(version, label, path, subscript)
    if wrong:
        errs.append(invalid_value(f"{field}.fieldPath", label, f"error converting fieldPath: {wrong}"))
    elif subscript is not None:
        key = subscript.lower() if path == "metadata.annotations" else subscript
        strings(errs, field, key, names.qualified_name)
    elif path not in allowed:
        errs.append(not_supported(f"{field}.fieldPath", path, allowed))


def _split(label: str) -> tuple[str, str | None]:
    """`metadata.labels['a']` -> its path and what stands in the brackets."""
    found = _SUBSCRIPT.match(label)
    return (label, None) if found is None else (found.group(1), found.group(2))


def _unknown_label(version: str, label: str, path: str, subscript: str | None) -> str:
    if version != "v1":
        return f"unsupported pod version: {version}"
    if subscript is not None:
        known = path in ("metadata.annotations", "metadata.labels")
        return "" if known else f"field label does not support subscript: {label}"
    return "" if label in _LABELS or label == "spec.host" else f"field label not supported: {label}"


def resource_field_ref(errs: Errors, field: str, ref: Object, *, volume: bool) -> None:
    """ResourceFieldSelector; a volume must say which container."""
    resource = ref.get("resource") or ""
    if volume and not ref.get("containerName"):
        errs.append(required(f"{field}.containerName"))
    elif not resource:
        errs.append(required(f"{field}.resource"))
    elif resource not in _RESOURCES and not resource.startswith(_HUGE):
        errs.append(not_supported(f"{field}.resource", resource, _RESOURCES))
    _divisor(errs, field, resource, ref.get("divisor"))


def _divisor(errs: Errors, field: str, resource: str, divisor: Any) -> None:
    if divisor is None or divisor in ("", "0", 0) or (resource not in _RESOURCES and not resource.startswith(_HUGE)):
        return
    cpu = resource.endswith(".cpu")
    allowed = ("1m", "1") if cpu else _BYTES
    try:
        if quantity.parse(divisor) == 0 or quantity.canonical(divisor) in allowed:
            return
    except ValueError as error:
        errs.append(invalid_value(f"{field}.divisor", divisor, str(error)))
        return
    what = resource.partition(".")[2].partition("-")[0].replace("ephemeral", "local ephemeral storage")
    text = f"only divisor's values {' and '.join(allowed) if cpu else ', '.join(allowed)} are supported with the {what} resource"
    errs.append(invalid_value(f"{field}.divisor", resource, text))


def _key_ref(errs: Errors, field: str, ref: Object) -> None:
    strings(errs, f"{field}.name", ref.get("name") or "", names.dns1123_subdomain)
    if not ref.get("key"):
        errs.append(required(f"{field}.key"))
    else:
        strings(errs, f"{field}.key", ref["key"], names.config_map_key)


def _file_key_ref(errs: Errors, field: str, ref: Object) -> None:
    named(errs, f"{field}.key", ref.get("key"), names.env_var_name)
    named(errs, f"{field}.volumeName", ref.get("volumeName"), names.dns1123_label)
    if not ref.get("path"):
        errs.append(required(f"{field}.path"))
    elif ref["path"].startswith("/"):
        errs.append(invalid_value(f"{field}.path", ref["path"], "must be a relative path"))
    elif ".." in ref["path"].split("/"):
        errs.append(invalid_value(f"{field}.path", ref["path"], "must not contain '..'"))


def _value_from(errs: Errors, field: str, variable: Object) -> None:
    source = variable["valueFrom"]
    given = [key for key in _CHOICES if source.get(key) is not None]
    at = f"{field}.valueFrom"
    if source.get("fieldRef") is not None:
        field_ref(errs, f"{at}.fieldRef", source["fieldRef"], ENV_FIELDS)
    if source.get("resourceFieldRef") is not None:
        resource_field_ref(errs, f"{at}.resourceFieldRef", source["resourceFieldRef"], volume=False)
    for key in ("configMapKeyRef", "secretKeyRef"):
        if source.get(key) is not None:
            _key_ref(errs, f"{at}.{key}", source[key])
    if source.get("fileKeyRef") is not None:
        _file_key_ref(errs, f"{at}.fileKeyRef", source["fileKeyRef"])
    if not given:
        choice = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        errs.append(invalid_value(at, "", choice))
    elif variable.get("value"):
        errs.append(invalid_value(at, "", "may not be specified when `value` is not empty"))
    elif len(given) > 1:
        errs.append(invalid_value(at, "", "may not have more than one field specified at a time"))


def env(errs: Errors, field: str, variables: Any) -> None:
    """container.env."""
    for index, variable in enumerate(variables or ()):
        at = f"{field}[{index}]"
        named(errs, f"{at}.name", variable.get("name"), names.env_var_name)
        if variable.get("valueFrom") is not None:
            _value_from(errs, at, variable)


def env_from(errs: Errors, field: str, sources: Any) -> None:
    """container.envFrom."""
    for index, source in enumerate(sources or ()):
        at = f"{field}[{index}]"
        if source.get("prefix"):
            strings(errs, f"{at}.prefix", source["prefix"], names.env_var_name)
        given = [key for key in ("configMapRef", "secretRef") if source.get(key) is not None]
        for key in given:
            # A trailing dash passes, as in a generated name.
            name = source[key].get("name") or ""
            if not name:
                errs.append(required(f"{at}.{key}.name"))
            else:
                errs.extend(invalid_value(f"{at}.{key}.name", name, message) for message in names.is_dns_subdomain(name, True))
        if not given:
            errs.append(invalid_value(field, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(given) > 1:
            errs.append(invalid_value(field, "", "may not have more than one field specified at a time"))
