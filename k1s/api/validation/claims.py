"""PersistentVolumeClaims: the spec, also in templates, and what may change in a bound one.

Called by: table.py, volumes.py (ephemeral volumes), apps.py (volumeClaimTemplates). Never does: persistent volumes.
Source: upstream ValidatePersistentVolumeClaimSpec, -Update, -StatusUpdate; KEP-1790 (recovery from failed expansion).
"""

from __future__ import annotations

from typing import Any

from k1s.api import names, quantity
from k1s.api.errors import forbidden_field, invalid_value, not_supported, required
from k1s.api.meta import Object
from k1s.api.validation.resources import native
from k1s.api.validation.rules import Errors, difference, immutable, one_of, quantities, same, strings
from k1s.api.validation.selectors import label_selector

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_RESIZE = (
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
)
_FIXED = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


def access_modes(errs: Errors, field: str, modes: Any, *, why: str = "at least 1 access mode is required") -> None:
    """At least one; ReadWriteOncePod alone."""
    if not modes:
        errs.append(required(field, why))
    for mode in modes or ():
        if mode not in ACCESS_MODES:
            errs.append(not_supported(field, mode, ACCESS_MODES))
    known = {mode for mode in modes or () if mode in ACCESS_MODES}
    if "ReadWriteOncePod" in known and len(known) > 1:
        errs.append(forbidden_field(field, "may not use ReadWriteOncePod with other access modes"))


def positive_quantity(errs: Errors, field: str, value: Any) -> None:
    """A size above zero."""
    try:
        positive = quantity.parse(value) > 0
    except ValueError as error:
        errs.append(invalid_value(field, value, str(error)))
        return
    if not positive:
        errs.append(invalid_value(field, str(value), "must be greater than zero"))


def storage_size(errs: Errors, field: str, value: Any) -> None:
    """One that has to be there."""
    if value is None:
        errs.append(required(field))
    else:
        positive_quantity(errs, field, value)


def _data_source(errs: Errors, field: str, source: Object | None) -> None:
    if source is None:
        return
    for key in ("name", "kind"):
        if not source.get(key):
            errs.append(required(f"{field}.{key}"))
    group, kind = source.get("apiGroup") or "", source.get("kind") or ""
    if not group and kind != "PersistentVolumeClaim":
        errs.append(invalid_value(field, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
    if group:
        strings(errs, f"{field}.apiGroup", group, names.dns1123_subdomain)
    if source.get("namespace"):
        strings(errs, f"{field}.namespace", source["namespace"], names.dns1123_label)


def _data_sources(errs: Errors, at: str, spec: Object) -> None:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    _data_source(errs, f"{at}.dataSource", source)
    _data_source(errs, f"{at}.dataSourceRef", reference)
    if source is None or reference is None:
        return
    if reference.get("namespace"):
        text = "may not be specified when dataSourceRef.namespace is specified"
        errs.append(invalid_value(at, f"{at}.dataSource", text))
    elif any((source.get(key) or "") != (reference.get(key) or "") for key in ("apiGroup", "kind", "name")):
        errs.append(invalid_value(at, f"{at}.dataSource", "must match dataSourceRef"))


def claim_spec(errs: Errors, at: str, spec: Object) -> None:
    """PersistentVolumeClaimSpec."""
    if not spec.get("accessModes"):
        errs.append(required(f"{at}.accessModes", "at least 1 access mode is required"))
    label_selector(errs, f"{at}.selector", spec.get("selector"))
    if spec.get("accessModes"):
        access_modes(errs, f"{at}.accessModes", spec["accessModes"])
    storage_size(errs, f"{at}.resources[storage]", _requested(spec))
    if spec.get("storageClassName"):
        strings(errs, f"{at}.storageClassName", spec["storageClassName"], names.dns1123_subdomain)
    one_of(errs, f"{at}.volumeMode", spec.get("volumeMode"), VOLUME_MODES)
    _data_sources(errs, at, spec)
    if spec.get("volumeAttributesClassName"):
        strings(errs, f"{at}.volumeAttributesClassName", spec["volumeAttributesClassName"], names.dns1123_subdomain)


def create(errs: Errors, obj: Object) -> None:
    claim_spec(errs, "spec", obj.get("spec") or {})


def _requested(spec: Object) -> Any:
    return ((spec.get("resources") or {}).get("requests") or {}).get("storage")


def _annotation(obj: Object) -> str | None:
    return ((obj.get("metadata") or {}).get("annotations") or {}).get(_BETA_CLASS)


def update(errs: Errors, obj: Object, old: Object) -> None:
    """A claim's spec stands, but for its binding, its size once bound and its attributes class."""
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    claim_spec(errs, "spec", spec)
    out = dict(spec)
    if not before.get("volumeName"):
        out["volumeName"] = before.get("volumeName")
    _class(errs, out, obj, old)
    if (obj.get("status") or {}).get("phase") == "Bound":
        requests = (spec.get("resources") or {}).get("requests")
        if requests is not None:
            out["resources"] = {**spec["resources"], "requests": {**requests, "storage": _requested(before)}}
        if spec.get("volumeAttributesClassName") is not None:
            out["volumeAttributesClassName"] = before.get("volumeAttributesClassName")
    if not same(out, before):
        errs.append(forbidden_field("spec", f"{_FIXED}\n{difference(out, before)}"))
    _shrink(errs, spec, old)
    immutable(errs, "volumeMode", spec.get("volumeMode"), before.get("volumeMode"))
    _attributes_class(errs, spec.get("volumeAttributesClassName"), before.get("volumeAttributesClassName"))


def _class(errs: Errors, out: Object, obj: Object, old: Object) -> None:
    """The storage class may be filled in once: from its old annotation, or (a default class came later) from nothing."""
    now, was = _annotation(obj), _annotation(old)
    name, before = (obj.get("spec") or {}).get("storageClassName"), (old.get("spec") or {}).get("storageClassName")
    fresh = before is None and name is not None
    if fresh and was is not None and name == was and now in (None, was):
        out["storageClassName"] = None
        return
    if (now or "") != (was or ""):
        errs.append(invalid_value(f"metadata.annotations.{_BETA_CLASS}", now or "", "field is immutable"))
    if fresh and (was is None or name == was):
        out["storageClassName"] = before


def _shrink(errs: Errors, spec: Object, old: Object) -> None:
    """Less than was asked for, but more than is there: so one gets out of an expansion that failed."""
    have = ((old.get("status") or {}).get("capacity") or {}).get("storage")
    try:
        new, was = (quantity.parse(size or 0) for size in (_requested(spec), _requested(old.get("spec") or {})))
        shrinks = new < was and new <= quantity.parse(have or 0)
    except ValueError:
        return
    if shrinks:
        errs.append(forbidden_field("spec.resources.requests.storage", "field can not be less than status.capacity"))


def _attributes_class(errs: Errors, new: Any, old: Any) -> None:
    if old is None or new == old:
        return
    if new is None:
        text = "update from non-nil value to nil is forbidden"
        errs.append(forbidden_field("spec.volumeAttributesClassName", text))
    elif not new:
        text = "update from non-nil value to an empty string is forbidden"
        errs.append(forbidden_field("spec.volumeAttributesClassName", text))


def status(errs: Errors, obj: Object, old: Object) -> None:
    """What the binder and the resizers write."""
    found = obj.get("status") or {}
    if not (obj.get("spec") or {}).get("accessModes"):
        errs.append(required("Spec.accessModes"))
    for name, value in (found.get("capacity") or {}).items():
        _basic(errs, f"status.capacity[{name}]", value)
    for name, state in (found.get("allocatedResourceStatuses") or {}).items():
        _resource_key(errs, "status.allocatedResourceStatus", name)
        if state not in _RESIZE:
            errs.append(not_supported("status.allocatedResourceStatus", name, _RESIZE))
    for name, value in (found.get("allocatedResources") or {}).items():
        before = len(errs)
        _resource_key(errs, "status.allocatedResources", name)
        if len(errs) == before:
            _basic(errs, f"status.allocatedResources[{name}]", value)


def _resource_key(errs: Errors, field: str, name: str) -> None:
    before = len(errs)
    strings(errs, field, name, names.qualified_name)
    if len(errs) == before and native(name) and name != "storage":
        errs.append(not_supported(field, name, ("storage",)))


def _basic(errs: Errors, field: str, value: Any) -> None:
    found: Errors = []
    if not quantities(found, field, value):
        errs.append(invalid_value(field, value, "must be a valid resource quantity"))
