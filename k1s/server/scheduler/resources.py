"""What a pod asks for and what a node has, as integers.

Owns: the sums. Called by: snapshot, plugins. Never does: compare (plugins/node_resources_fit). CPU in millicores, the rest in
whole units. Source: k8s.io/component-helpers/resource: PodRequests, with restartable init containers (KEP-753).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k1s.api import quantity

Amounts = dict[str, int]

# What the scores assume of a container that asks for nothing (upstream's non-zero defaults).
DEFAULT_MILLICPU = 100
DEFAULT_MEMORY = 200 * 1024 * 1024


def amounts(quantities: Mapping[str, Any] | None) -> Amounts:
    """A ResourceList as integers."""
    return {
        name: quantity.milli(amount) if name == "cpu" else quantity.value(amount) for name, amount in (quantities or {}).items()
    }


def pod_requests(pod: Mapping[str, Any], *, non_zero: bool = False) -> Amounts:
    """The larger of what the containers need together and what the init phase needs at its peak, plus overhead."""
    spec = pod["spec"]
    running = _sum(spec.get("containers") or [], non_zero)
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or []:
        need = _container(container, non_zero)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, need)
            _max(peak, sidecars)
        else:
            _max(peak, _added(sidecars, need))
    _add(running, sidecars)
    _max(running, peak)
    if spec.get("resources", {}).get("requests"):
        running.update(amounts(spec["resources"]["requests"]))
    _add(running, amounts(spec.get("overhead")))
    return running


def _container(container: Mapping[str, Any], non_zero: bool) -> Amounts:
    need = amounts(container.get("resources", {}).get("requests"))
    if non_zero:
        need.setdefault("cpu", DEFAULT_MILLICPU)
        need.setdefault("memory", DEFAULT_MEMORY)
    return need


def _sum(containers: list[Mapping[str, Any]], non_zero: bool) -> Amounts:
    total: Amounts = {}
    for container in containers:
        _add(total, _container(container, non_zero))
    return total


def _add(into: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        into[name] = into.get(name, 0) + amount


def _added(one: Amounts, two: Amounts) -> Amounts:
    out = dict(one)
    _add(out, two)
    return out


def _max(into: Amounts, other: Amounts) -> None:
    for name, amount in other.items():
        into[name] = max(into.get(name, 0), amount)


def subtract(from_: Amounts, less: Amounts) -> None:
    """In place; what reaches zero is dropped."""
    for name, amount in less.items():
        left = from_.get(name, 0) - amount
        if left:
            from_[name] = left
        else:
            from_.pop(name, None)


def add(into: Amounts, more: Amounts) -> None:
    """In place."""
    _add(into, more)
