"""CronJob: start a Job whenever its time comes.

Watches: CronJobs (own key), Jobs (their cron job). Owns: `due` (pure). Never does: tick; the next time is a delayed key.
Source: upstream pkg/controller/cronjob (v2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.base.clock import rfc3339
from k1s.client.interface import Object
from k1s.server.controllers import keys
from k1s.server.controllers.cron import CronError, Schedule
from k1s.server.controllers.job.plan import is_finished
from k1s.server.controllers.pods import namespace_is_terminating
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, same, seconds_of

CRON_JOB, JOB = builtin("CronJob"), builtin("Job")
SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
MANY_MISSED = 100
# The time is surely reached when the key comes back.
_SLACK = 0.1


@dataclass(frozen=True, slots=True)
class Due:
    """`scheduled`: the latest time that has come and was not served; `next`: the one after now; `missed`: how many have come."""

    scheduled: float | None
    next: float | None
    missed: int


def due(cron: Object, schedule: Schedule, zone: tzinfo, now: float) -> Due:
    status, spec = cron.get("status") or {}, cron["spec"]
    since = seconds_of(status.get("lastScheduleTime")) or seconds_of(meta.metadata(cron).get("creationTimestamp"), now)
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        since = max(since, now - deadline)
    following = schedule.next(now, zone)
    first = schedule.next(since, zone)
    if first is None or first > now:
        return Due(None, following, 0)
    # Long absences: look only at the end of the time that went by.
    latest, missed = first, 1
    second = schedule.next(first, zone)
    if second is not None and second <= now:
        gap = second - first
        estimate = int((now - first) // gap)
        if estimate > MANY_MISSED:
            latest = schedule.next(now - 2 * gap, zone) or first
            missed = estimate
        while (after := schedule.next(latest, zone)) is not None and after <= now:
            latest, missed = after, missed + 1
    return Due(latest, following, missed)


class CronJobController(Reconciler):
    name = "cronjob"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.crons, self.jobs = self.cache(CRON_JOB), self.cache(JOB)
        keys.index_ownership(self.jobs)

    def watches(self) -> Iterable[Watch]:
        return ((CRON_JOB, keys.own_key_unless_deleted), (JOB, keys.controller_key(CRON_JOB)))

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        cron = self.crons.get(name, namespace)
        if cron is None:
            return None
        jobs = list(keys.owned(self.jobs, cron))
        status = self._bookkeeping(cron, jobs)
        await self._trim(cron, jobs)
        delay: float | None = None
        if not meta.is_deleting(cron) and not cron["spec"].get("suspend"):
            delay = await self._start(cron, jobs, status)
        status = {k: v for k, v in status.items() if v}
        if not same(status, cron.get("status")):
            await self.client.update(CRON_JOB, {**cron, "status": status}, subresource="status")
        return delay

    def _bookkeeping(self, cron: Object, jobs: Sequence[Object]) -> Object:
        """The status as the jobs are now; events for those that ended."""
        status: Object = clone(cron.get("status") or {})
        by_uid = {meta.uid(job): job for job in jobs}
        active = []
        for reference in status.get("active") or ():
            job = by_uid.get(reference["uid"])
            if job is None:
                self.events.event(cron, "Normal", "MissingJob", f"Active job went missing: {reference['name']}")
            elif is_finished(job):
                outcome = "Complete" if meta.is_true(job, "Complete") else "Failed"
                self.events.event(cron, "Normal", "SawCompletedJob", f"Saw completed job: {meta.name(job)}, condition: {outcome}")
            else:
                active.append(reference)
        known = {reference["uid"] for reference in active}
        active += [_reference(job) for job in jobs if not is_finished(job) and meta.uid(job) not in known]
        status["active"] = active
        ended = [t for job in jobs if meta.is_true(job, "Complete") and (t := job["status"].get("completionTime"))]
        if ended:
            status["lastSuccessfulTime"] = max([*ended, status.get("lastSuccessfulTime") or ""])
        return status

    async def _trim(self, cron: Object, jobs: Sequence[Object]) -> None:
        """Keep so many ended jobs."""
        for kind, limit in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
            keep = cron["spec"].get(limit)
            ended = sorted(
                (j for j in jobs if meta.is_true(j, kind)), key=lambda j: (j["status"].get("startTime") or "", meta.name(j))
            )
            if keep is None:
                continue
            for job in ended[: max(len(ended) - keep, 0)]:
                await self._delete(cron, job)

    async def _delete(self, cron: Object, job: Object) -> None:
        try:
            await self.client.delete(JOB, meta.name(job), meta.namespace(job), uid=meta.uid(job), propagation="Background")
        except ApiError as error:
            if error.code != 404:
                raise
            return
        self.events.event(cron, "Normal", "SuccessfulDelete", f"Deleted job {meta.name(job)}")

    async def _start(self, cron: Object, jobs: Sequence[Object], status: Object) -> float | None:
        """Start what is due; returns the seconds until the next time."""
        spec, now = cron["spec"], self.clock.now()
        try:
            zone: tzinfo = ZoneInfo(spec["timeZone"]) if spec.get("timeZone") else UTC
            schedule = Schedule.parse(spec["schedule"])
        except (ZoneInfoNotFoundError, ValueError) as error:
            reason = "UnparseableSchedule" if isinstance(error, CronError) else "UnknownTimeZone"
            self.events.event(cron, "Warning", reason, f"{spec.get('timeZone') or ''} {spec['schedule']}: {error}".strip())
            return None
        found = due(cron, schedule, zone, now)
        delay = found.next - now + _SLACK if found.next is not None else None
        if found.missed > MANY_MISSED:
            text = (
                f"too many missed start times: {found.missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            )
            self.events.event(cron, "Warning", "TooManyMissedTimes", text)
        if found.scheduled is None:
            return delay
        deadline = spec.get("startingDeadlineSeconds")
        if deadline is not None and found.scheduled + deadline < now:
            return delay
        active = [job for job in jobs if not is_finished(job)]
        policy = spec.get("concurrencyPolicy", "Allow")
        if policy == "Forbid" and active:
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self.events.event(cron, "Normal", "JobAlreadyActive", text)
            return delay
        if policy == "Replace":
            for job in active:
                await self._delete(cron, job)
                status["active"] = [r for r in status["active"] if r["uid"] != meta.uid(job)]
        await self._create(cron, found.scheduled, status)
        return delay

    async def _create(self, cron: Object, scheduled: float, status: Object) -> None:
        wanted = new_job(cron, scheduled)
        try:
            job = await self.client.create(JOB, wanted)
        except ApiError as error:
            if namespace_is_terminating(error):
                return
            if error.reason != "AlreadyExists":
                self.events.event(cron, "Warning", "FailedCreate", f"Error creating job: {error}")
                raise
            # Made before, but not noted: a crash, or a cache that is behind.
            job = await self.client.get(JOB, meta.name(wanted), meta.namespace(cron))
            if not meta.controlled_by(job, cron):
                return
        else:
            self.events.event(cron, "Normal", "SuccessfulCreate", f"Created job {meta.name(job)}")
        if not is_finished(job) and all(r["uid"] != meta.uid(job) for r in status["active"]):
            status["active"] = [*status["active"], _reference(job)]
        status["lastScheduleTime"] = rfc3339(scheduled)


def new_job(cron: Object, scheduled: float) -> Object:
    """Its name holds the scheduled minute, so that one time makes one job."""
    template = cron["spec"]["jobTemplate"]
    annotations = {**meta.annotations(template), SCHEDULED_AT: rfc3339(scheduled)}
    return {
        "metadata": {
            "name": f"{meta.name(cron)}-{int(scheduled) // 60}",
            "namespace": meta.namespace(cron),
            "labels": dict(meta.labels(template)),
            "annotations": annotations,
            "ownerReferences": [meta.owner_reference(cron, CRON_JOB)],
        },
        "spec": clone(template["spec"]),
    }


def _reference(job: Object) -> Object:
    return {
        "apiVersion": "batch/v1", "kind": "Job", "namespace": meta.namespace(job), "name": meta.name(job),
        "uid": meta.uid(job), "resourceVersion": meta.resource_version(job),
    }  # fmt: skip
