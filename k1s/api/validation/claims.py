"""PersistentVolumeClaims: the spec, also in templates, and what may change in a bound one.

Called by: table.py, volumes.py (ephemeral volumes), apps.py (volumeClaimTemplates). Never does: persistent volumes (storage.py).
"""

from __future__ import annotations

from typing import Any

from k1s.api import names, quantity
from k1s.api.errors import forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, one_of, quantities, same, strings
from k1s.api.validation.selectors import label_selector

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")


def access_modes(errs: Errors, field: str, modes: Any) -> None:
    """At least one; ReadWriteOncePod alone."""
    if not modes:
        errs.append(required(field, "at least 1 access mode is required"))
    for mode in modes or ():
        one_of(errs, field, mode, ACCESS_MODES, needed=True)
    if "ReadWriteOncePod" in (modes or ()) and len(modes) > 1:
        errs.append(forbidden_field(field, "may not use ReadWriteOncePod with other access modes"))


def storage_size(errs: Errors, field: str, value: Any) -> None:
    """A size above zero."""
    if value is None:
        errs.append(required(field))
    elif quantities(errs, field, value) and quantity.parse(value) <= 0:
        errs.append(invalid_value(field, str(value), "must be greater than zero"))


def _data_source(errs: Errors, field: str, source: Object | None) -> None:
    if not source:
        return
    for key in ("name", "kind"):
        if not source.get(key):
            errs.append(required(f"{field}.{key}"))
    group, kind = source.get("apiGroup") or "", source.get("kind")
    if not group and kind and kind != "PersistentVolumeClaim":
        errs.append(invalid_value(field, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))


def claim_spec(errs: Errors, at: str, spec: Object) -> None:
    """PersistentVolumeClaimSpec."""
    access_modes(errs, f"{at}.accessModes", spec.get("accessModes"))
    label_selector(errs, f"{at}.selector", spec.get("selector"))
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    storage_size(errs, f"{at}.resources[storage]", size)
    if spec.get("storageClassName"):
        strings(errs, f"{at}.storageClassName", spec["storageClassName"], names.dns1123_subdomain)
    one_of(errs, f"{at}.volumeMode", spec.get("volumeMode"), VOLUME_MODES)
    if spec.get("volumeAttributesClassName"):
        strings(errs, f"{at}.volumeAttributesClassName", spec["volumeAttributesClassName"], names.dns1123_subdomain)
    for key in ("dataSource", "dataSourceRef"):
        _data_source(errs, f"{at}.{key}", spec.get(key))


def create(errs: Errors, obj: Object) -> None:
    claim_spec(errs, "spec", obj.get("spec") or {})


def _requested(spec: Object) -> Any:
    return ((spec.get("resources") or {}).get("requests") or {}).get("storage")


def update(errs: Errors, obj: Object, old: Object) -> None:
    """A claim's spec stands, but for its binding, its size once bound and its attributes class."""
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    claim_spec(errs, "spec", spec)
    out = dict(spec)
    bound = (old.get("status") or {}).get("phase") == "Bound"
    if not before.get("volumeName"):
        out["volumeName"] = before.get("volumeName")
    if not before.get("storageClassName") and "storageClassName" not in before:
        out["storageClassName"] = before.get("storageClassName")
    if bound:
        out["resources"] = before.get("resources")
    out["volumeAttributesClassName"] = before.get("volumeAttributesClassName")
    if not same(out, before):
        text = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"
        errs.append(forbidden_field("spec", text))
    elif bound:
        _shrink(errs, obj, old)


def _shrink(errs: Errors, obj: Object, old: Object) -> None:
    new, was = _requested(obj.get("spec") or {}), _requested(old.get("spec") or {})
    have = ((old.get("status") or {}).get("capacity") or {}).get("storage")
    try:
        smaller = quantity.parse(new) < quantity.parse(was) and quantity.parse(new) <= quantity.parse(have or was)
    except ValueError:
        return
    if smaller:
        errs.append(forbidden_field("spec.resources.requests.storage", "field can not be less than status.capacity"))
