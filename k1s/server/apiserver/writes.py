"""The pipeline of a write, step by step: the only way into the object store.

Owns: create_object and update_object, which every writing handler goes through. Called by: handlers, subresources.
Never does: decode bodies (call.py) or decide about deletion (deletion.py).

decoded and typed -> storage version -> defaults -> field ownership -> mutating admission -> strategy.reset -> strategy.prepare
-> validation -> validating admission -> store
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from k1s.api.catalog import Resource
from k1s.api.clone import clone
from k1s.api.decode import check_types
from k1s.api.defaults.table import apply_defaults
from k1s.api.errors import ApiError, FieldError, already_exists, bad_request, invalid
from k1s.api.prune import prune
from k1s.api.schema import schema_for
from k1s.api.validation.table import validate_create, validate_subresource_update, validate_update
from k1s.api.warnings.table import on_create, on_status_update, on_update
from k1s.base.clock import rfc3339
from k1s.server.apiserver.attributes import AdmissionRequest
from k1s.server.apiserver.call import Call
from k1s.server.apiserver.deletion import finished
from k1s.server.apiserver.entries import Entry, encode
from k1s.server.apiserver.field_owners import after_admission, asks_before_conversion, track_write
from k1s.server.apiserver.strategies.base import Strategy
from k1s.server.apiserver.strategies.table import strategy_for
from k1s.server.apiserver.write_meta import (
    carry,
    check_place,
    check_uid,
    check_version,
    generated,
    name_conflict,
    place_new,
    single_owners,
    wipe,
)

Object = dict[str, Any]

# Subresources that do not touch the spec.
_NO_SPEC = ("status", "approval", "finalize")
# generateName: how often a taken name is replaced by another one (upstream's RetryGenerateName).
_NAME_TRIES = 8
_AFTER_ADMISSION = " after mutating admission happens"


async def create_object(call: Call, obj: Object, *, applied: bool = False) -> Entry:
    """Store a new object (given in the version of call.resource). `applied`: field ownership is recorded already."""
    stored, server = call.stored, call.server
    strategy = strategy_for(stored)
    meta = obj["metadata"]
    if meta.get("resourceVersion") not in (None, "", "0") and call.info.verb == "create":
        raise bad_request("resourceVersion should not be set on objects to be created")
    place_new(call, meta)
    wipe(meta)
    single_owners(call, meta)
    strategy.normalize(obj)
    _complete_asked(call, obj)
    now = rfc3339(server.clock.now())
    early = asks_before_conversion(call)
    if not applied:
        meta.pop("managedFields", None)
        if early:
            await track_write(call, None, obj, now)
    obj = await server.convert(obj, call.resource, stored)
    _default(call, obj)
    meta = obj["metadata"]
    if not applied and not early:
        await track_write(call, None, obj, now)
    admission = AdmissionRequest(
        "CREATE", call.resource, call.subresource, call.namespace, meta.get("name") or "", obj, None, call.user, call.dry_run
    )
    admission.annotations, admission.options = call.annotations, call.options_object("CreateOptions")
    if server.admission is not None:
        record = meta.get("managedFields")
        await server.admission.mutate(admission)
        _after_patch(call, admission, obj)
        after_admission(call, obj["metadata"], record)
    strategy.reset_create(obj)
    if obj.get("status") == {} and not stored.custom:
        obj["status"] = clone(_empty_status(stored))
    meta = obj["metadata"]
    single_owners(call, meta, _AFTER_ADMISSION)
    wipe(meta)
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = now
    meta.pop("generation", None)
    strategy.prepare_create(call, obj)
    return await _store_named(call, strategy, obj, admission)


async def _store_named(call: Call, strategy: Strategy, obj: Object, admission: AdmissionRequest) -> Entry:
    """Store a new object under its name, or one made up for it."""
    meta = obj["metadata"]
    generate = meta.get("generateName") if not meta.get("name") else ""
    for _ in range(_NAME_TRIES):
        if generate:
            meta["name"] = generated(generate)
        try:
            return await _store_new(call, strategy, obj, admission)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            if not generate and meta.get("generateName"):
                break
            if not generate:
                await _note_deletion(call, meta["name"], error)
                raise
    raise name_conflict(call.stored, meta["name"])


async def _note_deletion(call: Call, name: str, error: ApiError) -> None:
    """Whoever makes a name anew is told that the old object is on its way out."""
    found = await call.server.objects.find(call.stored, call.namespace, name)
    if found is not None and found.obj()["metadata"].get("deletionTimestamp"):
        error.message = f"object is being deleted: {error.message}"


async def _store_new(call: Call, strategy: Strategy, obj: Object, admission: AdmissionRequest) -> Entry:
    stored, server = call.stored, call.server
    name = obj["metadata"].get("name") or ""
    try:
        await strategy.allocate(call, obj, None)
        errors = validate_create(stored, obj, call.resource)
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


# (current, entry) -> the wanted object; the current one is a copy of its own.
Produce = Callable[[Object, Entry], Object | Awaitable[Object]]


async def update_object(
    call: Call,
    produce: Produce,
    *,
    reset: Reset = reset_main,
    applied: bool = False,
    view: View | None = None,
) -> Entry:
    """Change an existing object. `produce(current, entry)` gives the wanted object, both in the version of call.resource.

    It is called again with the newer object when somebody else was faster. `applied`: field ownership is recorded already.
    Raises ApiError 404, 409, 422.
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


async def _changed(call: Call, entry: Entry, produce: Produce, reset: Reset, applied: bool, view: View | None) -> Object:
    stored, server = call.stored, call.server
    strategy = strategy_for(stored)
    old = await server.convert(entry.obj(), stored, stored)
    current = await server.convert(entry.fresh(), stored, call.resource)
    before = clone(current) if not applied and asks_before_conversion(call) else None
    wanted = produce(current, entry)
    if not isinstance(wanted, dict):
        wanted = await wanted
    meta = wanted["metadata"]
    check_place(call, meta)
    if call.info.verb == "update" and view is None:
        check_uid(call, meta, entry)
        single_owners(call, meta)
    check_version(call, strategy, meta, entry)
    strategy.normalize(wanted)
    _complete_asked(call, wanted)
    now = rfc3339(server.clock.now())
    if before is not None:
        await track_write(call, before, wanted, now)
    obj = await server.convert(wanted, call.resource, stored)
    _default(call, obj)
    if not applied and before is None:
        await track_write(call, old, obj, now)
    admission = await _admit_update(call, obj, old, view)
    carry(obj["metadata"], old["metadata"])
    single_owners(call, obj["metadata"], _AFTER_ADMISSION)
    reset(strategy, obj, old)
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


async def _admit_update(call: Call, obj: Object, old: Object, view: View | None) -> AdmissionRequest:
    """Let the mutating steps change `obj` in place."""
    server = call.server
    admission = AdmissionRequest(
        "UPDATE", call.resource, call.subresource, call.namespace, call.name, obj, old, call.user, call.dry_run
    )
    admission.annotations, admission.options = call.annotations, call.options_object("UpdateOptions")
    if view is not None:
        admission.obj, admission.old = view.of(obj), view.of(old)
    if server.admission is not None:
        record = obj["metadata"].get("managedFields")
        await server.admission.mutate(admission)
        if view is not None and admission.patched and admission.obj is not None:
            view.put(obj, admission.obj)
        _after_patch(call, admission, obj)
        after_admission(call, obj["metadata"], record)
    return admission


def _update_warnings(call: Call, obj: Object, old: Object) -> list[str]:
    if not call.info.subresource:
        return on_update(call.stored, obj, old)
    return on_status_update(call.stored, obj, old) if call.info.subresource == "status" else []


def _update_errors(call: Call, obj: Object, old: Object) -> list[FieldError]:
    if call.info.subresource:
        errors = validate_subresource_update(call.stored, call.info.subresource, obj, old)
    else:
        errors = validate_update(call.stored, obj, old, call.resource)
    if call.stored.custom:
        status = call.info.subresource == "status"
        errors += call.server.custom.faults(call.stored, obj, old, status=status, warnings=call.warnings)
    return errors


def _default(call: Call, obj: Object) -> None:
    if call.stored.custom:
        call.server.custom.default(call.stored, obj)
    else:
        apply_defaults(call.stored, obj)


@cache
def _empty_status(stored: Resource) -> Object:
    """What Go writes for a status nobody has set: its zeros. Bounded by the kinds."""
    probe: Object = {"apiVersion": stored.api_version, "kind": stored.kind, "metadata": {}, "status": {}}
    apply_defaults(stored, probe)
    found: Object = probe["status"]
    return found


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
