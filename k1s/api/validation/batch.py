"""Cron jobs.

Called by: table.py. Never does: the job that they make (jobs.py).
Source: upstream ValidateCronJobSpec, ValidateJobTemplateSpec.
"""

from __future__ import annotations

import zoneinfo
from typing import Any

from k1s.api.errors import invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation import cron
from k1s.api.validation.jobs import job_spec
from k1s.api.validation.rules import Errors, non_negative, one_of


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
    spec, at = template.get("spec") or {}, "spec.jobTemplate.spec"
    job_spec(errs, at, spec)
    if spec.get("selector") is not None:
        errs.append(invalid_value(f"{at}.selector", spec["selector"], "`selector` will be auto-generated"))
    if spec.get("manualSelector"):
        errs.append(not_supported(f"{at}.manualSelector", spec["manualSelector"], ("nil", "false"), as_given=True))


def cron_job_update(errs: Errors, obj: Object, old: Object) -> None:
    cron_job(errs, obj, old_schedule=(old.get("spec") or {}).get("schedule") or "")
