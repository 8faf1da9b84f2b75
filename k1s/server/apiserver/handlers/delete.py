"""DELETE of one object, and of a whole collection.

Owns: handle, handle_collection, read_options. Called by: registry. Never does: the deleting itself (deletion.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from k1s.api.decode import go_kind
from k1s.api.errors import ApiError, bad_request
from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import (
    PARTIAL,
    PARTIAL_LIST,
    TABLE,
    encoded,
    include_object,
    json_answer,
    object_answer,
    partial,
    table,
)
from k1s.server.apiserver.attributes import AdmissionRequest, RequestInfo, UserInfo
from k1s.server.apiserver.call import Call, decode_body
from k1s.server.apiserver.continuation import Token, read_token
from k1s.server.apiserver.deletion import DeleteOptions, delete_object, deleted_status
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.handlers.list import select, selected
from k1s.server.apiserver.negotiation import PLAIN, accepted, body_form
from k1s.server.apiserver.read_options import list_options
from k1s.server.apiserver.strategies.table import strategy_for

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

# What upstream's scheme of options is called in messages.
_SCHEME = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:37"
# Objects of a collection that are deleted at the same time: they share commits.
_AT_ONCE = 32


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    call = Call(request, info, user, server)
    media = accepted(request, TABLE, PARTIAL, protobuf=not call.resource.custom)
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
    media = accepted(request, TABLE, PARTIAL_LIST)
    page = list_options(request)
    selection = select(call.resource, info, call.namespace)
    options = await read_options(call)
    await server.objects.fresh()
    revision = server.objects.revision
    entries = selected(server, call.resource, selection)
    if page.token:
        after = read_token(page.token, page.version).after
        entries = [entry for entry in entries if entry.key > after]
    meta: Object = {"resourceVersion": str(revision)}
    if page.limit and len(entries) > page.limit:
        # A limit is how many go at most; the token is for who wants to go on.
        entries = entries[: page.limit]
        meta["continue"] = Token(revision, entries[-1].key, server.clock.now()).encode()
    # Upstream answers with the objects as they were found.
    shown = await server.all_shown(call.resource, entries)
    for start in range(0, len(entries), _AT_ONCE):
        await asyncio.gather(*(_delete_one(call, entry, options) for entry in entries[start : start + _AT_ONCE]))
    head = orjson.dumps({"kind": call.resource.list_kind, "apiVersion": call.resource.api_version, "metadata": meta})
    raw = head[:-1] + b',"items":[' + b",".join(shown) + b"]}"
    headers = call.warning_headers()
    if media == PLAIN:
        return object_answer(request, call.resource, raw, server.clock.now(), headers=headers)
    objects = orjson.loads(raw)["items"]
    if media.as_ == TABLE:
        found = table(objects, call.resource, meta, server.clock.now(), include=include_object(request))
    elif media.as_ == PARTIAL_LIST:
        items = [partial(obj) for obj in objects]
        found = {"kind": PARTIAL_LIST, "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items}
    else:
        found = orjson.loads(raw)
    return encoded(found, media, headers=headers)


async def _delete_one(call: Call, entry: Entry, options: DeleteOptions) -> None:
    try:
        await _admit(call, entry, options)
        await delete_object(call.server, call.stored, entry.namespace, entry.name, options, call.origin)
    except ApiError as error:
        # Somebody else may have been faster.
        if error.code != 404:
            raise


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
    """From the body, or from the query where there is none. Raises ApiError 400, 422."""
    data = await call.body()
    obj: Object = {}
    if data:
        obj, _ = decode_body(data, body_form(call.request))
        for key in ("apiVersion", "kind"):
            if not isinstance(obj.get(key) or "", str):
                text = f"cannot unmarshal {go_kind(obj[key])} into Go struct field .{key} of type string"
                raise bad_request(f"couldn't get version/kind; json parse error: json: {text}")
        kind, version = obj.get("kind") or "DeleteOptions", obj.get("apiVersion") or "meta.k8s.io/v1"
        if kind != "DeleteOptions":
            raise bad_request(f'no kind "{kind}" is registered for version "{version}" in scheme "{_SCHEME}"')
    elif call.request.query:
        obj = _of_query(call.request)
    options = DeleteOptions.read(obj)
    call.dry_run = options.dry_run
    return options


def _of_query(query: Request) -> Object:
    obj: Object = {}
    grace = query.param("gracePeriodSeconds")
    if grace:
        if not grace.removeprefix("-").isdecimal():
            raise bad_request(f'strconv.ParseInt: parsing "{grace}": invalid syntax')
        obj["gracePeriodSeconds"] = int(grace)
    if query.param("propagationPolicy"):
        obj["propagationPolicy"] = query.param("propagationPolicy")
    if query.params("orphanDependents"):
        obj["orphanDependents"] = query.param("orphanDependents").lower() not in ("0", "false")
    if query.params("dryRun"):
        obj["dryRun"] = query.params("dryRun")
    return obj
