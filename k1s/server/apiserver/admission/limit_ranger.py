"""LimitRanges: defaults for containers, bounds for containers, pods and claims.

Owns: LimitRanger. Called by: admission/chain. Never does: count what a namespace uses (resource_quota does).
Source: upstream plugin/pkg/admission/limitranger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from k1s.api import quantity
from k1s.api.catalog import builtin
from k1s.api.quota import pod_totals
from k1s.client.interface import InformerFactory, Object
from k1s.server.apiserver.admission.step import Step, refuse, subresource
from k1s.server.apiserver.attributes import AdmissionRequest

_ANNOTATION = "kubernetes.io/limit-ranger"


class LimitRanger(Step):
    resources = frozenset({"pods", "persistentvolumeclaims"})
    operations = frozenset({"CREATE", "UPDATE"})

    def __init__(self, informers: InformerFactory) -> None:
        self._ranges = informers.informer(builtin("LimitRange"))

    async def mutate(self, request: AdmissionRequest) -> None:
        pod = request.obj
        if pod is None or subresource(request) or request.resource.plural != "pods" or request.operation != "CREATE":
            return
        notes: list[str] = []
        for item in self._items(request.namespace, "Container"):
            spec = pod.get("spec") or {}
            for kind, containers in (("container", spec.get("containers")), ("init container", spec.get("initContainers"))):
                for container in containers or ():
                    notes += _fill(container, kind, "requests", item.get("defaultRequest") or {})
                    notes += _fill(container, kind, "limits", item.get("default") or {})
        if notes:
            annotations = pod["metadata"].get("annotations") or {}
            pod["metadata"]["annotations"] = {**annotations, _ANNOTATION: "LimitRanger plugin set: " + "; ".join(notes)}

    async def validate(self, request: AdmissionRequest) -> None:
        obj = request.obj
        # A pod's resources change through its subresource `resize` only.
        if obj is None or subresource(request) not in ("", "resize") or obj["metadata"].get("deletionTimestamp"):
            return
        if request.resource.plural == "pods" and request.operation == "UPDATE" and subresource(request) != "resize":
            return
        faults: list[str] = []
        if request.resource.plural == "persistentvolumeclaims":
            for item in self._items(request.namespace, "PersistentVolumeClaim"):
                faults += _claim_faults(item, obj)
        else:
            for item in self._items(request.namespace, "Container"):
                spec = obj["spec"]
                for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
                    resources = container.get("resources") or {}
                    faults += _faults(item, resources.get("requests") or {}, resources.get("limits") or {})
            for item in self._items(request.namespace, "Pod"):
                faults += _faults(item, pod_totals(obj, "requests"), pod_totals(obj, "limits"))
        if faults:
            raise refuse(request, faults[0] if len(faults) == 1 else "[" + ", ".join(faults) + "]")

    def _items(self, namespace: str, kind: str) -> Iterator[Object]:
        for limit_range in self._ranges.list(namespace):
            yield from (item for item in (limit_range.get("spec") or {}).get("limits") or () if item.get("type") == kind)


def _fill(container: Object, kind: str, key: str, defaults: Object) -> list[str]:
    resources = container.get("resources") or {}
    given = resources.get(key) or {}
    missing = {name: value for name, value in defaults.items() if name not in given}
    if not missing:
        return []
    container["resources"] = {**resources, key: {**given, **missing}}
    word = "request" if key == "requests" else "limit"
    return [f"{', '.join(sorted(missing))} {word} for {kind} {container.get('name')}"]


def _claim_faults(item: Object, claim: Object) -> list[str]:
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    faults: list[str] = []
    for name, least in (item.get("min") or {}).items():
        faults += _below(name, least, item["type"], requests, {})
    for name, most in (item.get("max") or {}).items():
        if name in requests and _parsed(requests[name]) > _parsed(most):
            faults.append(
                f"maximum {name} usage per {item['type']} is {_shown(most, name)}, but request is {_shown(requests[name], name)}"
            )
    return faults


def _faults(item: Object, requests: Object, limits: Object) -> Iterable[str]:
    kind = item["type"]
    for name, least in sorted((item.get("min") or {}).items()):
        yield from _below(name, least, kind, requests, limits)
    for name, most in sorted((item.get("max") or {}).items()):
        yield from _above(name, most, kind, requests, limits)
    for name, ratio in sorted((item.get("maxLimitRequestRatio") or {}).items()):
        yield from _ratio(name, ratio, kind, requests, limits)


def _below(name: str, least: Any, kind: str, requests: Object, limits: Object) -> Iterator[str]:
    start = f"minimum {name} usage per {kind} is {_shown(least, name)}"
    if name not in requests:
        yield f"{start}.  No request is specified"
        return
    for word, amounts in (("request", requests), ("limit", limits)):
        if name in amounts and _parsed(amounts[name]) < _parsed(least):
            yield f"{start}, but {word} is {_shown(amounts[name], name)}"
            return


def _above(name: str, most: Any, kind: str, requests: Object, limits: Object) -> Iterator[str]:
    start = f"maximum {name} usage per {kind} is {_shown(most, name)}"
    if name not in limits:
        yield f"{start}.  No limit is specified"
        return
    for word, amounts in (("limit", limits), ("request", requests)):
        if name in amounts and _parsed(amounts[name]) > _parsed(most):
            yield f"{start}, but {word} is {_shown(amounts[name], name)}"
            return


def _ratio(name: str, most: Any, kind: str, requests: Object, limits: Object) -> Iterator[str]:
    start = f"{name} max limit to request ratio per {kind} is {_shown(most, name)}"
    request, limit = (_parsed(amounts.get(name) or 0) for amounts in (requests, limits))
    if not request:
        yield f"{start}, but no request is specified or request is 0"
    elif not limit:
        yield f"{start}, but no limit is specified or limit is 0"
    elif limit / request > _parsed(most):
        yield f"{start}, but provided ratio is {float(limit / request):f}"


def _parsed(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else quantity.parse(value)


def _shown(value: Any, name: str) -> str:
    """An amount as Kubernetes writes it: 1200Mi, 500m."""
    if not isinstance(value, Decimal):
        return quantity.canonical(str(value))
    binary = name in ("memory", "ephemeral-storage") or name.startswith("hugepages-")
    return quantity.format_quantity(value, "BinarySI" if binary else "DecimalSI")
