"""DELETE of one object, and of a whole collection.

Owns: handle, handle_collection, read_options. Called by: registry. Never does: the deleting itself (deletion.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from k1s.api.errors import ApiError, bad_request
from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import PARTIAL, TABLE, json_answer, object_answer
from k1s.server.apiserver.attributes import AdmissionRequest, RequestInfo, UserInfo
from k1s.server.apiserver.call import Call, decode_body
from k1s.server.apiserver.deletion import DeleteOptions, delete_object, deleted_status
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.handlers.list import select, selected
from k1s.server.apiserver.negotiation import accepted, body_form
from k1s.server.apiserver.strategies.table import strategy_for

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

# Objects of a collection that are deleted at the same time: they share commits.
_AT_ONCE = 32


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    call = Call(request, info, user, server)
    media = accepted(request, TABLE, PARTIAL)
    options = await read_options(call)
    entry = await server.objects.get(call.stored, call.namespace, call.name)
    await _admit(call, entry, options)
    entry, gone = await delete_object(server, call.stored, call.namespace, call.name, options, call.origin)
    headers = call.warning_headers()
    if gone and not strategy_for(call.stored).returns_deleted:
        return json_answer(deleted_status(call.resource, entry), headers=headers)
    status = 202 if not gone and options.orphan is False else 200
    raw = await server.shown(call.resource, entry)
    return object_answer(request, call.resource, raw, server.clock.now(), media=media, status=status, headers=headers)


async def handle_collection(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    call = Call(request, info, user, server)
    options = await read_options(call)
    if options.uid or options.resource_version:
        raise bad_request("preconditions are not allowed in a deletion of a collection")
    selection = select(call.resource, info, call.namespace)
    await server.objects.fresh()
    entries = selected(server, call.resource, selection)
    deleted: list[bytes] = []
    for start in range(0, len(entries), _AT_ONCE):
        gone = await asyncio.gather(*(_delete_one(call, entry, options) for entry in entries[start : start + _AT_ONCE]))
        deleted += [raw for raw in gone if raw is not None]
    head = (
        f'{{"kind":"{call.resource.list_kind}","apiVersion":"{call.resource.api_version}",'
        f'"metadata":{{"resourceVersion":"{server.objects.revision}"}},"items":['
    )
    return object_answer(request, call.resource, head.encode() + b",".join(deleted) + b"]}", server.clock.now())


async def _delete_one(call: Call, entry: Entry, options: DeleteOptions) -> bytes | None:
    """The object's last state; None if it had gone already."""
    try:
        await _admit(call, entry, options)
        last, _ = await delete_object(call.server, call.stored, entry.namespace, entry.name, options, call.origin)
    except ApiError as error:
        if error.code != 404:
            raise
        return None
    return await call.server.shown(call.resource, last)


async def _admit(call: Call, entry: Entry, options: DeleteOptions) -> None:
    admission = call.server.admission
    if admission is None:
        return
    step = AdmissionRequest(
        "DELETE", call.resource, None, entry.namespace, entry.name, None, entry.obj(), call.user, options.dry_run
    )
    step.annotations, step.options = call.annotations, options.as_object()
    await admission.mutate(step)
    await admission.validate(step)
    call.warnings += step.warnings


async def read_options(call: Call) -> DeleteOptions:
    """From the body, or from the query where the body is silent. Raises ApiError 400, 422."""
    data = await call.body()
    obj: dict[str, Any] = {}
    if data.strip():
        obj, _ = decode_body(data, body_form(call.request))
        if obj.get("kind") not in (None, "", "DeleteOptions"):
            raise bad_request(f'{obj["kind"]} in version "v1" cannot be handled as a DeleteOptions: unexpected kind')
    query = call.request
    if not data.strip():
        grace = query.param("gracePeriodSeconds")
        if grace:
            if not grace.removeprefix("-").isdigit():
                raise bad_request(f'strconv.ParseInt: parsing "{grace}": invalid syntax')
            obj["gracePeriodSeconds"] = int(grace)
        if query.param("propagationPolicy"):
            obj["propagationPolicy"] = query.param("propagationPolicy")
        if query.param("orphanDependents"):
            obj["orphanDependents"] = query.param("orphanDependents").lower() not in ("0", "false")
        dry_run = query.params("dryRun")
        if dry_run:
            obj["dryRun"] = dry_run
    options = DeleteOptions.read(obj)
    call.dry_run = options.dry_run
    return options
