"""Pods as `kubectl get pods` shows them.

Called by: api/table.py. Never does: change what the status says; it only words it.
"""

from __future__ import annotations

from typing import Any

from k1s.api.meta import Object
from k1s.api.printers.columns import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    NONE,
    Printer,
    age,
    column,
    format_labels,
    human_duration,
    layout_containers,
    metadata,
    name,
    seconds,
    spec,
    status,
    true_condition,
)


class _Restarts:
    """How often, and when last."""

    def __init__(self) -> None:
        self.count, self.last = 0, 0.0

    def add(self, container: Object) -> None:
        self.count += container.get("restartCount") or 0
        terminated = (container.get("lastState") or {}).get("terminated") or {}
        self.last = max(self.last, seconds(terminated.get("finishedAt")) or 0.0)

    def text(self, now: float) -> str:
        if self.count and self.last:
            return f"{self.count} ({human_duration(now - self.last)} ago)"
        return str(self.count)


def _exit_text(terminated: Object, prefix: str) -> str:
    if terminated.get("reason"):
        return f"{prefix}{terminated['reason']}"
    if terminated.get("signal"):
        return f"{prefix}Signal:{terminated['signal']}"
    return f"{prefix}ExitCode:{terminated.get('exitCode') or 0}"


class _View:
    """Folds the container statuses of one pod into ready count, reason and restarts."""

    def __init__(self, pod: Object) -> None:
        self.pod = pod
        self.status = status(pod)
        self.init_specs = {c.get("name"): c for c in spec(pod).get("initContainers") or ()}
        self.ready = 0
        self.total = len(spec(pod).get("containers") or ()) + sum(map(self._sidecar, self.init_specs))
        self.restarts = _Restarts()
        self.sidecar_restarts = _Restarts()
        self.reason = self._phase_reason()
        if not self._init_containers() or true_condition(pod, "Initialized"):
            self._containers()
        self._deletion()

    def _sidecar(self, container: str | None) -> bool:
        return (self.init_specs.get(container) or {}).get("restartPolicy") == "Always"

    def _phase_reason(self) -> str:
        for condition in self.status.get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
                return "SchedulingGated"
        return self.status.get("reason") or self.status.get("phase") or ""

    def _init_containers(self) -> bool:
        """True while the pod initialises."""
        for index, container in enumerate(self.status.get("initContainerStatuses") or ()):
            self.restarts.add(container)
            sidecar = self._sidecar(container.get("name"))
            if sidecar:
                self.sidecar_restarts.add(container)
            state = container.get("state") or {}
            terminated, waiting = state.get("terminated"), state.get("waiting") or {}
            if terminated is not None and not terminated.get("exitCode"):
                continue
            if sidecar and container.get("started"):
                self.ready += bool(container.get("ready"))
                continue
            if terminated is not None:
                self.reason = _exit_text(terminated, "Init:")
            elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
                self.reason = f"Init:{waiting['reason']}"
            else:
                self.reason = f"Init:{index}/{len(self.init_specs)}"
            return True
        return False

    def _containers(self) -> None:
        self.restarts = self.sidecar_restarts
        running = False
        for container in reversed(self.status.get("containerStatuses") or ()):
            self.restarts.add(container)
            state = container.get("state") or {}
            terminated, waiting = state.get("terminated"), state.get("waiting") or {}
            if waiting.get("reason"):
                self.reason = waiting["reason"]
            elif terminated is not None:
                self.reason = _exit_text(terminated, "")
            elif container.get("ready") and state.get("running") is not None:
                running = True
                self.ready += 1
        # One container has finished, another still runs: the pod runs.
        if self.reason == "Completed" and running:
            self.reason = "Running" if true_condition(self.pod, "Ready") else "NotReady"

    def _deletion(self) -> None:
        if not metadata(self.pod).get("deletionTimestamp"):
            return
        if self.status.get("reason") == "NodeLost":
            self.reason = "Unknown"
        elif self.status.get("phase") not in ("Succeeded", "Failed"):
            self.reason = "Terminating"


def _gates(pod: Object) -> str:
    gates = spec(pod).get("readinessGates") or ()
    if not gates:
        return NONE
    passed = sum(true_condition(pod, gate.get("conditionType") or "") for gate in gates)
    return f"{passed}/{len(gates)}"


def _pod(pod: Object, now: float) -> list[Any]:
    view = _View(pod)
    ips = view.status.get("podIPs") or [{"ip": view.status.get("podIP")}]
    return [
        name(pod),
        f"{view.ready}/{view.total}",
        view.reason,
        view.restarts.text(now),
        age(pod, now),
        ips[0].get("ip") or NONE,
        spec(pod).get("nodeName") or NONE,
        view.status.get("nominatedNodeName") or NONE,
        _gates(pod),
    ]


def row_conditions(pod: Object) -> list[dict[str, str]]:
    """metav1.TableRow.conditions: a finished pod is a completed row."""
    phase = status(pod).get("phase")
    if phase == "Succeeded":
        message = "The pod has completed successfully."
    elif phase == "Failed":
        message = "The pod failed."
    else:
        return []
    return [{"type": "Completed", "status": "True", "reason": str(phase), "message": message}]


def _pod_template(obj: Object, now: float) -> list[Any]:
    template = obj.get("template") or {}
    containers = layout_containers((template.get("spec") or {}).get("containers"))
    return [name(obj), *containers, format_labels((template.get("metadata") or {}).get("labels"))]


_TEMPLATE_COLUMNS = (NAME, *({**c, "priority": 0} for c in (CONTAINERS, IMAGES)))

PRINTERS = {
    ("", "Pod"): Printer(
        (
            NAME,
            column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
            column("Status", "The aggregate status of the containers in this pod."),
            column(
                "Restarts",
                "The number of times the containers in this pod have been restarted and when the last container in this pod has"
                " restarted.",
            ),
            AGE,
            column("IP", "IP address allocated to the pod.", wide=True),
            column("Node", "The node this pod is scheduled onto.", wide=True),
            column("Nominated Node", "The node this pod is to run on once other pods have made room.", wide=True),
            column("Readiness Gates", "Readiness gates that are passed, of all.", wide=True),
        ),
        _pod,
    ),
    ("", "PodTemplate"): Printer(
        (*_TEMPLATE_COLUMNS, column("Pod Labels", "The labels for the pod template.")),
        _pod_template,
    ),
}
