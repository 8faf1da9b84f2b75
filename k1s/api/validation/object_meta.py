"""ObjectMeta: names by kind, labels, annotations, owners, finalizers; and what an update may not change.

Called by: table.py, and the files whose kinds hold templates. Never does: resourceVersion checks (object_store does).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from k1s.api import names
from k1s.api.catalog import Resource
from k1s.api.errors import forbidden_field, invalid_value, required, too_long
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, immutable, non_negative, same, strings

MAX_ANNOTATIONS = 256 * 1024
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")

NameCheck = Callable[[str, bool], list[str]]


def any_name(value: str, prefix: bool = False) -> list[str]:
    return []


def _cron_job(value: str, prefix: bool = False) -> list[str]:
    # The controller adds 11 characters to make a job's name.
    out = names.is_dns_subdomain(value, prefix)
    return [*out, "must be no more than 52 characters"] if len(value) > 52 else out


def _ip_name(value: str, prefix: bool = False) -> list[str]:
    return names.ip_address(value)


_RBAC = "rbac.authorization.k8s.io"
_NAMES: dict[tuple[str, str], NameCheck] = {
    ("", "Namespace"): names.is_dns_label,
    ("", "Service"): names.is_dns1035_label,
    ("apps", "StatefulSet"): names.is_dns_label,
    ("batch", "CronJob"): _cron_job,
    ("apiregistration.k8s.io", "APIService"): names.is_path_segment,
    ("certificates.k8s.io", "CertificateSigningRequest"): any_name,
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
    controller = ""
    for index, owner in enumerate(owners or ()):
        at = f"{field}[{index}]"
        if not str(owner.get("apiVersion") or "").rpartition("/")[2]:
            errs.append(invalid_value(f"{at}.apiVersion", owner.get("apiVersion") or "", "version must not be empty"))
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                errs.append(invalid_value(f"{at}.{key}", owner.get(key) or "", "must not be empty"))
        if owner.get("kind") == "Event" and owner.get("apiVersion") == "v1":
            errs.append(invalid_value(at, owner, "/v1, Kind=Event is disallowed from being an owner"))
        if owner.get("controller"):
            if controller:
                detail = (
                    'Only one reference can have Controller set to true. Found "true" in references for '
                    f"{controller} and {owner.get('name')}"
                )
                errs.append(invalid_value(field, owners, detail))
            controller = str(owner.get("name"))


def finalizer_list(errs: Errors, field: str, value: Any, *, builtin: bool = True) -> None:
    found = value or []
    for index, finalizer in enumerate(found):
        at = f"{field}[{index}]"
        strings(errs, at, finalizer, names.qualified_name)
        if builtin and "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            errs.append(invalid_value(at, finalizer, "name is neither a standard finalizer name nor is it fully qualified"))
    if "orphan" in found and "foregroundDeletion" in found:
        errs.append(invalid_value(field, found, "finalizer orphan and foregroundDeletion cannot be both set"))


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
    finalizer_list(errs, "metadata.finalizers", meta.get("finalizers"), builtin=not resource.custom)


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
