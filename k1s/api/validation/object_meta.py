"""ObjectMeta: names by kind, labels, annotations, owners, finalizers; and what an update may not change.

Called by: table.py, and the files whose kinds hold templates. Never does: resourceVersion checks (object_store does).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from k1s.api import names
from k1s.api.addresses import canonical_ip
from k1s.api.catalog import Resource
from k1s.api.errors import forbidden_field, invalid_value, required, too_long
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, immutable, non_negative, same, strings

MAX_ANNOTATIONS = 256 * 1024
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")

NameCheck = Callable[[str, bool], list[str]]


def _cron_job(value: str, prefix: bool = False) -> list[str]:
    # The controller adds 11 characters to make a job's name.
    out = names.is_dns_subdomain(value, prefix)
    return [*out, "must be no more than 52 characters"] if len(value) > 52 else out


def _ip_name(value: str, prefix: bool = False) -> list[str]:
    return canonical_ip(value)


# Groups whose servers upstream builds on the generic library: it knows no standard finalizers.
_GENERIC = ("admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io")
_OPERATIONS = ("Apply", "Update")
_MAX_MANAGER, _MAX_SUBRESOURCE = 128, 256

_RBAC = "rbac.authorization.k8s.io"
_NAMES: dict[tuple[str, str], NameCheck] = {
    ("", "Namespace"): names.is_dns_label,
    # Services may begin with a digit since v1.36 (KEP-5311).
    ("", "Service"): names.is_dns_label,
    # The old Event API has no rule of its own.
    ("", "Event"): names.is_path_segment,
    ("apps", "StatefulSet"): names.is_dns_label,
    ("batch", "CronJob"): _cron_job,
    ("apiregistration.k8s.io", "APIService"): names.is_path_segment,
    ("certificates.k8s.io", "CertificateSigningRequest"): names.is_path_segment,
    # Its rule depends on the spec (certificates.py).
    ("certificates.k8s.io", "ClusterTrustBundle"): names.is_path_segment,
    ("networking.k8s.io", "IPAddress"): _ip_name,
    (_RBAC, "ClusterRole"): names.is_path_segment,
    (_RBAC, "ClusterRoleBinding"): names.is_path_segment,
    (_RBAC, "Role"): names.is_path_segment,
    (_RBAC, "RoleBinding"): names.is_path_segment,
}


def name_check(resource: Resource) -> NameCheck:
    """The rule for names of this kind."""
    return _NAMES.get((resource.group, resource.kind), names.is_dns_subdomain)


def label_map(errs: Errors, field: str, value: Any) -> None:
    for key, text in (value or {}).items():
        strings(errs, field, key, names.qualified_name)
        strings(errs, field, text, names.label_value)


def annotation_map(errs: Errors, field: str, value: Any) -> None:
    size = 0
    for key, text in (value or {}).items():
        errs.extend(invalid_value(field, key, message) for message in names.qualified_name(key.lower()))
        size += len(key.encode()) + len(str(text).encode())
    if size > MAX_ANNOTATIONS:
        errs.append(too_long(field, MAX_ANNOTATIONS))


def _owners(errs: Errors, field: str, owners: Any) -> None:
    """Upstream names the list, not the element."""
    controller = ""
    for owner in owners or ():
        version = str(owner.get("apiVersion") or "")
        if version.count("/") > 1 or not version.rpartition("/")[2]:
            errs.append(invalid_value(f"{field}.apiVersion", version, "version must not be empty"))
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                errs.append(invalid_value(f"{field}.{key}", owner.get(key) or "", "must not be empty"))
        if owner.get("kind") == "Event" and version == "v1":
            errs.append(invalid_value(field, owner, "/v1, Kind=Event is disallowed from being an owner"))
        if owner.get("controller"):
            this = f"{owner.get('kind')}/{owner.get('name')}"
            if controller:
                detail = (
                    f'Only one reference can have Controller set to true. Found "true" in references for {controller} and {this}'
                )
                errs.append(invalid_value(field, owners, detail))
            else:
                controller = this


def finalizer_list(errs: Errors, field: str, value: Any, *, builtin: bool = True) -> None:
    found = value or []
    for finalizer in found:
        strings(errs, field, finalizer, names.qualified_name)
    if "orphan" in found and "foregroundDeletion" in found:
        errs.append(invalid_value(field, found, "finalizer orphan and foregroundDeletion cannot be both set"))
    for index, finalizer in enumerate(found if builtin else ()):
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            errs.append(invalid_value(f"{field}[{index}]", finalizer, text))


def _managers(errs: Errors, field: str, entries: Any) -> None:
    for index, entry in enumerate(entries or ()):
        at = f"{field}[{index}]"
        if entry.get("operation") not in _OPERATIONS:
            errs.append(invalid_value(f"{at}.operation", entry.get("operation") or "", "must be `Apply` or `Update`"))
        if (entry.get("fieldsType") or "FieldsV1") != "FieldsV1":
            errs.append(invalid_value(f"{at}.fieldsType", entry["fieldsType"], "must be `FieldsV1`"))
        manager = entry.get("manager") or ""
        if len(manager) > _MAX_MANAGER:
            errs.append(too_long(f"{at}.manager", _MAX_MANAGER))
        if not manager.isprintable():
            bad = next(i for i, c in enumerate(manager) if not c.isprintable())
            text = f"invalid character U+{ord(manager[bad]):04X} (at position {bad})"
            errs.append(invalid_value(f"{at}.manager", manager, text))
        if len(entry.get("subresource") or "") > _MAX_SUBRESOURCE:
            errs.append(too_long(f"{at}.subresource", _MAX_SUBRESOURCE))


def template_meta(errs: Errors, field: str, meta: Object | None) -> None:
    """The metadata of a template: no name needed."""
    meta = meta or {}
    label_map(errs, f"{field}.labels", meta.get("labels"))
    annotation_map(errs, f"{field}.annotations", meta.get("annotations"))
    finalizer_list(errs, f"{field}.finalizers", meta.get("finalizers"))


def _namespace(errs: Errors, resource: Resource, meta: Object) -> None:
    namespace = meta.get("namespace")
    if not resource.namespaced:
        if namespace:
            errs.append(forbidden_field("metadata.namespace", "not allowed on this type"))
    elif not namespace:
        errs.append(required("metadata.namespace"))
    else:
        strings(errs, "metadata.namespace", namespace, names.dns1123_label)


def validate(errs: Errors, resource: Resource, obj: Object) -> None:
    """metav1.ObjectMeta of an object that is created (the name already generated)."""
    meta = obj.get("metadata") or {}
    check = name_check(resource)
    if meta.get("generateName"):
        prefix = meta["generateName"]
        errs.extend(invalid_value("metadata.generateName", prefix, message) for message in check(prefix, True))
    name = meta.get("name")
    if not name:
        errs.append(required("metadata.name", "name or generateName is required"))
    else:
        errs.extend(invalid_value("metadata.name", name, message) for message in check(name, False))
    _namespace(errs, resource, meta)
    _common(errs, resource, meta)


def _common(errs: Errors, resource: Resource, meta: Object) -> None:
    non_negative(errs, "metadata.generation", meta.get("generation"))
    label_map(errs, "metadata.labels", meta.get("labels"))
    annotation_map(errs, "metadata.annotations", meta.get("annotations"))
    _owners(errs, "metadata.ownerReferences", meta.get("ownerReferences"))
    plain = resource.custom or resource.group in _GENERIC or (resource.group, resource.kind) == ("", "Event")
    finalizer_list(errs, "metadata.finalizers", meta.get("finalizers"), builtin=not plain)
    _managers(errs, "metadata.managedFields", meta.get("managedFields"))


def validate_update(errs: Errors, resource: Resource, obj: Object, old: Object) -> None:
    """metav1.ObjectMeta of an update. Absent server-owned fields pass: the store puts the old ones back."""
    meta, before = obj.get("metadata") or {}, old.get("metadata") or {}
    if before.get("deletionTimestamp"):
        added = sorted(set(meta.get("finalizers") or ()) - set(before.get("finalizers") or ()))
        if added:
            shown = "[]string{" + ", ".join(json.dumps(f) for f in added) + "}"
            detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {shown}"
            errs.append(forbidden_field("metadata.finalizers", detail))
    if (meta.get("generation") or 0) < (before.get("generation") or 0) and meta.get("generation") is not None:
        errs.append(invalid_value("metadata.generation", meta["generation"], "must not be decremented"))
    immutable(errs, "metadata.name", meta.get("name"), before.get("name"))
    immutable(errs, "metadata.namespace", meta.get("namespace"), before.get("namespace"))
    for key in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if meta.get(key) is not None and not same(meta[key], before.get(key)):
            errs.append(invalid_value(f"metadata.{key}", meta[key], "field is immutable"))
    _common(errs, resource, meta)
