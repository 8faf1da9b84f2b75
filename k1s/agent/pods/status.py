"""A pod's status: pure.

Owns: build(...) -> PodStatus: phase, conditions, addresses, container statuses. Called by: worker. Never does: I/O.
Golden-tested in tests/golden/agent/status. Source: pkg/kubelet/kubelet_pods.go (generateAPIPodStatus, getPhase),
pkg/kubelet/status/generate.go (conditions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k1s.agent.pods import container_status
from k1s.agent.pods.model import (
    ContainerKind,
    Facts,
    Object,
    Observed,
    all_containers,
    containers,
    init_containers,
    is_sidecar,
    restart_policy,
    wants_host_network,
)
from k1s.agent.resources.qos import qos_class
from k1s.base.clock import rfc3339

_LISTS: dict[ContainerKind, str] = {
    "init": "initContainerStatuses",
    "sidecar": "initContainerStatuses",
    "regular": "containerStatuses",
    "ephemeral": "ephemeralContainerStatuses",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a pod is over although its containers did not end by themselves: evicted, past its deadline, refused."""

    reason: str
    message: str
    phase: str = "Failed"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What of the node stands in every pod's status."""

    host_ips: tuple[str, ...]
    runtime_name: str = "containerd"


def build(
    pod: Object,
    observed: Observed,
    facts: Facts,
    now: float,
    node: NodeFacts,
    *,
    old: Mapping[str, Any],
    terminating: bool = False,
    ending: Ending | None = None,
    resize_pending: tuple[str, str] | None = None,
) -> Object:
    """The whole status; `old` is the one reported last (its times and foreign conditions are kept)."""
    statuses = _container_statuses(pod, observed, facts, old, terminating or ending is not None, node.runtime_name)
    over = (terminating or ending is not None) and not observed.alive
    if over and _has_initialized(pod, statuses):
        statuses["containerStatuses"] = [container_status.ended(s) for s in statuses["containerStatuses"]]
    phase = _phase(pod, statuses, over=over)
    if ending is not None and over:
        phase = ending.phase
    if phase in ("Succeeded", "Failed") and any(c.state == "running" for c in observed.containers):
        # Sidecars are still to be ended: a pod is over when nothing of it runs any more.
        phase = "Running"
    # A phase never leaves Succeeded or Failed.
    if old.get("phase") in ("Succeeded", "Failed"):
        phase = old["phase"]
    status: Object = {"phase": phase, "qosClass": qos_class(pod), "startTime": old.get("startTime") or rfc3339(now)}
    if pod["metadata"].get("generation"):
        status["observedGeneration"] = pod["metadata"]["generation"]
    if ending is not None:
        status["reason"], status["message"] = ending.reason, ending.message
    elif phase in ("Succeeded", "Failed") and old.get("reason"):
        status["reason"], status["message"] = old["reason"], old.get("message", "")
    if ending is None or observed.containers or observed.sandboxes or old.get("containerStatuses"):
        # A pod that was refused never had containers.
        status.update({name: value for name, value in statuses.items() if value})
    _addresses(pod, observed, status, node, old)
    conditions = _conditions(pod, observed, statuses, phase)
    pending = {"type": "PodResizePending"}
    if resize_pending is not None:
        conditions.append({**pending, "status": "True", "reason": resize_pending[0], "message": resize_pending[1]})
    elif any(c["type"] == "PodResizePending" and c.get("status") == "True" for c in old.get("conditions") or []):
        conditions.append({**pending, "status": "False"})
    status["conditions"] = _merge_conditions(conditions, old.get("conditions") or [], now, status.get("observedGeneration"))
    return status


def _container_statuses(
    pod: Object, observed: Observed, facts: Facts, old: Mapping[str, Any], terminating: bool, runtime_name: str
) -> dict[str, list[Object]]:
    before = {(field, s["name"]): s for field in set(_LISTS.values()) for s in old.get(field) or []}
    out: dict[str, list[Object]] = {"initContainerStatuses": [], "containerStatuses": [], "ephemeralContainerStatuses": []}
    has_init = bool(init_containers(pod))
    for kind, container in all_containers(pod):
        field = _LISTS[kind]
        out[field].append(
            container_status.build(
                container,
                kind,
                observed,
                facts,
                before.get((field, container["name"])),
                has_init=has_init,
                terminating=terminating,
                runtime_name=runtime_name,
            )
        )
    return out


def _phase(pod: Object, statuses: dict[str, list[Object]], *, over: bool) -> str:
    initializing, init_failed = _initialization(pod, statuses)
    waiting = running = stopped = succeeded = unknown = 0
    for status in statuses["containerStatuses"]:
        state, last = status["state"], status.get("lastState") or {}
        if "running" in state:
            running += 1
        elif "terminated" in state:
            stopped += 1
            succeeded += state["terminated"]["exitCode"] == 0
        elif "terminated" in last:
            stopped += 1
        elif "waiting" in state:
            waiting += 1
        else:
            unknown += 1
    policy = restart_policy(pod)
    if init_failed and policy == "Never":
        return "Failed"
    if over:
        return "Succeeded" if not init_failed and stopped and stopped == succeeded and not waiting else "Failed"
    if initializing or waiting:
        return "Pending"
    if running and not unknown:
        return "Running"
    if stopped and not running and not unknown:
        restartable = any(c.get("restartPolicy") or c.get("restartPolicyRules") for c in containers(pod))
        if policy == "Always":
            return "Running"
        if stopped == succeeded:
            return "Succeeded"
        return "Failed" if policy == "Never" and not restartable else "Running"
    return "Pending"


def _initialization(pod: Object, statuses: dict[str, list[Object]]) -> tuple[bool, bool]:
    """(some init container is still to be done, one has failed)."""
    has_run = any(
        "running" in s["state"] or "terminated" in s["state"] or s.get("lastState") for s in statuses["containerStatuses"]
    )
    pending = failed = False
    for container, status in zip(init_containers(pod), statuses["initContainerStatuses"], strict=True):
        state, last = status["state"], status.get("lastState") or {}
        if is_sidecar(container):
            pending = pending or not (status.get("started") or has_run)
        elif "terminated" in state:
            failed = failed or state["terminated"]["exitCode"] != 0
        elif "terminated" in last and last["terminated"]["exitCode"] != 0 and "waiting" in state:
            failed = pending = True
        else:
            pending = True
    return pending and not has_run, failed


def _has_initialized(pod: Object, statuses: dict[str, list[Object]]) -> bool:
    """Its containers were due, or have run: from then on one that is missing has failed."""
    if any("waiting" not in s["state"] or s.get("lastState") for s in statuses["containerStatuses"]):
        return True
    pending, failed = _initialization(pod, statuses)
    return not pending and not failed


def _addresses(pod: Object, observed: Observed, status: Object, node: NodeFacts, old: Mapping[str, Any]) -> None:
    if node.host_ips:
        status["hostIP"] = node.host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in node.host_ips]
    sandbox = observed.sandbox
    if wants_host_network(pod):
        ips = list(node.host_ips) if sandbox is not None else []
    elif sandbox is not None and sandbox.ready:
        ips = list(sandbox.ips)
    else:
        # The last address stays on a pod that is over, as upstream has it.
        ips = [entry["ip"] for entry in old.get("podIPs") or []]
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": ip} for ip in ips]


def _conditions(pod: Object, observed: Observed, statuses: dict[str, list[Object]], phase: str) -> list[Object]:
    sandbox = observed.sandbox
    wired = sandbox is not None and sandbox.ready and (bool(sandbox.ips) or wants_host_network(pod))
    initialized = _initialized(pod, statuses, phase)
    contained = _containers_ready(pod, statuses, phase)
    return [
        {"type": "PodReadyToStartContainers", "status": "True" if wired else "False"},
        initialized,
        _ready(pod, contained),
        contained,
        {"type": "PodScheduled", "status": "True"},
    ]


def _initialized(pod: Object, statuses: dict[str, list[Object]], phase: str) -> Object:
    if phase == "Succeeded":
        return {"type": "Initialized", "status": "True", "reason": "PodCompleted"}
    incomplete = []
    for container, status in zip(init_containers(pod), statuses["initContainerStatuses"], strict=True):
        done = status.get("started") if is_sidecar(container) else status["ready"]
        if not done:
            incomplete.append(container["name"])
    if not incomplete or any("running" in s["state"] or s.get("lastState") for s in statuses["containerStatuses"]):
        return {"type": "Initialized", "status": "True"}
    message = f"containers with incomplete status: [{' '.join(incomplete)}]"
    return {"type": "Initialized", "status": "False", "reason": "ContainersNotInitialized", "message": message}


def _containers_ready(pod: Object, statuses: dict[str, list[Object]], phase: str) -> Object:
    if phase == "Succeeded":
        return {"type": "ContainersReady", "status": "False", "reason": "PodCompleted"}
    if phase == "Failed":
        return {"type": "ContainersReady", "status": "False", "reason": "PodFailed"}
    sidecars = [s for c, s in zip(init_containers(pod), statuses["initContainerStatuses"], strict=True) if is_sidecar(c)]
    unready = [s["name"] for s in [*sidecars, *statuses["containerStatuses"]] if not s["ready"]]
    if not unready:
        return {"type": "ContainersReady", "status": "True"}
    message = f"containers with unready status: [{' '.join(unready)}]"
    return {"type": "ContainersReady", "status": "False", "reason": "ContainersNotReady", "message": message}


def _ready(pod: Object, contained: Object) -> Object:
    if contained["status"] != "True":
        return {**contained, "type": "Ready"}
    have = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or []}
    faults = []
    for gate in pod["spec"].get("readinessGates") or []:
        kind = gate["conditionType"]
        if kind not in have:
            faults.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif have[kind].get("status") != "True":
            faults.append(f'the status of pod readiness gate "{kind}" is not "True", but {have[kind].get("status")}')
    if faults:
        return {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": ", ".join(faults)}
    return {"type": "Ready", "status": "True"}


def _merge_conditions(ours: list[Object], old: list[Object], now: float, generation: int | None) -> list[Object]:
    """Ours with their transition times; others' conditions are theirs and stay out (the patch merges by type)."""
    before = {c["type"]: c for c in old}
    out = []
    for condition in ours:
        previous = before.get(condition["type"])
        same = previous is not None and previous.get("status") == condition["status"]
        moved = previous["lastTransitionTime"] if same and previous and previous.get("lastTransitionTime") else rfc3339(now)
        extra = {"observedGeneration": generation} if generation else {}
        out.append({**condition, **extra, "lastTransitionTime": moved})
    return out
