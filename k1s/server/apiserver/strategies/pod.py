"""Pods: their first status, quality of service class and how they go.

Owns: Pod, qos_class. Called by: strategies/table. Never does: admit or schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.api.quantity import parse
from k1s.server.apiserver.strategies.base import Strategy

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]

_COMPUTE = ("cpu", "memory")


class Pod(Strategy):
    returns_deleted = True
    generation_fields = ("spec",)

    def prepare_create(self, call: Call, obj: Object) -> None:
        super().prepare_create(call, obj)
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(obj.get("spec") or {})}

    def reset_status(self, obj: Object, old: Object) -> None:
        super().reset_status(obj, old)
        meta, before = obj["metadata"], old["metadata"]
        # Old kubelets damaged owner references here, so upstream protects them.
        if "ownerReferences" in before:
            meta["ownerReferences"] = before["ownerReferences"]
        else:
            meta.pop("ownerReferences", None)
        status = obj.get("status")
        if isinstance(status, dict) and not status.get("qosClass"):
            status["qosClass"] = (old.get("status") or {}).get("qosClass") or qos_class(old.get("spec") or {})

    def grace_period(self, obj: Object, asked: int | None) -> int | None:
        spec = obj.get("spec") or {}
        period = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 0)
        if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
            return 0
        return 1 if period < 0 else int(period)


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
