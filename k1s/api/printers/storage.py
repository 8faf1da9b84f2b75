"""Volumes, claims, storage classes and CSI objects.

Called by: api/table.py. Never does: capacity arithmetic; quantities print as they stand.
"""

from __future__ import annotations

from typing import Any

from k1s.api.meta import Object
from k1s.api.printers.columns import (
    AGE,
    CREATED_AT,
    NAME,
    NONE,
    UNSET,
    Printer,
    age,
    column,
    created_at,
    integer,
    metadata,
    name,
    spec,
    status,
)

_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_CLASS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


def _annotations(obj: Object) -> dict[str, str]:
    return metadata(obj).get("annotations") or {}


def access_modes(modes: list[str] | None) -> str:
    """RWO,ROX,RWX,RWOP: in this order, each once."""
    return ",".join(short for mode, short in _MODES.items() if mode in (modes or ()))


def _class_name(obj: Object) -> str:
    return _annotations(obj).get(_BETA_CLASS) or spec(obj).get("storageClassName") or ""


def _phase(obj: Object) -> str:
    return "Terminating" if metadata(obj).get("deletionTimestamp") else status(obj).get("phase") or ""


def _volume(obj: Object, now: float) -> list[Any]:
    claim = spec(obj).get("claimRef")
    return [
        name(obj),
        (spec(obj).get("capacity") or {}).get("storage") or "0",
        access_modes(spec(obj).get("accessModes")),
        spec(obj).get("persistentVolumeReclaimPolicy") or "",
        _phase(obj),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _class_name(obj),
        spec(obj).get("volumeAttributesClassName") or UNSET,
        status(obj).get("reason") or "",
        age(obj, now),
        spec(obj).get("volumeMode") or UNSET,
    ]


def _claim(obj: Object, now: float) -> list[Any]:
    bound = bool(spec(obj).get("volumeName"))
    return [
        name(obj),
        _phase(obj),
        spec(obj).get("volumeName") or "",
        (status(obj).get("capacity") or {}).get("storage", "0") if bound else "",
        access_modes(status(obj).get("accessModes")) if bound else "",
        _class_name(obj),
        spec(obj).get("volumeAttributesClassName") or UNSET,
        age(obj, now),
        spec(obj).get("volumeMode") or UNSET,
    ]


def _storage_class(obj: Object, now: float) -> list[Any]:
    default = any(_annotations(obj).get(key) == "true" for key in _DEFAULT_CLASS)
    return [
        f"{name(obj)} (default)" if default else name(obj),
        obj.get("provisioner") or "",
        obj.get("reclaimPolicy") or "Delete",
        obj.get("volumeBindingMode") or "Immediate",
        bool(obj.get("allowVolumeExpansion")),
        age(obj, now),
    ]


def _attachment(obj: Object, now: float) -> list[Any]:
    volume = (spec(obj).get("source") or {}).get("persistentVolumeName") or ""
    node, attached = spec(obj).get("nodeName") or "", bool(status(obj).get("attached"))
    return [name(obj), spec(obj).get("attacher") or "", volume, node, attached, age(obj, now)]


def _csi_node(obj: Object, now: float) -> list[Any]:
    return [name(obj), len(spec(obj).get("drivers") or ()), age(obj, now)]


def _csi_driver(obj: Object, now: float) -> list[Any]:
    audiences = [t.get("audience") or "" for t in spec(obj).get("tokenRequests") or ()]
    return [
        name(obj),
        spec(obj).get("attachRequired", True),
        spec(obj).get("podInfoOnMount", False),
        spec(obj).get("storageCapacity", False),
        ",".join(audiences) if audiences else UNSET,
        spec(obj).get("requiresRepublish", False),
        ",".join(spec(obj).get("volumeLifecycleModes") or ()) or NONE,
        age(obj, now),
    ]


def _capacity(obj: Object, now: float) -> list[Any]:
    return [name(obj), created_at(obj)]


def _attributes_class(obj: Object, now: float) -> list[Any]:
    return [name(obj), obj.get("driverName") or "", age(obj, now)]


_GROUP = "storage.k8s.io"
_CLASS = column("StorageClass", "StorageClass of the volume")
_ATTRIBUTES = column("VolumeAttributesClass", "VolumeAttributesClass of the volume")
_MODE = column("VolumeMode", "Filesystem or Block.", wide=True)

PRINTERS = {
    ("", "PersistentVolume"): Printer(
        (
            NAME,
            column("Capacity", "Capacity of the volume."),
            column("Access Modes", "All ways the volume can be mounted."),
            column("Reclaim Policy", "What happens to the volume when it is released from its claim."),
            column("Status", "Phase of the volume."),
            column("Claim", "The claim that the volume is bound to."),
            _CLASS,
            _ATTRIBUTES,
            column("Reason", "Why the volume is in its phase."),
            AGE,
            _MODE,
        ),
        _volume,
    ),
    ("", "PersistentVolumeClaim"): Printer(
        (
            NAME,
            column("Status", "Phase of the claim."),
            column("Volume", "The volume that the claim is bound to."),
            column("Capacity", "Capacity of the volume."),
            column("Access Modes", "Access modes of the volume."),
            _CLASS,
            _ATTRIBUTES,
            AGE,
            _MODE,
        ),
        _claim,
    ),
    (_GROUP, "StorageClass"): Printer(
        (
            NAME,
            column("Provisioner", "Type of the provisioner."),
            column("ReclaimPolicy", "What happens to volumes that are released."),
            column("VolumeBindingMode", "When volumes are provisioned and bound."),
            column("AllowVolumeExpansion", "Whether volumes may be expanded.", type="boolean"),
            AGE,
        ),
        _storage_class,
    ),
    (_GROUP, "VolumeAttachment"): Printer(
        (
            NAME,
            column("Attacher", "The driver that attaches."),
            column("PV", "The volume to attach."),
            column("Node", "The node to attach to."),
            column("Attached", "Whether it is attached.", type="boolean"),
            AGE,
        ),
        _attachment,
    ),
    (_GROUP, "CSINode"): Printer((NAME, integer("Drivers", "Number of drivers on the node."), AGE), _csi_node),
    (_GROUP, "CSIDriver"): Printer(
        (
            NAME,
            column("AttachRequired", "Whether the driver needs an attach.", type="boolean"),
            column("PodInfoOnMount", "Whether mounts are told of the pod.", type="boolean"),
            column("StorageCapacity", "Whether the driver reports capacity.", type="boolean"),
            column("TokenRequests", "Audiences of the tokens that mounts are given."),
            column("RequiresRepublish", "Whether volumes are published again and again.", type="boolean"),
            column("Modes", "Kinds of volumes the driver supports."),
            AGE,
        ),
        _csi_driver,
    ),
    # Upstream has columns for it, and a store that does not use them.
    (_GROUP, "CSIStorageCapacity"): Printer((NAME, CREATED_AT), _capacity),
    (_GROUP, "VolumeAttributesClass"): Printer((NAME, column("DriverName", "Name of the CSI driver"), AGE), _attributes_class),
}
