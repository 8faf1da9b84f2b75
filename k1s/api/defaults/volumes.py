"""Defaults of a pod's volumes, of persistent volume sources and of claim specs.

Called by: pod.py, core.py, apps.py (volumeClaimTemplates). Never does: volume content.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k1s.api.defaults.containers import field_ref, pull_policy, resource_field_ref
from k1s.api.defaults.resources import canonical, canonical_list, canonical_requirements
from k1s.api.meta import Object

DEFAULT_MODE = 0o644


def _set(obj: Object, **values: Any) -> None:
    for key, value in values.items():
        if obj.get(key) is None or obj[key] == "":
            obj[key] = value


def _mode(source: Object) -> None:
    if source.get("defaultMode") is None:
        source["defaultMode"] = DEFAULT_MODE


def _downward_items(source: Object) -> None:
    for item in source.get("items") or ():
        if item.get("fieldRef") is not None:
            field_ref(item["fieldRef"])
        if item.get("resourceFieldRef") is not None:
            resource_field_ref(item["resourceFieldRef"])


def _downward(source: Object) -> None:
    _mode(source)
    _downward_items(source)


def _projected(source: Object) -> None:
    _mode(source)
    for part in source.get("sources") or ():
        if part.get("downwardAPI") is not None:
            _downward_items(part["downwardAPI"])
        token = part.get("serviceAccountToken")
        if token is not None and token.get("expirationSeconds") is None:
            token["expirationSeconds"] = 3600


def _host_path(source: Object) -> None:
    if source.get("type") is None:
        source["type"] = ""


def _empty_dir(source: Object) -> None:
    if source.get("sizeLimit") is not None:
        source["sizeLimit"] = canonical(source["sizeLimit"])


def _ephemeral(source: Object) -> None:
    template = source.get("volumeClaimTemplate")
    if template is not None:
        claim_spec(template.setdefault("spec", {}))


def _image(source: Object) -> None:
    if not source.get("pullPolicy"):
        source["pullPolicy"] = pull_policy(source.get("reference"))


def _iscsi(source: Object) -> None:
    _set(source, iscsiInterface="default")


def _rbd(source: Object) -> None:
    _set(source, pool="rbd", user="admin", keyring="/etc/ceph/keyring")


def _azure_disk(source: Object) -> None:
    _set(source, cachingMode="ReadWrite", kind="Shared", fsType="ext4", readOnly=False)


def _scale_io(source: Object) -> None:
    _set(source, storageMode="ThinProvisioned", fsType="xfs")


_SOURCES: dict[str, Callable[[Object], None]] = {
    "secret": _mode,
    "configMap": _mode,
    "downwardAPI": _downward,
    "projected": _projected,
    "hostPath": _host_path,
    "emptyDir": _empty_dir,
    "ephemeral": _ephemeral,
    "image": _image,
    "iscsi": _iscsi,
    "rbd": _rbd,
    "azureDisk": _azure_disk,
    "scaleIO": _scale_io,
}


def source(holder: Object) -> bool:
    """Default whichever source `holder` has; False if it has none."""
    found = False
    for key, value in holder.items():
        if key != "name" and isinstance(value, dict):
            found = True
            default = _SOURCES.get(key)
            if default is not None:
                default(value)
    return found


def volume(obj: Object) -> None:
    """One of spec.volumes; a volume without a source is an emptyDir."""
    if not source(obj):
        obj["emptyDir"] = {}


def claim_spec(spec: Object) -> None:
    """PersistentVolumeClaimSpec."""
    canonical_requirements(spec.setdefault("resources", {}))
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"


def claim(obj: Object) -> None:
    """PersistentVolumeClaim, also in a volumeClaimTemplate."""
    claim_spec(obj.setdefault("spec", {}))
    status = obj.setdefault("status", {})
    if not status.get("phase"):
        status["phase"] = "Pending"


def persistent_volume(obj: Object) -> None:
    spec, status = obj.setdefault("spec", {}), obj.setdefault("status", {})
    canonical_list(spec.get("capacity"))
    if not status.get("phase"):
        status["phase"] = "Pending"
    if not spec.get("persistentVolumeReclaimPolicy"):
        spec["persistentVolumeReclaimPolicy"] = "Retain"
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"
    for key in ("hostPath", "iscsi", "rbd", "azureDisk", "scaleIO"):
        if spec.get(key) is not None:
            _SOURCES[key](spec[key])
