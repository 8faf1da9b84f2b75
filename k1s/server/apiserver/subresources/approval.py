"""certificatesigningrequests/approval: the conditions Approved, Denied, Failed.

Owns: update, patch. Called by: registry. Never does: sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.base.clock import rfc3339
from k1s.base.http import Answer, Request
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.handlers.patch import patch as patch_handler
from k1s.server.apiserver.handlers.update import put
from k1s.server.apiserver.strategies.base import Strategy
from k1s.server.apiserver.strategies.certificates import CertificateSigningRequest
from k1s.server.apiserver.writes import Reset

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]


async def update(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await put(request, info, user, server, _reset(server))


async def patch(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await patch_handler(request, info, user, server, _reset(server))


def _reset(server: ApiServer) -> Reset:
    def reset(strategy: Strategy, obj: Object, old: Object) -> None:
        CertificateSigningRequest.reset_approval(obj, old)
        now = rfc3339(server.clock.now())
        for condition in obj["status"].get("conditions") or []:
            condition.setdefault("lastUpdateTime", now)
            condition.setdefault("lastTransitionTime", now)

    return reset
