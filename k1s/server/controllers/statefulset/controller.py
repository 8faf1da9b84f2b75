"""StatefulSet: pods with names, an order and claims of their own.

Watches: StatefulSets (own key), Pods (their set; orphans), ControllerRevisions (their set). The plan is in statefulset/plan.py.
Never does: delete claims (their owner references let the garbage collector do it, where the retention policy says so).
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.api.selectors import LabelSelector, labels_from
from k1s.client.interface import Object
from k1s.server.controllers import history, keys, pods
from k1s.server.controllers.claims import apply_claims, claim
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, same
from k1s.server.controllers.statefulset import pods as shape
from k1s.server.controllers.statefulset.plan import Plan, plan
from k1s.server.controllers.statefulset.pods import STATEFUL_SET
from k1s.server.controllers.workload import PodMaker

POD, CLAIM, REVISION = builtin("Pod"), builtin("PersistentVolumeClaim"), history.CONTROLLER_REVISION


class StatefulSetController(Reconciler):
    name = "statefulset"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.sets, self.pods, self.claims = self.cache(STATEFUL_SET), self.cache(POD), self.cache(CLAIM)
        self.revisions = self.cache(REVISION)
        keys.index_ownership(self.pods)
        keys.index_ownership(self.revisions)
        self.maker = PodMaker(self, STATEFUL_SET, self.sets, self.selector)

    def watches(self) -> Iterable[Watch]:
        return (
            (STATEFUL_SET, keys.own_key),
            (POD, self.maker.pod_changed),
            (REVISION, keys.controller_key(STATEFUL_SET)),
        )

    def selector(self, owner: Object) -> LabelSelector:
        return labels_from(owner["spec"].get("selector"))

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        owner = self.sets.get(name, namespace)
        if owner is None:
            self.maker.forget(key)
            return None
        if wait := self.maker.wait(key):
            return wait
        mine = await self._claim_pods(owner)
        revisions = list(keys.owned(self.revisions, owner))
        status = owner.get("status") or {}
        in_use = {shape.revision_of(pod) for pod in mine} | {status.get("currentRevision", ""), status.get("updateRevision", "")}
        update = await self.maker.revision(owner, history.choose(owner, STATEFUL_SET, revisions, in_use))
        by_name = {meta.name(r): r for r in (*revisions, update)}
        # The current revision may have been deleted by hand; then there is nothing to hold pods back on.
        current = status.get("currentRevision") if status.get("currentRevision") in by_name else meta.name(update)
        todo = plan(owner, mine, current=current or meta.name(update), update=meta.name(update), now=self.clock.now())
        if not meta.is_deleting(owner):
            await self._own_claims(owner, mine)
            await self._apply(key, owner, todo, by_name)
        if not same(todo.status, owner.get("status")):
            await self.client.update(STATEFUL_SET, {**owner, "status": todo.status}, subresource="status")
        return todo.again

    async def _claim_pods(self, owner: Object) -> list[Object]:
        # Only pods that bear one of the set's names can be adopted.
        strays = [p for p in keys.orphans(self.pods, meta.namespace(owner)) if shape.ordinal_of(owner, p) >= 0]
        claims = claim(owner, self.selector(owner), keys.owned(self.pods, owner), strays)
        return await apply_claims(self.client, claims, owner, STATEFUL_SET, POD)

    async def _apply(self, key: str, owner: Object, todo: Plan, revisions: dict[str, Object]) -> None:
        for pod in todo.repair:
            labels = {shape.POD_NAME: meta.name(pod), shape.POD_INDEX: str(shape.ordinal_of(owner, pod))}
            patch = {"metadata": {"uid": meta.uid(pod), "labels": labels}}
            await self.client.patch(POD, meta.name(pod), meta.namespace(pod), patch)
        await self._delete(key, owner, todo.delete)
        for ordinal in todo.create:
            await self._create_claims(owner, ordinal)
        wanted = [shape.new_pod(owner, history.template_of(revisions[r]), r, o) for o, r in todo.create.items()]
        await self._create(key, owner, wanted)

    async def _create(self, key: str, owner: Object, wanted: list[Object]) -> None:
        try:
            await self.maker.create(key, owner, wanted)
        except ApiError as error:
            # A pod of that name is still there (an old one, or one of somebody else): its going wakes us.
            if error.reason != "AlreadyExists":
                raise
            if any(self._is_foreign(owner, pod) for pod in wanted):
                raise

    def _is_foreign(self, owner: Object, wanted: Object) -> bool:
        found = self.pods.get(meta.name(wanted), meta.namespace(wanted))
        return found is not None and not meta.controlled_by(found, owner)

    async def _delete(self, key: str, owner: Object, doomed: list[Object]) -> None:
        await self.maker.delete(key, owner, [pod for pod in doomed if not meta.is_deleting(pod)])

    async def _create_claims(self, owner: Object, ordinal: int) -> None:
        for wanted in shape.new_claims(owner, ordinal):
            found = self.claims.get(meta.name(wanted), meta.namespace(wanted))
            if found is not None:
                if meta.is_deleting(found):
                    raise ApiError(409, "Conflict", f"claim {meta.name(found)} is being deleted; the pod waits for a new one")
                continue
            references = shape.claim_owners(owner, wanted, ordinal, None)
            if references:
                wanted["metadata"]["ownerReferences"] = references
            try:
                await self.client.create(CLAIM, wanted)
            except ApiError as error:
                if error.reason == "AlreadyExists" or pods.namespace_is_terminating(error):
                    continue
                self.events.event(owner, "Warning", "FailedCreate", f"create Claim {meta.name(wanted)} failed: {error}")
                raise
            pod = shape.pod_name(owner, ordinal)
            text = f"create Claim {meta.name(wanted)} Pod {pod} in StatefulSet {meta.name(owner)} success"
            self.events.event(owner, "Normal", "SuccessfulCreate", text)

    async def _own_claims(self, owner: Object, mine: list[Object]) -> None:
        """Keep the claims' owner references as the retention policy wants them."""
        for pod in mine:
            ordinal = shape.ordinal_of(owner, pod)
            for template in owner["spec"].get("volumeClaimTemplates") or ():
                found = self.claims.get(shape.claim_name(template, owner, ordinal), meta.namespace(owner))
                references = shape.claim_owners(owner, found, ordinal, pod) if found is not None else None
                if found is not None and references is not None:
                    change = {"resourceVersion": meta.resource_version(found), "ownerReferences": references}
                    await self.client.patch(CLAIM, meta.name(found), meta.namespace(found), {"metadata": change})
