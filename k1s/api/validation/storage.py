"""StorageClasses and the CSI objects.

Called by: table.py. Never does: volumes (persistent_volumes.py), claims (claims.py).
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, immutable, named, one_of, same, strings
from k1s.api.validation.volume_sources import csi_driver_name

_MAX_PARAMETERS = 512
_MAX_PARAMETER_BYTES = 256 * 1024


def _parameters(errs: Errors, field: str, parameters: Any) -> None:
    entries = parameters or {}
    if len(entries) > _MAX_PARAMETERS:
        errs.append(invalid_value(field, len(entries), f"must have at most {_MAX_PARAMETERS} items"))
        return
    if "" in entries:
        errs.append(invalid_value(field, "", "field can not be empty."))
    if sum(len(str(key)) + len(str(value)) for key, value in entries.items()) > _MAX_PARAMETER_BYTES:
        errs.append(invalid_value(field, "", f"may not be more than {_MAX_PARAMETER_BYTES} bytes"))


def storage_class(errs: Errors, obj: Object) -> None:
    provisioner = obj.get("provisioner")
    if not provisioner:
        errs.append(required("provisioner", ""))
    else:
        strings(errs, "provisioner", provisioner.lower(), names.qualified_name)
    _parameters(errs, "parameters", obj.get("parameters"))
    one_of(errs, "reclaimPolicy", obj.get("reclaimPolicy"), ("Delete", "Retain"))
    one_of(errs, "volumeBindingMode", obj.get("volumeBindingMode"), ("Immediate", "WaitForFirstConsumer"), needed=True)


def storage_class_update(errs: Errors, obj: Object, old: Object) -> None:
    storage_class(errs, obj)
    for key in ("parameters", "provisioner", "reclaimPolicy"):
        if not same(obj.get(key), old.get(key)):
            errs.append(forbidden_field(key, f"updates to {key} are forbidden."))
    immutable(errs, "volumeBindingMode", obj.get("volumeBindingMode"), old.get("volumeBindingMode"))


def csi_driver(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    strings(errs, "metadata.name", (obj.get("metadata") or {}).get("name") or "", csi_driver_name)
    policies = ("File", "None", "ReadWriteOnceWithFSType")
    one_of(errs, "spec.fsGroupPolicy", spec.get("fsGroupPolicy"), policies)
    for mode in spec.get("volumeLifecycleModes") or ():
        one_of(errs, "spec.volumeLifecycleModes", mode, ("Ephemeral", "Persistent"), needed=True)


def csi_driver_update(errs: Errors, obj: Object, old: Object) -> None:
    csi_driver(errs, obj)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    for key in ("attachRequired", "volumeLifecycleModes"):
        immutable(errs, f"spec.{key}", spec.get(key), before.get(key))


def csi_node(errs: Errors, obj: Object) -> None:
    seen: set[Any] = set()
    for index, driver in enumerate((obj.get("spec") or {}).get("drivers") or ()):
        at = f"spec.drivers[{index}]"
        named(errs, f"{at}.name", driver.get("name"), csi_driver_name)
        if driver.get("name") in seen:
            errs.append(invalid_value(f"{at}.name", driver.get("name"), "must be unique"))
        seen.add(driver.get("name"))
        if not driver.get("nodeID"):
            errs.append(required(f"{at}.nodeID"))


def volume_attachment(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    named(errs, "spec.attacher", spec.get("attacher"), csi_driver_name)
    source = spec.get("source") or {}
    given = [key for key in ("inlineVolumeSpec", "persistentVolumeName") if source.get(key)]
    if not given:
        errs.append(required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
    elif len(given) > 1:
        text = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        errs.append(forbidden_field("spec.source", text))
    if not spec.get("nodeName"):
        errs.append(required("spec.nodeName"))


def volume_attachment_update(errs: Errors, obj: Object, old: Object) -> None:
    volume_attachment(errs, obj)
    immutable(errs, "spec", obj.get("spec"), old.get("spec"))
