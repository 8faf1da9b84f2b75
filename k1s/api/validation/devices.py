"""resource.k8s.io: claims and their templates, device classes, taint rules.

Called by: table.py. Never does: allocate, or compile the CEL of selectors.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from k1s.api import names
from k1s.api.addresses import sloppy_ip
from k1s.api.errors import OMIT, forbidden_field, invalid_value, not_supported, required, too_long, too_many
from k1s.api.meta import Object
from k1s.api.validation.conditions import conditions
from k1s.api.validation.csi import driver_name
from k1s.api.validation.device_parts import (
    binding_conditions,
    configuration,
    each,
    label,
    pool_name,
    qualified,
    raw_object,
    selector,
    skipped_operations,
    taint,
    toleration,
)
from k1s.api.validation.object_meta import template_meta
from k1s.api.validation.rules import Errors, immutable, same, strings
from k1s.api.validation.scheduling import node_selector

_MAX = 32
_MAX_CHOICES, _MAX_RESERVED, _MAX_STATUS_CONDITIONS, _MAX_IPS = 8, 256, 8, 16
_MAX_TAINT_CONDITIONS = 8
_UNKNOWN = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"

# Request -> its subrequests, None for a request without.
_Names = dict[str, set[str] | None]


def _names(devices: Object) -> _Names:
    out: _Names = {}
    for request in devices.get("requests") or ():
        choices = request.get("firstAvailable")
        out[request.get("name") or ""] = {c.get("name") or "" for c in choices} if choices else None
    return out


def _named(known: _Names, name: str) -> bool:
    request, slash, sub = name.partition("/")
    return request in known and (not slash or sub in (known[request] or ()))


def _reference(known: _Names) -> Any:
    def check(errs: Errors, at: str, name: str) -> None:
        if name.count("/") > 1:
            errs.append(invalid_value(at, name, _UNKNOWN))
            return
        for part in name.split("/"):
            label(errs, at, part)
        if not _named(known, name):
            errs.append(invalid_value(at, name, _UNKNOWN))

    return check


def _exact(errs: Errors, at: str, request: Object) -> None:
    if not request.get("deviceClassName"):
        errs.append(required(f"{at}.deviceClassName"))
    else:
        strings(errs, f"{at}.deviceClassName", request["deviceClassName"], names.dns1123_subdomain)
    each(errs, f"{at}.selectors", request.get("selectors"), _MAX, selector)
    mode, count = request.get("allocationMode") or "", request.get("count") or 0
    if mode == "All":
        if count:
            errs.append(invalid_value(f"{at}.count", count, "must not be specified when allocationMode is 'All'"))
    elif mode == "ExactCount":
        if count <= 0:
            errs.append(invalid_value(f"{at}.count", count, "must be greater than zero"))
    else:
        errs.append(not_supported(f"{at}.allocationMode", mode, ("All", "ExactCount")))
    each(errs, f"{at}.tolerations", request.get("tolerations"), -1, toleration)


def _choice(errs: Errors, at: str, request: Object) -> None:
    label(errs, f"{at}.name", request.get("name"))
    _exact(errs, at, request)


def _request(errs: Errors, at: str, request: Object) -> None:
    label(errs, f"{at}.name", request.get("name"))
    exactly, choices = request.get("exactly"), request.get("firstAvailable") or []
    text = "exactly one of `exactly` or `firstAvailable` is required"
    if exactly is None and not choices:
        errs.append(required(at, text))
    elif exactly is not None and choices:
        errs.append(invalid_value(at, None, f"{text}, but multiple fields are set"))
    elif choices:
        each(errs, f"{at}.firstAvailable", choices, _MAX_CHOICES, _choice, lambda c: c.get("name") or "")
    else:
        _exact(errs, f"{at}.exactly", exactly or {})


def _claim_spec(errs: Errors, at: str, spec: Object) -> None:
    devices = spec.get("devices") or {}
    reference = _reference(_names(devices))

    def constraint(errs: Errors, at: str, item: Object) -> None:
        each(errs, f"{at}.requests", item.get("requests"), _MAX, reference, str)
        for key in ("matchAttribute", "distinctAttribute"):
            if item.get(key) is not None:
                qualified(errs, f"{at}.{key}", item[key], fully=True)
                return
        text = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        errs.append(required(at, text))

    def config(errs: Errors, at: str, item: Object) -> None:
        each(errs, f"{at}.requests", item.get("requests"), _MAX, reference, str)
        configuration(errs, at, item)

    here = f"{at}.devices"
    each(errs, f"{here}.requests", devices.get("requests"), _MAX, _request, lambda r: r.get("name") or "")
    each(errs, f"{here}.constraints", devices.get("constraints"), _MAX, constraint)
    each(errs, f"{here}.config", devices.get("config"), _MAX, config)


def claim(errs: Errors, obj: Object) -> None:
    _claim_spec(errs, "spec", obj.get("spec") or {})


def claim_template(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    template_meta(errs, "spec.metadata", spec.get("metadata"))
    _claim_spec(errs, "spec.spec", spec.get("spec") or {})


def fixed_spec(errs: Errors, obj: Object, old: Object) -> None:
    """Claims and templates: nothing else of them can be wrong in an update."""
    immutable(errs, "spec", obj.get("spec"), old.get("spec"))


def _consumer(errs: Errors, at: str, reference: Object) -> None:
    for key in ("resource", "name", "uid"):
        if not reference.get(key):
            errs.append(required(f"{at}.{key}"))


def _device_key(item: Object) -> str:
    shown = f"{item.get('driver') or ''}/{item.get('pool') or ''}/{item.get('device') or ''}"
    return f"{shown}/{item['shareID']}" if item.get("shareID") else shown


def claim_status(errs: Errors, obj: Object, old: Object) -> None:
    status, before = obj.get("status") or {}, old.get("status") or {}
    allocation = status.get("allocation")
    given = {_device_key(r) for r in ((allocation or {}).get("devices") or {}).get("results") or ()}

    def device(errs: Errors, at: str, item: Object) -> None:
        _device_status(errs, at, item, allocated=_device_key(item) in given)

    reserved = status.get("reservedFor") or []
    each(errs, "status.reservedFor", reserved, _MAX_RESERVED, _consumer, lambda r: r.get("uid") or "")
    each(errs, "status.devices", status.get("devices"), -1, device, _device_key)
    if reserved and allocation is None:
        errs.append(forbidden_field("status.reservedFor", "may not be specified when `allocated` is not set"))
    elif reserved and (obj.get("metadata") or {}).get("deletionTimestamp"):
        known = before.get("reservedFor") or []
        if any(reference not in known for reference in reserved):
            text = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
            errs.append(forbidden_field("status.reservedFor", text))
    if allocation is None:
        return
    if before.get("allocation") is not None:
        if not same(allocation, before["allocation"]):
            errs.append(invalid_value("status.allocation", OMIT, "field is immutable"))
    else:
        _allocation(errs, "status.allocation", allocation, _names((obj.get("spec") or {}).get("devices") or {}))


def _allocation(errs: Errors, at: str, allocation: Object, known: _Names) -> None:
    reference = _reference(known)

    def result(errs: Errors, at: str, item: Object) -> None:
        reference(errs, f"{at}.request", item.get("request") or "")
        driver_name(errs, f"{at}.driver", item.get("driver"))
        pool_name(errs, f"{at}.pool", item.get("pool"))
        label(errs, f"{at}.device", item.get("device"))
        binding_conditions(errs, at, item)
        each(errs, f"{at}.tolerations", item.get("tolerations"), -1, toleration)
        skipped_operations(errs, f"{at}.skipNodeOperations", item.get("skipNodeOperations"))

    def config(errs: Errors, at: str, item: Object) -> None:
        source = item.get("source")
        if not source:
            errs.append(required(f"{at}.source"))
        elif source not in ("FromClaim", "FromClass"):
            errs.append(not_supported(f"{at}.source", source, ("FromClaim", "FromClass")))
        each(errs, f"{at}.requests", item.get("requests"), _MAX, reference, str)
        configuration(errs, at, item)

    devices = allocation.get("devices") or {}
    each(errs, f"{at}.devices.results", devices.get("results"), _MAX, result)
    each(errs, f"{at}.devices.config", devices.get("config"), 2 * _MAX, config)
    if allocation.get("nodeSelector") is not None:
        node_selector(errs, f"{at}.nodeSelector", allocation["nodeSelector"])


def _device_status(errs: Errors, at: str, item: Object, *, allocated: bool) -> None:
    driver_name(errs, f"{at}.driver", item.get("driver"))
    pool_name(errs, f"{at}.pool", item.get("pool"))
    label(errs, f"{at}.device", item.get("device"))
    if not allocated:
        errs.append(invalid_value(at, _device_key(item), "must be an allocated device in the claim"))
    found = item.get("conditions") or []
    if len(found) > _MAX_STATUS_CONDITIONS:
        errs.append(too_many(f"{at}.conditions", len(found), _MAX_STATUS_CONDITIONS))
    conditions(errs, f"{at}.conditions", found)
    if item.get("data") is not None:
        raw_object(errs, f"{at}.data", item["data"])
    network = item.get("networkData") or {}
    for key, most in (("interfaceName", 256), ("hardwareAddress", 128)):
        if len((network.get(key) or "").encode()) > most:
            errs.append(too_long(f"{at}.networkData.{key}", most))
    each(errs, f"{at}.networkData.ips", network.get("ips"), _MAX_IPS, _interface, str)


def _interface(errs: Errors, at: str, text: str) -> None:
    address, _, length = text.rpartition("/")
    parsed = sloppy_ip(address)
    if parsed is None or not length.isdigit() or int(length) > parsed.max_prefixlen:
        errs.append(invalid_value(at, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"))
        return
    wanted = str(ipaddress.ip_interface(f"{parsed}/{int(length)}"))
    if wanted != text:
        errs.append(invalid_value(at, text, f"must be in canonical form ({json.dumps(wanted)})"))


def device_class(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    each(errs, "spec.selectors", spec.get("selectors"), _MAX, selector)
    each(errs, "spec.config", spec.get("config"), _MAX, configuration)
    extended = spec.get("extendedResourceName")
    if extended is not None and not _extended(extended):
        errs.append(invalid_value("spec.extendedResourceName", extended, "must be a valid extended resource name"))


def _extended(name: str) -> bool:
    domain, slash, _ = name.partition("/")
    native = not slash or domain == "kubernetes.io" or domain.endswith(".kubernetes.io")
    return not native and not name.startswith("requests.") and not names.qualified_name(f"requests.{name}")


def taint_rule(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    chosen = spec.get("deviceSelector") or {}
    for key, check in (("driver", driver_name), ("pool", pool_name), ("device", label)):
        if chosen.get(key) is not None:
            check(errs, f"spec.deviceSelector.{key}", chosen[key])
    taint(errs, "spec.taint", spec.get("taint") or {})


def taint_rule_status(errs: Errors, obj: Object, old: Object) -> None:
    found = (obj.get("status") or {}).get("conditions") or []
    conditions(errs, "status.conditions", found)
    if len(found) > _MAX_TAINT_CONDITIONS:
        errs.append(too_many("status.conditions", len(found), _MAX_TAINT_CONDITIONS))
