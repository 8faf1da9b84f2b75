"""A pod's quality of service class, which it has from its creation.

Owns: qos_class. Called by: the apiserver's pod strategy, validation of resizes. Never does: cgroups (the agent does).
Source: kubectl/pkg/util/qos; pod-level resources: KEP-2837.
"""

from __future__ import annotations

from typing import Any

from k1s.api.meta import Object
from k1s.api.quantity import parse

_COMPUTE = ("cpu", "memory")


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort (kubectl/pkg/util/qos)."""
    resources = spec.get("resources")
    if isinstance(resources, dict) and (resources.get("requests") or resources.get("limits")):
        return _class_of([resources])
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    return _class_of([c.get("resources") or {} for c in containers])


def _class_of(all_resources: list[Object]) -> str:
    best_effort = guaranteed = True
    for resources in all_resources:
        requests = _positive(resources.get("requests"))
        limits = _positive(resources.get("limits"))
        if requests or limits:
            best_effort = False
        for name in _COMPUTE:
            # A request that is not given is the limit.
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if best_effort:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _positive(quantities: Object | None) -> dict[str, Any]:
    out = {}
    for name in _COMPUTE:
        if quantities and name in quantities:
            try:
                amount = parse(quantities[name])
            except ValueError:
                continue  # validation names the fault
            if amount > 0:
                out[name] = amount
    return out
