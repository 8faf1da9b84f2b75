"""Resource requests and limits: names, amounts, requests within limits.

Called by: containers.py, pod.py, storage.py, quotas. Never does: compare with what a node has.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from k1s.api import names, quantity
from k1s.api.defaults.resources import aggregate
from k1s.api.errors import forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, quantities, strings

_CONTAINER = ("cpu", "memory", "ephemeral-storage")
_HUGE = "hugepages-"
_NOT_STANDARD = "must be a standard resource type or fully qualified"


def native(name: str) -> bool:
    """Without a domain, or in kubernetes.io."""
    return "/" not in name or "kubernetes.io/" in name


def extended(name: str) -> bool:
    """A device plugin's resource: fully qualified, not native, not a quota name."""
    return not native(name) and not name.startswith("requests.") and not names.qualified_name("requests." + name)


def _overcommit(name: str) -> bool:
    return native(name) and not name.startswith(_HUGE)


def _name(errs: Errors, field: str, name: str) -> None:
    before = len(errs)
    strings(errs, field, name, names.qualified_name)
    if len(errs) > before:
        return
    if "/" not in name:
        if name not in _CONTAINER and not name.startswith(_HUGE):
            errs.append(invalid_value(field, name, "must be a standard resource for containers"))
    elif native(name) or not extended(name):
        errs.append(invalid_value(field, name, "doesn't follow extended resource name standard"))


def _amounts(errs: Errors, field: str, amounts: Any) -> bool:
    fine = True
    for name, amount in (amounts or {}).items():
        at = f"{field}[{name}]"
        _name(errs, at, name)
        good = quantities(errs, at, amount)
        fine = fine and good
        if good and not _overcommit(name) and quantity.milli(amount) % 1000:
            errs.append(invalid_value(at, amount, "must be an integer"))
    return fine


def requirements(errs: Errors, field: str, resources: Object | None, *, claims: set[str] | None = None) -> None:
    """ResourceRequirements of a container."""
    if not resources:
        return
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    fine = _amounts(errs, f"{field}.limits", limits)
    fine = _amounts(errs, f"{field}.requests", requests) and fine
    if fine:
        _within_limits(errs, field, requests, limits)
    huge = any(name.startswith(_HUGE) for name in (*limits, *requests))
    if huge and not any(name in held for name in ("cpu", "memory") for held in (limits, requests)):
        errs.append(forbidden_field(field, "HugePages require cpu or memory"))
    _claims(errs, f"{field}.claims", resources.get("claims"), claims)


def _within_limits(errs: Errors, field: str, requests: Object, limits: Object) -> None:
    for name, amount in requests.items():
        limit = limits.get(name)
        if limit is None:
            if not _overcommit(name):
                errs.append(required(f"{field}.limits", "Limit must be set for non overcommitable resources"))
        elif not _overcommit(name) and quantity.parse(amount) != quantity.parse(limit):
            errs.append(invalid_value(f"{field}.requests", str(amount), f"must be equal to {name} limit of {limit}"))
        elif quantity.parse(amount) > quantity.parse(limit):
            errs.append(invalid_value(f"{field}.requests", str(amount), f"must be less than or equal to {name} limit of {limit}"))


def _claims(errs: Errors, field: str, value: Any, known: set[str] | None) -> None:
    seen: set[tuple[str, str]] = set()
    for index, claim in enumerate(value or ()):
        name = claim.get("name") or ""
        if not name:
            errs.append(required(f"{field}[{index}].name"))
        elif known is not None and name not in known:
            errs.append(invalid_value(f"{field}[{index}].name", name, "must be one of the names in pod.spec.resourceClaims"))
        key = (name, claim.get("request") or "")
        if key in seen:
            errs.append(invalid_value(f"{field}[{index}]", name, "must be unique"))
        seen.add(key)


def pod_level(errs: Errors, field: str, spec: Object) -> None:
    """spec.resources: only cpu, memory and huge pages; no less than the containers ask for, no less than one's limit."""
    resources = spec.get("resources")
    if not resources:
        return
    for which in ("limits", "requests"):
        for name in resources.get(which) or {}:
            if name not in ("cpu", "memory") and not name.startswith(_HUGE):
                errs.append(invalid_value(f"{field}.{which}[{name}]", name, "must be a supported resource for Pods"))
    if resources.get("claims"):
        errs.append(forbidden_field(f"{field}.claims", "claims may not be set for Resources at pod-level"))
    before = len(errs)
    requirements(errs, field, {key: resources.get(key) for key in ("limits", "requests")})
    if len(errs) == before:
        _against_containers(errs, field, resources, spec)


def _against_containers(errs: Errors, field: str, resources: Object, spec: Object) -> None:
    together = aggregate(spec, "requests")
    for name, amount in (resources.get("requests") or {}).items():
        asked = together.get(name)
        if asked is not None and _number(asked) > quantity.parse(amount):
            text = f"must be greater than or equal to aggregate container requests of {asked}"
            errs.append(invalid_value(f"{field}.requests[{name}]", str(amount), text))
    for key in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(key) or ()):
            for name, amount in ((container.get("resources") or {}).get("limits") or {}).items():
                bound = (resources.get("limits") or {}).get(name)
                if bound is not None and _number(amount) > quantity.parse(bound):
                    text = f"must be less than or equal to pod limits of {bound}"
                    at = f"{field.removesuffix('.resources')}.{key}[{index}].resources.limits[{name}]"
                    errs.append(invalid_value(at, str(amount), text))


def _number(value: Any) -> Decimal:
    """Zero for what does not parse: that is named where it stands."""
    try:
        return quantity.parse(value)
    except ValueError:
        return Decimal(0)


def resource_name(errs: Errors, field: str, name: str) -> None:
    """Any resource name: qualified, and standard if it has no domain."""
    strings(errs, field, name, names.qualified_name)
    standard = name in (*_CONTAINER, "storage", "pods") or name.startswith((_HUGE, "attachable-volumes-"))
    if "/" not in name and not standard:
        errs.append(invalid_value(field, name, _NOT_STANDARD))
