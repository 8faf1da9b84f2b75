"""A Deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure.

Owns: `counts`, `rollout_status`, `paused_condition`, `next_check` (pure). Called by: deployment/plan. Never does: I/O.
Source: upstream pkg/controller/deployment/progress.go and util.
"""

from __future__ import annotations

from collections.abc import Sequence

from k1s.api import meta
from k1s.api.clone import clone
from k1s.base.clock import rfc3339
from k1s.client.interface import Object
from k1s.server.controllers.deployment import rolling
from k1s.server.controllers.reconciler import seconds_of

NEW_AVAILABLE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
_NO_DEADLINE = 2**31 - 1


def deadline(deployment: Object) -> int | None:
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return None if seconds is None or seconds == _NO_DEADLINE else int(seconds)


def _count(sets: Sequence[Object], field: str) -> int:
    return sum((rs.get("status") or {}).get(field, 0) for rs in sets)


def counts(deployment: Object, new: Object | None, old: Sequence[Object], stamp: str) -> Object:
    """The status without a judgement on progress."""
    sets = [*old, *([new] if new is not None else [])]
    before = deployment.get("status") or {}
    available = _count(sets, "availableReplicas")
    status: Object = {
        "observedGeneration": meta.generation(deployment),
        "replicas": _count(sets, "replicas"),
        "updatedReplicas": _count([new] if new is not None else [], "replicas"),
        "readyReplicas": _count(sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(sum(map(rolling.size, sets)) - available, 0),
    }
    if before.get("collisionCount"):
        status["collisionCount"] = before["collisionCount"]
    conditions = clone(before.get("conditions") or [])
    _, unavailable = rolling.bounds(deployment)
    if available >= rolling.wanted(deployment) - unavailable:
        enough = _condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", stamp)
    else:
        message = "Deployment does not have minimum availability."
        enough = _condition("Available", "False", "MinimumReplicasUnavailable", message, stamp)
    _put(conditions, enough)
    status["conditions"] = conditions
    return {k: v for k, v in status.items() if v}


def _condition(kind: str, status: str, reason: str, message: str, stamp: str) -> Object:
    return {
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastUpdateTime": stamp, "lastTransitionTime": stamp,
    }  # fmt: skip


def _put(conditions: list[Object], new: Object) -> None:
    """Replace the condition of that type, unless status and reason are the same (as SetDeploymentCondition)."""
    for index, old in enumerate(conditions):
        if old["type"] == new["type"]:
            if old["status"] == new["status"] and old.get("reason") == new["reason"]:
                return
            if old["status"] == new["status"]:
                new = {**new, "lastTransitionTime": old.get("lastTransitionTime") or new["lastTransitionTime"]}
            conditions[index] = new
            return
    conditions.append(new)


def is_complete(deployment: Object, status: Object) -> bool:
    """All pods are of the new template and available, and nothing else is left."""
    total = rolling.wanted(deployment)
    if any(status.get(field, 0) != total for field in ("updatedReplicas", "replicas", "availableReplicas")):
        return False
    return int(status.get("observedGeneration", 0)) >= meta.generation(deployment)


def _has_progressed(deployment: Object, status: Object) -> bool:
    before = deployment.get("status") or {}

    def old_replicas(s: Object) -> int:
        return int(s.get("replicas", 0)) - int(s.get("updatedReplicas", 0))

    grown = any(status.get(f, 0) > before.get(f, 0) for f in ("updatedReplicas", "readyReplicas", "availableReplicas"))
    return grown or old_replicas(status) < old_replicas(before)


def rollout_status(deployment: Object, new: Object | None, old: Sequence[Object], now: float, *, created: bool = False) -> Object:
    """The status while rolling out: counts, progress against the deadline, failures of the sets."""
    stamp = rfc3339(now)
    status = counts(deployment, new, old, stamp)
    conditions = status["conditions"]
    current = _find(conditions, "Progressing")
    if deadline(deployment) is None:
        meta.remove_condition(conditions, "Progressing")
    else:
        done = status.get("replicas", 0) == status.get("updatedReplicas", 0) and current is not None
        if not (done and current is not None and current["reason"] == NEW_AVAILABLE):
            _judge(deployment, status, conditions, new, now, created=created)
    failure = _failure(new, old, stamp)
    if failure is not None:
        _put(conditions, failure)
    else:
        meta.remove_condition(conditions, "ReplicaFailure")
    return status


def _judge(
    deployment: Object, status: Object, conditions: list[Object], new: Object | None, now: float, *, created: bool
) -> None:
    stamp = rfc3339(now)
    subject = f'ReplicaSet "{meta.name(new)}"' if new is not None else f'Deployment "{meta.name(deployment)}"'
    current = _find(conditions, "Progressing")
    if is_complete(deployment, status):
        _put(conditions, _condition("Progressing", "True", NEW_AVAILABLE, f"{subject} has successfully progressed.", stamp))
    elif created and new is not None:
        text = f'Created new replica set "{meta.name(new)}"'
        meta.remove_condition(conditions, "Progressing")
        conditions.append(_condition("Progressing", "True", "NewReplicaSetCreated", text, stamp))
    elif _has_progressed(deployment, status):
        condition = _condition("Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.", stamp)
        if current is not None and current["status"] == "True":
            condition["lastTransitionTime"] = current.get("lastTransitionTime") or stamp
        # lastUpdateTime must move although status and reason may not: the deadline counts from it.
        meta.remove_condition(conditions, "Progressing")
        conditions.append(condition)
    elif current is None and new is not None:
        text = f'Found new replica set "{meta.name(new)}"'
        _put(conditions, _condition("Progressing", "True", "FoundNewReplicaSet", text, stamp))
    elif _is_late(deployment, current, now):
        _put(conditions, _condition("Progressing", "False", TIMED_OUT, f"{subject} has timed out progressing.", stamp))


def _is_late(deployment: Object, current: Object | None, now: float) -> bool:
    limit = deadline(deployment)
    if current is None or limit is None or current["reason"] == NEW_AVAILABLE:
        return False
    return current["reason"] == TIMED_OUT or seconds_of(current.get("lastUpdateTime"), now) + limit < now


def _failure(new: Object | None, old: Sequence[Object], stamp: str) -> Object | None:
    """ReplicaFailure of the new set, or of any other."""
    for rs in [*([new] if new is not None else []), *old]:
        found = meta.condition(rs, "ReplicaFailure")
        if found is not None:
            return _condition("ReplicaFailure", found["status"], found.get("reason", ""), found.get("message", ""), stamp)
    return None


def _find(conditions: list[Object], kind: str) -> Object | None:
    return next((c for c in conditions if c["type"] == kind), None)


def paused_condition(deployment: Object, now: float) -> Object | None:
    """The Progressing condition to set because the Deployment was just paused or resumed."""
    current = meta.condition(deployment, "Progressing")
    if deadline(deployment) is None or (current is not None and current.get("reason") == TIMED_OUT):
        return None
    paused = bool(deployment["spec"].get("paused"))
    shown = current is not None and current.get("reason") == "DeploymentPaused"
    if paused and not shown:
        return _condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", rfc3339(now))
    if shown and not paused:
        return _condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", rfc3339(now))
    return None


def with_condition(status: Object, condition: Object) -> Object:
    conditions = clone(status.get("conditions") or [])
    _put(conditions, condition)
    return {**status, "conditions": conditions}


def next_check(deployment: Object, status: Object, now: float) -> float | None:
    """Seconds until the deadline may pass; nothing else would wake us then."""
    limit = deadline(deployment)
    current = _find(status.get("conditions") or [], "Progressing")
    if limit is None or current is None or deployment["spec"].get("paused"):
        return None
    if current["reason"] in (TIMED_OUT, NEW_AVAILABLE) or is_complete(deployment, status):
        return None
    return max(seconds_of(current.get("lastUpdateTime"), now) + limit - now, 0.0) + 1.0
