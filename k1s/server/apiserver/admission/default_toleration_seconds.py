"""A pod stays on a node that went away for five minutes, unless it says otherwise.

Owns: DefaultTolerationSeconds. Called by: admission/chain. Source: upstream plugin/pkg/admission/defaulttolerationseconds.
"""

from __future__ import annotations

from k1s.server.apiserver.admission.step import Step, subresource
from k1s.server.apiserver.attributes import AdmissionRequest

_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_SECONDS = 300


class DefaultTolerationSeconds(Step):
    resources = frozenset({"pods"})
    operations = frozenset({"CREATE", "UPDATE"})

    async def mutate(self, request: AdmissionRequest) -> None:
        if request.obj is None or subresource(request):
            return
        spec = request.obj["spec"]
        present = spec.get("tolerations") or []
        missing = [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _SECONDS}
            for key in _TAINTS
            if not any(t.get("key") in (key, None, "") and t.get("effect") in ("NoExecute", None, "") for t in present)
        ]
        if missing:
            spec["tolerations"] = [*present, *missing]
