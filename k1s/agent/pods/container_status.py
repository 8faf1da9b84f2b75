"""status.containerStatuses and its siblings: pure.

Owns: one container's API status out of what the runtime has, what the worker knows and what was reported before.
Called by: status.py. Never does: I/O.
Source: pkg/kubelet/kubelet_pods.go (convertToAPIContainerStatuses).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k1s.agent.pods.model import ContainerKind, Facts, Object, Observed, restart_count
from k1s.base.clock import rfc3339
from k1s.cri.runtime import ContainerStatus


def build(
    container: Object,
    kind: ContainerKind,
    observed: Observed,
    facts: Facts,
    old: Mapping[str, Any] | None,
    *,
    has_init: bool,
    terminating: bool,
    runtime_name: str,
) -> Object:
    """The ContainerStatus of one container; `old` is the one reported last."""
    instances = observed.all(container["name"])
    if not instances:
        return _without_instance(container, kind, facts, old, has_init=has_init, terminating=terminating)
    newest = instances[0]
    state = _state(newest, runtime_name)
    last = next((_state(c, runtime_name) for c in instances[1:] if c.state == "exited"), None)
    if last is None:
        # The previous instance may have been collected already, or have run before the agent's restart.
        last = dict((old or {}).get("lastState") or {})
    started = newest.state == "running" and newest.id in facts.started
    if kind == "init":
        ready = newest.state == "exited" and newest.exit_code == 0
    else:
        ready = started and newest.id in facts.ready
    wait = facts.waits.get(container["name"])
    # A container that waits for its next try is waiting; how the last one ended moves to lastState.
    if wait is not None and newest.state in ("exited", "created") and not terminating:
        if "terminated" in state:
            last = state
        state = {"waiting": {"reason": wait.reason, **({"message": wait.message} if wait.message else {})}}
    if "terminated" in state and (last.get("terminated") or {}).get("containerID") == state["terminated"]["containerID"]:
        last = {}  # it was reported as the last one while a next was expected
    return _with_resources(
        container,
        {
            "name": container["name"],
            "state": state,
            "lastState": last,
            "ready": ready,
            "restartCount": restart_count(newest),
            "image": newest.image or container.get("image", ""),
            "imageID": newest.image_ref,
            "containerID": f"{runtime_name}://{newest.id}",
            "started": started,
        },
        facts.resources.get(newest.id) if newest.state == "running" else None,
        running=newest.state == "running",
    )


def _without_instance(
    container: Object, kind: ContainerKind, facts: Facts, old: Mapping[str, Any] | None, *, has_init: bool, terminating: bool
) -> Object:
    """Never made, not to be made yet, or lost."""
    out: Object = {
        "name": container["name"],
        "state": {},
        "lastState": dict((old or {}).get("lastState") or {}),
        "ready": False,
        "restartCount": int((old or {}).get("restartCount") or 0),
        "image": container.get("image", ""),
        "imageID": "",
        "started": False,
    }
    old_state = (old or {}).get("state") or {}
    if "terminated" in old_state:
        # It ended and was collected meanwhile (for instance while the agent was down).
        out["state"] = {"terminated": dict(old_state["terminated"])}
        out["ready"] = bool((old or {}).get("ready")) if kind == "init" else False
        for name in ("containerID", "imageID", "image"):
            if (old or {}).get(name):
                out[name] = (old or {})[name]
        return out
    wait = facts.waits.get(container["name"])
    if "running" in old_state:
        lost = _lost("terminated" if terminating else "deleted.  The container used to be Running")
        if terminating:
            out["state"] = {"terminated": lost}
            return out
        out["lastState"] = {"terminated": lost}
    reason = "PodInitializing" if has_init else "ContainerCreating"
    out["state"] = {"waiting": {"reason": reason}}
    if wait is not None:
        out["state"] = {"waiting": {"reason": wait.reason, **({"message": wait.message} if wait.message else {})}}
    return out


def ended(status: Object) -> Object:
    """The last word on a container of a pod that is over: one that never ran, or was not found, does not go on waiting."""
    if "waiting" not in status["state"]:
        return status
    return {**status, "state": {"terminated": _lost("terminated")}}


def _lost(when: str) -> Object:
    return {
        "exitCode": 137,
        "reason": "ContainerStatusUnknown",
        "message": f"The container could not be located when the pod was {when}",
        "startedAt": None,
        "finishedAt": None,
    }


def _state(status: ContainerStatus, runtime_name: str) -> Object:
    """ContainerState of one instance."""
    if status.state == "running":
        return {"running": {"startedAt": rfc3339(status.started_at)}}
    if status.state in ("exited", "unknown"):
        ended: Object = {
            "exitCode": status.exit_code if status.state == "exited" else 137,
            "reason": status.reason or ("Completed" if status.exit_code == 0 else "Error"),
            "startedAt": _time(status.started_at),
            "finishedAt": _time(status.finished_at),
            "containerID": f"{runtime_name}://{status.id}",
        }
        if status.message:
            ended["message"] = status.message
        return {"terminated": ended}
    return {"waiting": {"reason": "ContainerCreating"}}


def _time(seconds: float) -> str | None:
    # containerd gives the Go zero time (year 1) for a container that never started.
    return rfc3339(seconds) if seconds > 0 else None


def _with_resources(container: Object, status: Object, applied: Object | None, *, running: bool) -> Object:
    resources = applied if applied is not None else container.get("resources") or {}
    if running and resources.get("requests"):
        status["allocatedResources"] = dict(resources["requests"])
    if running and resources:
        status["resources"] = {key: dict(resources[key]) for key in ("limits", "requests") if resources.get(key)}
    mounts = [
        {
            "name": m["name"],
            "mountPath": m["mountPath"],
            **({"readOnly": True, "recursiveReadOnly": m.get("recursiveReadOnly") or "Disabled"} if m.get("readOnly") else {}),
        }
        for m in container.get("volumeMounts") or []
    ]
    if mounts:
        status["volumeMounts"] = mounts
    return status
