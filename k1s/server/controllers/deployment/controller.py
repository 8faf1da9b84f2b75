"""Deployment: roll from one ReplicaSet to the next.

Watches: Deployments (own key), ReplicaSets (their Deployment; an orphan wakes those that might adopt it), Pods (when the last one
of a Deployment that recreates is gone).
Never does: touch pods. The plan is in deployment/plan.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.api.selectors import labels_from
from k1s.client.interface import Object
from k1s.server.controllers import keys, pods
from k1s.server.controllers.claims import apply_claims, claim
from k1s.server.controllers.deployment import revisions, rolling
from k1s.server.controllers.deployment.plan import Change, Plan, plan
from k1s.server.controllers.deployment.revisions import DEPLOYMENT, REPLICA_SET, REVISION
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, same

POD = builtin("Pod")


class DeploymentController(Reconciler):
    name = "deployment"
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.deployments, self.sets, self.pods = self.cache(DEPLOYMENT), self.cache(REPLICA_SET), self.cache(POD)
        keys.index_ownership(self.sets)
        keys.index_ownership(self.pods)

    def watches(self) -> Iterable[Watch]:
        return ((DEPLOYMENT, keys.own_key_unless_deleted), (REPLICA_SET, self._set_changed), (POD, self._pod_changed))

    def _set_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        woken = {k for rs in (old, new) if rs is not None and (k := keys.owner_key(rs, DEPLOYMENT))}
        if new is not None and meta.controller_of(new) is None:
            for deployment in self.deployments.list(meta.namespace(new)):
                if labels_from(deployment["spec"].get("selector")).matches(meta.labels(new)):
                    woken.add(meta.key(deployment))
        return woken

    def _pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        """Only an ended pod of a Deployment that recreates matters."""
        if old is None or (new is not None and not pods.is_terminal(new)):
            return ()
        set_key = keys.owner_key(old, REPLICA_SET)
        namespace, name = meta.split_key(set_key)
        rs = self.sets.get(name, namespace) if set_key else None
        key = keys.owner_key(rs, DEPLOYMENT) if rs is not None else ""
        namespace, name = meta.split_key(key)
        deployment = self.deployments.get(name, namespace) if key else None
        return (key,) if deployment is not None and not rolling.is_rolling(deployment) else ()

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        deployment = self.deployments.get(name, namespace)
        if deployment is None:
            return None
        selector = labels_from(deployment["spec"].get("selector"))
        if selector.empty:
            text = "This deployment is selecting all pods. A non-empty selector is required."
            self.events.event(deployment, "Warning", "SelectingAll", text)
            return None
        claims = claim(deployment, selector, keys.owned(self.sets, deployment), keys.orphans(self.sets, namespace))
        sets = await apply_claims(self.client, claims, deployment, DEPLOYMENT, REPLICA_SET)
        todo = plan(deployment, sets, old_pods_left=self._old_pods_left(deployment, sets), now=self.clock.now())
        deployment = await self._apply(deployment, sets, todo)
        if not same(todo.status, deployment.get("status")):
            await self.client.update(DEPLOYMENT, {**deployment, "status": todo.status}, subresource="status")
        return todo.again

    def _old_pods_left(self, deployment: Object, sets: list[Object]) -> bool:
        if rolling.is_rolling(deployment):
            return False
        _, old = revisions.split(deployment, sets)
        return any(not pods.is_terminal(pod) for rs in old for pod in keys.owned(self.pods, rs))

    async def _apply(self, deployment: Object, sets: list[Object], todo: Plan) -> Object:
        """Carry out; returns the Deployment as the server has it now."""
        by_name = {meta.name(rs): rs for rs in sets}
        for change in todo.changes:
            await self._change(deployment, by_name[change.name], change)
        if todo.create is not None:
            await self._create(deployment, todo.create)
        for name in todo.delete:
            rs = by_name[name]
            await _ignore_missing(
                self.client.delete(REPLICA_SET, name, meta.namespace(rs), uid=meta.uid(rs), propagation="Background")
            )
        if todo.revision:
            patch = {"metadata": {"annotations": {REVISION: todo.revision}}}
            # By way of the status, as upstream does: the annotation is no new generation.
            name, namespace = meta.name(deployment), meta.namespace(deployment)
            return await self.client.patch(DEPLOYMENT, name, namespace, patch, subresource="status")
        return deployment

    async def _change(self, deployment: Object, rs: Object, change: Change) -> None:
        # The version keeps a plan made from an old cache from being carried out.
        patch: Object = {
            "metadata": {"resourceVersion": meta.resource_version(rs), "annotations": change.annotations},
            "spec": {"replicas": change.size},
        }
        if change.min_ready_seconds is not None:
            patch["spec"]["minReadySeconds"] = change.min_ready_seconds
        await self.client.patch(REPLICA_SET, change.name, meta.namespace(rs), patch)
        if change.size != change.before:
            self._tell_scaled(deployment, change.name, change.before, change.size)

    def _tell_scaled(self, deployment: Object, name: str, before: int, after: int) -> None:
        verb = "up" if after > before else "down"
        text = f"Scaled {verb} replica set {name} from {before} to {after}"
        self.events.event(deployment, "Normal", "ScalingReplicaSet", text)

    async def _create(self, deployment: Object, wanted: Object) -> None:
        namespace, name = meta.namespace(deployment), meta.name(wanted)
        try:
            made = await self.client.create(REPLICA_SET, wanted)
        except ApiError as error:
            if pods.namespace_is_terminating(error):
                return
            if error.reason != "AlreadyExists":
                text = f'Failed to create new replica set "{name}": {error}'
                self.events.event(deployment, "Warning", "ReplicaSetCreateError", text)
                raise
            existing = await self.client.get(REPLICA_SET, name, namespace)
            mine, _ = revisions.split(deployment, [existing])
            if mine is not None and meta.controlled_by(existing, deployment):
                return  # made by us a moment ago: the cache will show it
            # Another template with the same hash: count the collision, so that the next name is another one.
            status = dict(deployment.get("status") or {})
            status["collisionCount"] = status.get("collisionCount", 0) + 1
            await self.client.update(DEPLOYMENT, {**deployment, "status": status}, subresource="status")
            raise
        if rolling.size(made):
            self._tell_scaled(deployment, name, 0, rolling.size(made))


async def _ignore_missing(call: Any) -> None:
    try:
        await call
    except ApiError as error:
        if error.code != 404:
            raise
