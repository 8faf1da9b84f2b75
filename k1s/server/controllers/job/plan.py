"""One step of a Job.

Owns: `plan` (pure): how the counts change, which pods may be forgotten, which to create and delete, which conditions hold.
Called by: job/controller. Never does: I/O.

Every pod of a Job carries a finalizer until it is counted, in two steps that survive a crash between them: its UID is written
into status.uncountedTerminatedPods (or its index into completedIndexes/failedIndexes), then the finalizer is taken off, and
once the pod is seen without it the UID becomes a count. Source: upstream pkg/controller/job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from k1s.api import meta
from k1s.api.clone import clone
from k1s.base.clock import rfc3339
from k1s.client.interface import Object
from k1s.server.controllers import pods as podlib
from k1s.server.controllers.job import indexes, policy
from k1s.server.controllers.ranking import deletion_order
from k1s.server.controllers.reconciler import seconds_of

FINALIZER = "batch.kubernetes.io/job-tracking"
# At most so many pods are taken into account in one step.
MAX_UNCOUNTED = 500


@dataclass(slots=True)
class Plan:
    status: Object
    # Pods whose finalizer may go once the status is written.
    release: list[Object] = field(default_factory=list)
    # Pods to delete because the job's fate is sealed: they count as failed.
    delete: list[Object] = field(default_factory=list)
    # Pods to delete because they are too many (or the job is suspended): they do not count.
    surplus: list[Object] = field(default_factory=list)
    # How many pods to create; for an Indexed job: with these indexes.
    create: int = 0
    create_indexes: list[int] = field(default_factory=list)
    # Index -> (failures, ignored failures) before, for the pods to create.
    failures: dict[int, tuple[int, int]] = field(default_factory=dict)
    # (type, reason, message) to tell.
    events: list[tuple[str, str, str]] = field(default_factory=list)
    again: float | None = None
    # Pods whose failure was newly counted; the controller's backoff starts from them.
    new_failures: int = 0
    new_successes: int = 0


def is_indexed(job: Object) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def is_finished(job: Object) -> bool:
    return meta.is_true(job, "Complete") or meta.is_true(job, "Failed")


def only_failed_are_replaced(job: Object) -> bool:
    """A pod that is being deleted counts as failed only when it has ended."""
    wanted = job["spec"].get("podReplacementPolicy") or (
        "Failed" if job["spec"].get("podFailurePolicy") else "TerminatingOrFailed"
    )
    return bool(wanted == "Failed")


@dataclass(slots=True)
class _State:
    """What the status becomes while it is worked out."""

    job: Object
    out: Plan
    succeeded: int
    failed: int
    done: set[int]
    broken: set[int]
    uncounted_succeeded: list[str]
    uncounted_failed: list[str]
    conditions: list[Object]
    fail: tuple[str, str] | None = None  # (reason, message)

    def all_succeeded(self) -> int:
        return len(self.done) if is_indexed(self.job) else self.succeeded + len(self.uncounted_succeeded)

    def all_failed(self) -> int:
        return self.failed + len(self.uncounted_failed)


def plan(job: Object, mine: Sequence[Object], now: float, *, hold_new: float = 0.0) -> Plan:
    """`mine`: the job's pods. `hold_new`: seconds for which no new pods are to be made (backoff after failures)."""
    status = clone(job.get("status") or {})
    out = Plan(status)
    completions = job["spec"].get("completions") or 0
    uncounted = status.get("uncountedTerminatedPods") or {}
    state = _State(
        job, out, status.get("succeeded", 0), status.get("failed", 0),
        indexes.parse(status.get("completedIndexes"), completions), indexes.parse(status.get("failedIndexes"), completions),
        list(uncounted.get("succeeded") or ()), list(uncounted.get("failed") or ()), status.get("conditions") or [],
    )  # fmt: skip
    _count(state, mine)
    _note_ended(state, mine)
    active = [pod for pod in mine if podlib.is_active(pod)]
    terminating = [pod for pod in mine if meta.is_deleting(pod) and not podlib.is_terminal(pod)]
    stamp = rfc3339(now)
    _suspension(state, stamp)
    suspended = bool(job["spec"].get("suspend"))
    if not status.get("startTime") and not suspended:
        status["startTime"] = stamp
    _criteria(state, active, now)
    if _target(state.conditions):
        out.delete = active
    elif suspended:
        out.surplus = active
    elif not meta.is_deleting(job):
        _pods(state, mine, active, terminating, now, hold_new)
    doomed = {meta.uid(pod) for pod in (*out.delete, *out.surplus)}
    left = [pod for pod in active if meta.uid(pod) not in doomed]
    _write(state, left, len(terminating) + len(doomed))
    if _target(state.conditions) and not left and not terminating and not doomed and not _pending(state, mine):
        _finish(state, stamp)
    status["conditions"] = state.conditions
    out.status = {k: v for k, v in status.items() if v or k in ("terminating", "ready", "uncountedTerminatedPods")}
    return out


def _has_finalizer(pod: Object) -> bool:
    return FINALIZER in meta.finalizers(pod)


def _pending(state: _State, mine: Sequence[Object]) -> bool:
    return bool(state.uncounted_succeeded or state.uncounted_failed) or any(_has_finalizer(pod) for pod in mine)


def _count(state: _State, mine: Sequence[Object]) -> None:
    """UIDs whose pods are seen without the finalizer become counts."""
    held = {meta.uid(pod) for pod in mine if _has_finalizer(pod)}
    state.succeeded += sum(uid not in held for uid in state.uncounted_succeeded)
    state.failed += sum(uid not in held for uid in state.uncounted_failed)
    state.uncounted_succeeded = [uid for uid in state.uncounted_succeeded if uid in held]
    state.uncounted_failed = [uid for uid in state.uncounted_failed if uid in held]


def _has_failed(job: Object, pod: Object) -> bool:
    if podlib.phase(pod) == "Failed":
        return True
    return meta.is_deleting(pod) and podlib.phase(pod) != "Succeeded" and not only_failed_are_replaced(job)


def _note_ended(state: _State, mine: Sequence[Object]) -> None:
    """Ended pods that carry the finalizer go into the status and may then be released."""
    job, out = state.job, state.out
    known = {*state.uncounted_succeeded, *state.uncounted_failed}
    completions = job["spec"].get("completions") or 0
    finished = bool(_target(state.conditions)) or is_finished(job)
    for pod in mine:
        if not _has_finalizer(pod):
            continue
        uid, index = meta.uid(pod), indexes.index_of(pod)
        if uid in known:
            out.release.append(pod)
        elif len(known) + len(out.release) >= MAX_UNCOUNTED:
            out.again = 0.01
        elif podlib.phase(pod) == "Succeeded":
            out.release.append(pod)
            out.new_successes += 1
            if not is_indexed(job):
                state.uncounted_succeeded.append(uid)
            elif 0 <= index < completions:
                state.done.add(index)
        elif _has_failed(job, pod):
            out.release.append(pod)
            _note_failure(state, pod, uid, index, finished=finished)


def _note_failure(state: _State, pod: Object, uid: str, index: int, *, finished: bool) -> None:
    verdict = policy.judge(state.job, pod) if podlib.phase(pod) == "Failed" else policy.Verdict()
    if verdict.action == "Ignore":
        return
    state.uncounted_failed.append(uid)
    if finished:
        return
    state.out.new_failures += 1
    if verdict.action == "FailJob":
        state.fail = state.fail or ("PodFailurePolicy", verdict.message)
    limit = state.job["spec"].get("backoffLimitPerIndex")
    if limit is not None and index >= 0 and index not in state.done:
        if verdict.action == "FailIndex" or indexes.failures_of(pod) >= limit:
            state.broken.add(index)


def _suspension(state: _State, stamp: str) -> None:
    job = state.job
    if is_finished(job) or _target(state.conditions):
        return
    shown = next((c for c in state.conditions if c["type"] == "Suspended"), None)
    if job["spec"].get("suspend"):
        if shown is None or shown["status"] != "True":
            _set(state, "Suspended", "JobSuspended", "Job suspended", stamp)
            state.out.events.append(("Normal", "Suspended", "Job suspended"))
        state.out.status.pop("startTime", None)
    elif shown is not None and shown["status"] == "True":
        _set(state, "Suspended", "JobResumed", "Job resumed", stamp, status="False")
        state.out.events.append(("Normal", "Resumed", "Job resumed"))
        state.out.status["startTime"] = stamp


def _set(state: _State, kind: str, reason: str, message: str, stamp: str, status: str = "True") -> None:
    new = {"type": kind, "status": status, "reason": reason, "message": message, "lastProbeTime": stamp}
    meta.set_condition(state.conditions, new, stamp)


def _target(conditions: Sequence[Object]) -> Object | None:
    """The interim condition: the job's fate is sealed, its pods are being cleared away."""
    kinds = ("FailureTarget", "SuccessCriteriaMet")
    return next((c for c in conditions if c["type"] in kinds and c["status"] == "True"), None)


def _criteria(state: _State, active: Sequence[Object], now: float) -> None:
    """Seal the job's fate if it can be told now."""
    job, stamp = state.job, rfc3339(now)
    if _target(state.conditions) or is_finished(job):
        return
    failure = state.fail or _failure(state, active, now)
    if failure is not None:
        _set(state, "FailureTarget", *failure, stamp)
        return
    if is_indexed(job) and (message := policy.is_success(job, state.done)):
        _set(state, "SuccessCriteriaMet", "SuccessPolicy", message, stamp)
        return
    completions = job["spec"].get("completions")
    if completions is None:
        complete = state.all_succeeded() > 0 and not active
    else:
        complete = state.all_succeeded() >= completions and (not is_indexed(job) or not state.broken)
    if complete and not job["spec"].get("suspend"):
        _set(state, "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods", stamp)


def _failure(state: _State, active: Sequence[Object], now: float) -> tuple[str, str] | None:
    spec, status = state.job["spec"], state.out.status
    deadline, started = spec.get("activeDeadlineSeconds"), status.get("startTime")
    if deadline is not None and started and not spec.get("suspend"):
        left = seconds_of(started) + deadline - now
        if left <= 0:
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        state.out.again = min(filter(None, (state.out.again, left)))
    limit = spec.get("backoffLimit", 6)
    if state.all_failed() > limit or _restarts_exceed(spec, active, limit):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    if spec.get("backoffLimitPerIndex") is not None:
        most = spec.get("maxFailedIndexes")
        if most is not None and len(state.broken) > most:
            return "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
        if state.broken and len(state.broken) + len(state.done) >= (spec.get("completions") or 0):
            return "FailedIndexes", "Job has failed indexes"
    return None


def _restarts_exceed(spec: Object, active: Sequence[Object], limit: int) -> bool:
    """With restartPolicy OnFailure the restarts of containers count as failures."""
    if (spec.get("template", {}).get("spec") or {}).get("restartPolicy") != "OnFailure":
        return False
    total = 0
    for pod in active:
        status = pod.get("status") or {}
        for entry in (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())):
            total += entry.get("restartCount", 0)
    return total > 0 if limit == 0 else total >= limit


def _pods(
    state: _State, mine: Sequence[Object], active: list[Object], terminating: list[Object], now: float, hold_new: float
) -> None:
    """How many pods there should be, and with which indexes."""
    job, out = state.job, state.out
    spec = job["spec"]
    parallelism = spec.get("parallelism", 1)
    completions = spec.get("completions")
    if completions is None:
        # A work queue: once one pod has succeeded, no new ones are started.
        wanted = min(len(active), parallelism) if state.all_succeeded() else parallelism
    else:
        wanted = max(min(completions - state.all_succeeded() - len(state.broken), parallelism), 0)
    doubles = _superfluous(state, active) if is_indexed(job) else []
    useful = [pod for pod in active if pod not in doubles]
    out.surplus = doubles
    if len(useful) > wanted:
        out.surplus += deletion_order(useful, (), now)[: len(useful) - wanted]
        return
    waiting = terminating if only_failed_are_replaced(job) else []
    missing = min(wanted - len(useful) - len(waiting), podlib.BURST)
    if missing <= 0:
        return
    if hold_new > 0:
        out.again = min(filter(None, (out.again, hold_new)))
        return
    if not is_indexed(job):
        out.create = missing
        return
    taken = {indexes.index_of(pod) for pod in (*useful, *waiting)} | state.done | state.broken
    out.create_indexes = [i for i in range(completions or 0) if i not in taken][:missing]
    out.create = len(out.create_indexes)
    if spec.get("backoffLimitPerIndex") is not None:
        out.failures = {i: _index_failures(job, mine, i) for i in out.create_indexes}


def _superfluous(state: _State, active: Sequence[Object]) -> list[Object]:
    """Pods whose index is done, failed, out of range, or held by an older pod."""
    seen: set[int] = set()
    out: list[Object] = []
    total = state.job["spec"].get("completions") or 0
    for pod in sorted(active, key=lambda p: (p["metadata"].get("creationTimestamp") or "", meta.name(p))):
        index = indexes.index_of(pod)
        if index in seen or index in state.done or index in state.broken or not 0 <= index < total:
            out.append(pod)
        seen.add(index)
    return out


def _index_failures(job: Object, mine: Sequence[Object], index: int) -> tuple[int, int]:
    """(failures, ignored failures) of an index so far: the latest failed pod's, and its own."""
    failed = [pod for pod in mine if indexes.index_of(pod) == index and _has_failed(job, pod)]
    if not failed:
        return 0, 0
    last = max(failed, key=lambda pod: (indexes.failures_of(pod) + indexes.ignored_of(pod), meta.name(pod)))
    ignored = policy.judge(job, last).action == "Ignore"
    return indexes.failures_of(last) + (not ignored), indexes.ignored_of(last) + ignored


def _write(state: _State, active: Sequence[Object], terminating: int) -> None:
    status = state.out.status
    uncounted = {"succeeded": state.uncounted_succeeded, "failed": state.uncounted_failed}
    status["uncountedTerminatedPods"] = {k: v for k, v in uncounted.items() if v}
    status["active"] = len(active)
    status["ready"] = sum(podlib.is_ready(pod) for pod in active)
    status["terminating"] = terminating
    status["failed"] = state.failed
    status["succeeded"] = len(state.done) if is_indexed(state.job) else state.succeeded
    if is_indexed(state.job):
        status["completedIndexes"] = indexes.format(state.done)
        if state.job["spec"].get("backoffLimitPerIndex") is not None:
            status["failedIndexes"] = indexes.format(state.broken)


def _finish(state: _State, stamp: str) -> None:
    """All pods are gone and counted: the fate becomes the final condition."""
    target = _target(state.conditions)
    if target is None or is_finished(state.job):
        return
    reason, message = target["reason"], target["message"]
    if target["type"] == "SuccessCriteriaMet":
        _set(state, "Complete", reason, message, stamp)
        state.out.status["completionTime"] = stamp
        state.out.events.append(("Normal", "Completed", "Job completed"))
    else:
        _set(state, "Failed", reason, message, stamp)
        state.out.events.append(("Warning", reason, message))
