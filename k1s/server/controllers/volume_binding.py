"""Volume binding: claims find their volumes.

Watches: PersistentVolumeClaims and PersistentVolumes (own key and the other side's), StorageClasses (claims that wait), Pods
(the claims of one that has got its node: its node becomes theirs, if the scheduler did not choose one for them before).
Keys: claim/<namespace>/<name>, volume/<name>. Owns: `best_match` (pure).
Never does: provision or delete storage; a class's provisioner is asked by annotation, and deletes volumes that were released.
Source: upstream pkg/controller/volume/persistentvolume.
"""

from __future__ import annotations

from collections.abc import Iterable

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.api.node_affinity import allows_volume
from k1s.api.volume_match import NO_PROVISIONER, SELECTED_NODE, capacity, class_of, is_for, matches
from k1s.client.interface import Object
from k1s.server.controllers.reconciler import Context, Reconciler, Watch, same
from k1s.server.controllers.volume_protection import BY_CLAIM, scheduled_claims

CLAIM, VOLUME = builtin("PersistentVolumeClaim"), builtin("PersistentVolume")
STORAGE_CLASS, NODE, POD = builtin("StorageClass"), builtin("Node"), builtin("Pod")
BOUND = "pv.kubernetes.io/bind-completed"
BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONERS = ("volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner")


def best_match(claim: Object, volumes: Iterable[Object], node: Object | None) -> Object | None:
    """The smallest volume that will do; one that was reserved for the claim goes first."""
    fitting = [v for v in volumes if not meta.is_deleting(v) and _fits(claim, v, node)]
    reserved = [v for v in fitting if v["spec"].get("claimRef")]
    return min(reserved or fitting, key=lambda v: (capacity(v), meta.name(v)), default=None)


def _fits(claim: Object, volume: Object, node: Object | None) -> bool:
    return matches(claim, volume) and (node is None or allows_volume(volume, node))


class VolumeBindingController(Reconciler):
    name = "persistent-volume-binder"
    workers = 1  # two claims must not take one volume

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.claims, self.volumes = self.cache(CLAIM), self.cache(VOLUME)
        self.classes, self.nodes, self.pods = self.cache(STORAGE_CLASS), self.cache(NODE), self.cache(POD)
        self.pods.add_index(BY_CLAIM, scheduled_claims)

    def watches(self) -> Iterable[Watch]:
        return (
            (CLAIM, self._claim_changed),
            (VOLUME, self._volume_changed),
            (STORAGE_CLASS, self._class_changed),
            (POD, self._pod_changed),
        )

    def _claim_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        obj = new if new is not None else old
        if obj is None:
            return
        yield f"claim/{meta.key(obj)}"
        if obj["spec"].get("volumeName"):
            yield f"volume/{obj['spec']['volumeName']}"
        if new is None:
            for volume in self.volumes.list():
                if is_for(volume, obj):
                    yield f"volume/{meta.name(volume)}"

    def _volume_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        obj = new if new is not None else old
        if obj is None:
            return
        yield f"volume/{meta.name(obj)}"
        reference = obj["spec"].get("claimRef")
        if reference:
            yield f"claim/{reference.get('namespace')}/{reference['name']}"
        elif new is not None:
            yield from (f"claim/{meta.key(c)}" for c in self._waiting(class_of(new)))

    def _class_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        return [f"claim/{meta.key(c)}" for c in self._waiting(meta.name(new))] if new is not None else ()

    def _pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        if new is None or (old is not None and scheduled_claims(old)):
            return
        for key in scheduled_claims(new):
            namespace, name = meta.split_key(key)
            claim = self.claims.get(name, namespace)
            if claim is not None and not claim["spec"].get("volumeName"):
                yield f"claim/{key}"

    def _waiting(self, storage_class: str) -> list[Object]:
        return [c for c in self.claims.list() if not c["spec"].get("volumeName") and class_of(c) == storage_class]

    async def reconcile(self, key: str) -> float | None:
        kind, _, rest = key.partition("/")
        if kind == "volume":
            volume = self.volumes.get(rest)
            if volume is not None:
                await self._sync_volume(volume)
            return None
        namespace, name = meta.split_key(rest)
        claim = self.claims.get(name, namespace)
        if claim is not None:
            await self._sync_claim(claim)
        return None

    async def _sync_claim(self, claim: Object) -> None:
        wanted = claim["spec"].get("volumeName")
        if wanted:
            volume = self.volumes.get(wanted)
            if volume is None or (volume["spec"].get("claimRef") and not is_for(volume, claim)):
                await self._unmet(claim, lost=meta.annotations(claim).get(BOUND) == "yes")
            else:
                await self._bind(claim, volume)
            return
        if meta.is_deleting(claim):
            return
        storage_class = self.classes.get(class_of(claim)) if class_of(claim) else None
        selected = meta.annotations(claim).get(SELECTED_NODE, "")
        reserved = [v for v in self.volumes.list() if is_for(v, claim)]
        waits = storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"
        consumer = next(iter(self.pods.by_index(BY_CLAIM, meta.key(claim))), None)
        if waits and not selected and consumer is not None:
            selected = str(consumer["spec"]["nodeName"])
            claim = await self._annotate(claim, {SELECTED_NODE: selected})
        if waits and not selected and not reserved:
            text = "waiting for first consumer to be created before binding"
            self.events.event(claim, "Normal", "WaitForFirstConsumer", text)
            await self._unmet(claim, lost=False)
            return
        free = [v for v in self.volumes.list() if (v.get("status") or {}).get("phase") in (None, "", "Pending", "Available")]
        volume = best_match(claim, reserved or free, self.nodes.get(selected) if selected else None)
        if volume is not None:
            await self._bind(claim, volume)
        else:
            claim = await self._provision(claim, storage_class)
            await self._unmet(claim, lost=False)

    async def _annotate(self, claim: Object, annotations: dict[str, str]) -> Object:
        patch = {"metadata": {"annotations": annotations}}
        return await self.client.patch(CLAIM, meta.name(claim), meta.namespace(claim), patch)

    async def _provision(self, claim: Object, storage_class: Object | None) -> Object:
        """Ask the class's provisioner, by annotation."""
        if storage_class is None or storage_class.get("provisioner") in (None, NO_PROVISIONER):
            if class_of(claim) and storage_class is None:
                text = f'storageclass.storage.k8s.io "{class_of(claim)}" not found'
                self.events.event(claim, "Warning", "ProvisioningFailed", text)
            else:
                text = "no persistent volumes available for this claim and no storage class is set"
                self.events.event(claim, "Normal", "FailedBinding", text)
            return claim
        provisioner = str(storage_class["provisioner"])
        if meta.annotations(claim).get(PROVISIONERS[0]) != provisioner:
            claim = await self._annotate(claim, dict.fromkeys(PROVISIONERS, provisioner))
        text = (
            f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the "
            "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
            "correctly registered."
        )
        self.events.event(claim, "Normal", "ExternalProvisioning", text)
        return claim

    async def _unmet(self, claim: Object, *, lost: bool) -> None:
        phase = "Lost" if lost else "Pending"
        if (claim.get("status") or {}).get("phase") != phase:
            if lost:
                text = f"Bound claim has lost its PersistentVolume {claim['spec'].get('volumeName')}. Data on the volume is lost!"
                self.events.event(claim, "Warning", "ClaimLost", text)
            status = {**(claim.get("status") or {}), "phase": phase}
            await self.client.update(CLAIM, {**claim, "status": status}, subresource="status")

    async def _bind(self, claim: Object, volume: Object) -> None:
        """Volume first, then claim: what is half done is finished the next time."""
        reference = volume["spec"].get("claimRef") or {}
        if reference.get("uid") != meta.uid(claim):
            new = {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace(claim),
                "name": meta.name(claim), "uid": meta.uid(claim), "resourceVersion": meta.resource_version(claim),
            }  # fmt: skip
            change: Object = {"resourceVersion": meta.resource_version(volume)}
            if not reference:
                change["annotations"] = {BY_CONTROLLER: "yes"}
            volume = await self.client.patch(VOLUME, meta.name(volume), "", {"metadata": change, "spec": {"claimRef": new}})
        await self._phase(volume, "Bound")
        annotations = {BOUND: "yes"}
        if not claim["spec"].get("volumeName"):
            annotations[BY_CONTROLLER] = "yes"
        missing = {k: v for k, v in annotations.items() if meta.annotations(claim).get(k) != v}
        if missing or not claim["spec"].get("volumeName"):
            change = {"resourceVersion": meta.resource_version(claim), "annotations": missing}
            patch = {"metadata": change, "spec": {"volumeName": meta.name(volume)}}
            claim = await self.client.patch(CLAIM, meta.name(claim), meta.namespace(claim), patch)
        before = claim.get("status") or {}
        status = {**before, "phase": "Bound", "accessModes": volume["spec"].get("accessModes") or []}
        if before.get("phase") != "Bound":
            status["capacity"] = volume["spec"].get("capacity") or {}
        if not same(status, before):
            await self.client.update(CLAIM, {**claim, "status": status}, subresource="status")

    async def _sync_volume(self, volume: Object) -> None:
        reference = volume["spec"].get("claimRef")
        if not reference or not reference.get("uid"):
            await self._phase(volume, "Available")
            return
        claim = self.claims.get(reference["name"], reference.get("namespace") or "")
        if claim is None or meta.uid(claim) != reference["uid"]:
            claim = await self._live_claim(reference)
        if claim is None:
            await self._release(volume)
        elif claim["spec"].get("volumeName") == meta.name(volume):
            await self._phase(volume, "Bound")
        elif not claim["spec"].get("volumeName"):
            self.controller.add(f"claim/{meta.key(claim)}")
        elif meta.annotations(volume).get(BY_CONTROLLER) == "yes":
            # The claim took another volume: this one is free again.
            change = {"resourceVersion": meta.resource_version(volume), "annotations": {BY_CONTROLLER: None}}
            await self.client.patch(VOLUME, meta.name(volume), "", {"metadata": change, "spec": {"claimRef": None}})

    async def _live_claim(self, reference: Object) -> Object | None:
        try:
            live = await self.client.get(CLAIM, reference["name"], reference.get("namespace") or "")
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return live if meta.uid(live) == reference["uid"] else None

    async def _release(self, volume: Object) -> None:
        """Its claim is gone. Retain keeps it as it is; Delete is up to the provisioner that made it."""
        await self._phase(volume, "Released")

    async def _phase(self, volume: Object, phase: str) -> None:
        status = volume.get("status") or {}
        if status.get("phase") != phase:
            new = {**{k: v for k, v in status.items() if k not in ("message", "reason")}, "phase": phase}
            new["lastPhaseTransitionTime"] = self.stamp()
            await self.client.update(VOLUME, {**volume, "status": new}, subresource="status")
