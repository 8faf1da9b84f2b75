"""What a pod's runtime class costs and where it can run.

Owns: RuntimeClass. Called by: admission/chain. Never does: choose a runtime (the agent does).
Source: upstream plugin/pkg/admission/runtimeclass.
"""

from __future__ import annotations

from k1s.api.catalog import builtin
from k1s.client.interface import InformerFactory, Object
from k1s.server.apiserver.admission.step import Step, refuse, subresource
from k1s.server.apiserver.attributes import AdmissionRequest


class RuntimeClass(Step):
    resources = frozenset({"pods"})
    operations = frozenset({"CREATE"})

    def __init__(self, informers: InformerFactory) -> None:
        self._classes = informers.informer(builtin("RuntimeClass"))

    async def mutate(self, request: AdmissionRequest) -> None:
        chosen = self._chosen(request)
        if chosen is None or request.obj is None:
            return
        spec = request.obj["spec"]
        overhead = (chosen.get("overhead") or {}).get("podFixed")
        if overhead and not spec.get("overhead"):
            spec["overhead"] = dict(overhead)
        scheduling = chosen.get("scheduling") or {}
        selector = spec.get("nodeSelector") or {}
        for key, value in (scheduling.get("nodeSelector") or {}).items():
            if selector.get(key, value) != value:
                ours, theirs = f"runtimeClass.scheduling.nodeSelector[{key}]", f"pod.spec.nodeSelector[{key}]"
                raise refuse(request, f"conflict: {ours} = {value}; {theirs} = {selector[key]}")
            selector = {**selector, key: value}
        if selector:
            spec["nodeSelector"] = selector
        present = spec.get("tolerations") or []
        missing = [t for t in scheduling.get("tolerations") or () if t not in present]
        if missing:
            spec["tolerations"] = [*present, *missing]

    async def validate(self, request: AdmissionRequest) -> None:
        if request.obj is None or subresource(request):
            return
        chosen = self._chosen(request)
        overhead = request.obj["spec"].get("overhead") or {}
        wanted = ((chosen or {}).get("overhead") or {}).get("podFixed") or {}
        if overhead and not wanted:
            raise refuse(request, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
        if overhead != wanted:
            raise refuse(request, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")

    def _chosen(self, request: AdmissionRequest) -> Object | None:
        if request.obj is None or subresource(request):
            return None
        name = request.obj["spec"].get("runtimeClassName")
        if not name:
            return None
        found = self._classes.get(name)
        if found is None:
            raise refuse(request, f'pod rejected: RuntimeClass "{name}" not found')
        return found
