"""VolumeBinding: a pod goes where the volumes of its claims are, or where there are some for claims that wait for a pod.

Refuses: claims that are missing, going, or unbound although their class binds at once; nodes that a bound volume's node affinity
excludes; nodes without a volume for a claim that waits for its first consumer (unless a provisioner makes one).
The claim itself is bound by the volume controller, once the pod has its node. Two pods of one moment may choose the same free
volume; the one that comes second then waits on its node. Source: upstream plugins/volumebinding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from k1s.api import meta
from k1s.api.node_affinity import allows_volume
from k1s.api.volume_match import NO_PROVISIONER, SELECTED_NODE, claims_of, class_of, matches
from k1s.server.scheduler.plugin import BasePlugin, CycleState, Refusal
from k1s.server.scheduler.snapshot import NodeInfo, PodInfo, Storage

Object = Mapping[str, Any]
_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
_NONE_FREE = "node(s) didn't find available persistent volumes to bind"
_UNBOUND = "pod has unbound immediate PersistentVolumeClaims"


@dataclass(slots=True)
class _Wanted:
    """The volumes that the pod's claims have, and the claims that still need one, each with those it could take."""

    bound: list[Object] = field(default_factory=list)
    open: list[list[Object]] = field(default_factory=list)


class VolumeBinding(BasePlugin):
    name = "VolumeBinding"
    wakes_on = frozenset({"node-added", "node-updated", "storage-changed"})

    def prepare(self, pod: PodInfo, state: CycleState) -> Refusal | None:
        keys = claims_of(pod.pod)
        if not keys:
            return None
        wanted = _Wanted()
        for key in keys:
            refused = _look(key, state.snapshot.storage, wanted)
            if refused:
                return Refusal((refused,), unresolvable=True)
        state.values[self.name] = wanted
        return None

    def filter(self, pod: PodInfo, node: NodeInfo, state: CycleState) -> Refusal | None:
        wanted: _Wanted | None = state.values.get(self.name)
        if wanted is None:
            return None
        if not all(allows_volume(volume, node.node) for volume in wanted.bound):
            return Refusal((_CONFLICT,), unresolvable=True)
        taken: set[str] = set()
        for choices in wanted.open:
            found = next((v for v in choices if meta.name(v) not in taken and allows_volume(v, node.node)), None)
            if found is None:
                return Refusal((_NONE_FREE,), unresolvable=True)
            taken.add(meta.name(found))
        return None


def _look(key: str, storage: Storage, wanted: _Wanted) -> str:
    """Note what the claim needs; why it cannot be had anywhere, or ""."""
    namespace, name = meta.split_key(key)
    claim = storage.claim(namespace, name)
    if claim is None:
        return f'persistentvolumeclaim "{name}" not found'
    if meta.is_deleting(claim):
        return f'persistentvolumeclaim "{name}" is being deleted'
    if (claim.get("status") or {}).get("phase") == "Lost":
        return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim["spec"].get("volumeName")}"'
    volume_name = claim["spec"].get("volumeName")
    if volume_name and (claim.get("status") or {}).get("phase") == "Bound":
        volume = storage.volume(volume_name)
        if volume is None:
            return f'persistentvolume "{volume_name}" not found'
        wanted.bound.append(volume)
        return ""
    storage_class = storage.storage_class(class_of(claim)) if class_of(claim) else None
    if volume_name or storage_class is None or storage_class.get("volumeBindingMode") != "WaitForFirstConsumer":
        return _UNBOUND
    if storage_class.get("provisioner") in (None, NO_PROVISIONER):
        free = [v for v in storage.volumes() if not meta.is_deleting(v) and matches(claim, v)]
        wanted.open.append(sorted(free, key=meta.name))
    elif meta.annotations(claim).get(SELECTED_NODE):
        return _UNBOUND  # a provisioner is at work for the node of an earlier pod
    return ""
