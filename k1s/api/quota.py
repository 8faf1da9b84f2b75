"""What an object costs a ResourceQuota.

Owns: `usage` (how much of each quota resource an object uses), `matches` (does a quota look at it?), `charged_kinds`,
`pod_totals`; all pure. Called by: admission (resource_quota before a write, limit_ranger), controllers/resource_quota (the status
afterwards). Never does: I/O.
Source: upstream pkg/quota/v1/evaluator/core. Names: pods, count/<resource>.<group>, [requests.|limits.]cpu and the like,
services.nodeports, requests.storage, <class>.storageclass.storage.k8s.io/requests.storage.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from k1s.api import meta, quantity
from k1s.api.catalog import Resource

Object = dict[str, Any]
Usage = dict[str, Decimal]

ONE = Decimal(1)
_CLASS_SUFFIX = ".storageclass.storage.k8s.io/"
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
# Core kinds that may be named without count/ in front.
_PLAIN = frozenset(
    ("pods", "services", "persistentvolumeclaims", "configmaps", "secrets", "replicationcontrollers", "resourcequotas")
)
_BARE = ("cpu", "memory", "ephemeral-storage")


def count_name(resource: Resource) -> str:
    return f"count/{resource.qualified}"


def usage(resource: Resource, obj: Object) -> Usage:
    """Quota resource name -> how much of it the object uses."""
    out: Usage = {count_name(resource): ONE}
    if resource.group:
        return out
    if resource.plural == "pods":
        out.update(_pod_usage(obj))
    elif resource.plural == "services":
        out.update(_service_usage(obj))
    elif resource.plural == "persistentvolumeclaims":
        out.update(_claim_usage(obj))
    elif resource.plural in _PLAIN:
        out[resource.plural] = ONE
    return out


def charged_kinds(names: Iterable[str]) -> set[str]:
    """The resources (qualified: pods, deployments.apps) whose objects can change the use of these quota resources."""
    out: set[str] = set()
    for name in names:
        if name.startswith("count/"):
            out.add(name.removeprefix("count/"))
        elif name.startswith("services"):
            out.add("services")
        elif name == "requests.storage" or _CLASS_SUFFIX in name or name == "persistentvolumeclaims":
            out.add("persistentvolumeclaims")
        else:
            out.add(name if name in _PLAIN else "pods")
    return out


def matches(quota: Object, resource: Resource, obj: Object) -> bool:
    """All scopes of the quota hold for the object; a quota with scopes looks only at pods (and claims, by attributes class)."""
    spec = quota.get("spec") or {}
    terms = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    terms += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    if not terms:
        return True
    if resource.group:
        return False
    if resource.plural == "pods":
        return all(_pod_matches(term, obj) for term in terms)
    if resource.plural == "persistentvolumeclaims":
        return all(t["scopeName"] == "VolumeAttributesClass" and _in_set(t, _attributes_class(obj)) for t in terms)
    return False


def is_charged(pod: Object) -> bool:
    """Pods that have ended cost nothing but their count."""
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def pod_totals(pod: Object, field: str) -> Usage:
    """The pod's requests or limits (`field`): containers together, or the largest init step if that is more, plus overhead."""
    spec = pod.get("spec") or {}
    total: Usage = {}
    for container in spec.get("containers") or ():
        _add(total, _amounts(container, field))
    sidecars: Usage = {}
    largest: Usage = {}
    for container in spec.get("initContainers") or ():
        amounts = _amounts(container, field)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, amounts)
            _add(total, amounts)
            step = dict(sidecars)
        else:
            step = dict(sidecars)
            _add(step, amounts)
        for name, amount in step.items():
            largest[name] = max(largest.get(name, amount), amount)
    for name, amount in largest.items():
        total[name] = max(total.get(name, amount), amount)
    total.update(_amounts(spec, field))  # pod-level resources stand for the containers' sum
    overhead = {name: quantity.parse(q) for name, q in (spec.get("overhead") or {}).items()}
    if field == "requests" or total:
        _add(total, overhead)
    return total


def _amounts(holder: Object, field: str) -> Usage:
    return {name: quantity.parse(q) for name, q in ((holder.get("resources") or {}).get(field) or {}).items()}


def _add(total: Usage, more: Usage) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Decimal(0)) + amount


def _pod_usage(pod: Object) -> Usage:
    if not is_charged(pod):
        return {}
    out: Usage = {"pods": ONE}
    for name, amount in pod_totals(pod, "requests").items():
        if name in _BARE or name.startswith("hugepages-"):
            out[name] = amount
        out[f"requests.{name}"] = amount
    for name, amount in pod_totals(pod, "limits").items():
        if name in _BARE:
            out[f"limits.{name}"] = amount
    return out


def _service_usage(service: Object) -> Usage:
    spec = service.get("spec") or {}
    kind = spec.get("type") or "ClusterIP"
    ports = spec.get("ports") or ()
    out: Usage = {"services": ONE}
    if kind == "NodePort":
        out["services.nodeports"] = Decimal(len(ports))
    elif kind == "LoadBalancer":
        out["services.loadbalancers"] = ONE
        if spec.get("allocateLoadBalancerNodePorts", True):
            out["services.nodeports"] = Decimal(len(ports))
        else:
            out["services.nodeports"] = Decimal(sum(bool(port.get("nodePort")) for port in ports))
    return out


def _claim_usage(claim: Object) -> Usage:
    spec = claim.get("spec") or {}
    out: Usage = {"persistentvolumeclaims": ONE}
    storage_class = meta.annotations(claim).get(_CLASS_ANNOTATION) or spec.get("storageClassName") or ""
    if storage_class:
        out[f"{storage_class}{_CLASS_SUFFIX}persistentvolumeclaims"] = ONE
    asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    # While a volume shrinks back after a failed expansion the larger of both is charged.
    given = ((claim.get("status") or {}).get("allocatedResources") or {}).get("storage")
    amounts = [quantity.parse(q) for q in (asked, given) if q is not None]
    if amounts:
        out["requests.storage"] = max(amounts)
        if storage_class:
            out[f"{storage_class}{_CLASS_SUFFIX}requests.storage"] = max(amounts)
    return out


def _pod_matches(term: Object, pod: Object) -> bool:
    spec = pod.get("spec") or {}
    name = term["scopeName"]
    if name in ("Terminating", "NotTerminating"):
        return bool((spec.get("activeDeadlineSeconds") is not None) == (name == "Terminating"))
    if name in ("BestEffort", "NotBestEffort"):
        return bool(_is_best_effort(spec) == (name == "BestEffort"))
    if name == "PriorityClass":
        return _in_set(term, spec.get("priorityClassName") or "")
    if name == "CrossNamespacePodAffinity":
        return _crosses_namespaces(spec)
    return False


def _in_set(term: Object, value: str) -> bool:
    operator, values = term.get("operator", "Exists"), term.get("values") or ()
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value not in values
    return bool(bool(value) == (operator == "Exists"))


def _is_best_effort(spec: Object) -> bool:
    holders = [spec, *(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for holder in holders:
        resources = holder.get("resources") or {}
        for field in ("requests", "limits"):
            amounts = resources.get(field) or {}
            if any(quantity.parse(amounts[name]) for name in ("cpu", "memory") if name in amounts):
                return False
    return True


def _crosses_namespaces(spec: Object) -> bool:
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        terms = list(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        terms += [w["podAffinityTerm"] for w in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


def _attributes_class(claim: Object) -> str:
    return str((claim.get("spec") or {}).get("volumeAttributesClassName") or "")
