"""The number behind a pod's priority class, and at most one default class.

Owns: Priority. Called by: admission/chain. Never does: preempt. Source: upstream plugin/pkg/admission/priority.
"""

from __future__ import annotations

from k1s.api.catalog import builtin
from k1s.client.interface import InformerFactory, Object
from k1s.server.apiserver.admission.step import Step, refuse, subresource
from k1s.server.apiserver.attributes import AdmissionRequest

_DEFAULT_POLICY = "PreemptLowerPriority"


class Priority(Step):
    resources = frozenset({"pods", "priorityclasses.scheduling.k8s.io"})
    operations = frozenset({"CREATE", "UPDATE"})

    def __init__(self, informers: InformerFactory) -> None:
        self._classes = informers.informer(builtin("PriorityClass"))

    async def mutate(self, request: AdmissionRequest) -> None:
        if request.resource.plural != "pods" or subresource(request) or request.obj is None:
            return
        spec = request.obj["spec"]
        if request.operation == "UPDATE":
            # Priority cannot be changed; a client that sends the object without it means no change.
            old = (request.old or {}).get("spec") or {}
            for key in ("priority", "preemptionPolicy"):
                if spec.get(key) is None and old.get(key) is not None:
                    spec[key] = old[key]
            return
        self._resolve(request, spec)

    async def validate(self, request: AdmissionRequest) -> None:
        if request.resource.plural != "priorityclasses" or request.obj is None or not request.obj.get("globalDefault"):
            return
        for other in self._classes.list():
            if other.get("globalDefault") and other["metadata"]["name"] != request.name:
                name = other["metadata"]["name"]
                raise refuse(request, f"PriorityClass {name} is already marked as default. Only one default can exist")

    def _resolve(self, request: AdmissionRequest, spec: Object) -> None:
        name = spec.get("priorityClassName") or ""
        if name:
            chosen = self._classes.get(name)
            if chosen is None:
                raise refuse(request, f"no PriorityClass with name {name} was found")
        else:
            chosen = self._default()
            if chosen is not None:
                spec["priorityClassName"] = chosen["metadata"]["name"]
        value = int((chosen or {}).get("value") or 0)
        policy = (chosen or {}).get("preemptionPolicy") or _DEFAULT_POLICY
        computed = "priority admission controller computed {} from the given PriorityClass name"
        if spec.get("priority") is not None and spec["priority"] != value:
            given = f"the integer value of priority ({spec['priority']}) must not be provided in pod spec"
            raise refuse(request, f"{given}; {computed.format(value)}")
        if spec.get("preemptionPolicy") is not None and spec["preemptionPolicy"] != policy:
            given = f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec"
            raise refuse(request, f"{given}; {computed.format(policy)}")
        spec["priority"], spec["preemptionPolicy"] = value, policy

    def _default(self) -> Object | None:
        defaults = [c for c in self._classes.list() if c.get("globalDefault")]
        # Two can be marked by a race; upstream then takes the lower.
        return min(defaults, key=lambda c: int(c.get("value") or 0), default=None)
