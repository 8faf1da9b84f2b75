"""ResourceSlices: what a driver says of its devices.

Called by: table.py. Never does: compare with other slices of the pool.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value, required, too_long, too_many
from k1s.api.meta import Object
from k1s.api.quantity import parse
from k1s.api.validation.csi import driver_name
from k1s.api.validation.device_parts import (
    binding_conditions,
    each,
    label,
    pool_name,
    qualified,
    skipped_operations,
    taint,
)
from k1s.api.validation.rules import Errors, immutable, strings
from k1s.api.validation.scheduling import node_selector

_MAX_DEVICES, _MAX_ADVANCED, _MAX_SETS, _MAX_COUNTERS = 128, 64, 8, 32
_MAX_CONSUMPTIONS, _MAX_TAINTS, _MAX_VALUES, _MAX_TEXT, _MAX_OPTIONS = 2, 16, 32, 64, 10
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)
_LISTS = ("bools", "ints", "strings", "versions")
_PLACES = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
_DEVICE_PLACES = "`nodeName`, `nodeSelector`"
_NEEDS = "is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"


def _only_true(errs: Errors, at: str, value: Any) -> bool:
    if value is False:
        errs.append(invalid_value(at, value, "must be either unset or set to true"))
    return value is True


def _places(errs: Errors, at: str, item: Object, empty: str) -> Iterator[str]:
    """Which of the fields that say where devices are stand there."""
    if item.get("nodeName") is not None:
        if item["nodeName"]:
            yield "`nodeName`"
            strings(errs, f"{at}.nodeName", item["nodeName"], names.dns1123_subdomain)
        else:
            errs.append(invalid_value(f"{at}.nodeName", "", empty))
    if item.get("nodeSelector") is not None:
        yield "`nodeSelector`"
        node_selector(errs, f"{at}.nodeSelector", item["nodeSelector"])
    if _only_true(errs, f"{at}.allNodes", item.get("allNodes")):
        yield "`allNodes`"


def _spec(errs: Errors, spec: Object, before: Object | None) -> None:
    driver_name(errs, "spec.driver", spec.get("driver"))
    pool = spec.get("pool") or {}
    pool_name(errs, "spec.pool.name", pool.get("name"))
    if (pool.get("resourceSliceCount") or 0) <= 0:
        count = pool.get("resourceSliceCount") or 0
        errs.append(invalid_value("spec.pool.resourceSliceCount", count, "must be greater than zero"))
    if (pool.get("generation") or 0) < 0:
        errs.append(invalid_value("spec.pool.generation", pool["generation"], "must be greater than or equal to zero"))
    if before is not None:
        immutable(errs, "spec.pool.name", pool.get("name"), (before.get("pool") or {}).get("name"))
        immutable(errs, "spec.driver", spec.get("driver"), before.get("driver"))
        immutable(errs, "spec.nodeName", spec.get("nodeName"), before.get("nodeName"))
    given = list(_places(errs, "spec", spec, "must be either unset or set to a non-empty string"))
    terms = (spec.get("nodeSelector") or {}).get("nodeSelectorTerms") or []
    if spec.get("nodeSelector") is not None and len(terms) != 1:
        at = "spec.nodeSelector.nodeSelectorTerms"
        errs.append(invalid_value(at, terms, "must have exactly one node selector term"))
    if _only_true(errs, "spec.perDeviceNodeSelection", spec.get("perDeviceNodeSelection")):
        given.append("`perDeviceNodeSelection`")
    if not given:
        errs.append(required("spec", _PLACES))
    elif len(given) > 1:
        errs.append(invalid_value("spec", f"{{{', '.join(given)}}}", f"{_PLACES}, but multiple fields are set"))
    if spec.get("sharedCounters") is not None and spec.get("devices") is not None:
        errs.append(invalid_value("spec", "", "only one of `sharedCounters` or `devices` is allowed"))
    _devices(errs, spec, before)
    each(errs, "spec.sharedCounters", spec.get("sharedCounters"), _MAX_SETS, _counter_set, lambda s: s.get("name") or "")
    skipped_operations(errs, "spec.skipNodeOperations", spec.get("skipNodeOperations"))


def _devices(errs: Errors, spec: Object, before: Object | None) -> None:
    devices = spec.get("devices") or []
    advanced = any(d.get("taints") or d.get("consumesCounters") or _has_lists(d) for d in devices)
    old = {d.get("name"): d for d in (before or {}).get("devices") or ()}
    own = spec.get("perDeviceNodeSelection") is True

    def device(errs: Errors, at: str, item: Object) -> None:
        _device(errs, at, item, old.get(item.get("name")), own=own)

    each(errs, "spec.devices", devices, _MAX_ADVANCED if advanced else _MAX_DEVICES, device, lambda d: d.get("name") or "")


def _has_lists(device: Object) -> bool:
    return any(key in attribute for attribute in (device.get("attributes") or {}).values() for key in _LISTS)


def _counters(errs: Errors, at: str, item: Object, key: str) -> None:
    if not item.get(key):
        errs.append(required(f"{at}.{key}"))
    else:
        label(errs, f"{at}.{key}", item[key])
    counters = item.get("counters") or {}
    if not counters:
        errs.append(required(f"{at}.counters"))
    elif len(counters) > _MAX_COUNTERS:
        errs.append(too_many(f"{at}.counters", len(counters), _MAX_COUNTERS))
    else:
        for name in counters:
            label(errs, f"{at}.counters", name)


def _counter_set(errs: Errors, at: str, item: Object) -> None:
    _counters(errs, at, item, "name")


def _consumption(errs: Errors, at: str, item: Object) -> None:
    _counters(errs, at, item, "counterSet")


def _device(errs: Errors, at: str, device: Object, old: Object | None, *, own: bool) -> None:
    label(errs, f"{at}.name", device.get("name"))
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    for count, most, what in (
        (len(attributes) + len(capacity), _MAX_VALUES, "attributes and capacities"),
        (sum(max(1, sum(len(a.get(key) or ()) for key in _LISTS)) for a in attributes.values()), 48, "attribute values"),
    ):
        if count > most:
            errs.append(invalid_value(at, count, f"the total number of {what} must not exceed {most}"))
    for name, attribute in attributes.items():
        qualified(errs, f"{at}.attributes", name)
        _attribute(errs, f"{at}.attributes[{name}]", attribute)
    if old is None or old.get("capacity") != device.get("capacity"):
        shared = device.get("allowMultipleAllocations") is True
        for name, amount in capacity.items():
            qualified(errs, f"{at}.capacity", name)
            _capacity(errs, f"{at}.capacity[{name}].requestPolicy", amount, shared=shared)
    if old is None or old.get("taints") != device.get("taints"):
        each(errs, f"{at}.taints", device.get("taints"), _MAX_TAINTS, taint)
    consumed = device.get("consumesCounters")
    each(errs, f"{at}.consumesCounters", consumed, _MAX_CONSUMPTIONS, _consumption, lambda c: c.get("counterSet") or "")
    _device_place(errs, at, device, own=own)
    binding_conditions(errs, at, device)


def _device_place(errs: Errors, at: str, device: Object, *, own: bool) -> None:
    if own:
        given = list(_places(errs, at, device, "must not be empty"))
        text = f"exactly one of {_DEVICE_PLACES}, or `allNodes` {_NEEDS}"
        if not given:
            errs.append(required(at, text))
        elif len(given) > 1:
            errs.append(invalid_value(at, f"{{{', '.join(given)}}}", text))
    elif any(device.get(key) is not None for key in ("nodeName", "nodeSelector", "allNodes")):
        only = "can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
        text = f"{_DEVICE_PLACES} and `allNodes` {only}"
        errs.append(invalid_value(at, None, text))


def _text(errs: Errors, at: str, value: str) -> None:
    if len(value.encode()) > _MAX_TEXT:
        errs.append(too_long(at, _MAX_TEXT))


def _version(errs: Errors, at: str, value: str) -> None:
    if not _SEMVER.fullmatch(value):
        errs.append(invalid_value(at, value, "must be a string compatible with semver.org spec 2.0.0"))
    _text(errs, at, value)


def _attribute(errs: Errors, at: str, attribute: Object) -> None:
    count = sum(attribute.get(key) is not None for key in ("bool", "int", "string", "version", *_LISTS))
    for key, check in (("string", _text), ("version", _version)):
        if attribute.get(key) is not None:
            check(errs, f"{at}.{key}", attribute[key])
    for key in _LISTS:
        if attribute.get(key) == []:
            errs.append(invalid_value(f"{at}.{key}", [], "must not be empty if specified"))
    each(errs, f"{at}.strings", attribute.get("strings"), -1, _text)
    each(errs, f"{at}.versions", attribute.get("versions"), -1, _version)
    if count != 1:
        errs.append(invalid_value(at, attribute if count else "", "exactly one value must be specified"))


def _amount(value: Any) -> Any:
    """The number of a quantity; what cannot be read was refused by its type."""
    try:
        return parse(value)
    except ValueError:
        return 0


def _capacity(errs: Errors, at: str, capacity: Object, *, shared: bool) -> None:
    policy = capacity.get("requestPolicy")
    if policy is None:
        return
    if not shared:
        errs.append(forbidden_field(at, "allowMultipleAllocations must be true"))
        return
    values, span, default = policy.get("validValues") or [], policy.get("validRange"), policy.get("default")
    if values and span is not None:
        text = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        errs.append(forbidden_field(at, text))
    elif values or span is not None:
        kind = "validValues" if values else "validRange"
        if default is None:
            errs.append(required(f"{at}.default", f"required when {kind} is defined"))
        elif values:
            _options(errs, f"{at}.validValues", values, default, capacity.get("value"))
        else:
            _range(errs, f"{at}.validRange", span or {}, default, capacity.get("value"))


def _options(errs: Errors, at: str, values: list[Any], default: Any, most: Any) -> None:
    amounts = [_amount(value) for value in values]
    for index in range(1, len(values)):
        if amounts[index - 1] > amounts[index]:
            errs.append(invalid_value(f"{at}[{index}]", values[index], "values must be sorted in ascending order"))

    def option(errs: Errors, at: str, value: Any) -> None:
        if _amount(value) > _amount(most):
            errs.append(invalid_value(at, value, f"option is larger than capacity value: {most}"))

    each(errs, at, values, _MAX_OPTIONS, option, str)
    if _amount(default) not in amounts:
        errs.append(invalid_value(at, default, "default value is not valid according to the requestPolicy"))


def _range(errs: Errors, at: str, span: Object, default: Any, most: Any) -> None:
    least, greatest, step = span.get("min"), span.get("max"), span.get("step")
    if least is None:
        errs.append(required(f"{at}.min", "required when validRange is defined"))
        return
    low, given, whole = _amount(least), _amount(default), _amount(most)
    if low > whole:
        errs.append(invalid_value(f"{at}.min", least, f"min is larger than capacity value: {most}"))
    if given < low:
        errs.append(invalid_value(f"{at}.default", default, f"default is less than min: {least}"))
    if greatest is not None:
        high = _amount(greatest)
        if low > high:
            errs.append(invalid_value(f"{at}.max", least, f"min is larger than max: {greatest}"))
        if high > whole:
            errs.append(invalid_value(f"{at}.max", greatest, f"max is larger than capacity value: {most}"))
        if given > high:
            errs.append(invalid_value(f"{at}.default", default, f"default is more than max: {greatest}"))
    if step is None:
        return
    width = _amount(step)
    if width <= 0:
        errs.append(invalid_value(f"{at}.step", step, "must be greater than zero"))
        return
    if low + width > whole:
        errs.append(invalid_value(f"{at}.step", step, f"one step {low + width} is larger than capacity value: {most}"))
    for value in (default, greatest):
        if value is not None and (_amount(value) - low) % width:
            text = f"value is not a multiple of a given step ({step}) from ({least})"
            errs.append(invalid_value(f"{at}.step", value, text))


def resource_slice(errs: Errors, obj: Object) -> None:
    _spec(errs, obj.get("spec") or {}, None)


def resource_slice_update(errs: Errors, obj: Object, old: Object) -> None:
    _spec(errs, obj.get("spec") or {}, old.get("spec") or {})
