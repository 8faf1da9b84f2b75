"""pods/resize: changes the resources of a running pod's containers, and their resize policy; nothing else.

Owns: update, patch. Called by: registry. Never does: apply them (the agent does, in place).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.api.clone import clone
from k1s.base.http import Answer, Request
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.handlers.patch import patch as patch_handler
from k1s.server.apiserver.handlers.update import put
from k1s.server.apiserver.strategies.base import Strategy, carry

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

_LISTS = ("containers", "initContainers")


async def update(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await put(request, info, user, server, _reset)


async def patch(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await patch_handler(request, info, user, server, _reset)


def _reset(strategy: Strategy, obj: Object, old: Object) -> None:
    """Take resources and resizePolicy from the new object, the rest from the old."""
    wanted = obj.get("spec") or {}
    spec = clone(old.get("spec") or {})
    for name in _LISTS:
        by_name = {c.get("name"): c for c in wanted.get(name) or []}
        for container in spec.get(name) or []:
            found = by_name.get(container.get("name"), {})
            for field in ("resources", "resizePolicy"):
                if field in found:
                    container[field] = found[field]
    if "resources" in wanted:
        spec["resources"] = wanted["resources"]
    obj["spec"] = spec
    carry(obj, old, "status")
