"""PUT of an object, or of its status.

Owns: handle, handle_status, and creation by PUT where the kind allows it. Called by: registry. Never does: store by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import PARTIAL, TABLE, object_answer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.call import Call
from k1s.server.apiserver.entries import Entry
from k1s.server.apiserver.negotiation import accepted
from k1s.server.apiserver.strategies.table import strategy_for
from k1s.server.apiserver.write_meta import check_place, check_uid
from k1s.server.apiserver.writes import Reset, create_object, reset_main, reset_status, update_object

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await put(request, info, user, server, reset_main)


async def handle_status(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await put(request, info, user, server, reset_status)


async def put(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer, reset: Reset) -> Answer:
    call = Call(request, info, user, server)
    media = accepted(request, TABLE, PARTIAL, protobuf=not call.resource.custom)
    call.options("UpdateOptions")
    body = await call.object(call.resource)
    check_place(call, body["metadata"])
    status = 200
    first = [body]

    def produce(current: Object, entry: Entry) -> Object:
        # The pipeline changes what it gets, and it may run more than once.
        return first.pop() if first else clone(original)

    original = clone(body) if _may_repeat(body) else body
    try:
        entry = await update_object(call, produce, reset=reset)
    except ApiError as error:
        if error.code != 404 or reset is not reset_main or not strategy_for(call.stored).create_on_update:
            raise
        check_uid(call, body["metadata"], None)
        await call.may_create()
        entry = await create_object(call, body)
        status = 201
    raw = await server.shown(call.resource, entry)
    headers = call.warning_headers() if call.warnings else ()
    return object_answer(request, call.resource, raw, server.clock.now(), media=media, status=status, headers=headers)


def _may_repeat(body: Object) -> bool:
    # With a resourceVersion a lost race is a conflict for the client to solve; only without one is the write tried again.
    return not body["metadata"].get("resourceVersion")
