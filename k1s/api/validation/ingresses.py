"""Ingresses and their classes.

Called by: table.py. Never does: look whether a backend exists.
"""

from __future__ import annotations

import re
from typing import Any

from k1s.api import names
from k1s.api.addresses import sloppy_ip
from k1s.api.errors import forbidden_field, invalid_value, not_supported, required, too_long
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, immutable, strings

_CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_BAD_PATHS = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDS = ("/..", "/.")
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_HTTP_PATH = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+"
_GOOD_PATH = re.compile(_HTTP_PATH, re.ASCII)
_MAX_CONTROLLER = 250


def _host(errs: Errors, at: str, host: str) -> None:
    strings(errs, at, host, names.wildcard_dns1123_subdomain if "*" in host else names.dns1123_subdomain)


def _reference(errs: Errors, at: str, reference: Object) -> None:
    """apiGroup, kind and name of another object."""
    if reference.get("apiGroup") is not None:
        strings(errs, f"{at}.apiGroup", reference["apiGroup"], names.dns1123_subdomain)
    for key in ("kind", "name"):
        if not reference.get(key):
            errs.append(required(f"{at}.{key}"))
        else:
            strings(errs, f"{at}.{key}", reference[key], names.path_segment_name)


def _backend(errs: Errors, at: str, backend: Object) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        errs.append(invalid_value(at, "", "cannot set both resource and service backends"))
    elif resource is not None:
        _reference(errs, f"{at}.resource", resource)
    elif service is not None:
        if not service.get("name"):
            errs.append(required(f"{at}.service.name"))
        else:
            # Names of Services are DNS labels since v1.36 (KEP-5311).
            strings(errs, f"{at}.service.name", service["name"], names.dns1123_label)
        _backend_port(errs, at, service.get("port") or {})
    else:
        errs.append(invalid_value(at, "", "resource or service backend is required"))


def _backend_port(errs: Errors, at: str, value: Object) -> None:
    name, number = value.get("name"), value.get("number")
    if name and number:
        errs.append(invalid_value(at, "", "cannot set both port name & port number"))
    elif name:
        strings(errs, f"{at}.service.port.name", name, names.port_name)
    elif number:
        errs.extend(invalid_value(f"{at}.service.port.number", number, message) for message in names.port_number(number))
    else:
        errs.append(required(at, "port name or number is required"))


def _path(errs: Errors, at: str, entry: Object) -> None:
    kind, path = entry.get("pathType"), entry.get("path") or ""
    if kind is None:
        errs.append(required(f"{at}.pathType", "pathType must be specified"))
        return
    if kind not in _PATH_TYPES:
        errs.append(not_supported(f"{at}.pathType", kind, _PATH_TYPES))
    elif not path.startswith("/") and (path or kind != "ImplementationSpecific"):
        errs.append(invalid_value(f"{at}.path", path, "must be an absolute path"))
    if kind in ("Exact", "Prefix"):
        for part in _BAD_PATHS:
            if part in path:
                errs.append(invalid_value(f"{at}.path", path, f"must not contain '{part}'"))
        for end in _BAD_ENDS:
            if path.endswith(end):
                errs.append(invalid_value(f"{at}.path", path, f"cannot end with '{end}'"))
    _backend(errs, f"{at}.backend", entry.get("backend") or {})


def _rule(errs: Errors, at: str, rule: Object) -> None:
    host = rule.get("host")
    if host:
        if sloppy_ip(host) is not None:
            errs.append(invalid_value(f"{at}.host", host, "must be a DNS name, not an IP address"))
        _host(errs, f"{at}.host", host)
    http = rule.get("http")
    if http is None:
        return
    if not http.get("paths"):
        errs.append(required(f"{at}.http.paths"))
    for index, entry in enumerate(http.get("paths") or ()):
        _path(errs, f"{at}.http.paths[{index}]", entry)


def _tls(errs: Errors, tls: Any, *, any_secret: bool) -> None:
    for index, entry in enumerate(tls or ()):
        at = f"spec.tls[{index}]"
        for number, host in enumerate(entry.get("hosts") or ()):
            _host(errs, f"{at}.hosts[{number}]", host)
        if entry.get("secretName") and not any_secret:
            strings(errs, f"{at}.secretName", entry["secretName"], names.dns1123_subdomain)


def _ingress(errs: Errors, obj: Object, *, any_secret: bool) -> None:
    spec = obj.get("spec") or {}
    if not spec.get("rules") and spec.get("defaultBackend") is None:
        errs.append(invalid_value("spec", spec.get("rules") or [], "either `defaultBackend` or `rules` must be specified"))
    if spec.get("defaultBackend") is not None:
        _backend(errs, "spec.defaultBackend", spec["defaultBackend"])
    for index, rule in enumerate(spec.get("rules") or ()):
        _rule(errs, f"spec.rules[{index}]", rule)
    _tls(errs, spec.get("tls"), any_secret=any_secret)
    if spec.get("ingressClassName") is not None:
        strings(errs, "spec.ingressClassName", spec["ingressClassName"], names.dns1123_subdomain)


def ingress(errs: Errors, obj: Object) -> None:
    _ingress(errs, obj, any_secret=False)
    wanted = (obj.get("spec") or {}).get("ingressClassName")
    value = ((obj.get("metadata") or {}).get("annotations") or {}).get(_CLASS_ANNOTATION)
    if value is not None and wanted is not None and value != wanted:
        text = "must match `ingressClassName` when both are specified"
        errs.append(invalid_value(f"annotations.{_CLASS_ANNOTATION}", value, text))


def ingress_update(errs: Errors, obj: Object, old: Object) -> None:
    """The annotation may stand beside the field by now; names of secrets that never were any may stay."""
    before: Errors = []
    _tls(before, (old.get("spec") or {}).get("tls"), any_secret=False)
    _ingress(errs, obj, any_secret=any(error.field.endswith(".secretName") for error in before))


def domain_prefixed_path(errs: Errors, at: str, value: str) -> None:
    """<domain>/<path>, as names of controllers are."""
    host, slash, path = value.partition("/")
    if not slash or not host or not path:
        errs.append(invalid_value(at, value, 'must be a domain-prefixed path (such as "acme.io/foo")'))
        return
    strings(errs, at, host, names.dns1123_subdomain)
    if not _GOOD_PATH.fullmatch(path):
        errs.append(invalid_value(at, path, names.regex_error("Invalid path", _HTTP_PATH)))


def _class_parameters(errs: Errors, at: str, parameters: Object) -> None:
    _reference(errs, at, parameters)
    scope, place = parameters.get("scope"), parameters.get("namespace")
    if scope is None:
        errs.append(required(f"{at}.scope"))
    elif scope not in ("Cluster", "Namespace"):
        errs.append(not_supported(f"{at}.scope", scope, ("Cluster", "Namespace")))
    elif scope == "Namespace":
        if place is None:
            errs.append(required(f"{at}.namespace", "`parameters.scope` is set to 'Namespace'"))
        else:
            strings(errs, f"{at}.namespace", place, names.dns1123_label)
    elif place is not None:
        errs.append(forbidden_field(f"{at}.namespace", "`parameters.scope` is set to 'Cluster'"))


def ingress_class(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    controller = spec.get("controller") or ""
    if not controller:
        errs.append(required("spec.controller"))
    else:
        if len(controller) > _MAX_CONTROLLER:
            errs.append(too_long("spec.controller", _MAX_CONTROLLER))
        domain_prefixed_path(errs, "spec.controller", controller)
    if spec.get("parameters") is not None:
        _class_parameters(errs, "spec.parameters", spec["parameters"])


def ingress_class_update(errs: Errors, obj: Object, old: Object) -> None:
    new, was = ((o.get("spec") or {}).get("controller") for o in (obj, old))
    immutable(errs, "spec.controller", new, was)
    ingress_class(errs, obj)


def ingress_status(errs: Errors, obj: Object, old: Object) -> None:
    """status.loadBalancer; addresses that stood there before the rules became strict may stay."""
    found, before = (((o.get("status") or {}).get("loadBalancer") or {}).get("ingress") or [] for o in (obj, old))
    known = {entry.get("ip") for entry in before}
    for index, entry in enumerate(found):
        at, address, host = f"status.loadBalancer.ingress[{index}]", entry.get("ip"), entry.get("hostname")
        if address and address not in known:
            strings(errs, f"{at}.ip", address, names.ip_address)
        if host:
            strings(errs, f"{at}.hostname", host, names.dns1123_subdomain)
            if sloppy_ip(host) is not None:
                errs.append(invalid_value(f"{at}.hostname", host, "must be a DNS name, not an IP address"))
