"""storagemigration.k8s.io: requests to rewrite what is stored of a resource.

Called by: table.py. Never does: migrate (a controller does).
"""

from __future__ import annotations

import re

from k1s.api import names
from k1s.api.errors import invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.conditions import conditions, is_true
from k1s.api.validation.rules import IMMUTABLE, Errors, immutable

_WELL_FORMED = re.compile("[1-9][0-9]*")


def _resource(obj: Object) -> Object:
    return (obj.get("spec") or {}).get("resource") or {}


def migration(errs: Errors, obj: Object) -> None:
    """As for the group and the resource of an APIService."""
    group, resource = _resource(obj).get("group") or "", _resource(obj).get("resource") or ""
    if not resource:
        errs.append(required("spec.resource.resource", "resource is required to be set"))
    elif faults := names.dns1035_label(resource):
        errs.append(invalid_value("spec.resource.resource", resource, ",".join(faults)))
    if group and (faults := names.dns1123_subdomain(group)):
        errs.append(invalid_value("spec.resource.group", group, ",".join(faults)))


def migration_update(errs: Errors, obj: Object, old: Object) -> None:
    migration(errs, obj)
    immutable(errs, "spec", obj.get("spec"), old.get("spec"))


def migration_status(errs: Errors, obj: Object, old: Object) -> None:
    status = obj.get("status") or {}
    at, found = "status.conditions", status.get("conditions") or []
    version, before = status.get("resourceVersion") or "", (old.get("status") or {}).get("resourceVersion") or ""
    if version and not _WELL_FORMED.fullmatch(version):
        errs.append(invalid_value("status.resourceVersion", version, f"resource version is not well formed: {version}"))
    conditions(errs, at, found)
    if before and before != version:
        errs.append(invalid_value("status.resourceVersion", version, IMMUTABLE))
    succeeded, failed, running = (is_true(obj, kind) for kind in ("Succeeded", "Failed", "Running"))
    for wrong, text in (
        (succeeded and failed, "Both success and failed conditions cannot be true at the same time"),
        (succeeded and running, "Running condition cannot be true when success condition is true"),
        (failed and running, "Running condition cannot be true when failed condition is true"),
        (is_true(old, "Succeeded") and not succeeded, "Success condition cannot be set to false once it is true"),
        (is_true(old, "Failed") and not failed, "Failed condition cannot be set to false once it is true"),
    ):
        if wrong:
            errs.append(invalid_value(at, found, text))
