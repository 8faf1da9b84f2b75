"""Jobs and cron jobs.

Called by: table.py. Never does: generate selectors (the server's strategy does, before validation).
"""

from __future__ import annotations

import zoneinfo
from typing import Any

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value, not_supported, required, too_many
from k1s.api.meta import Object
from k1s.api.validation import cron, pod
from k1s.api.validation.object_meta import template_meta
from k1s.api.validation.rules import Errors, immutable, non_negative, one_of, same, strings
from k1s.api.validation.selectors import label_selector, selects

_COUNTS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_MAX_INDEXED = 100_000
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


def _indexed(errs: Errors, at: str, spec: Object) -> None:
    mode = spec.get("completionMode")
    one_of(errs, f"{at}.completionMode", mode, ("Indexed", "NonIndexed"))
    if mode != "Indexed":
        for key in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(key) is not None:
                errs.append(invalid_value(f"{at}.{key}", spec[key], "requires indexed completion mode"))
        return
    if spec.get("completions") is None:
        errs.append(required(f"{at}.completions", "when completion mode is Indexed"))
    for key in ("parallelism", "maxFailedIndexes"):
        if (spec.get(key) or 0) > _MAX_INDEXED:
            text = f"must be less than or equal to {_MAX_INDEXED} when completion mode is Indexed"
            errs.append(invalid_value(f"{at}.{key}", spec[key], text))


def _failure_rule(errs: Errors, at: str, rule: Object, spec: Object) -> None:
    one_of(errs, f"{at}.action", rule.get("action"), _ACTIONS, needed=True)
    if rule.get("action") == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
        errs.append(invalid_value(f"{at}.action", "FailIndex", "requires the backoffLimitPerIndex to be set"))
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or []
    if codes is not None and conditions:
        errs.append(invalid_value(at, rule, "specifying both OnExitCodes and OnPodConditions is not supported"))
    elif codes is None and not conditions:
        errs.append(invalid_value(at, rule, "specifying one of OnExitCodes and OnPodConditions is required"))
    if codes is not None:
        _exit_codes(errs, f"{at}.onExitCodes", codes, spec)
    for index, condition in enumerate(conditions):
        here = f"{at}.onPodConditions[{index}]"
        strings(errs, f"{here}.type", condition.get("type") or "", names.qualified_name)
        one_of(errs, f"{here}.status", condition.get("status"), ("False", "True", "Unknown"), needed=True)


def _exit_codes(errs: Errors, at: str, codes: Object, spec: Object) -> None:
    operator, values = codes.get("operator"), codes.get("values") or []
    one_of(errs, f"{at}.operator", operator, ("In", "NotIn"), needed=True)
    container = codes.get("containerName")
    pod_spec = (spec.get("template") or {}).get("spec") or {}
    known = {c.get("name") for key in ("containers", "initContainers") for c in pod_spec.get(key) or ()}
    if container is not None and container not in known:
        text = "must be one of the container or initContainer names in the pod template"
        errs.append(invalid_value(f"{at}.containerName", container, text))
    if not values:
        errs.append(invalid_value(f"{at}.values", values, "at least one value is required"))
    elif len(values) > 255:
        errs.append(too_many(f"{at}.values", len(values), 255))
    for index, value in enumerate(values):
        if value == 0 and operator == "In":
            errs.append(invalid_value(f"{at}.values[{index}]", value, "must not be 0 for the In operator"))
    if values != sorted(values):
        errs.append(invalid_value(f"{at}.values", values, "must be ordered"))


def _job_spec(errs: Errors, at: str, spec: Object) -> None:
    for key in _COUNTS:
        non_negative(errs, f"{at}.{key}", spec.get(key))
    _indexed(errs, at, spec)
    one_of(errs, f"{at}.podReplacementPolicy", spec.get("podReplacementPolicy"), ("Failed", "TerminatingOrFailed"))
    pod.template(errs, f"{at}.template", spec.get("template"))
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    if policy == "Always":
        errs.append(required(f"{at}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"'))
    elif policy not in ("OnFailure", "Never"):
        errs.append(not_supported(f"{at}.template.spec.restartPolicy", policy or "", ("Never", "OnFailure")))
    failure = spec.get("podFailurePolicy")
    if failure is not None:
        if policy == "OnFailure":
            text = 'only "Never" is supported when podFailurePolicy is specified'
            errs.append(invalid_value(f"{at}.template.spec.restartPolicy", policy, text))
        for index, rule in enumerate(failure.get("rules") or ()):
            _failure_rule(errs, f"{at}.podFailurePolicy.rules[{index}]", rule, spec)
    success = spec.get("successPolicy")
    if success is not None and spec.get("completionMode") != "Indexed":
        errs.append(invalid_value(f"{at}.successPolicy", success, "requires indexed completion mode"))
    elif success is not None and not success.get("rules"):
        errs.append(required(f"{at}.successPolicy.rules", "at least one rules must be specified"))
    if spec.get("managedBy") is not None:
        strings(errs, f"{at}.managedBy", spec["managedBy"], names.domain_prefixed_key)


def job(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    selector = spec.get("selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if selector is None:
        errs.append(required("spec.selector"))
    else:
        label_selector(errs, "spec.selector", selector)
        if not selects(selector, labels):
            errs.append(invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
        uid = (obj.get("metadata") or {}).get("uid")
        if not spec.get("manualSelector") and uid and uid not in (selector.get("matchLabels") or {}).values():
            errs.append(invalid_value("spec.selector", selector, "`selector` not auto-generated"))
    _job_spec(errs, "spec", spec)


_FIXED = ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")


def job_update(errs: Errors, obj: Object, old: Object) -> None:
    job(errs, obj)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    for key in _FIXED:
        immutable(errs, f"spec.{key}", spec.get(key), before.get(key))
    _completions(errs, spec, before)
    status = old.get("status") or {}
    suspended = bool(before.get("suspend")) and not status.get("startTime")
    template, was = spec.get("template") or {}, before.get("template") or {}
    immutable(errs, "spec.template", _with_old_directives(template, was) if suspended else template, was)


def _completions(errs: Errors, spec: Object, before: Object) -> None:
    new, old = spec.get("completions"), before.get("completions")
    if same(new, old):
        return
    if spec.get("completionMode") != "Indexed" or old is None:
        immutable(errs, "spec.completions", new, old)
    elif new is None:
        errs.append(required("spec.completions", "when completion mode is Indexed"))
    elif new != spec.get("parallelism") or old != before.get("parallelism"):
        errs.append(invalid_value("spec.completions", new, "can only be modified in tandem with spec.parallelism"))


def _with_old_directives(template: Object, was: Object) -> Object:
    """The template with what a job that never started may change set back to the old: where its pods go, their sizes."""
    meta, old_meta = template.get("metadata") or {}, was.get("metadata") or {}
    spec, old_spec = dict(template.get("spec") or {}), was.get("spec") or {}
    for key in ("nodeSelector", "affinity", "tolerations", "schedulingGates"):
        spec[key] = old_spec.get(key)
    for key in ("containers", "initContainers"):
        pairs = list(zip(spec.get(key) or (), old_spec.get(key) or (), strict=False))
        if len(pairs) == len(spec.get(key) or ()):
            spec[key] = [{**new, "resources": before.get("resources")} for new, before in pairs]
    labels = {"labels": old_meta.get("labels"), "annotations": old_meta.get("annotations")}
    return {**template, "metadata": {**meta, **labels}, "spec": spec}


def job_status(errs: Errors, obj: Object, old: Object) -> None:
    status = obj.get("status") or {}
    for key in ("active", "succeeded", "failed", "ready", "terminating"):
        non_negative(errs, f"status.{key}", status.get(key))
    finished = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    if {"Complete", "Failed"} <= finished:
        errs.append(invalid_value("status.conditions", "", "cannot set Complete=True and Failed=true conditions"))
    if status.get("completionTime") and "Complete" not in finished:
        text = "cannot set completionTime when there is no Complete=True condition"
        errs.append(invalid_value("status.completionTime", status["completionTime"], text))


def _time_zone(errs: Errors, value: Any) -> None:
    if value is None:
        return
    if value == "":
        errs.append(invalid_value("spec.timeZone", value, "must be nil or non-empty string"))
    elif value.lower() == "local":
        text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        errs.append(invalid_value("spec.timeZone", value, text))
    else:
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            errs.append(invalid_value("spec.timeZone", value, f"unknown time zone {value}"))


def cron_job(errs: Errors, obj: Object, *, old_schedule: str = "") -> None:
    spec = obj.get("spec") or {}
    schedule = spec.get("schedule")
    if not schedule:
        errs.append(required("spec.schedule"))
    else:
        wrong = cron.check(schedule)
        if wrong:
            errs.append(invalid_value("spec.schedule", schedule, wrong))
        if "TZ" in schedule and schedule != old_schedule:
            text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            errs.append(invalid_value("spec.schedule", schedule, text))
    _time_zone(errs, spec.get("timeZone"))
    for key in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        non_negative(errs, f"spec.{key}", spec.get(key))
    one_of(errs, "spec.concurrencyPolicy", spec.get("concurrencyPolicy"), ("Allow", "Forbid", "Replace"), needed=True)
    template = spec.get("jobTemplate") or {}
    template_meta(errs, "spec.jobTemplate.metadata", template.get("metadata"))
    job_spec = template.get("spec") or {}
    if job_spec.get("manualSelector"):
        errs.append(forbidden_field("spec.jobTemplate.spec.manualSelector", "manualSelector is not supported for CronJob"))
    _job_spec(errs, "spec.jobTemplate.spec", job_spec)


def cron_job_update(errs: Errors, obj: Object, old: Object) -> None:
    cron_job(errs, obj, old_schedule=(old.get("spec") or {}).get("schedule") or "")
