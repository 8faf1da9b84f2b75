"""What a job's controller, Kubernetes' own or another one, may say of a job: no finished job runs, nothing is taken back.

Called by: table.py. Never does: count pods.
Source: upstream ValidateJobUpdateStatus; KEP-4368. What stood wrong before may stand on, as upstream ratchets.
"""

from __future__ import annotations

from typing import Any

from k1s.api.errors import OMIT, duplicate, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.job_indexes import IndexesWrong, count_indexes
from k1s.api.validation.rules import Errors, non_negative, same

_TERMINAL = ("Failed", "Complete", "FailureTarget", "SuccessCriteriaMet")


def _true(status: Object) -> set[Any]:
    return {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}


class _Change:
    """A status beside the one before it."""

    def __init__(self, obj: Object, old: Object) -> None:
        self.spec, self.new, self.old = obj.get("spec") or {}, obj.get("status") or {}, old.get("status") or {}
        self.now, self.was = _true(self.new), _true(self.old)
        self.finishes = bool({"Complete", "Failed"} & self.now) and not {"Complete", "Failed"} & self.was

    def changed(self, key: str) -> bool:
        return not same(self.new.get(key), self.old.get(key))


def job_status(errs: Errors, obj: Object, old: Object) -> None:
    change = _Change(obj, old)
    for key in ("active", "succeeded", "failed", "ready", "terminating"):
        non_negative(errs, f"status.{key}", change.new.get(key))
    _uncounted(errs, change.new.get("uncountedTerminatedPods") or {})
    _conditions(errs, change)
    _completion(errs, change)
    if change.finishes:
        _finished(errs, change)
    _indexes(errs, change)
    _progress(errs, change)


def _uncounted(errs: Errors, pods: Object) -> None:
    seen: set[Any] = set()
    for key in ("succeeded", "failed"):
        for index, uid in enumerate(pods.get(key) or ()):
            at = f"status.uncountedTerminatedPods.{key}[{index}]"
            if not uid:
                errs.append(invalid_value(at, uid, "must not be empty"))
            elif uid in seen:
                errs.append(duplicate(at, uid))
            seen.add(uid)


def _conditions(errs: Errors, change: _Change) -> None:
    at, now = "status.conditions", change.now
    if now == change.was:
        return
    if {"Complete", "Failed"} <= now:
        errs.append(invalid_value(at, OMIT, "cannot set Complete=True and Failed=true conditions"))
    if {"Complete", "FailureTarget"} <= now:
        errs.append(invalid_value(at, OMIT, "cannot set Complete=True and FailureTarget=true conditions"))
    if {"Failed", "SuccessCriteriaMet"} <= now:
        errs.append(invalid_value(at, OMIT, "cannot set Failed=True and SuccessCriteriaMet=true conditions"))
    if {"FailureTarget", "SuccessCriteriaMet"} <= now:
        errs.append(invalid_value(at, OMIT, "cannot set FailureTarget=True and SuccessCriteriaMet=true conditions"))
    if "Failed" in now - change.was and "FailureTarget" not in now:
        errs.append(invalid_value(at, OMIT, "cannot set Failed=True condition without the FailureTarget=true condition"))
    if "Complete" in now - change.was and "SuccessCriteriaMet" not in now:
        text = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"
        errs.append(invalid_value(at, OMIT, text))
    for kind in _TERMINAL:
        if kind in change.was - now:
            errs.append(invalid_value(at, OMIT, f"cannot disable the terminal {kind}=True condition"))


def _completion(errs: Errors, change: _Change) -> None:
    time, start, at = change.new.get("completionTime"), change.new.get("startTime"), "status.completionTime"
    complete = "Complete" in change.now
    if time and not complete and change.changed("completionTime"):
        errs.append(invalid_value(at, time, "cannot set completionTime when there is no Complete=True condition"))
    if complete and not time and "Complete" not in change.was:
        errs.append(required(at, "completionTime is required for Complete jobs"))
    if time and start and str(time) < str(start) and change.changed("completionTime"):
        errs.append(invalid_value(at, time, "completionTime cannot be set before startTime"))
    if "Complete" in change.was and change.old.get("completionTime") and change.changed("completionTime"):
        errs.append(invalid_value(at, time, "field is immutable"))


def _finished(errs: Errors, change: _Change) -> None:
    status = change.new
    if (status.get("active") or 0) > 0:
        errs.append(invalid_value("status.active", status["active"], "active>0 is invalid for finished job"))
    if not status.get("startTime"):
        errs.append(required("status.startTime", "startTime is required for finished job"))
    pods = status.get("uncountedTerminatedPods") or {}
    if pods.get("succeeded") or pods.get("failed"):
        text = "uncountedTerminatedPods needs to be empty for finished job"
        errs.append(invalid_value("status.uncountedTerminatedPods", pods, text))
    if (status.get("terminating") or 0) > 0:
        errs.append(invalid_value("status.terminating", status["terminating"], "terminating>0 is invalid for finished job"))


def _indexes(errs: Errors, change: _Change) -> None:
    completions, indexed = change.spec.get("completions") or 0, change.spec.get("completionMode") == "Indexed"
    done = change.new.get("completedIndexes")
    if done and change.changed("completedIndexes"):
        if not indexed:
            text = "cannot set non-empty completedIndexes when non-indexed completion mode"
            errs.append(invalid_value("status.completedIndexes", done, text))
        else:
            _parsed(errs, "completedIndexes", done, completions)
    failed = change.new.get("failedIndexes")
    if failed is not None and change.changed("failedIndexes"):
        if change.spec.get("backoffLimitPerIndex") is None:
            text = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
            errs.append(invalid_value("status.failedIndexes", failed, text))
        else:
            _parsed(errs, "failedIndexes", failed, completions)


def _parsed(errs: Errors, key: str, text: str, completions: int) -> None:
    try:
        count_indexes(text, completions)
    except IndexesWrong as wrong:
        errs.append(invalid_value(f"status.{key}", text, f"error parsing {key}: {wrong}"))


def _progress(errs: Errors, change: _Change) -> None:
    """Counters go up; a job that is not suspended keeps its start."""
    status, before = change.new, change.old
    ready, active = status.get("ready"), status.get("active") or 0
    if ready is not None and ready > active and (change.changed("ready") or change.changed("active")):
        errs.append(invalid_value("status.ready", ready, "cannot set more ready pods than active"))
    if (status.get("failed") or 0) < (before.get("failed") or 0):
        errs.append(invalid_value("status.failed", status.get("failed") or 0, "cannot decrease the failed counter"))
    fewer = (status.get("succeeded") or 0) < (before.get("succeeded") or 0)
    if fewer and change.spec.get("completionMode") != "Indexed":
        errs.append(invalid_value("status.succeeded", status.get("succeeded") or 0, "cannot decrease the succeeded counter"))
    if before.get("startTime") and change.changed("startTime") and not change.spec.get("suspend"):
        if not status.get("startTime"):
            errs.append(required("status.startTime", "startTime cannot be removed for unsuspended job"))
        else:
            text = "startTime cannot be updated for unsuspended job"
            errs.append(invalid_value("status.startTime", status["startTime"], text))
