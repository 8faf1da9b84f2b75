"""PersistentVolumes: one source, a capacity, where it can be reached, and what of that stands for ever.

Called by: table.py; inline volumes of attachments: storage.py. Never does: claims (claims.py).
Source: upstream ValidatePersistentVolumeSpec, ValidatePersistentVolumeUpdate.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.clone import clone
from k1s.api.errors import forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.claims import VOLUME_MODES, access_modes, positive_quantity
from k1s.api.validation.rules import Errors, immutable, named, one_of, same, strings
from k1s.api.validation.scheduling import node_selector
from k1s.api.validation.volume_sources import SOURCES as COMMON
from k1s.api.validation.volume_sources import Check, csi_name, iscsi, needs
from k1s.api.validation.volumes import one_source

_TOO_LONG = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."
_CSI_SECRETS = ("controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef")
_ONLY = "may only be Retain in the context of inline volumes"
_NOT_INLINE = "may not be specified in the context of inline volumes"
_GA_LABELS = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
}


def _with_secret(check: Check) -> Check:
    """A source whose secret has a namespace of its own."""

    def checked(errs: Errors, field: str, source: Object) -> None:
        check(errs, field, source)
        secret = source.get("secretRef")
        if secret is not None and not secret.get("namespace"):
            errs.append(required(f"{field}.secretRef.namespace"))

    return checked


def _glusterfs(errs: Errors, field: str, source: Object) -> None:
    COMMON["glusterfs"](errs, field, source)
    namespace = source.get("endpointsNamespace")
    if namespace == "":
        text = "if the endpointnamespace is set, it must be a valid namespace name"
        errs.append(invalid_value(f"{field}.endpointsNamespace", namespace, text))
    elif namespace is not None:
        strings(errs, f"{field}.endpointsNamespace", namespace, names.dns1123_label)


def _iscsi(errs: Errors, field: str, source: Object) -> None:
    iscsi(errs, field, source, plain=True)


def _azure_file(errs: Errors, field: str, source: Object) -> None:
    COMMON["azureFile"](errs, field, source)
    if source.get("secretNamespace") == "":
        errs.append(required(f"{field}.secretNamespace"))


def _local(errs: Errors, field: str, source: Object) -> None:
    needs("path")(errs, field, source)
    if ".." in (source.get("path") or "").split("/"):
        errs.append(invalid_value(f"{field}.path", source["path"], "must not contain '..'"))


def _csi(errs: Errors, field: str, source: Object) -> None:
    csi_name(errs, f"{field}.driver", source.get("driver") or "")
    needs("volumeHandle")(errs, field, source)
    for key in _CSI_SECRETS:
        secret = source.get(key)
        if secret is not None:
            named(errs, f"{field}.{key}.name", secret.get("name"), names.dns1123_subdomain)
            named(errs, f"{field}.{key}.namespace", secret.get("namespace"), names.dns1123_label)


SOURCES: dict[str, Check] = {
    **{key: COMMON[key] for key in ("hostPath", "gcePersistentDisk", "awsElasticBlockStore")},
    "glusterfs": _glusterfs,
    **{key: COMMON[key] for key in ("flocker", "nfs", "rbd", "quobyte", "cephfs")},
    "iscsi": _iscsi,
    "cinder": _with_secret(COMMON["cinder"]),
    **{key: COMMON[key] for key in ("fc", "flexVolume")},
    "azureFile": _azure_file,
    **{key: COMMON[key] for key in ("vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk", "scaleIO")},
    "local": _local,
    "storageos": _with_secret(COMMON["storageos"]),
    "csi": _csi,
}


def _capacity(errs: Errors, at: str, capacity: Object) -> None:
    if not capacity:
        errs.append(required(at))
    if "storage" not in capacity or len(capacity) > 1:
        errs.append(not_supported(at, capacity, ("storage",)))
    for name, value in capacity.items():
        positive_quantity(errs, f"{at}[{name}]", value)


def _node_affinity(errs: Errors, at: str, affinity: Object) -> None:
    if affinity.get("required") is None:
        errs.append(required(f"{at}.required", "must specify required node constraints"))
    else:
        node_selector(errs, f"{at}.required", affinity["required"])


def _source(errs: Errors, at: str, spec: Object, name: str) -> None:
    kind = one_source(errs, at, spec, SOURCES)
    if kind == "iscsi" and spec["iscsi"].get("initiatorName") is not None:
        portal = spec["iscsi"].get("targetPortal") or ""
        if len(f"{name}:{portal}") > 64:
            errs.append(invalid_value(f"{at}.iscsi.targetportal", portal, _TOO_LONG))
    if kind == "local" and spec.get("nodeAffinity") is None:
        errs.append(required(f"{at}.nodeAffinity", "Local volume requires node affinity"))
    path = (spec.get("hostPath") or {}).get("path") or ""
    if path and not path.strip("/.") and path.startswith("/") and spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        text = "may not be 'recycle' for a hostPath mount of '/'"
        errs.append(forbidden_field(f"{at}.persistentVolumeReclaimPolicy", text))


def _attributes_class(errs: Errors, at: str, spec: Object) -> None:
    name = spec.get("volumeAttributesClassName")
    if name is None:
        return
    if not name:
        errs.append(required(f"{at}.volumeAttributesClassName", "an empty string is disallowed"))
    else:
        strings(errs, f"{at}.volumeAttributesClassName", name, names.dns1123_subdomain)
    if spec.get("csi") is None:
        errs.append(required(f"{at}.csi", "has to be specified when using volumeAttributesClassName"))


def volume_spec(errs: Errors, at: str, spec: Object, name: str) -> None:
    """PersistentVolumeSpec of a volume of this name."""
    access_modes(errs, f"{at}.accessModes", spec.get("accessModes"), why="")
    _capacity(errs, f"{at}.capacity", spec.get("capacity") or {})
    reclaim = spec.get("persistentVolumeReclaimPolicy")
    one_of(errs, f"{at}.persistentVolumeReclaimPolicy", reclaim, ("Delete", "Recycle", "Retain"))
    if spec.get("nodeAffinity") is not None:
        _node_affinity(errs, f"{at}.nodeAffinity", spec["nodeAffinity"])
    _source(errs, at, spec, name)
    if spec.get("storageClassName"):
        strings(errs, f"{at}.storageClassName", spec["storageClassName"], names.dns1123_subdomain)
    one_of(errs, f"{at}.volumeMode", spec.get("volumeMode"), VOLUME_MODES)
    _attributes_class(errs, at, spec)


def inline_volume_spec(errs: Errors, at: str, spec: Object, name: str) -> None:
    """The same inside a VolumeAttachment, for volumes that have no object."""
    for key in ("claimRef", "capacity"):
        if spec.get(key):
            errs.append(forbidden_field(f"{at}.{key}", _NOT_INLINE))
    if spec.get("csi") is None:
        errs.append(required(f"{at}.csi", "has to be specified in the context of inline volumes"))
    access_modes(errs, f"{at}.accessModes", spec.get("accessModes"), why="")
    if (spec.get("persistentVolumeReclaimPolicy") or "Retain") != "Retain":
        errs.append(forbidden_field(f"{at}.persistentVolumeReclaimPolicy", _ONLY))
    if spec.get("nodeAffinity") is not None:
        errs.append(forbidden_field(f"{at}.nodeAffinity", _NOT_INLINE))
    _source(errs, at, spec, name)
    if spec.get("storageClassName"):
        errs.append(forbidden_field(f"{at}.storageClassName", _NOT_INLINE))
    if (spec.get("volumeMode") or "Filesystem") != "Filesystem":
        text = "may not specify volumeMode other than Filesystem in the context of inline volumes"
        errs.append(forbidden_field(f"{at}.volumeMode", text))
    _attributes_class(errs, at, spec)


def create(errs: Errors, obj: Object) -> None:
    volume_spec(errs, "spec", obj.get("spec") or {}, (obj.get("metadata") or {}).get("name") or "")


def update(errs: Errors, obj: Object, old: Object) -> None:
    create(errs, obj)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    if not same(_only_sources(spec, before), _only_sources(before, before)):
        errs.append(forbidden_field("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation\n"))
    immutable(errs, "volumeMode", spec.get("volumeMode"), before.get("volumeMode"))
    affinity = before.get("nodeAffinity")
    if affinity is not None and not same(_with_ga_labels(spec.get("nodeAffinity"), affinity), spec.get("nodeAffinity")):
        text = "field is immutable, except for updating from beta label to GA"
        errs.append(invalid_value("nodeAffinity", spec.get("nodeAffinity"), text))
    if before.get("volumeAttributesClassName") is not None and spec.get("volumeAttributesClassName") is None:
        text = "update from non-nil value to nil is forbidden"
        errs.append(forbidden_field("spec.volumeAttributesClassName", text))


def _only_sources(spec: Object, before: Object) -> Object:
    """The source; the CSI secret for expansion may be added later."""
    out = {key: spec[key] for key in SOURCES if spec.get(key) is not None}
    old = before.get("csi") or {}
    if "csi" in out and old.get("controllerExpandSecretRef") is None:
        out["csi"] = {key: value for key, value in out["csi"].items() if key != "controllerExpandSecretRef"}
    return out


def _requirements(affinity: Any) -> list[Object]:
    terms = ((affinity or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    return [wanted for term in terms for wanted in term.get("matchExpressions") or ()]


def _with_ga_labels(new: Any, old: Object) -> Object:
    """The old affinity, its labels by their newer names where the new one has them so."""
    out: Object = clone(old)
    for mine, theirs in zip(_requirements(out), _requirements(new), strict=False):
        if _GA_LABELS.get(str(mine.get("key"))) == theirs.get("key"):
            mine["key"] = theirs["key"]
    return out
