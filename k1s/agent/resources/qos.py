"""What a pod asks for: QoS class, requests and limits, and the cgroup values that follow.

Owns: kubelet's arithmetic on resources. Called by: pods/status, containers/config, resources/admission. Never does: I/O. Pure.
Source: pkg/apis/core/v1/helper/qos, pkg/kubelet/cm/helpers_linux.go, pkg/kubelet/qos/policy.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from k1s.agent.resources.cgroups import MIN_SHARES, PERIOD, CgroupLimits, shares
from k1s.api import quantity

Object = dict[str, Any]
_COMPUTE = ("cpu", "memory")
_MIN_QUOTA = 1000
_CRITICAL = 2_000_000_000


def amount(resource: str, text: str | int | float) -> int:
    """A quantity in the unit we count in: thousandths of a cpu, else whole units."""
    return quantity.milli(text) if resource == "cpu" else quantity.value(text)


def requests(container: Object) -> dict[str, int]:
    """Requests, with limits where only those are given."""
    resources = container.get("resources") or {}
    merged = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: amount(name, text) for name, text in merged.items()}


def limits(container: Object) -> dict[str, int]:
    return {name: amount(name, text) for name, text in ((container.get("resources") or {}).get("limits") or {}).items()}


def pod_requests(pod: Object) -> dict[str, int]:
    """Sum of the containers and sidecars, at least what the greediest moment of initialization needs, plus overhead."""
    total = _sum(requests(c) for c in pod["spec"].get("containers") or [])
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in pod["spec"].get("initContainers") or []:
        wanted = requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = _sum([sidecars, wanted])
            wanted = sidecars
        else:
            wanted = _sum([sidecars, wanted])
        peak = _most(peak, wanted)
    total = _most(_sum([total, sidecars]), peak)
    level = (pod["spec"].get("resources") or {}).get("requests") or {}
    total.update({name: amount(name, text) for name, text in level.items()})
    overhead = {name: amount(name, text) for name, text in (pod["spec"].get("overhead") or {}).items()}
    return _sum([total, overhead])


def qos_class(pod: Object) -> str:
    """Guaranteed, Burstable or BestEffort."""
    recorded = (pod.get("status") or {}).get("qosClass")
    if recorded:
        return str(recorded)
    spec = pod["spec"]
    all_containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    guaranteed, anything = True, False
    for container in all_containers:
        resources = container.get("resources") or {}
        wanted = {n: amount(n, t) for n, t in (resources.get("requests") or {}).items() if n in _COMPUTE}
        limit = {n: amount(n, t) for n, t in (resources.get("limits") or {}).items() if n in _COMPUTE}
        anything = anything or any(wanted.values()) or any(limit.values())
        if len([v for v in limit.values() if v]) < len(_COMPUTE) or any(wanted.get(n, limit[n]) != limit[n] for n in limit):
            guaranteed = False
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def pod_limits(pod: Object) -> CgroupLimits:
    """The pod's own cgroup: limited only where every container is."""
    everyone = [*(pod["spec"].get("containers") or []), *_sidecars(pod)]
    wanted = pod_requests(pod)
    quota = _sum_if_all(everyone, "cpu")
    memory = _sum_if_all(everyone, "memory")
    init = [limits(c) for c in pod["spec"].get("initContainers") or []]
    if quota is not None:
        quota = max([quota, *(i.get("cpu", 0) for i in init)])
    if memory is not None:
        memory = max([memory, *(i.get("memory", 0) for i in init)])
    return CgroupLimits(
        cpu_shares=shares(wanted.get("cpu", 0)),
        cpu_quota=cpu_quota(quota) if quota else None,
        memory=memory,
    )


def cpu_quota(milli: int) -> int:
    """Microseconds per period."""
    return max(milli * PERIOD // 1000, _MIN_QUOTA)


def container_resources(container: Object, *, oom_score_adj: int) -> dict[str, Any]:
    """LinuxContainerResources of CRI."""
    wanted, limit = requests(container), limits(container)
    out: dict[str, Any] = {
        "cpu_period": PERIOD,
        "cpu_shares": shares(wanted["cpu"]) if wanted.get("cpu") else MIN_SHARES,
        "oom_score_adj": oom_score_adj,
    }
    if limit.get("cpu"):
        out["cpu_quota"] = cpu_quota(limit["cpu"])
    if limit.get("memory"):
        out["memory_limit_in_bytes"] = limit["memory"]
    pages = [
        {"page_size": name.removeprefix("hugepages-").replace("i", "") + "B", "limit": value}
        for name, value in sorted(limit.items())
        if name.startswith("hugepages-")
    ]
    if pages:
        out["hugepage_limits"] = pages
    return out


def oom_score_adj(pod: Object, container: Object, memory_capacity: int) -> int:
    """Who is killed first when memory runs out: who asked for least."""
    if (pod["spec"].get("priority") or 0) >= _CRITICAL:
        return -997
    qos = qos_class(pod)
    if qos == "Guaranteed":
        return -997
    if qos == "BestEffort":
        return 1000
    wanted = requests(container).get("memory", 0)
    score = 1000 - 1000 * wanted // max(memory_capacity, 1)
    return min(max(score, 3), 999)


def _sidecars(pod: Object) -> list[Object]:
    return [c for c in pod["spec"].get("initContainers") or [] if c.get("restartPolicy") == "Always"]


def _sum_if_all(containers: list[Object], resource: str) -> int | None:
    values = [limits(c).get(resource, 0) for c in containers]
    return sum(values) if values and all(values) else None


def _sum(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    out: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            out[name] = out.get(name, 0) + value
    return out


def _most(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {name: max(a.get(name, 0), b.get(name, 0)) for name in [*a, *(n for n in b if n not in a)]}
