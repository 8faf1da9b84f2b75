"""Volume protection: claims, volumes and attribute classes that are in use are not taken away.

Watches: PersistentVolumeClaims, PersistentVolumes, VolumeAttributesClasses (own key), Pods (the claims they use).
Keys: claim/<namespace>/<name>, volume/<name>, class/<name>.
Admission puts the finalizers on; here they are taken off when the last user has gone. Source: upstream
pkg/controller/volume/{pvcprotection,pvprotection,vacprotection}.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import Resource, builtin
from k1s.api.errors import ApiError
from k1s.api.volume_match import claims_of
from k1s.client.controller import KeysOf
from k1s.client.interface import Object
from k1s.server.controllers.reconciler import Context, Reconciler, Watch

CLAIM, VOLUME, POD = builtin("PersistentVolumeClaim"), builtin("PersistentVolume"), builtin("Pod")
CLASS = builtin("VolumeAttributesClass")
FINALIZERS = {
    "claim": "kubernetes.io/pvc-protection",
    "volume": "kubernetes.io/pv-protection",
    "class": "kubernetes.io/vac-protection",
}
BY_CLAIM = "pods-by-claim"


def scheduled_claims(pod: Object) -> list[str]:
    # A pod that is not on a node yet cannot start with a claim that is going, so it does not hold it.
    return claims_of(pod) if (pod.get("spec") or {}).get("nodeName") else []


class VolumeProtectionController(Reconciler):
    name = "pvc-protection"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.claims, self.volumes, self.classes = self.cache(CLAIM), self.cache(VOLUME), self.cache(CLASS)
        self.pods = self.cache(POD)
        self.pods.add_index(BY_CLAIM, scheduled_claims)

    def watches(self) -> Iterable[Watch]:
        return (
            (CLAIM, _own("claim")),
            (VOLUME, _own("volume")),
            (CLASS, _own("class")),
            (POD, self._pod_changed),
            (CLAIM, self._class_left),
            (VOLUME, self._class_left),
        )

    def _pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        return [f"claim/{key}" for key in scheduled_claims(old or {})] if new is None else ()

    def _class_left(self, old: Object | None, new: Object | None) -> Iterable[str]:
        before, after = (_class_names(obj) if obj is not None else set() for obj in (old, new))
        return [f"class/{name}" for name in before - after]

    async def reconcile(self, key: str) -> float | None:
        kind, _, rest = key.partition("/")
        namespace, name = meta.split_key(rest)
        resource, cache = {"claim": (CLAIM, self.claims), "volume": (VOLUME, self.volumes), "class": (CLASS, self.classes)}[kind]
        obj, finalizer = cache.get(name, namespace), FINALIZERS[kind]
        if obj is None:
            return None
        has = finalizer in meta.finalizers(obj)
        if not meta.is_deleting(obj):
            if not has:
                await self._set(resource, obj, [*meta.finalizers(obj), finalizer])
        elif has and not await self._in_use(kind, rest, obj):
            await self._set(resource, obj, [f for f in meta.finalizers(obj) if f != finalizer])
        return None

    async def _in_use(self, kind: str, key: str, obj: Object) -> bool:
        if kind == "claim":
            if self.pods.by_index(BY_CLAIM, key):
                return True
            # The cache may be behind: the server has the last word before a claim is given up.
            return any(key in scheduled_claims(pod) for pod in await self.client.list(POD, meta.namespace(obj)))
        if kind == "volume":
            return (obj.get("status") or {}).get("phase") == "Bound"
        return any(meta.name(obj) in _class_names(user) for cache in (self.claims, self.volumes) for user in cache.list())

    async def _set(self, resource: Resource, obj: Object, finalizers: list[str]) -> None:
        change = {"uid": meta.uid(obj), "resourceVersion": meta.resource_version(obj), "finalizers": finalizers}
        try:
            await self.client.patch(resource, meta.name(obj), meta.namespace(obj), {"metadata": change})
        except ApiError as error:
            if error.code != 404:
                raise


def _own(kind: str) -> KeysOf:
    def keys(old: Object | None, new: Object | None) -> Iterable[str]:
        if new is None:
            return ()
        unprotected = FINALIZERS[kind] not in meta.finalizers(new)
        return (f"{kind}/{meta.key(new)}",) if meta.is_deleting(new) != unprotected else ()

    return keys


def _class_names(obj: Object) -> set[str]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    names = (
        spec.get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )
    return {name for name in names if name}
