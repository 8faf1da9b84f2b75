"""Network policies, ingresses, ingress classes, service CIDRs and addresses.

Called by: table.py. Never does: look whether a backend exists.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value, required, too_long
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, immutable, named, one_of, port, port_or_name, strings
from k1s.api.validation.selectors import label_selector

_PROTOCOLS = ("SCTP", "TCP", "UDP")


def _policy_port(errs: Errors, at: str, entry: Object) -> None:
    one_of(errs, f"{at}.protocol", entry.get("protocol"), _PROTOCOLS)
    number, end = entry.get("port"), entry.get("endPort")
    if number is None:
        if end is not None:
            errs.append(invalid_value(f"{at}.endPort", end, "may not be specified when `port` is not specified"))
        return
    port_or_name(errs, f"{at}.port", number)
    if end is None:
        return
    if isinstance(number, str):
        errs.append(invalid_value(f"{at}.endPort", end, "may not be specified when `port` is non-numeric"))
    elif end < number:
        errs.append(invalid_value(f"{at}.endPort", end, "must be greater than or equal to `port`"))
    else:
        port(errs, f"{at}.endPort", end)


def _ip_block(errs: Errors, at: str, block: Object) -> None:
    if not block.get("cidr"):
        errs.append(required(f"{at}.cidr"))
        return
    before = len(errs)
    strings(errs, f"{at}.cidr", block["cidr"], names.cidr)
    if len(errs) > before:
        return
    outer = ipaddress.ip_network(block["cidr"], strict=False)
    for index, text in enumerate(block.get("except") or ()):
        here = f"{at}.except[{index}]"
        if names.cidr(text):
            strings(errs, here, text, names.cidr)
            continue
        inner = ipaddress.ip_network(text, strict=False)
        inside = inner.version == outer.version and inner.network_address in outer and inner.prefixlen > outer.prefixlen
        if not inside:
            errs.append(invalid_value(here, text, "must be a strict subset of `cidr`"))


def _peer(errs: Errors, at: str, peer: Object) -> None:
    given = [key for key in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(key) is not None]
    for key in ("podSelector", "namespaceSelector"):
        label_selector(errs, f"{at}.{key}", peer.get(key))
    if "ipBlock" in given:
        _ip_block(errs, f"{at}.ipBlock", peer["ipBlock"])
    if not given:
        errs.append(required(at, "must specify a peer"))
    elif "ipBlock" in given and len(given) > 1:
        errs.append(forbidden_field(at, "may not specify both ipBlock and another peer"))


def network_policy(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    label_selector(errs, "spec.podSelector", spec.get("podSelector"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            at = f"spec.{direction}[{index}]"
            for number, entry in enumerate(rule.get("ports") or ()):
                _policy_port(errs, f"{at}.ports[{number}]", entry)
            for number, peer in enumerate(rule.get(peers) or ()):
                _peer(errs, f"{at}.{peers}[{number}]", peer)
    kinds = spec.get("policyTypes") or []
    if len(kinds) > 2:
        errs.append(invalid_value("spec.policyTypes", kinds, "may not specify more than two policyTypes"))
        return
    for index, kind in enumerate(kinds):
        one_of(errs, f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress"), needed=True)


def _host(errs: Errors, at: str, host: str) -> None:
    if host.startswith("*."):
        strings(errs, at, host, names.wildcard_dns1123_subdomain)
    else:
        strings(errs, at, host, names.dns1123_subdomain)


def _backend(errs: Errors, at: str, backend: Object) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        errs.append(invalid_value(at, "", "cannot set both resource and service backends"))
    elif resource is not None:
        for key in ("kind", "name"):
            if not resource.get(key):
                errs.append(required(f"{at}.resource.{key}"))
    elif service is not None:
        named(errs, f"{at}.service.name", service.get("name"), names.dns1035_label)
        _backend_port(errs, f"{at}.service.port", service.get("port") or {})
    else:
        errs.append(required(at, "must specify a service or resource backend"))


def _backend_port(errs: Errors, at: str, value: Object) -> None:
    name, number = value.get("name"), value.get("number")
    if name and number:
        errs.append(invalid_value(at, "", "cannot set both port name & port number"))
    elif name:
        strings(errs, f"{at}.name", name, names.port_name)
    elif number:
        port(errs, f"{at}.number", number)
    else:
        errs.append(required(at, "port name or number is required"))


_BAD_PATHS = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDS = ("/..", "/.")


def _path(errs: Errors, at: str, entry: Object) -> None:
    kind, path = entry.get("pathType"), entry.get("path") or ""
    if not kind:
        errs.append(required(f"{at}.pathType", "pathType must be specified"))
    elif kind in ("Exact", "Prefix"):
        if not path.startswith("/"):
            errs.append(invalid_value(f"{at}.path", path, "must be an absolute path"))
        for part in _BAD_PATHS:
            if part in path:
                errs.append(invalid_value(f"{at}.path", path, f"must not contain '{part}'"))
        for end in _BAD_ENDS:
            if path.endswith(end):
                errs.append(invalid_value(f"{at}.path", path, f"cannot end with '{end}'"))
    elif kind == "ImplementationSpecific":
        if path and not path.startswith("/"):
            errs.append(invalid_value(f"{at}.path", path, "must be an absolute path"))
    else:
        one_of(errs, f"{at}.pathType", kind, ("Exact", "ImplementationSpecific", "Prefix"))
    _backend(errs, f"{at}.backend", entry.get("backend") or {})


def _rule(errs: Errors, at: str, rule: Object) -> None:
    host = rule.get("host")
    if host:
        if not names.ip_address(host):
            errs.append(invalid_value(f"{at}.host", host, "must be a DNS name, not an IP address"))
        else:
            _host(errs, f"{at}.host", host)
    http = rule.get("http")
    if http is None:
        return
    if not http.get("paths"):
        errs.append(required(f"{at}.http.paths"))
    for index, entry in enumerate(http.get("paths") or ()):
        _path(errs, f"{at}.http.paths[{index}]", entry)


def ingress(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    if not spec.get("rules") and spec.get("defaultBackend") is None:
        errs.append(invalid_value("spec", spec.get("rules") or [], "either `defaultBackend` or `rules` must be specified"))
    for index, rule in enumerate(spec.get("rules") or ()):
        _rule(errs, f"spec.rules[{index}]", rule)
    if spec.get("defaultBackend") is not None:
        _backend(errs, "spec.defaultBackend", spec["defaultBackend"])
    for index, tls in enumerate(spec.get("tls") or ()):
        for number, host in enumerate(tls.get("hosts") or ()):
            _host(errs, f"spec.tls[{index}].hosts[{number}]", host)
        if tls.get("secretName"):
            strings(errs, f"spec.tls[{index}].secretName", tls["secretName"], names.dns1123_subdomain)
    if spec.get("ingressClassName") is not None:
        strings(errs, "spec.ingressClassName", spec["ingressClassName"], names.dns1123_subdomain)
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        value = annotations.get("kubernetes.io/ingress.class")
        if value is not None and value != spec["ingressClassName"]:
            at = "metadata.annotations.kubernetes.io/ingress.class"
            errs.append(invalid_value(at, value, "must match `ingressClassName` when both are specified"))


def _class_parameters(errs: Errors, at: str, parameters: Object) -> None:
    for key in ("kind", "name"):
        if not parameters.get(key):
            errs.append(required(f"{at}.{key}"))
    scope, place = parameters.get("scope"), parameters.get("namespace")
    if scope is None:
        errs.append(required(f"{at}.scope"))
        return
    one_of(errs, f"{at}.scope", scope, ("Cluster", "Namespace"))
    if scope == "Namespace":
        if not place:
            errs.append(required(f"{at}.namespace", "`parameters.scope` is set to 'Namespace'"))
        else:
            strings(errs, f"{at}.namespace", place, names.dns1123_label)
    elif scope == "Cluster" and place is not None:
        errs.append(forbidden_field(f"{at}.namespace", "`parameters.scope` is set to 'Cluster'"))


def ingress_class(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    controller = spec.get("controller") or ""
    if len(controller) > 250:
        errs.append(too_long("spec.controller", 250))
    strings(errs, "spec.controller", controller, names.domain_prefixed_key)
    if spec.get("parameters") is not None:
        _class_parameters(errs, "spec.parameters", spec["parameters"])


def ingress_class_update(errs: Errors, obj: Object, old: Object) -> None:
    ingress_class(errs, obj)
    new, was = (obj.get("spec") or {}).get("controller"), (old.get("spec") or {}).get("controller")
    immutable(errs, "spec.controller", new, was)


def service_cidr(errs: Errors, obj: Object) -> None:
    blocks = (obj.get("spec") or {}).get("cidrs") or []
    if not blocks:
        errs.append(required("spec.cidrs", "at least one CIDR required"))
        return
    if len(blocks) > 2:
        errs.append(invalid_value("spec", blocks, "may only hold up to 2 values"))
        return
    before = len(errs)
    for index, block in enumerate(blocks):
        at = f"spec.cidrs[{index}]"
        strings(errs, at, block, names.cidr)
        if len(errs) == before and str(ipaddress.ip_network(block, strict=False)) != block:
            errs.append(invalid_value(at, block, "must be in canonical form: " + str(ipaddress.ip_network(block, strict=False))))
    if len(errs) == before and len(blocks) == 2 and len({":" in block for block in blocks}) == 1:
        text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        errs.append(invalid_value("spec.cidrs", blocks, text))


def service_cidr_update(errs: Errors, obj: Object, old: Object) -> None:
    """A second family may be added; what there is stays."""
    service_cidr(errs, obj)
    new, was = ((o.get("spec") or {}).get("cidrs") or [] for o in (obj, old))
    for index, block in enumerate(was):
        now = new[index] if index < len(new) else None
        immutable(errs, f"spec.cidrs[{index}]", now, block)


def ip_address(errs: Errors, obj: Object) -> None:
    parent: Any = (obj.get("spec") or {}).get("parentRef")
    if not parent:
        errs.append(required("spec.parentRef"))
        return
    for key in ("resource", "name"):
        if not parent.get(key):
            errs.append(required(f"spec.parentRef.{key}"))


def ip_address_update(errs: Errors, obj: Object, old: Object) -> None:
    ip_address(errs, obj)
    new, was = (obj.get("spec") or {}).get("parentRef"), (old.get("spec") or {}).get("parentRef")
    immutable(errs, "spec.parentRef", new, was)
