"""GET of one object (and of a subresource that shows the object itself).

Owns: handle. Called by: registry. Never does: decode, unless another form than plain JSON is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k1s.api.errors import bad_request
from k1s.base.http import Answer, Request
from k1s.server.apiserver.answers import PARTIAL, TABLE, object_answer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.negotiation import accepted

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    resource = info.resource
    assert resource is not None
    media = accepted(request, TABLE, PARTIAL)
    version = request.param("resourceVersion") if request.query else ""
    if version and version != "0":
        if not version.isdigit():
            raise bad_request(
                f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: parsing "{version}": invalid syntax'
            )
        await server.reach(int(version))
    entry = await server.objects.get(resource, info.namespace if resource.namespaced else "", info.name)
    raw = await server.shown(resource, entry)
    return object_answer(request, resource, raw, server.clock.now(), media=media)
