"""The volumes of a pod: unique names, exactly one source, and each source's own fields.

Called by: pod.py. Never does: mounts (mounts.py), the sources that persistent volumes have too (volume_sources.py).
Source: upstream pkg/apis/core/validation, ValidateVolumes; field paths are upstream's, also where they lack an index.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation import volume_sources
from k1s.api.validation.claims import claim_spec
from k1s.api.validation.env import VOLUME_FIELDS, field_ref, resource_field_ref
from k1s.api.validation.mounts import file_path
from k1s.api.validation.object_meta import annotation_map, label_map
from k1s.api.validation.projections import projected
from k1s.api.validation.rules import Errors, one_of, quantities, strings
from k1s.api.validation.volume_sources import Check, csi_name, needs

_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_TOO_LONG = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."


def mode(errs: Errors, field: str, value: Any) -> None:
    """Permissions of a file."""
    if isinstance(value, int) and not 0 <= value <= 0o777:
        errs.append(invalid_value(field, value, _MODE))


def items(errs: Errors, field: str, value: Any) -> None:
    """Keys and the files that they become."""
    for index, item in enumerate(value or ()):
        at = f"{field}[{index}]"
        if not item.get("key"):
            errs.append(required(f"{at}.key"))
        if not item.get("path"):
            errs.append(required(f"{at}.path"))
        file_path(errs, f"{at}.path", item.get("path") or "")
        mode(errs, f"{at}.mode", item.get("mode"))


def downward_items(errs: Errors, at: str, value: Any) -> None:
    """Files of the downward API; faults stand at the source, not at the item."""
    for item in value or ():
        if not item.get("path"):
            errs.append(required(f"{at}.path"))
        file_path(errs, f"{at}.path", item.get("path") or "")
        ref, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if ref is not None:
            field_ref(errs, f"{at}.fieldRef", ref, VOLUME_FIELDS)
            if resource is not None:
                errs.append(invalid_value(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
        elif resource is not None:
            resource_field_ref(errs, f"{at}.resourceFieldRef", resource, volume=True)
        else:
            errs.append(required(at, "one of fieldRef and resourceFieldRef is required"))
        mode(errs, f"{at}.mode", item.get("mode"))


def _keyed(name: str) -> Check:
    """A secret or config map as files."""

    def check(errs: Errors, field: str, source: Object) -> None:
        needs(name)(errs, field, source)
        mode(errs, f"{field}.defaultMode", source.get("defaultMode"))
        items(errs, f"{field}.items", source.get("items"))

    return check


def _downward(errs: Errors, field: str, source: Object) -> None:
    mode(errs, f"{field}.defaultMode", source.get("defaultMode"))
    downward_items(errs, field, source.get("items"))


def _projected(errs: Errors, field: str, source: Object) -> None:
    mode(errs, f"{field}.defaultMode", source.get("defaultMode"))
    projected(errs, field, source, items, downward_items)


def _empty_dir(errs: Errors, field: str, source: Object) -> None:
    if source.get("sizeLimit") is not None:
        found: Errors = []
        if not quantities(found, field, source["sizeLimit"]):
            errs.append(forbidden_field(f"{field}.sizeLimit", "SizeLimit field must be a valid resource quantity"))


def _csi(errs: Errors, field: str, source: Object) -> None:
    csi_name(errs, f"{field}.driver", source.get("driver") or "")
    secret = source.get("nodePublishSecretRef")
    if secret is None:
        return
    if not secret.get("name"):
        errs.append(required(f"{field}.nodePublishSecretRef.name"))
    else:
        strings(errs, f"{field}.name", secret["name"], names.dns1123_subdomain)


def claim_template(errs: Errors, field: str, template: Object) -> None:
    """PersistentVolumeClaimTemplate: of its metadata only labels and annotations count."""
    meta = template.get("metadata") or {}
    annotation_map(errs, f"{field}.metadata.annotations", meta.get("annotations"))
    label_map(errs, f"{field}.metadata.labels", meta.get("labels"))
    for key, value in meta.items():
        if key not in ("annotations", "labels") and value:
            errs.append(forbidden_field(f"{field}.metadata.{key}", "cannot be set"))
    claim_spec(errs, f"{field}.spec", template.get("spec") or {})


def _ephemeral(errs: Errors, field: str, source: Object) -> None:
    template = source.get("volumeClaimTemplate")
    if template is None:
        errs.append(required(f"{field}.volumeClaimTemplate"))
        return
    claim_template(errs, f"{field}.volumeClaimTemplate", template)


def _image(errs: Errors, field: str, source: Object) -> None:
    one_of(errs, f"{field}.pullPolicy", source.get("pullPolicy"), ("Always", "IfNotPresent", "Never"), needed=True)


_COMMON = volume_sources.SOURCES
# Source -> its check, in upstream's order; the keys are also the list of what counts as a source.
SOURCES: dict[str, Check] = {
    "emptyDir": _empty_dir,
    **{key: _COMMON[key] for key in ("hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore")},
    "secret": _keyed("secretName"),
    **{key: _COMMON[key] for key in ("nfs", "iscsi", "glusterfs", "flocker")},
    "persistentVolumeClaim": needs("claimName"),
    **{key: _COMMON[key] for key in ("rbd", "cinder", "cephfs", "quobyte")},
    "downwardAPI": _downward,
    **{key: _COMMON[key] for key in ("fc", "flexVolume")},
    "configMap": _keyed("name"),
    **{key: _COMMON[key] for key in ("azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk")},
    "storageos": _COMMON["storageos"],
    "projected": _projected,
    "scaleIO": _COMMON["scaleIO"],
    "csi": _csi,
    "ephemeral": _ephemeral,
    "image": _image,
}


def one_source(errs: Errors, field: str, holder: Object, sources: dict[str, Check]) -> str:
    """Exactly one source in `holder`, and that one well-formed; its name."""
    given = [key for key in sources if holder.get(key) is not None]
    if not given:
        errs.append(required(field, "must specify a volume type"))
        return ""
    sources[given[0]](errs, f"{field}.{given[0]}", holder[given[0]])
    for extra in given[1:]:
        errs.append(forbidden_field(f"{field}.{extra}", "may not specify more than 1 volume type"))
    return given[0]


def _source(errs: Errors, at: str, volume: Object, pod: str, *, template: bool) -> None:
    name = volume.get("name") or ""
    kind = one_source(errs, at, volume, SOURCES)
    if kind == "iscsi":
        portal = volume["iscsi"].get("targetPortal") or ""
        if volume["iscsi"].get("initiatorName") is not None and len(f"{name}:{portal}") > 64:
            errs.append(invalid_value(f"{at}.name", name, _TOO_LONG))
    elif kind == "ephemeral" and pod and name:
        claim = f"{pod}-{name}"
        texts = (f'PVC name "{claim}": {message}' for message in names.dns1123_subdomain(claim))
        errs.extend(invalid_value(f"{at}.name", name, text) for text in texts)
    elif kind == "image" and not template and not volume["image"].get("reference"):
        errs.append(required(f"{at}.image.reference"))


def volumes(errs: Errors, field: str, given: Any, pod: str = "", *, template: bool = False) -> dict[str, Object]:
    """spec.volumes; those that are well-formed, by name. `pod`: its name, if it is known."""
    found: dict[str, Object] = {}
    claims = {f"{pod}-{v.get('name')}" for v in given or () if pod and v.get("ephemeral") is not None}
    for index, volume in enumerate(given or ()):
        at, before = f"{field}[{index}]", len(errs)
        _source(errs, at, volume, pod, template=template)
        name = volume.get("name") or ""
        if not name:
            errs.append(required(f"{at}.name"))
        else:
            strings(errs, f"{at}.name", name, names.dns1123_label)
        if name in found:
            errs.append(duplicate(f"{at}.name", name))
        if len(errs) == before:
            found[name] = volume
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in claims:
            text = "must not reference a PVC that gets created for an ephemeral volume"
            errs.append(invalid_value(f"{at}.persistentVolumeClaim.claimName", claim, text))
    return found
