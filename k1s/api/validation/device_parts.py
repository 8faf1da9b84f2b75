"""What claims, classes, slices and taint rules of resource.k8s.io have in common.

Called by: devices.py, device_slices.py. Never does: compile CEL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, invalid_value, not_supported, required, too_long, too_many
from k1s.api.meta import Object
from k1s.api.validation.csi import driver_name
from k1s.api.validation.rules import Errors, strings

Item = Callable[[Errors, str, Any], None]

_MAX_POOL, _MAX_IDENTIFIER, _MAX_EXPRESSION, _MAX_OPAQUE, _MAX_CONDITIONS = 253, 32, 10 * 1024, 10 * 1024, 4
_EFFECTS = ("NoExecute", "NoSchedule", "None")


def each(errs: Errors, at: str, items: Any, most: int, check: Item, key: Callable[[Any], Any] | None = None) -> None:
    """A list of at most so many; `key`: and no two of them the same."""
    found = items or []
    if 0 <= most < len(found):
        errs.append(too_many(at, len(found), most))
        return
    for index, item in enumerate(found):
        check(errs, f"{at}[{index}]", item)
    seen: set[Any] = set()
    for index, item in enumerate(found if key is not None else ()):
        assert key is not None
        value = key(item)
        if value in seen:
            errs.append(duplicate(f"{at}[{index}]", value))
        seen.add(value)


def label(errs: Errors, at: str, name: Any) -> None:
    """Names of devices, requests and counters."""
    strings(errs, at, name or "", names.dns1123_label)


def pool_name(errs: Errors, at: str, name: Any) -> None:
    """Subdomains with slashes between them."""
    if not name:
        errs.append(required(at))
        return
    if len(name) > _MAX_POOL:
        errs.append(too_long(at, _MAX_POOL))
    for part in str(name).split("/"):
        strings(errs, at, part, names.dns1123_subdomain)


def _identifier(errs: Errors, at: str, name: str) -> None:
    if len(name) > _MAX_IDENTIFIER:
        errs.append(too_long(at, _MAX_IDENTIFIER))
    strings(errs, at, name, names.c_identifier)


def qualified(errs: Errors, at: str, name: str, *, fully: bool = False) -> None:
    """[domain/]name of an attribute or a capacity; `fully`: the domain must be there."""
    parts = name.split("/")
    if len(parts) > 2:
        errs.append(invalid_value(at, name, "must not contain more than one slash"))
    elif len(parts) == 2:
        if not parts[0]:
            errs.append(invalid_value(at, "", "the domain must not be empty"))
        else:
            driver_name(errs, at, parts[0])
        if not parts[1]:
            errs.append(invalid_value(at, "", "the name must not be empty"))
        else:
            _identifier(errs, at, parts[1])
    else:
        _identifier(errs, at, name)
    if fully and len(parts) == 1:
        text = "a fully qualified name must be a domain and a name separated by a slash"
        errs.append(invalid_value(at, name, text))


def selector(errs: Errors, at: str, item: Object) -> None:
    cel = item.get("cel")
    if cel is None:
        errs.append(required(f"{at}.cel"))
    elif len((cel.get("expression") or "").encode()) > _MAX_EXPRESSION:
        errs.append(too_long(f"{at}.cel.expression", _MAX_EXPRESSION))
    elif not cel.get("expression"):
        errs.append(required(f"{at}.cel.expression"))


def raw_object(errs: Errors, at: str, value: Any) -> None:
    """RawExtension: a JSON object."""
    if value is None:
        errs.append(required(at))
    elif not isinstance(value, dict):
        errs.append(invalid_value(at, "<value omitted>", "must be a valid JSON object"))
    elif len(str(value)) > _MAX_OPAQUE:
        errs.append(too_long(at, _MAX_OPAQUE))


def configuration(errs: Errors, at: str, item: Object) -> None:
    opaque = item.get("opaque")
    if opaque is None:
        errs.append(required(f"{at}.opaque"))
        return
    driver_name(errs, f"{at}.opaque.driver", opaque.get("driver"))
    raw_object(errs, f"{at}.opaque.parameters", opaque.get("parameters"))


def taint(errs: Errors, at: str, item: Object) -> None:
    strings(errs, f"{at}.key", item.get("key") or "", names.qualified_name)
    if item.get("value"):
        strings(errs, f"{at}.value", item["value"], names.label_value)
    if not item.get("effect"):
        errs.append(required(f"{at}.effect"))
    elif item["effect"] not in _EFFECTS:
        errs.append(not_supported(f"{at}.effect", item["effect"], _EFFECTS))


def toleration(errs: Errors, at: str, item: Object) -> None:
    operator, value = item.get("operator") or "", item.get("value") or ""
    if item.get("key"):
        strings(errs, f"{at}.key", item["key"], names.qualified_name)
    if operator == "Exists":
        if value:
            errs.append(invalid_value(f"{at}.value", value, "must be empty for operator `Exists`"))
    elif operator == "Equal":
        strings(errs, f"{at}.value", value, names.label_value)
    elif not operator:
        errs.append(required(f"{at}.operator"))
    else:
        errs.append(not_supported(f"{at}.operator", operator, ("Equal", "Exists")))
    if item.get("effect") and item["effect"] not in _EFFECTS:
        errs.append(not_supported(f"{at}.effect", item["effect"], _EFFECTS))


def binding_conditions(errs: Errors, at: str, item: Object) -> None:
    """bindingConditions and bindingFailureConditions: both or none, and no condition in both."""
    first, second = "bindingConditions", "bindingFailureConditions"
    good, bad = item.get(first) or [], item.get(second) or []
    for key, found in ((first, good), (second, bad)):
        each(errs, f"{at}.{key}", found, _MAX_CONDITIONS, lambda e, p, v: strings(e, p, v, names.qualified_name))
        for index, condition in enumerate(found):
            if condition in found[:index]:
                errs.append(duplicate(f"{at}.{key}[{index}]", condition))
    for index, condition in enumerate(bad):
        if condition in good:
            text = f"{second} must not overlap with {first}"
            errs.append(invalid_value(f"{at}.{second}[{index}]", condition, text))
    if bad and not good:
        errs.append(invalid_value(f"{at}.{first}", good, f"{first} are required to use {second}"))
    if good and not bad:
        errs.append(invalid_value(f"{at}.{second}", bad, f"{second} are required to use {first}"))


def skipped_operations(errs: Errors, at: str, operations: Any) -> None:
    found = set(operations or ())
    if "NodePrepareResources" in found and not found & {"NodeUnprepareResources", "*"}:
        text = "NodePrepareResources cannot be skipped unless NodeUnprepareResources is also skipped"
        errs.append(invalid_value(at, operations, text))
