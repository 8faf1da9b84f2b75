"""Ephemeral volumes: a pod's generic ephemeral volumes get their claims.

Watches: Pods (own key, if they have such volumes), PersistentVolumeClaims (their pod, when one goes).
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.client.interface import Object
from k1s.server.controllers import keys, pods
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

POD, CLAIM = builtin("Pod"), builtin("PersistentVolumeClaim")


def ephemeral_volumes(pod: Object) -> list[Object]:
    return [v for v in (pod.get("spec") or {}).get("volumes") or () if v.get("ephemeral")]


class EphemeralVolumeController(Reconciler):
    name = "ephemeral-volume"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods, self.claims = self.cache(POD), self.cache(CLAIM)

    def watches(self) -> Iterable[Watch]:
        return ((POD, self._pod_changed), (CLAIM, lambda old, new: keys.controller_key(POD)(old, None) if new is None else ()))

    def _pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        return (meta.key(new),) if old is None and new is not None and ephemeral_volumes(new) else ()

    async def reconcile(self, key: str) -> float | None:
        namespace, name = meta.split_key(key)
        pod = self.pods.get(name, namespace)
        if pod is None or meta.is_deleting(pod) or pods.is_terminal(pod):
            return None
        for volume in ephemeral_volumes(pod):
            claim = self.claims.get(f"{name}-{volume['name']}", namespace)
            if claim is None:
                await self._create(pod, volume)
            elif not meta.controlled_by(claim, pod):
                text = f'PVC "{meta.key(claim)}" was not created for pod "{key}" (pod is not owner)'
                self.events.event(pod, "Warning", "FailedBinding", text)
        return None

    async def _create(self, pod: Object, volume: Object) -> None:
        template = volume["ephemeral"]["volumeClaimTemplate"]
        metadata = {k: clone(v) for k, v in (template.get("metadata") or {}).items() if k in ("labels", "annotations")}
        metadata.update(
            name=f"{meta.name(pod)}-{volume['name']}",
            namespace=meta.namespace(pod),
            ownerReferences=[meta.owner_reference(pod, POD)],
        )
        try:
            await self.client.create(CLAIM, {"metadata": metadata, "spec": clone(template["spec"])})
        except ApiError as error:
            if error.reason != "AlreadyExists" and not pods.namespace_is_terminating(error):
                self.events.event(pod, "Warning", "FailedBinding", f"ephemeral volume {volume['name']}: create PVC: {error}")
                raise
