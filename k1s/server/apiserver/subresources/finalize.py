"""namespaces/finalize: takes finalizers out of a namespace's spec; the last one lets it go.

Owns: handle. Called by: registry. Never does: empty the namespace (a controller does, and then comes here).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.base.http import Answer, Request
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.handlers.update import put
from k1s.server.apiserver.strategies.base import Strategy, carry

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await put(request, info, user, server, _reset)


def _reset(strategy: Strategy, obj: Object, old: Object) -> None:
    carry(obj, old, "status")
