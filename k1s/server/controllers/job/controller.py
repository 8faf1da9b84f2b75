"""Job: run pods to their end, so many times.

Watches: Jobs (own key), Pods (their job; a tracked pod whose job is gone is let go: key "release/<namespace>/<name>").
Never does: make new pods while its cache has not shown the last ones (expectations). The plan is in job/plan.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.api.selectors import labels_from
from k1s.base.backoff import Backoff
from k1s.client.expectations import Expectations
from k1s.client.interface import Object
from k1s.server.controllers import keys, pods
from k1s.server.controllers.claims import apply_claims, claim
from k1s.server.controllers.job import indexes
from k1s.server.controllers.job.plan import FINALIZER, Plan, is_finished, is_indexed, plan
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, same

JOB, POD = builtin("Job"), builtin("Pod")
# After failures new pods wait, longer each time.
FAILURES = Backoff(10.0, 600.0)
_RELEASE = "release/"


class JobController(Reconciler):
    name = "job"
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.jobs, self.pods = self.cache(JOB), self.cache(POD)
        keys.index_ownership(self.pods)
        self.expectations = Expectations(context.clock)
        # Key -> (failures since the last success, when the last one was seen); only of jobs that are failing.
        self._failures: dict[str, tuple[int, float]] = {}

    def watches(self) -> Iterable[Watch]:
        return ((JOB, keys.own_key), (POD, self._pod_changed))

    def _pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        woken: set[str] = set()
        for pod in (old, new):
            if pod is not None and (key := keys.owner_key(pod, JOB)):
                woken.add(key)
        for key in woken:
            if old is None:
                self.expectations.created(key)
            if new is None or meta.is_deleting(new):
                self.expectations.deleted(key, meta.uid(new if new is not None else old or {}))
        if new is not None and FINALIZER in meta.finalizers(new) and self._job_of(new) is None:
            woken.add(f"{_RELEASE}{meta.key(new)}")
        return woken

    def _job_of(self, pod: Object) -> Object | None:
        key = keys.owner_key(pod, JOB)
        namespace, name = meta.split_key(key)
        job = self.jobs.get(name, namespace) if key else None
        return job if job is not None and meta.controlled_by(pod, job) else None

    async def reconcile(self, key: str) -> float | None:
        if key.startswith(_RELEASE):
            await self._release_stray(key.removeprefix(_RELEASE))
            return None
        namespace, name = meta.split_key(key)
        job = self.jobs.get(name, namespace)
        if job is None:
            self._gone(key)
            return None
        managed = job["spec"].get("managedBy")
        if managed and managed != "kubernetes.io/job-controller":
            return None
        if wait := self.expectations.wait(key):
            return wait
        claims = claim(
            job, labels_from(job["spec"].get("selector")), keys.owned(self.pods, job), keys.orphans(self.pods, namespace)
        )
        mine = await apply_claims(self.client, claims, job, JOB, POD)
        if is_finished(job):
            await asyncio.gather(*(self._release(pod) for pod in mine if pods.is_terminal(pod)))
            return None
        todo = plan(job, mine, self.clock.now(), hold_new=self._hold(key))
        self._note_failures(key, todo)
        if not same(todo.status, job.get("status")):
            await self.client.update(JOB, {**job, "status": todo.status}, subresource="status")
        for kind, reason, message in todo.events:
            self.events.event(job, kind, reason, message)
        await asyncio.gather(*(self._release(pod) for pod in todo.release))
        # What is merely not wanted must not be counted as failed: it loses our finalizer before it is deleted.
        await asyncio.gather(*(self._release(pod, strict=True) for pod in todo.surplus))
        await self._delete(key, job, [*todo.delete, *todo.surplus])
        await self._create(key, job, todo)
        return todo.again

    def _gone(self, key: str) -> None:
        self.expectations.forget(key)
        self._failures.pop(key, None)
        namespace, _ = meta.split_key(key)
        # Its pods may still be held by our finalizer.
        for pod in self.pods.list(namespace):
            if FINALIZER in meta.finalizers(pod) and keys.owner_key(pod, JOB) == key:
                self.controller.add(f"{_RELEASE}{meta.key(pod)}")

    async def _release_stray(self, key: str) -> None:
        namespace, name = meta.split_key(key)
        pod = self.pods.get(name, namespace)
        if pod is not None and self._job_of(pod) is None:
            owner = meta.controller_of(pod)
            if owner is not None and await self._exists(namespace, owner):
                return  # only our cache does not show the job yet
            await self._release(pod)

    async def _exists(self, namespace: str, owner: Object) -> bool:
        try:
            job = await self.client.get(JOB, owner["name"], namespace)
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return meta.uid(job) == str(owner["uid"])

    async def _release(self, pod: Object, *, strict: bool = False) -> None:
        """Take our finalizer off; `strict`: or raise, so that the next try does it."""
        if FINALIZER not in meta.finalizers(pod):
            return
        keep = [f for f in meta.finalizers(pod) if f != FINALIZER]
        change = {"uid": meta.uid(pod), "resourceVersion": meta.resource_version(pod), "finalizers": keep}
        try:
            await self.client.patch(POD, meta.name(pod), meta.namespace(pod), {"metadata": change})
        except ApiError as error:
            # A conflict means a newer pod, whose event wakes us.
            if error.code != 404 and (strict or error.code != 409):
                raise

    def _hold(self, key: str) -> float:
        count, last = self._failures.get(key, (0, 0.0))
        return max(last + FAILURES.delay(count) - self.clock.monotonic(), 0.0) if count else 0.0

    def _note_failures(self, key: str, todo: Plan) -> None:
        if todo.new_successes:
            self._failures.pop(key, None)
        elif todo.new_failures:
            count = self._failures.get(key, (0, 0.0))[0] + todo.new_failures
            self._failures[key] = (count, self.clock.monotonic())
            if todo.create:
                todo.create, todo.create_indexes = 0, []
                todo.again = min(filter(None, (todo.again, self._hold(key))))

    async def _delete(self, key: str, job: Object, doomed: list[Object]) -> None:
        if not doomed:
            return
        self.expectations.expect_deletions(key, [meta.uid(pod) for pod in doomed])

        async def delete(pod: Object) -> ApiError | None:
            try:
                await self.client.delete(POD, meta.name(pod), meta.namespace(pod), uid=meta.uid(pod))
            except ApiError as error:
                self.expectations.deleted(key, meta.uid(pod))
                return None if error.code == 404 else error
            self.events.event(job, "Normal", "SuccessfulDelete", f"Deleted pod: {meta.name(pod)}")
            return None

        for error in await asyncio.gather(*(delete(pod) for pod in doomed)):
            if error is not None:
                self.events.event(job, "Warning", "FailedDelete", f"Error deleting: {error}")
                raise error

    async def _create(self, key: str, job: Object, todo: Plan) -> None:
        if not todo.create:
            return
        self.expectations.expect_creations(key, todo.create)
        tried = 0

        async def create(number: int) -> None:
            nonlocal tried
            tried += 1
            index = todo.create_indexes[number] if is_indexed(job) else None
            try:
                made = await self.client.create(POD, new_pod(job, index, todo.failures.get(index if index is not None else -1)))
            except ApiError as error:
                self.expectations.created(key)
                if not pods.namespace_is_terminating(error):
                    self.events.event(job, "Warning", "FailedCreate", f"Error creating: {error}")
                raise
            self.events.event(job, "Normal", "SuccessfulCreate", f"Created pod: {meta.name(made)}")

        _, error = await pods.slow_start(todo.create, create)
        for _ in range(todo.create - tried):
            self.expectations.created(key)
        if error is not None and not pods.namespace_is_terminating(error):
            raise error


def new_pod(job: Object, index: int | None, failures: tuple[int, int] | None) -> Object:
    """A pod of the job; `index`: of an Indexed job; `failures`: (counted, ignored) of that index before."""
    pod = pods.from_template(job["spec"]["template"], job, JOB)
    metadata = pod["metadata"]
    metadata["finalizers"] = [*metadata.get("finalizers", ()), FINALIZER]
    if index is None:
        return pod
    metadata["generateName"] = f"{meta.name(job)}-{index}-"
    metadata.setdefault("annotations", {})[indexes.INDEX] = str(index)
    metadata.setdefault("labels", {})[indexes.INDEX] = str(index)
    if failures is not None:
        metadata["annotations"][indexes.FAILURE_COUNT] = str(failures[0])
        if failures[1]:
            metadata["annotations"][indexes.IGNORED_COUNT] = str(failures[1])
    spec = pod["spec"]
    spec["hostname"] = f"{meta.name(job)}-{index}"
    source = {"valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{indexes.INDEX}']"}}}
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        if all(e["name"] != "JOB_COMPLETION_INDEX" for e in container.get("env") or ()):
            container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", **source})
    return pod
