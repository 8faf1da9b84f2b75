"""A new node takes no pods until the node controller has seen it ready.

Owns: TaintNodesByCondition. Called by: admission/chain. Never does: remove the taint (node lifecycle controller).
Source: upstream plugin/pkg/admission/nodetaint.
"""

from __future__ import annotations

from k1s.server.apiserver.admission.step import Step, subresource
from k1s.server.apiserver.attributes import AdmissionRequest

NOT_READY = "node.kubernetes.io/not-ready"


class TaintNodesByCondition(Step):
    resources = frozenset({"nodes"})
    operations = frozenset({"CREATE"})

    async def mutate(self, request: AdmissionRequest) -> None:
        if request.obj is None or subresource(request):
            return
        spec = request.obj.setdefault("spec", {})
        taints = spec.get("taints") or []
        if not any(t.get("key") == NOT_READY and t.get("effect") == "NoSchedule" for t in taints):
            spec["taints"] = [*taints, {"key": NOT_READY, "effect": "NoSchedule"}]
