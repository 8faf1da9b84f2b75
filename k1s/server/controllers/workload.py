"""Creating and deleting the pods of one owner, with expectations and events.

Owns: PodMaker, which a controller of pods holds: it maps pod changes to keys, counts what was asked for, tells what was done.
Called by: daemonset, statefulset (revisions). Never does: decide which pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from k1s.api import meta
from k1s.api.catalog import Resource, builtin
from k1s.api.errors import ApiError
from k1s.api.selectors import LabelSelector
from k1s.client.expectations import Expectations
from k1s.client.interface import Informer, Object
from k1s.server.controllers import history, keys, pods
from k1s.server.controllers.reconciler import Reconciler

POD = builtin("Pod")


class PodMaker:
    def __init__(
        self, controller: Reconciler, resource: Resource, owners: Informer, selector: Callable[[Object], LabelSelector]
    ) -> None:
        self._controller, self._resource, self._owners, self._selector = controller, resource, owners, selector
        self._expectations = Expectations(controller.clock)

    def pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        """The owner of the pod, and for an orphan whoever might adopt it."""
        woken = {k for pod in (old, new) if pod is not None and (k := keys.owner_key(pod, self._resource))}
        for key in woken:
            if old is None:
                self._expectations.created(key)
            if new is None or meta.is_deleting(new):
                self._expectations.deleted(key, meta.uid(new if new is not None else old or {}))
        if new is not None and meta.controller_of(new) is None:
            if old is None or meta.labels(old) != meta.labels(new) or meta.controller_of(old) is not None:
                for owner in self._owners.list(meta.namespace(new)):
                    if self._selector(owner).matches(meta.labels(new)):
                        woken.add(meta.key(owner))
        return woken

    def wait(self, key: str) -> float:
        return self._expectations.wait(key)

    def forget(self, key: str) -> None:
        self._expectations.forget(key)

    async def revision(self, owner: Object, choice: history.Choice) -> Object:
        """Carry out the choice of revision; a collision of hashes is counted and tried again."""
        try:
            return await history.apply_choice(self._controller.client, owner, choice)
        except history.HashCollision:
            status = dict(owner.get("status") or {})
            status["collisionCount"] = status.get("collisionCount", 0) + 1
            await self._controller.client.update(self._resource, {**owner, "status": status}, subresource="status")
            raise

    async def create(self, key: str, owner: Object, wanted: Sequence[Object]) -> None:
        """Create all, slowly at first; raises the first error."""
        wanted = wanted[: pods.BURST]
        if not wanted:
            return
        self._expectations.expect_creations(key, len(wanted))
        tried = 0

        async def create(number: int) -> None:
            nonlocal tried
            tried += 1
            try:
                made = await self._controller.client.create(POD, wanted[number])
            except ApiError as error:
                self._expectations.created(key)
                if not pods.namespace_is_terminating(error):
                    self._controller.events.event(owner, "Warning", "FailedCreate", f"Error creating: {error}")
                raise
            self._controller.events.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {meta.name(made)}")

        _, error = await pods.slow_start(len(wanted), create)
        for _ in range(len(wanted) - tried):
            self._expectations.created(key)
        if error is not None and not pods.namespace_is_terminating(error):
            raise error

    async def delete(self, key: str, owner: Object, doomed: Sequence[Object]) -> None:
        doomed = doomed[: pods.BURST]
        if not doomed:
            return
        self._expectations.expect_deletions(key, [meta.uid(pod) for pod in doomed])
        for error in await asyncio.gather(*(self._delete_one(key, owner, pod) for pod in doomed)):
            if error is not None:
                raise error

    async def _delete_one(self, key: str, owner: Object, pod: Object) -> ApiError | None:
        try:
            await self._controller.client.delete(POD, meta.name(pod), meta.namespace(pod), uid=meta.uid(pod))
        except ApiError as error:
            self._expectations.deleted(key, meta.uid(pod))
            if error.code == 404:
                return None
            self._controller.events.event(owner, "Warning", "FailedDelete", f"Error deleting: {error}")
            return error
        self._controller.events.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {meta.name(pod)}")
        return None
