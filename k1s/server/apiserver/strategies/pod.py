"""Pods: their first status, quality of service class and how they go.

Owns: Pod. Called by: strategies/table. Never does: admit or schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.api.qos import qos_class
from k1s.server.apiserver.strategies.base import Strategy

if TYPE_CHECKING:
    from k1s.server.apiserver.call import Call

Object = dict[str, Any]


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
