"""AuthorizationConfiguration: who is asked whether somebody may, and in which order.

Owns: reading and checking the file of --authorization-config, the same from --authorization-mode and its flags.
Called by: server/security. Never does: authorize. Source: upstream apiserver/pkg/apis/apiserver (v1, defaults and validation),
KEP-3221.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k1s.api.cel.program import CelError, compile_expression
from k1s.api.errors import FieldError, duplicate, invalid_value, not_supported, required
from k1s.api.names import dns1123_subdomain
from k1s.server.apiserver.config_file import ConfigFileError, check, load_object

Object = dict[str, Any]

KIND = "AuthorizationConfiguration"
_VERSIONS = ("v1", "v1beta1", "v1alpha1")
# ABAC is upstream's, too, and on its way out: it is refused by name.
TYPES = ("AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook")
REQUEST = frozenset(("request",))
_MOST_CONDITIONS = 64
_MOST_TIMEOUT = 30.0
_WEBHOOK = {
    "authorizedTTL": None,
    "cacheAuthorizedRequests": None,
    "unauthorizedTTL": None,
    "cacheUnauthorizedRequests": None,
    "timeout": None,
    "subjectAccessReviewVersion": None,
    "matchConditionSubjectAccessReviewVersion": None,
    "failurePolicy": None,
    "connectionInfo": {"type": None, "kubeConfigFile": None},
    "matchConditions": [{"expression": None}],
}
_FIELDS = {"authorizers": [{"type": None, "name": None, "webhook": _WEBHOOK}]}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """One authorizer of type Webhook. Times in seconds."""

    kubeconfig: Path
    version: str = "v1"
    timeout: float = 30.0
    authorized_seconds: float = 300.0
    unauthorized_seconds: float = 30.0
    deny_on_failure: bool = False
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mode:
    """One authorizer: `type` is one of TYPES."""

    type: str
    name: str
    webhook: WebhookConfig | None = None


DEFAULT = (Mode("Node", "node"), Mode("RBAC", "rbac"))


def read(path: Path) -> tuple[Mode, ...]:
    """Raises ConfigFileError."""
    obj = load_object(path, KIND, _VERSIONS, _FIELDS)
    entries = obj.get("authorizers") or []
    check(path, list(_faults(entries)))
    return tuple(_mode(entry) for entry in entries)


def from_flags(flags: Mapping[str, tuple[str, ...]]) -> tuple[Mode, ...]:
    """What --authorization-mode and the --authorization-webhook-* flags say. Raises ConfigFileError."""
    modes = [word for value in flags.get("authorization-mode", ()) for word in value.split(",") if word]
    if not modes:
        return DEFAULT
    for index, mode in enumerate(modes):
        if mode not in TYPES:
            raise ConfigFileError(f'authorization-mode: "{mode}" is not a valid mode here ({", ".join(TYPES)})')
        if mode in modes[:index]:
            raise ConfigFileError(f"authorization-mode {modes} has mode specified more than once")

    def one(name: str, default: str) -> str:
        return flags[name][-1] if flags.get(name) else default

    file = one("authorization-webhook-config-file", "")
    if ("Webhook" in modes) != bool(file):
        raise ConfigFileError("authorization-mode Webhook and authorization-webhook-config-file need each other")
    times = [
        _seconds(one(f"authorization-webhook-cache-{word}-ttl", default))
        for word, default in (("authorized", "5m"), ("unauthorized", "30s"))
    ]
    if None in times:
        raise ConfigFileError("authorization-webhook-cache-*-ttl: not a duration such as 5m0s")
    webhook = WebhookConfig(
        Path(file),
        one("authorization-webhook-version", "v1beta1"),
        authorized_seconds=times[0] or 0.0,
        unauthorized_seconds=times[1] or 0.0,
    )
    return tuple(Mode(mode, mode.lower(), webhook if mode == "Webhook" else None) for mode in modes)


def _mode(entry: Object) -> Mode:
    given = entry.get("webhook")
    if given is None:
        return Mode(entry["type"], entry["name"])
    kept = {name: given.get(f"cache{name}Requests", True) is not False for name in ("Authorized", "Unauthorized")}
    webhook = WebhookConfig(
        kubeconfig=Path(given["connectionInfo"]["kubeConfigFile"]),
        version=given["subjectAccessReviewVersion"],
        timeout=_seconds(given["timeout"]) or 0.0,
        authorized_seconds=_seconds(given.get("authorizedTTL") or "5m") or 0.0 if kept["Authorized"] else 0.0,
        unauthorized_seconds=_seconds(given.get("unauthorizedTTL") or "30s") or 0.0 if kept["Unauthorized"] else 0.0,
        deny_on_failure=given["failurePolicy"] == "Deny",
        conditions=tuple(condition["expression"] for condition in given.get("matchConditions") or ()),
    )
    return Mode(entry["type"], entry["name"], webhook)


def _faults(entries: list[Object]) -> Iterator[FieldError]:
    if not entries:
        yield required("authorizers", "at least one authorization mode must be defined")
    types: set[str] = set()
    names: set[str] = set()
    for index, entry in enumerate(entries):
        at, kind, name = f"authorizers[{index}]", entry.get("type") or "", entry.get("name") or ""
        if not kind:
            yield required(f"{at}.type", "")
        elif kind not in TYPES:
            yield not_supported(f"{at}.type", kind, TYPES)
        elif kind in types and kind != "Webhook":
            yield duplicate(f"{at}.type", kind)
        types.add(kind)
        if not name:
            yield required(f"{at}.name", "")
        elif name in names:
            yield duplicate(f"{at}.name", name)
        elif faults := dns1123_subdomain(name):
            yield invalid_value(f"{at}.name", name, f"authorizer name is invalid: {', '.join(faults)}")
        names.add(name)
        if kind == "Webhook" and entry.get("webhook") is None:
            yield required(f"{at}.webhook", "required when type=Webhook")
        elif kind == "Webhook":
            yield from _webhook(f"{at}.webhook", entry["webhook"])
        elif entry.get("webhook") is not None:
            yield invalid_value(f"{at}.webhook", "non-null", "may only be specified when type=Webhook")


def _webhook(at: str, given: Object) -> Iterator[FieldError]:
    timeout = given.get("timeout")
    if not timeout:
        yield required(f"{at}.timeout", "")
    elif not 0.0 < (_seconds(timeout) or 0.0) <= _MOST_TIMEOUT:
        yield invalid_value(f"{at}.timeout", timeout, "must be > 0s and <= 30s")
    for name in ("authorizedTTL", "unauthorizedTTL"):
        if given.get(name) and not _seconds(given[name]):
            yield invalid_value(f"{at}.{name}", given[name], "must be > 0s")
    for name, allowed in (("subjectAccessReviewVersion", ("v1", "v1beta1")), ("failurePolicy", ("Deny", "NoOpinion"))):
        if not given.get(name):
            yield required(f"{at}.{name}", "")
        elif given[name] not in allowed:
            yield not_supported(f"{at}.{name}", given[name], allowed)
    conditions, version = given.get("matchConditions") or [], given.get("matchConditionSubjectAccessReviewVersion")
    where = f"{at}.matchConditionSubjectAccessReviewVersion"
    if not version and conditions:
        yield required(where, "required if match conditions are specified")
    elif version and version != "v1":
        yield not_supported(where, version, ("v1",))
    yield from _connection(f"{at}.connectionInfo", given.get("connectionInfo") or {})
    yield from _conditions(f"{at}.matchConditions", conditions)


def _connection(at: str, given: Object) -> Iterator[FieldError]:
    kind, file = given.get("type") or "", given.get("kubeConfigFile") or ""
    if not kind:
        yield required(f"{at}.type", "")
    elif kind != "KubeConfigFile":
        # InClusterConfig is for servers that run in a cluster; this one does not.
        yield not_supported(f"{at}.type", kind, ("KubeConfigFile",))
    elif not file:
        yield required(f"{at}.kubeConfigFile", "")
    elif not Path(file).is_absolute():
        yield invalid_value(f"{at}.kubeConfigFile", file, "must be an absolute path")
    elif not Path(file).exists():
        yield invalid_value(f"{at}.kubeConfigFile", file, "error loading file: no such file or directory")
    elif not Path(file).is_file():
        yield invalid_value(f"{at}.kubeConfigFile", file, "must be a regular file")


def _conditions(at: str, conditions: list[Object]) -> Iterator[FieldError]:
    if len(conditions) > _MOST_CONDITIONS:
        yield FieldError("FieldValueTooMany", at, f"must have at most {_MOST_CONDITIONS} items", len(conditions))
        return
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        where, expression = f"{at}[{index}].expression", str(condition.get("expression") or "").strip()
        if not expression:
            yield required(where, "")
            continue
        if expression in seen:
            yield duplicate(where, expression)
            continue
        seen.add(expression)
        try:
            result = compile_expression(expression, REQUEST).result
        except CelError as error:
            yield invalid_value(where, expression, str(error))
            continue
        if result not in ("BOOL", "DYN"):
            yield invalid_value(where, expression, "must evaluate to bool")


def _seconds(text: Any) -> float | None:
    """A duration as Go writes it, None if it is none."""
    parts = _DURATION.findall(str(text))
    if not parts or "".join(number + unit for number, unit in parts) != str(text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
