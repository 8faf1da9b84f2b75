"""LimitRanges and ResourceQuotas.

Called by: table.py. Never does: enforce them (admission does).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from k1s.api import names, quantity
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.resources import native
from k1s.api.validation.rules import Errors, immutable, one_of, quantities, strings

_LIMITS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
_SCOPES = (
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
)
_COUNTED = (
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
)
_STANDARD = (
    *_COUNTED,
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
)


def _parse(value: Any) -> Decimal:
    return quantity.parse(value)


def _less(errs: Errors, at: str, item: Object, pair: tuple[tuple[str, str], tuple[str, str]]) -> None:
    """`low` may not exceed `high`, resource by resource; both with the words of the message."""
    (low, low_word), (high, high_word) = pair
    for name, value in (item.get(low) or {}).items():
        bound = (item.get(high) or {}).get(name)
        if bound is not None and _parse(value) > _parse(bound):
            text = f"{low_word} value {value} is greater than {high_word} value {bound}"
            errs.append(invalid_value(f"{at}.{low}[{name}]", str(value), text))


_ORDER = (
    (("min", "min"), ("max", "max")),
    (("defaultRequest", "default request"), ("max", "max")),
    (("defaultRequest", "default request"), ("default", "default limit")),
    (("default", "default"), ("max", "max")),
    (("min", "min"), ("defaultRequest", "default request")),
    (("min", "min"), ("default", "default")),
)


def _limit_item(errs: Errors, at: str, item: Object) -> None:
    kind = item.get("type")
    if not kind:
        errs.append(required(f"{at}.type"))
    fine = True
    for key in _LIMITS:
        for name, value in (item.get(key) or {}).items():
            strings(errs, f"{at}.{key}[{name}]", name, names.qualified_name)
            fine = quantities(errs, f"{at}.{key}[{name}]", value) and fine
    if kind == "Pod":
        for key in ("default", "defaultRequest"):
            if item.get(key):
                errs.append(forbidden_field(f"{at}.{key}", "may not be specified when `type` is 'Pod'"))
    if kind == "PersistentVolumeClaim" and not any("storage" in (item.get(key) or {}) for key in ("min", "max")):
        text = "either minimum or maximum storage value is required, but neither was provided"
        errs.append(required(f"{at}.limits", text))
    if not fine:
        return
    for pair in _ORDER:
        _less(errs, at, item, pair)
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        if _parse(ratio) < 1:
            errs.append(invalid_value(f"{at}.maxLimitRequestRatio[{name}]", str(ratio), f"ratio {ratio} is less than 1"))


def limit_range(errs: Errors, obj: Object) -> None:
    seen: set[Any] = set()
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        at = f"spec.limits[{index}]"
        _limit_item(errs, at, item)
        if item.get("type") in seen:
            errs.append(duplicate(f"{at}.type", item.get("type")))
        seen.add(item.get("type"))


def _quota_name(errs: Errors, at: str, name: str) -> None:
    strings(errs, at, name, names.qualified_name)
    known = name in _STANDARD or name.startswith(("requests.hugepages-", "hugepages-", "requests.", "limits."))
    if "/" not in name and not known:
        errs.append(invalid_value(at, name, "must be a standard resource type or fully qualified"))


def _amounts(errs: Errors, at: str, amounts: Any) -> None:
    for name, amount in (amounts or {}).items():
        here = f"{at}[{name}]"
        _quota_name(errs, here, name)
        counted = name in _COUNTED or name.startswith("count/") or not native(name)
        if quantities(errs, here, amount) and counted and quantity.milli(amount) % 1000:
            errs.append(invalid_value(here, str(amount), "must be an integer"))


def resource_quota(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    _amounts(errs, "spec.hard", spec.get("hard"))
    scopes = spec.get("scopes") or []
    for scope in scopes:
        if scope not in _SCOPES:
            errs.append(invalid_value("spec.scopes", scopes, "unsupported scope"))
    for low, high in (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")):
        if low in scopes and high in scopes:
            errs.append(invalid_value("spec.scopes", scopes, "conflicting scopes"))
    for term in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        at = "spec.scopeSelector.matchExpressions"
        if term.get("scopeName") not in _SCOPES:
            errs.append(invalid_value(f"{at}.scopeName", term.get("scopeName") or "", "unsupported scope"))
        one_of(errs, f"{at}.operator", term.get("operator"), ("DoesNotExist", "Exists", "In", "NotIn"), needed=True)
        if term.get("operator") in ("In", "NotIn") and not term.get("values"):
            text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            errs.append(required(f"{at}.values", text))


def resource_quota_update(errs: Errors, obj: Object, old: Object) -> None:
    resource_quota(errs, obj)
    new, was = (obj.get("spec") or {}).get("scopes") or [], (old.get("spec") or {}).get("scopes") or []
    immutable(errs, "spec.scopes", sorted(new), sorted(was))


def resource_quota_status(errs: Errors, obj: Object, old: Object) -> None:
    for key in ("hard", "used"):
        _amounts(errs, f"status.{key}", (obj.get("status") or {}).get(key))
