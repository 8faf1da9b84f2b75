"""GET of one object (and of a subresource that shows the object itself).

Owns: handle. Called by: registry. Never does: decode, unless another form than plain JSON is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import GZIP_THRESHOLD, PARTIAL, TABLE, compressed, object_answer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.negotiation import accepted
from k1s.server.apiserver.read_options import revision

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    resource = info.resource
    assert resource is not None
    media = accepted(request, TABLE, PARTIAL, protobuf=not resource.custom)
    if request.query:
        await server.reach(revision(request.param("resourceVersion")))
    entry = await server.objects.get(resource, info.namespace if resource.namespaced else "", info.name)
    raw = await server.shown(resource, entry)
    answer = object_answer(request, resource, raw, server.clock.now(), media=media)
    return answer if len(answer.body) <= GZIP_THRESHOLD else await compressed(request, answer)
