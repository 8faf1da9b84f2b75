"""What holds for the metadata of every object that is written, whatever its kind.

Owns: name and namespace against the URL, preconditions of an update, what a client may not change, duplicate owners, generated
names. Called by: writes, handlers, subresources. Never does: validate values (api/validation/object_meta does).
Upstream: apiserver/pkg/registry/rest/{create,update,meta}.go, endpoints/handlers/rest.go, registry/generic/registry/store.go.
"""

from __future__ import annotations

import random
from typing import Any

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError, bad_request, conflict, invalid, invalid_value
from k1s.server.apiserver.call import Call
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.strategies.base import Strategy

Object = dict[str, Any]

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_MAX_GENERATED_BASE = 63 - _SUFFIX_LENGTH
_OTHER_NAMESPACE = "the namespace of the provided object does not match the namespace sent on the request"
# What a client can say of itself but does not decide, and what is nobody's on an object that is not there yet.
_SYSTEM = ("resourceVersion", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
_DUPLICATE_OWNERS = (
    ".metadata.ownerReferences contains duplicate entries{}; API server dedups owner references in 1.20+, and may reject such "
    "requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}"
)


def generated(base: str) -> str:
    return base[:_MAX_GENERATED_BASE] + "".join(random.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))


def name_conflict(resource: Resource, name: str) -> ApiError:
    """409: every name that was made up is taken."""
    qualified = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    text = f'{qualified} "{name}" already exists, the server was not able to generate a unique name for the object'
    details = {"name": name, "group": resource.group, "kind": resource.plural, "retryAfterSeconds": 1}
    return ApiError(409, "AlreadyExists", text, {key: value for key, value in details.items() if value})


def place_new(call: Call, meta: Object) -> None:
    """The namespace and name of an object to be created against the URL's. Raises ApiError 400."""
    _place_in_namespace(call, meta)
    name = meta.get("name") or ""
    if call.name and name and name != call.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({call.name})")
    if call.name:
        meta["name"] = call.name


def check_place(call: Call, meta: Object) -> None:
    """The same of an update, which names its object. Raises ApiError 400."""
    _place_in_namespace(call, meta)
    name = meta.get("name")
    if not name:
        raise bad_request(f"the name of the object ({call.name} based on URL) was undeterminable: name must be provided")
    if name != call.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({call.name})")


def _place_in_namespace(call: Call, meta: Object) -> None:
    if not call.resource.namespaced:
        meta.pop("namespace", None)
    elif (meta.get("namespace") or call.namespace) != call.namespace:
        raise bad_request(_OTHER_NAMESPACE)
    else:
        meta["namespace"] = call.namespace


def wipe(meta: Object) -> None:
    """Take out what only the server sets on a new object."""
    for field in _SYSTEM:
        meta.pop(field, None)


def check_uid(call: Call, meta: Object, entry: Entry | None) -> None:
    """A PUT that names a uid means that very object. Raises ApiError 409, worded as upstream's storage does."""
    uid = meta.get("uid")
    if not uid:
        return
    current = entry.obj()["metadata"].get("uid") or "" if entry is not None else ""
    if uid != current:
        stored = call.stored
        path = "/".join(filter(None, (stored.storage_prefix.rstrip("/"), call.namespace, call.name)))
        why = (
            f"StorageError: invalid object, Code: 4, Key: /{path.lstrip('/')}, ResourceVersion: 0, AdditionalErrorMsg: "
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {current}"
        )
        raise conflict(stored.plural, stored.group, call.name, why)


def check_version(call: Call, strategy: Strategy, meta: Object, entry: Entry) -> None:
    """The resourceVersion an update is based on. Raises ApiError 409, 422."""
    stored = call.stored
    version = meta.get("resourceVersion") or "0"
    if version == "0":
        if not strategy.unconditional_update:
            error = invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            # Upstream names the resource where the kind belongs.
            raise invalid(stored.plural, stored.group, call.name, [error])
    elif version != str(entry.revision):
        if not version.isdigit():
            text = f'strconv.ParseUint: parsing "{version}": invalid syntax'
            raise invalid(stored.kind, stored.group, call.name, [invalid_value("metadata.resourceVersion", version, text)])
        raise conflict(stored.plural, stored.group, call.name)


def carry(meta: Object, old: Object) -> None:
    """What a client leaves out or may not change by an update."""
    if not meta.get("uid") and "uid" in old:
        meta["uid"] = old["uid"]
    for field in ("generation", "creationTimestamp"):
        if field in old:
            meta[field] = old[field]
        else:
            meta.pop(field, None)
    if old.get("deletionTimestamp"):
        meta["deletionTimestamp"] = old["deletionTimestamp"]
    if old.get("deletionGracePeriodSeconds") is not None and meta.get("deletionGracePeriodSeconds") is None:
        meta["deletionGracePeriodSeconds"] = old["deletionGracePeriodSeconds"]
    meta.pop("selfLink", None)


def single_owners(call: Call, meta: Object, after: str = "") -> None:
    """Take out owner references that stand twice, and say so. `after`: when they were found, if not in the request."""
    owners = meta.get("ownerReferences")
    if not owners or len(owners) < 2:
        return
    kept: list[Object] = []
    twice: list[str] = []
    for owner in owners:
        if owner in kept:
            twice.append(str(owner.get("uid") or ""))
        else:
            kept.append(owner)
    if twice:
        meta["ownerReferences"] = kept
        call.warnings.append(_DUPLICATE_OWNERS.format(after, ", ".join(twice)))
