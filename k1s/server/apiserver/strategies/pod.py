"""Pods: their first status, quality of service class and how they go.

Owns: Pod. Called by: strategies/table. Never does: admit or schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.api.qos import qos_class
from k1s.server.apiserver.strategies.base import Strategy
from k1s.server.apiserver.strategies.pod_creation import GATED, confine, merge_label_keys

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]


class Pod(Strategy):
    returns_deleted = True
    generation_fields = ("spec",)

    def normalize(self, obj: Object) -> None:
        """podIP is the older name of podIPs[0]; where both stand and differ, the older one counts."""
        status = obj.get("status")
        if not isinstance(status, dict):
            return
        first, many = status.get("podIP"), status.get("podIPs")
        if first and (not many or many[0].get("ip") != first):
            status["podIPs"] = [{"ip": first}]
        elif many and not first:
            status["podIP"] = many[0].get("ip")

    def prepare_create(self, call: Call, obj: Object) -> None:
        super().prepare_create(call, obj)
        spec, meta = obj.get("spec") or {}, obj["metadata"]
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
        if spec.get("schedulingGates"):
            obj["status"]["conditions"] = [dict(GATED)]
        merge_label_keys(spec, meta.get("labels") or {})
        call.warnings += confine(spec, meta.get("annotations") or {})

    def reset_status(self, obj: Object, old: Object) -> None:
        super().reset_status(obj, old)
        meta, before = obj["metadata"], old["metadata"]
        # Old kubelets damaged owner references here, so upstream protects them.
        if "ownerReferences" in before:
            meta["ownerReferences"] = before["ownerReferences"]
        else:
            meta.pop("ownerReferences", None)
        status, was = obj.get("status"), old.get("status") or {}
        if isinstance(status, dict):
            if not status.get("qosClass"):
                status["qosClass"] = was.get("qosClass") or qos_class(old.get("spec") or {})
            _keep_observed(status, was)

    def grace_period(self, obj: Object, asked: int | None) -> int | None:
        spec = obj.get("spec") or {}
        period = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 0)
        if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
            return 0
        return 1 if period < 0 else int(period)


def _keep_observed(status: Object, was: Object) -> None:
    """A client that does not know observedGeneration does not clear it (KEP-5067)."""
    if not status.get("observedGeneration") and was.get("observedGeneration"):
        status["observedGeneration"] = was["observedGeneration"]
    known: dict[Any, list[Any]] = {}
    for condition in was.get("conditions") or ():
        known.setdefault(condition.get("type"), []).append(condition.get("observedGeneration"))
    for condition in status.get("conditions") or ():
        before = known.get(condition.get("type"))
        seen = before.pop(0) if before else None
        if seen and not condition.get("observedGeneration"):
            condition["observedGeneration"] = seen
