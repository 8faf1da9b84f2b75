"""POST to a collection.

Owns: handle. Called by: registry. Never does: store by itself (writes.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k1s.api.errors import bad_request
from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import PARTIAL, TABLE, object_answer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.call import Call
from k1s.server.apiserver.negotiation import accepted
from k1s.server.apiserver.writes import create_object

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    call = Call(request, info, user, server)
    if call.resource.namespaced and not call.namespace:
        raise bad_request("an empty namespace may not be set during creation")
    media = accepted(request, TABLE, PARTIAL, protobuf=not call.resource.custom)
    call.options("CreateOptions")
    obj = await call.object(call.resource)
    entry = await create_object(call, obj)
    raw = await server.shown(call.resource, entry)
    headers = call.warning_headers() if call.warnings else ()
    return object_answer(request, call.resource, raw, server.clock.now(), media=media, status=201, headers=headers)
