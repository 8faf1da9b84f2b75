"""The pipeline of a write, step by step: the only way into the object store.

Owns: create_object and update_object, which every writing handler goes through. Called by: handlers, subresources.
Never does: decode bodies (call.py) or decide about deletion (deletion.py).

decoded and typed -> storage version -> defaults -> mutating admission -> strategy.reset -> field ownership -> strategy.prepare
-> validation -> validating admission -> store
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k1s.api.decode import check_types
from k1s.api.defaults.table import apply_defaults
from k1s.api.errors import ApiError, FieldError, already_exists, bad_request, conflict, invalid
from k1s.api.managed_fields import track
from k1s.api.prune import prune
from k1s.api.schema import schema_for
from k1s.api.validation.table import validate_create, validate_subresource_update, validate_update
from k1s.api.warnings.table import on_create, on_status_update, on_update
from k1s.base.clock import rfc3339
from k1s.server.apiserver.attributes import AdmissionRequest
from k1s.server.apiserver.call import Call
from k1s.server.apiserver.deletion import finished
from k1s.server.apiserver.entries import Entry, encode
from k1s.server.apiserver.strategies.base import Strategy
from k1s.server.apiserver.strategies.table import strategy_for

Object = dict[str, Any]

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
# Subresources that do not touch the spec.
_NO_SPEC = ("status", "approval", "finalize")
_MAX_GENERATED_BASE = 63 - _SUFFIX_LENGTH
# generateName: how often a taken name is replaced by another one (upstream's RetryGenerateName).
_NAME_TRIES = 8


async def create_object(call: Call, obj: Object, *, applied: bool = False) -> Entry:
    """Store a new object (given in the version of call.resource). `applied`: field ownership is recorded already."""
    stored, server = call.stored, call.server
    strategy = strategy_for(stored)
    meta = obj["metadata"]
    if meta.get("resourceVersion") not in (None, "", "0"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    _place(call, meta)
    strategy.normalize(obj)
    _complete_asked(call, obj)
    obj = await server.convert(obj, call.resource, stored)
    _default(call, obj)
    admission = AdmissionRequest(
        "CREATE", call.resource, call.subresource, call.namespace, meta.get("name") or "", obj, None, call.user, call.dry_run
    )
    admission.annotations, admission.options = call.annotations, call.options_object("CreateOptions")
    if server.admission is not None:
        await server.admission.mutate(admission)
        _after_patch(call, admission, obj)
    strategy.reset_create(obj)
    meta = obj["metadata"]
    for field in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        meta.pop(field, None)
    now = rfc3339(server.clock.now())
    if not applied:
        meta.pop("managedFields", None)
        _track(call, None, obj, now)
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = now
    meta.pop("generation", None)
    strategy.prepare_create(call, obj)
    generate = meta.get("generateName") if not meta.get("name") else ""
    for attempt in range(_NAME_TRIES):
        if generate:
            meta["name"] = generated(generate)
        try:
            return await _store_new(call, strategy, obj, admission)
        except ApiError as error:
            if not generate or error.reason != "AlreadyExists" or attempt == _NAME_TRIES - 1:
                raise
    raise AssertionError("unreachable")


async def _store_new(call: Call, strategy: Strategy, obj: Object, admission: AdmissionRequest) -> Entry:
    stored, server = call.stored, call.server
    name = obj["metadata"].get("name") or ""
    try:
        await strategy.allocate(call, obj, None)
        errors = validate_create(stored, obj)
        if stored.custom:
            errors += server.custom.faults(stored, obj)
        if errors:
            raise invalid(stored.kind, stored.group, name, errors)
        call.warnings += on_create(stored, obj)
        admission.name = name
        if server.admission is not None:
            await server.admission.validate(admission)
            call.warnings += admission.warnings
            admission.warnings = []
        if call.dry_run:
            return await _dry_create(call, obj, name)
        return await server.objects.create(stored, call.namespace, name, obj, call.origin)
    finally:
        call.settle()


async def _dry_create(call: Call, obj: Object, name: str) -> Entry:
    if await call.server.objects.find(call.stored, call.namespace, name) is not None:
        raise already_exists(call.stored.plural, call.stored.group, name)
    cache = call.server.hub.cache(call.stored)
    raw = encode(obj, cache.head)
    return Entry(f"{call.namespace}/{name}" if call.namespace else name, raw, 0, 0)


def _place(call: Call, meta: Object) -> None:
    """The object's namespace and name against the URL's. Raises ApiError 400."""
    namespace = meta.get("namespace") or ""
    if not call.resource.namespaced:
        meta.pop("namespace", None)
    elif namespace and namespace != call.namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    else:
        meta["namespace"] = call.namespace
    name = meta.get("name") or ""
    if call.name and name and name != call.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({call.name})")
    if call.name:
        meta["name"] = call.name


def generated(base: str) -> str:
    return base[:_MAX_GENERATED_BASE] + "".join(random.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))


def _track(call: Call, old: Object | None, obj: Object, now: str) -> None:
    track(
        old,
        obj,
        manager=call.manager or call.agent(),
        operation="Update",
        schema=schema_for(call.stored),
        api_version=call.stored.api_version,
        now=now,
        subresource=call.info.subresource,
    )


@dataclass(frozen=True, slots=True)
class View:
    """A subresource that shows its object as another kind (scale): admission sees that. `put` writes a changed one back."""

    of: Callable[[Object], Object]
    put: Callable[[Object, Object], None]


# The step of a subresource write that replaces strategy.reset_update: (strategy, obj, old).
Reset = Callable[[Strategy, Object, Object], None]


def reset_main(strategy: Strategy, obj: Object, old: Object) -> None:
    strategy.reset_update(obj, old)


def reset_status(strategy: Strategy, obj: Object, old: Object) -> None:
    strategy.reset_status(obj, old)


async def update_object(
    call: Call,
    produce: Callable[[Object, Entry], Object],
    *,
    reset: Reset = reset_main,
    applied: bool = False,
    precondition: str = "",
    view: View | None = None,
) -> Entry:
    """Change an existing object. `produce(current, entry)` gives the wanted object, both in the version of call.resource.

    It is called again with the newer object when somebody else was faster. Raises ApiError 404, 409, 422.
    """

    async def change(entry: Entry) -> Object:
        return await _changed(call, entry, produce, reset, applied, view)

    stored, objects = call.stored, call.server.objects
    try:
        entry = await objects.guaranteed_update(stored, call.namespace, call.name, change, call.origin, dry_run=call.dry_run)
    finally:
        call.settle()
    if not call.dry_run:
        await finished(call.server, stored, call.namespace, entry, call.origin)
    return entry


async def _changed(
    call: Call, entry: Entry, produce: Callable[[Object, Entry], Object], reset: Reset, applied: bool, view: View | None
) -> Object:
    stored, server = call.stored, call.server
    strategy = strategy_for(stored)
    old = await server.convert(entry.obj(), stored, stored)
    wanted = produce(await server.convert(entry.fresh(), stored, call.resource), entry)
    check_place(call, wanted["metadata"])
    _check_preconditions(call, strategy, wanted["metadata"], entry)
    strategy.normalize(wanted)
    _complete_asked(call, wanted)
    obj = await server.convert(wanted, call.resource, stored)
    _default(call, obj)
    admission = AdmissionRequest(
        "UPDATE", call.resource, call.subresource, call.namespace, call.name, obj, old, call.user, call.dry_run
    )
    admission.annotations, admission.options = call.annotations, call.options_object("UpdateOptions")
    if view is not None:
        admission.obj, admission.old = view.of(obj), view.of(old)
    if server.admission is not None:
        await server.admission.mutate(admission)
        if view is not None and admission.patched and admission.obj is not None:
            view.put(obj, admission.obj)
        _after_patch(call, admission, obj)
    _carry_metadata(obj["metadata"], old["metadata"])
    reset(strategy, obj, old)
    if not applied:
        _track(call, old, obj, rfc3339(server.clock.now()))
    if call.info.subresource not in _NO_SPEC:
        strategy.prepare_update(call, obj, old)
        await strategy.allocate(call, obj, old)
    elif call.info.subresource == "status":
        strategy.prepare_status(call, obj, old)
    errors = _update_errors(call, obj, old)
    if errors:
        raise invalid(stored.kind, stored.group, call.name, errors)
    call.warnings += _update_warnings(call, obj, old)
    if server.admission is not None:
        await server.admission.validate(admission)
        call.warnings += admission.warnings
    return obj


def _update_warnings(call: Call, obj: Object, old: Object) -> list[str]:
    if not call.info.subresource:
        return on_update(call.stored, obj, old)
    return on_status_update(call.stored, obj, old) if call.info.subresource == "status" else []


def _update_errors(call: Call, obj: Object, old: Object) -> list[FieldError]:
    if call.info.subresource:
        errors = validate_subresource_update(call.stored, call.info.subresource, obj, old)
    else:
        errors = validate_update(call.stored, obj, old)
    if call.stored.custom:
        errors += call.server.custom.faults(call.stored, obj, old)
    return errors


def _default(call: Call, obj: Object) -> None:
    if call.stored.custom:
        call.server.custom.default(call.stored, obj)
    else:
        apply_defaults(call.stored, obj)


def _complete_asked(call: Call, obj: Object) -> None:
    """A custom resource in another version than the stored one has defaults and rules of its own. Raises ApiError 422."""
    resource = call.resource
    if resource.custom and resource.api_version != call.stored.api_version:
        call.server.custom.default(resource, obj)
        errors = call.server.custom.faults(resource, obj)
        if errors:
            raise invalid(resource.kind, resource.group, obj["metadata"].get("name") or "", errors)


def _after_patch(call: Call, admission: AdmissionRequest, obj: Object) -> None:
    """A webhook's object is as unfinished as a client's."""
    if not admission.patched:
        return
    admission.patched = False
    schema = schema_for(call.stored)
    check_types(obj, schema)
    prune(obj, schema)
    _default(call, obj)


def check_place(call: Call, meta: Object) -> None:
    """Fill in or check the name and namespace of an update. Raises ApiError 400."""
    if not call.resource.namespaced:
        meta.pop("namespace", None)
    elif (meta.get("namespace") or call.namespace) != call.namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    else:
        meta["namespace"] = call.namespace
    if (meta.get("name") or call.name) != call.name:
        raise bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({call.name})")
    meta["name"] = call.name


def _check_preconditions(call: Call, strategy: Strategy, meta: Object, entry: Entry) -> None:
    stored = call.stored
    uid, current = meta.get("uid"), entry.obj()["metadata"].get("uid")
    if uid and uid != current:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {current}"
        raise conflict(stored.plural, stored.group, call.name, why)
    version = meta.get("resourceVersion") or "0"
    if version == "0":
        if not strategy.unconditional_update and call.info.verb == "update":
            error = FieldError("FieldValueInvalid", "metadata.resourceVersion", "must be specified for an update", 0)
            raise invalid(stored.kind, stored.group, call.name, [error])
    elif version != str(entry.revision):
        raise conflict(stored.plural, stored.group, call.name)


def _carry_metadata(meta: Object, old: Object) -> None:
    """What a client leaves out or may not change by an update."""
    for field in ("uid", "creationTimestamp", "managedFields"):
        if not meta.get(field) and field in old:
            meta[field] = old[field]
    for field in ("generation", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if field in old:
            meta[field] = old[field]
        else:
            meta.pop(field, None)
    meta.pop("selfLink", None)
