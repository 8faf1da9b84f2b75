"""Resource requests and limits: names, amounts, requests within limits.

Called by: containers.py, pod.py, storage.py, quotas.py, core.py. Never does: compare with what a node has.
Source: upstream validateResourceRequirements, pkg/apis/core/helper.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from k1s.api import names, quantity
from k1s.api.defaults.resources import aggregate
from k1s.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, quantities, strings

_CONTAINER = ("cpu", "memory", "ephemeral-storage")
_HUGE = "hugepages-"
COUNTED = (
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
    *COUNTED,
    *_CONTAINER,
    *(f"{side}.{name}" for side in ("requests", "limits") for name in _CONTAINER),
    "storage",
    "requests.storage",
)
NOT_STANDARD = "must be a standard resource type or fully qualified"
_POD_LEVEL = ("cpu", _HUGE, "memory")


def native(name: str) -> bool:
    """Without a domain, or in kubernetes.io."""
    return "/" not in name or "kubernetes.io/" in name


def extended(name: str) -> bool:
    """A device plugin's resource: fully qualified, not native, not a quota name."""
    return not native(name) and not name.startswith("requests.") and not names.qualified_name("requests." + name)


def _overcommit(name: str) -> bool:
    return native(name) and not name.startswith(_HUGE)


def standard(name: str) -> bool:
    """A resource that Kubernetes itself knows."""
    return name in _STANDARD or name.startswith((_HUGE, "requests.hugepages-"))


def resource_name(errs: Errors, field: str, name: str) -> bool:
    """Any resource name: qualified, and standard if it has no domain; True if it is."""
    before = len(errs)
    strings(errs, field, name, names.qualified_name)
    if len(errs) == before and "/" not in name and not standard(name):
        errs.append(invalid_value(field, name, NOT_STANDARD))
    return len(errs) == before


def container_resource_name(errs: Errors, field: str, name: str) -> None:
    """One that a container can ask for."""
    resource_name(errs, field, name)
    if "/" not in name:
        if name not in _CONTAINER and not name.startswith(_HUGE):
            errs.append(invalid_value(field, name, "must be a standard resource for containers"))
    elif not native(name) and not extended(name):
        errs.append(invalid_value(field, name, "doesn't follow extended resource name standard"))


def _pod_resource_name(errs: Errors, field: str, name: str) -> None:
    if resource_name(errs, field, name) and name not in ("cpu", "memory") and not name.startswith(_HUGE):
        errs.append(not_supported(field, name, _POD_LEVEL))


def amount(errs: Errors, field: str, name: str, value: Any) -> bool:
    """Not negative, and whole if the resource is counted; True if it can be compared."""
    if not quantities(errs, field, value):
        return False
    if (name in COUNTED or extended(name)) and quantity.milli(value) % 1000:
        errs.append(invalid_value(field, str(value), "must be an integer"))
    return True


def _pages(errs: Errors, field: str, name: str, value: Any) -> None:
    """Huge pages come whole."""
    try:
        size = quantity.parse(name.removeprefix(_HUGE))
    except ValueError:
        size = Decimal(0)
    if size <= 0 or size % 1 or quantity.value(value) % int(size):
        errs.append(invalid_value(field, str(value), f"{value} is not positive integer multiple of {name}"))


def _amounts(errs: Errors, field: str, amounts: Any, *, pod: bool) -> bool:
    fine = True
    for name, value in (amounts or {}).items():
        at = f"{field}[{name}]"
        (_pod_resource_name if pod else container_resource_name)(errs, at, name)
        good = amount(errs, at, name, value)
        if good and name.startswith(_HUGE):
            _pages(errs, at, name, value)
        fine = fine and good
    return fine


def requirements(
    errs: Errors, field: str, resources: Object | None, *, claims: set[str] | None = None, pod: bool = False
) -> None:
    """ResourceRequirements of a container or (`pod`) of a whole pod. `claims`: the names in spec.resourceClaims."""
    if not resources:
        return
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    fine = _amounts(errs, f"{field}.limits", limits, pod=pod)
    fine = _amounts(errs, f"{field}.requests", requests, pod=pod) and fine
    if fine:
        _within_limits(errs, field, requests, limits)
    huge = any(name.startswith(_HUGE) for name in (*limits, *requests))
    if huge and not any(name in held for name in ("cpu", "memory") for held in (limits, requests)):
        errs.append(forbidden_field(field, "HugePages require cpu or memory"))
    _claims(errs, f"{field}.claims", resources.get("claims"), claims or set())


def _within_limits(errs: Errors, field: str, requests: Object, limits: Object) -> None:
    for name, value in requests.items():
        limit = limits.get(name)
        if limit is None:
            if not _overcommit(name):
                errs.append(required(f"{field}.limits", "Limit must be set for non overcommitable resources"))
        elif not _overcommit(name) and quantity.parse(value) != quantity.parse(limit):
            errs.append(invalid_value(f"{field}.requests", str(value), f"must be equal to {name} limit of {limit}"))
        elif quantity.parse(value) > quantity.parse(limit):
            errs.append(invalid_value(f"{field}.requests", str(value), f"must be less than or equal to {name} limit of {limit}"))


def _claims(errs: Errors, field: str, value: Any, known: set[str]) -> None:
    seen: set[str] = set()
    for index, claim in enumerate(value or ()):
        at, name, request = f"{field}[{index}]", claim.get("name") or "", claim.get("request") or ""
        if not name:
            errs.append(required(at))
            continue
        key = f"{name}/{request}" if request else name
        if name in seen:
            errs.append(duplicate(at, name))
        else:
            if request:
                strings(errs, f"{at}.request", request, names.dns1123_label)
            if key in seen:
                errs.append(duplicate(at, key))
            elif not request and any(other.startswith(f"{name}/") for other in seen):
                errs.append(duplicate(at, name))
            seen.add(key)
        if name not in known:
            where = f": {', '.join(sorted(known))}" if known else " which is empty"
            text = f"must be one of the names in pod.spec.resourceClaims{where}"
            errs.append(FieldError("FieldValueNotFound", at, text, name))


def pod_level(errs: Errors, field: str, spec: Object) -> None:
    """spec.resources: only cpu, memory and huge pages; no less than the containers ask for, no less than one's limit."""
    resources = spec.get("resources")
    if not resources:
        return
    if resources.get("claims"):
        errs.append(forbidden_field(f"{field}.claims", "claims cannot be set for Resources at pod-level"))
    before = len(errs)
    requirements(errs, field, {key: resources.get(key) for key in ("limits", "requests")}, pod=True)
    if len(errs) == before:
        _against_containers(errs, field, resources, spec)


def _against_containers(errs: Errors, field: str, resources: Object, spec: Object) -> None:
    together = aggregate(spec, "requests")
    for name, value in (resources.get("requests") or {}).items():
        asked = together.get(name)
        if asked is not None and _number(asked) > quantity.parse(value):
            text = f"must be greater than or equal to aggregate container requests of {asked}"
            errs.append(invalid_value(f"{field}.requests[{name}]", str(value), text))
    for index, container in enumerate(spec.get("containers") or ()):
        for name, value in ((container.get("resources") or {}).get("limits") or {}).items():
            bound = (resources.get("limits") or {}).get(name)
            if bound is not None and _number(value) > quantity.parse(bound):
                text = f"must be less than or equal to pod limits of {bound}"
                errs.append(invalid_value(f"{field}.containers[{index}][{name}].limits", str(value), text))


def _number(value: Any) -> Decimal:
    """Zero for what does not parse: that is named where it stands."""
    try:
        return quantity.parse(value)
    except ValueError:
        return Decimal(0)
