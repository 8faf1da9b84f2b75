"""Resource lists ({"cpu": "500m"}): canonical quantities, requests from limits, pod-level requests and limits.

Owns: what upstream's decoder and SetDefaults_Pod do to quantities. Called by: the other files of this package.
Never does: refuse; a quantity that does not parse is left as it stands, validation names it.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Any

from k1s.api import quantity
from k1s.api.meta import Object

# As k1s.api.quantity reads them.
_LONGEST = 128


@lru_cache(maxsize=4096)
def _canonical(value: str) -> str:
    try:
        return quantity.canonical(value)
    except ValueError:
        return value


def canonical(value: Any) -> Any:
    """The quantity as the server writes it ("1000m" -> "1", 2 -> "2"); anything else unchanged."""
    if isinstance(value, str):
        # What is too long to be a quantity is not remembered: validation refuses it.
        return _canonical(value) if len(value) <= _LONGEST else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _canonical(str(value))
    return value


def canonical_list(resources: Any) -> None:
    """Rewrite every quantity of a ResourceList in place."""
    if not isinstance(resources, dict):
        return
    for key, value in resources.items():
        new = canonical(value)
        if new is not value and new != value:
            resources[key] = new


def canonical_requirements(requirements: Any) -> None:
    """The same for requests and limits."""
    if isinstance(requirements, dict):
        canonical_list(requirements.get("requests"))
        canonical_list(requirements.get("limits"))


def requests_from_limits(requirements: Object) -> None:
    """A pod's container that says a limit but no request asks for its limit."""
    limits = requirements.get("limits")
    if not limits:
        return
    requests = requirements.get("requests")
    if requests is None:
        requests = requirements["requests"] = {}
    for key, value in limits.items():
        requests.setdefault(key, value)


def _pod_level(name: str) -> bool:
    return name in ("cpu", "memory") or name.startswith("hugepages-")


def _number(value: Any) -> Decimal:
    try:
        return quantity.parse(value)
    except ValueError:
        return Decimal(0)


def _write(value: Decimal, sample: Any) -> str:
    """A sum in the style (binary or decimal) of one of its terms."""
    binary = isinstance(sample, str) and sample.endswith("i")
    return quantity.format_quantity(value, "BinarySI" if binary else "DecimalSI")


def aggregate(spec: Object, which: str) -> dict[str, str]:
    """What the pod's containers ask for together (`which`: requests or limits): sum of the containers and sidecars,
    or the peak while an init container runs, whichever is more."""
    total: dict[str, Decimal] = {}
    peak: dict[str, Decimal] = {}
    sidecars: dict[str, Decimal] = {}
    sample: dict[str, Any] = {}

    def entries(container: Object) -> dict[str, Any]:
        return (container.get("resources") or {}).get(which) or {}

    for container in spec.get("containers") or ():
        for key, value in entries(container).items():
            sample.setdefault(key, value)
            total[key] = total.get(key, Decimal(0)) + _number(value)
    for container in spec.get("initContainers") or ():
        sidecar = container.get("restartPolicy") == "Always"
        for key, value in entries(container).items():
            sample.setdefault(key, value)
            amount = _number(value)
            if sidecar:
                sidecars[key] = sidecars.get(key, Decimal(0)) + amount
                total[key] = total.get(key, Decimal(0)) + amount
                amount = Decimal(0)
            peak[key] = max(peak.get(key, Decimal(0)), sidecars.get(key, Decimal(0)) + amount)
    return {key: _write(max(total.get(key, Decimal(0)), peak.get(key, Decimal(0))), sample[key]) for key in sample}


def pod_level(spec: Object) -> None:
    """Pod-level requests and limits (spec.resources), when the pod says any.

    Limits before requests: upstream has them the other way round and only settles when it defaults a second time, on reading.
    """
    resources = spec.get("resources")
    if not resources:
        return
    _hugepage_limits(spec, resources)
    if not resources.get("limits") and resources.get("requests"):
        _limits_from_containers(spec, resources)
    limits = resources.get("limits")
    if not limits:
        return
    requests = resources.get("requests") or {}
    for key, value in aggregate(spec, "requests").items():
        if key in ("cpu", "memory"):
            requests.setdefault(key, value)
    for key, value in limits.items():
        if _pod_level(key):
            requests.setdefault(key, value)
    if requests:
        resources["requests"] = requests


def _hugepage_limits(spec: Object, resources: Object) -> None:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    if not requests and not limits:
        return
    for key, value in aggregate(spec, "limits").items():
        if key.startswith("hugepages-") and key not in requests:
            limits.setdefault(key, value)
    if limits:
        resources["limits"] = limits


def _limits_from_containers(spec: Object, resources: Object) -> None:
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    limits = {}
    for key, value in aggregate(spec, "limits").items():
        everyone = all(key in ((c.get("resources") or {}).get("limits") or {}) for c in containers)
        if key in ("cpu", "memory") and everyone:
            limits[key] = value
    if limits:
        resources["limits"] = limits
