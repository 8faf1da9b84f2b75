"""Defaults of storage.k8s.io. Called by: table.py. Never does: pick a default class (admission does)."""

from __future__ import annotations

from k1s.api.defaults.resources import canonical
from k1s.api.meta import Object

_DRIVER = (
    ("attachRequired", True),
    ("podInfoOnMount", False),
    ("storageCapacity", False),
    ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
    ("requiresRepublish", False),
    ("seLinuxMount", False),
)


def storage_class(obj: Object) -> None:
    if obj.get("reclaimPolicy") is None:
        obj["reclaimPolicy"] = "Delete"
    if obj.get("volumeBindingMode") is None:
        obj["volumeBindingMode"] = "Immediate"


def csi_driver(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    for key, value in _DRIVER:
        if spec.get(key) is None:
            spec[key] = value
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def storage_capacity(obj: Object) -> None:
    for key in ("capacity", "maximumVolumeSize"):
        if obj.get(key) is not None:
            obj[key] = canonical(obj[key])


def volume_attachment(obj: Object) -> None:
    obj.setdefault("status", {}).setdefault("attached", False)
