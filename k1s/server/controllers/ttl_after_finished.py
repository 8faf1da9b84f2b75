"""TTL: a finished Job with ttlSecondsAfterFinished goes when its time is over.

Watches: Jobs (own key). Never does: poll; the end of the time is a delayed key.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers import keys
from k1s.server.controllers.job.plan import is_finished
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, seconds_of

JOB = builtin("Job")


def left(job: Object, now: float) -> float | None:
    """Seconds until the job is to go; None if it has no time to live or has not ended."""
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None or not is_finished(job) or meta.is_deleting(job):
        return None
    ended = [seconds_of(c.get("lastTransitionTime")) for c in meta.conditions(job) if c["type"] in ("Complete", "Failed")]
    return max(ended, default=now) + float(ttl) - now


class TtlAfterFinishedController(Reconciler):
    name = "ttl-after-finished"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.jobs = self.cache(JOB)

    def watches(self) -> Iterable[Watch]:
        return ((JOB, keys.own_key_unless_deleted),)

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        job = self.jobs.get(name, namespace)
        wait = left(job, self.clock.now()) if job is not None else None
        if job is None or wait is None or wait > 0:
            return wait
        try:
            await self.client.delete(
                JOB, name, namespace, uid=meta.uid(job), resource_version=meta.resource_version(job), propagation="Foreground"
            )
        except ApiError as error:
            if error.code != 404:
                raise
        return None
