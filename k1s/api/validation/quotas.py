"""LimitRanges and ResourceQuotas.

Called by: table.py. Never does: enforce them (admission does).
Source: upstream ValidateLimitRange, ValidateResourceQuota*, pkg/apis/core/helper.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from k1s.api import names, quantity
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.resources import COUNTED, amount, container_resource_name, native, resource_name
from k1s.api.validation.rules import IMMUTABLE, Errors, quantities, strings

_LIMITS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
_TYPES = ("Container", "PersistentVolumeClaim", "Pod")
_TERMINATION = ("Terminating", "NotTerminating")
_EFFORT = ("BestEffort", "NotBestEffort")
_ALONE = (*_TERMINATION, *_EFFORT, "CrossNamespacePodAffinity")
_SCOPES = (*_ALONE, "PriorityClass", "VolumeAttributesClass")
_COMPUTE = ("cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory")
_STANDARD = (
    *COUNTED,
    *_COMPUTE,
    "ephemeral-storage",
    "requests.ephemeral-storage",
    "limits.ephemeral-storage",
    "requests.storage",
)
_EXISTS_ONLY = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


class _Item:
    """One entry of spec.limits, its amounts as numbers: what does not parse or may not stand here is left out."""

    def __init__(self, errs: Errors, at: str, item: Object) -> None:
        self.errs, self.at, self.item = errs, at, item
        self.amounts: dict[str, dict[str, Decimal]] = {}
        for key in _LIMITS:
            if item.get("type") == "Pod" and key in ("default", "defaultRequest"):
                if item.get(key):
                    errs.append(forbidden_field(f"{at}.{key}", "may not be specified when `type` is 'Pod'"))
                continue
            self.amounts[key] = self._parsed(key)

    def _parsed(self, key: str) -> dict[str, Decimal]:
        check: Callable[[Errors, str, str], Any] = resource_name
        if self.item.get("type") in ("Pod", "Container"):
            check = container_resource_name
        out = {}
        for name, value in (self.item.get(key) or {}).items():
            check(self.errs, f"{self.at}.{key}[{name}]", name)
            if quantities(self.errs, f"{self.at}.{key}[{name}]", value):
                out[name] = quantity.parse(value)
        return out

    def shown(self, key: str, name: str) -> str:
        return str((self.item.get(key) or {}).get(name))

    def greater(self, name: str, pair: tuple[tuple[str, str], tuple[str, str]], at: str, value: str) -> None:
        """`low` may not exceed `high`; both with their words in the message, which stands at `at` with `value`."""
        (low, low_word), (high, high_word) = pair
        mine, theirs = self.amounts.get(low, {}).get(name), self.amounts.get(high, {}).get(name)
        if mine is not None and theirs is not None and mine > theirs:
            text = f"{low_word} value {self.shown(low, name)} is greater than {high_word} value {self.shown(high, name)}"
            self.errs.append(invalid_value(f"{self.at}.{at}[{name}]", self.shown(value, name), text))

    def ratio(self, name: str) -> None:
        ratio = self.amounts["maxLimitRequestRatio"].get(name)
        if ratio is None:
            return
        at, shown = f"{self.at}.maxLimitRequestRatio[{name}]", self.shown("maxLimitRequestRatio", name)
        if ratio < 1:
            self.errs.append(invalid_value(at, shown, f"ratio {shown} is less than 1"))
        low, high = self.amounts["min"].get(name), self.amounts["max"].get(name)
        if low and high is not None and ratio > high / low:
            self.errs.append(invalid_value(at, shown, f"ratio {shown} is greater than max/min = {high / low:.6f}"))

    def overcommit(self, name: str) -> None:
        """Devices and huge pages cannot be overcommitted: limit and request are one."""
        limit, request = self.amounts.get("default", {}).get(name), self.amounts.get("defaultRequest", {}).get(name)
        if limit is None or request is None or limit == request or (native(name) and not name.startswith("hugepages-")):
            return
        one, other = self.shown("default", name), self.shown("defaultRequest", name)
        text = f"default value {one} must equal to defaultRequest value {other} in {name}"
        self.errs.append(invalid_value(f"{self.at}.defaultRequest[{name}]", other, text))


# What may not exceed what, where the fault stands and which value it shows: as upstream has them.
_ORDER = (
    ((("min", "min"), ("max", "max")), "min", "min"),
    ((("min", "min"), ("defaultRequest", "default request")), "defaultRequest", "defaultRequest"),
    ((("defaultRequest", "default request"), ("max", "max")), "defaultRequest", "defaultRequest"),
    ((("defaultRequest", "default request"), ("default", "default limit")), "defaultRequest", "defaultRequest"),
    ((("min", "min"), ("default", "default")), "default", "min"),
    ((("default", "default"), ("max", "max")), "default", "max"),
)


def _limit_item(errs: Errors, at: str, item: Object) -> None:
    found = _Item(errs, at, item)
    if item.get("type") == "PersistentVolumeClaim" and not any("storage" in (item.get(k) or {}) for k in ("min", "max")):
        text = "either minimum or maximum storage value is required, but neither was provided"
        errs.append(required(f"{at}.limits", text))
    for name in sorted({name for amounts in found.amounts.values() for name in amounts}):
        for pair, where, value in _ORDER:
            found.greater(name, pair, where, value)
        found.ratio(name)
        found.overcommit(name)


def limit_range(errs: Errors, obj: Object) -> None:
    seen: set[Any] = set()
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        at, kind = f"spec.limits[{index}]", item.get("type") or ""
        before = len(errs)
        strings(errs, f"{at}.type", kind, names.qualified_name)
        if len(errs) == before and "/" not in kind and kind not in _TYPES:
            errs.append(invalid_value(f"{at}.type", kind, "must be a standard limit type or fully qualified"))
        if kind in seen:
            errs.append(duplicate(f"{at}.type", kind))
        seen.add(kind)
        _limit_item(errs, at, item)


def _standard_quota(name: str) -> bool:
    return name in _STANDARD or name.startswith(("hugepages-", "requests.hugepages-"))


def _amounts(errs: Errors, at: str, amounts: Any) -> None:
    for name, value in (amounts or {}).items():
        here = f"{at}[{name}]"
        resource_name(errs, here, name)
        if "/" not in name and not _standard_quota(name):
            errs.append(invalid_value(here, name, "must be a standard resource for quota"))
        amount(errs, here, name, value)


def _applies(scope: str, resource: str) -> bool:
    """Whether a scope can select what is counted for this resource."""
    if scope == "BestEffort":
        return resource == "pods"
    if scope == "VolumeAttributesClass":
        return resource in ("persistentvolumeclaims", "requests.storage")
    return scope not in _SCOPES or resource == "pods" or resource in _COMPUTE


def _conflicts(errs: Errors, scopes: list[str], shown: list[str]) -> None:
    for pair in (_EFFORT, _TERMINATION):
        if all(scope in scopes for scope in pair):
            errs.append(invalid_value("spec.scopes" if shown is scopes else _MATCH, shown, "conflicting scopes"))


_MATCH = "spec.scopeSelector.matchExpressions"


def _scopes(errs: Errors, spec: Object) -> None:
    scopes = spec.get("scopes") or []
    for scope in scopes:
        if scope not in _SCOPES:
            errs.append(invalid_value("spec.scopes", scopes, "unsupported scope"))
        for name in sorted(spec.get("hard") or ()):
            if _standard_quota(name) and not _applies(scope, name):
                errs.append(invalid_value("spec.scopes", scopes, "unsupported scope applied to resource"))
    _conflicts(errs, scopes, scopes)


def _scope_selector(errs: Errors, spec: Object) -> None:
    selector = spec.get("scopeSelector") or {}
    terms = selector.get("matchExpressions") or ()
    for term in terms:
        scope, operator, values = term.get("scopeName") or "", term.get("operator") or "", term.get("values") or []
        if scope not in _SCOPES:
            errs.append(invalid_value(f"{_MATCH}.scopeName", scope, "unsupported scope"))
        for name in sorted(spec.get("hard") or ()):
            if _standard_quota(name) and not _applies(scope, name):
                errs.append(invalid_value(_MATCH, selector, "unsupported scope applied to resource"))
        if scope in _ALONE and operator != "Exists":
            errs.append(invalid_value(f"{_MATCH}.operator", operator, _EXISTS_ONLY))
        if operator in ("In", "NotIn"):
            if not values:
                text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                errs.append(required(f"{_MATCH}.values", text))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                errs.append(invalid_value(f"{_MATCH}.values", values, text))
        else:
            errs.append(invalid_value(f"{_MATCH}.operator", operator, "not a valid selector operator"))
    _conflicts(errs, [term.get("scopeName") or "" for term in terms], spec.get("scopes") or [])


def _quota_spec(errs: Errors, spec: Object) -> None:
    _amounts(errs, "spec.hard", spec.get("hard"))
    _scopes(errs, spec)
    _scope_selector(errs, spec)


def resource_quota(errs: Errors, obj: Object) -> None:
    _quota_spec(errs, obj.get("spec") or {})
    resource_quota_status(errs, obj, obj)


def resource_quota_update(errs: Errors, obj: Object, old: Object) -> None:
    _quota_spec(errs, obj.get("spec") or {})
    new, was = (obj.get("spec") or {}).get("scopes") or [], (old.get("spec") or {}).get("scopes") or []
    if set(new) != set(was):
        errs.append(invalid_value("spec.scopes", new, IMMUTABLE))


def resource_quota_status(errs: Errors, obj: Object, old: Object) -> None:
    for key in ("hard", "used"):
        _amounts(errs, f"status.{key}", (obj.get("status") or {}).get(key))
