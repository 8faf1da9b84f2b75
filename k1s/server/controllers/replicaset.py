"""ReplicaSet: keep so many pods of one template.

Watches: ReplicaSets (own key), Pods (their controller; an orphan wakes every set that might adopt it).
Owns: `plan` and `status_of` (pure), ReplicaController, which replicationcontroller.py shares.
Never does: act while its cache has not shown what it last asked for (expectations).
Source: upstream pkg/controller/replicaset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from k1s.api import meta
from k1s.api.catalog import Resource, builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.api.selectors import LabelSelector, labels_from
from k1s.client.expectations import Expectations
from k1s.client.interface import Object
from k1s.server.controllers import keys, pods
from k1s.server.controllers.claims import apply_claims, claim
from k1s.server.controllers.ranking import deletion_order
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, same

POD = builtin("Pod")


@dataclass(slots=True)
class Plan:
    """Create so many pods, delete these."""

    create: int = 0
    delete: list[Object] = field(default_factory=list)


def plan(owner: Object, mine: Sequence[Object], related: Iterable[Object], now: float) -> Plan:
    """`mine`: the owner's pods; `related`: pods that count when the fullest node is looked for."""
    active = [pod for pod in mine if pods.is_active(pod)]
    wanted = owner["spec"].get("replicas", 1)
    if len(active) < wanted:
        return Plan(create=min(wanted - len(active), pods.BURST))
    if len(active) > wanted:
        excess = min(len(active) - wanted, pods.BURST)
        return Plan(delete=deletion_order(active, related, now)[:excess])
    return Plan()


def status_of(owner: Object, mine: Sequence[Object], failure: Object | None, now: float, stamp: str) -> Object:
    """The owner's new status. `failure`: a ReplicaFailure condition, if creating or deleting failed."""
    template_labels = meta.labels(owner["spec"].get("template") or {})
    minimum = owner["spec"].get("minReadySeconds", 0)
    active = [pod for pod in mine if pods.is_active(pod)]
    labelled = [pod for pod in active if all(meta.labels(pod).get(k) == v for k, v in template_labels.items())]
    ready = [pod for pod in active if pods.is_ready(pod)]
    available = [pod for pod in ready if pods.available_in(pod, minimum, now) == 0]
    status: Object = {
        "replicas": len(active),
        "fullyLabeledReplicas": len(labelled),
        "readyReplicas": len(ready),
        "availableReplicas": len(available),
        "observedGeneration": meta.generation(owner),
    }
    conditions = clone(meta.conditions(owner))
    if failure is not None:
        meta.set_condition(conditions, failure, stamp)
    else:
        meta.remove_condition(conditions, "ReplicaFailure")
    if conditions:
        status["conditions"] = conditions
    return status


def next_available(owner: Object, mine: Iterable[Object], now: float) -> float | None:
    """Seconds until the next ready pod becomes available; nothing else would wake us then."""
    minimum = owner["spec"].get("minReadySeconds", 0)
    waits = [wait for pod in mine if pods.is_active(pod) and (wait := pods.available_in(pod, minimum, now))]
    return min(waits, default=None)


class ReplicaController(Reconciler):
    """The loop for both kinds that keep a number of pods."""

    resource: ClassVar[Resource]
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.expectations = Expectations(context.clock)
        self.owners, self.pods = self.cache(self.resource), self.cache(POD)
        keys.index_ownership(self.pods)
        keys.index_ownership(self.owners)

    def watches(self) -> Iterable[Watch]:
        return ((self.resource, keys.own_key), (POD, self._pod_changed))

    def selector(self, owner: Object) -> LabelSelector:
        return labels_from(owner["spec"].get("selector"))

    def _pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        woken: set[str] = set()
        for pod in (old, new):
            if pod is not None and (key := keys.owner_key(pod, self.resource)):
                woken.add(key)
        for key in woken:
            if old is None:
                self.expectations.created(key)
            if new is None or meta.is_deleting(new):
                self.expectations.deleted(key, meta.uid(new if new is not None else old or {}))
        if new is not None and meta.controller_of(new) is None:
            woken.update(self._adopters(new, old))
        return woken

    def _adopters(self, pod: Object, old: Object | None) -> Iterable[str]:
        if old is not None and meta.labels(old) == meta.labels(pod) and meta.controller_of(old) is None:
            return ()
        candidates = self.owners.list(meta.namespace(pod))
        return [meta.key(o) for o in candidates if self.selector(o).matches(meta.labels(pod))]

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        owner = self.owners.get(name, namespace)
        if owner is None:
            self.expectations.forget(key)
            self.hold_back(key, 0)
            return None
        owned = list(keys.owned(self.pods, owner))
        if pause := self.hold_back(key, len(owned)):
            return pause
        wait = self.expectations.wait(key)
        claims = claim(owner, self.selector(owner), owned, keys.orphans(self.pods, namespace))
        mine = await apply_claims(self.client, claims, owner, self.resource, POD)
        failure: Object | None = None
        error: ApiError | None = None
        if not wait and not meta.is_deleting(owner):
            todo = plan(owner, mine, self._related(owner, mine), self.clock.now())
            error, reason = await self._apply(key, owner, todo)
            if error is not None:
                failure = {"type": "ReplicaFailure", "status": "True", "reason": reason, "message": str(error)}
        status = status_of(owner, mine, failure, self.clock.now(), self.stamp())
        if not same(status, owner.get("status")):
            await self.client.update(self.resource, {**owner, "status": status}, subresource="status")
        if error is not None:
            raise error
        delay = next_available(owner, mine, self.clock.now())
        return min(filter(None, (delay, wait)), default=None)

    def _related(self, owner: Object, mine: list[Object]) -> Iterable[Object]:
        """The pods of all sets of the same Deployment."""
        parent = meta.controller_of(owner)
        if parent is None:
            return mine
        siblings = self.owners.by_index(keys.BY_CONTROLLER, parent["uid"])
        return [pod for sibling in siblings for pod in keys.owned(self.pods, sibling)]

    async def _apply(self, key: str, owner: Object, todo: Plan) -> tuple[ApiError | None, str]:
        if todo.create:
            return await self._create(key, owner, todo.create), "FailedCreate"
        if todo.delete:
            return await self._delete(key, owner, todo.delete), "FailedDelete"
        return None, ""

    async def _create(self, key: str, owner: Object, count: int) -> ApiError | None:
        self.expectations.expect_creations(key, count)
        tried = 0

        async def create(number: int) -> None:
            nonlocal tried
            tried += 1
            pod = pods.from_template(owner["spec"].get("template") or {}, owner, self.resource)
            try:
                made = await self.client.create(POD, pod)
            except ApiError as error:
                self.expectations.created(key)
                if not pods.namespace_is_terminating(error):
                    self.events.event(owner, "Warning", "FailedCreate", f"Error creating: {error}")
                raise
            self.events.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {meta.name(made)}")

        _, error = await pods.slow_start(count, create)
        for _ in range(count - tried):
            self.expectations.created(key)
        return None if error is not None and pods.namespace_is_terminating(error) else error

    async def _delete(self, key: str, owner: Object, doomed: list[Object]) -> ApiError | None:
        self.expectations.expect_deletions(key, [meta.uid(pod) for pod in doomed])

        async def delete(pod: Object) -> ApiError | None:
            try:
                await self.client.delete(POD, meta.name(pod), meta.namespace(pod), uid=meta.uid(pod))
            except ApiError as error:
                self.expectations.deleted(key, meta.uid(pod))
                if error.code == 404:
                    return None
                self.events.event(owner, "Warning", "FailedDelete", f"Error deleting: {error}")
                return error
            self.events.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {meta.name(pod)}")
            return None

        errors = await asyncio.gather(*(delete(pod) for pod in doomed))
        return next((error for error in errors if error is not None), None)


class ReplicaSetController(ReplicaController):
    name = "replicaset"
    resource = builtin("ReplicaSet")
