"""Which PersistentVolume can serve which claim: pure.

Owns: `class_of`, `is_for`, `capacity`, `matches`, `claims_of`. Called by: the volume controllers, the scheduler's VolumeBinding.
Never does: node affinity (the callers know nodes). Source: upstream pkg/volume/util FindMatchingVolume.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from k1s.api import meta, quantity
from k1s.api.selectors import labels_from

Object = Mapping[str, Any]
NO_PROVISIONER = "kubernetes.io/no-provisioner"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"


def class_of(obj: Object) -> str:
    """The storage class of a claim or volume, "" if it has none."""
    return str(meta.annotations(obj).get(_OLD_CLASS) or (obj.get("spec") or {}).get("storageClassName") or "")


def is_for(volume: Object, claim: Object) -> bool:
    """The volume's claimRef names the claim (with its UID, if it has one)."""
    reference = volume["spec"].get("claimRef")
    if not reference or (reference.get("namespace"), reference["name"]) != (meta.namespace(claim), meta.name(claim)):
        return False
    return reference.get("uid") in (None, "", meta.uid(claim))


def capacity(obj: Object) -> Decimal:
    """What a volume has, or a claim asks for, in bytes."""
    spec = obj["spec"]
    amounts = spec.get("capacity") or (spec.get("resources") or {}).get("requests") or {}
    return quantity.parse(amounts.get("storage", 0))


def matches(claim: Object, volume: Object) -> bool:
    """The volume is free or reserved for the claim, and is all that the claim asks for. Wherever it is."""
    wanted, given = claim["spec"], volume["spec"]
    if given.get("claimRef") and not is_for(volume, claim):
        return False
    if capacity(volume) < capacity(claim) or class_of(volume) != class_of(claim):
        return False
    if wanted.get("volumeMode", "Filesystem") != given.get("volumeMode", "Filesystem"):
        return False
    if not set(wanted.get("accessModes") or ()) <= set(given.get("accessModes") or ()):
        return False
    if (wanted.get("volumeAttributesClassName") or "") != (given.get("volumeAttributesClassName") or ""):
        return False
    return wanted.get("selector") is None or labels_from(wanted["selector"]).matches(meta.labels(volume))


def claims_of(pod: Object) -> list[str]:
    """The keys of the claims a pod names, those of its ephemeral volumes included."""
    out = []
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        if volume.get("persistentVolumeClaim"):
            out.append(f"{meta.namespace(pod)}/{volume['persistentVolumeClaim']['claimName']}")
        elif volume.get("ephemeral"):
            out.append(f"{meta.namespace(pod)}/{meta.name(pod)}-{volume['name']}")
    return out
