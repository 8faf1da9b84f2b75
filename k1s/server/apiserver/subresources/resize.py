"""pods/resize: changes the resources of a running pod's containers, and their resize policy; nothing else.

Owns: update, patch. Called by: registry. Never does: apply them (the agent does, in place).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k1s.api.clone import clone
from k1s.api.errors import FieldError, invalid
from k1s.base.http import Answer, Request
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.handlers.patch import patch as patch_handler
from k1s.server.apiserver.handlers.update import put
from k1s.server.apiserver.strategies.base import Strategy, carry
from k1s.server.apiserver.strategies.pod import qos_class

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

_LISTS = ("containers", "initContainers")


async def update(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await put(request, info, user, server, _reset)


async def patch(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await patch_handler(request, info, user, server, _reset)


def _reset(strategy: Strategy, obj: Object, old: Object) -> None:
    """Take resources and resizePolicy from the new object, the rest from the old. Raises ApiError 422."""
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
    if spec != wanted and _otherwise_changed(spec, wanted):
        text = "only cpu and memory resources are mutable"
        raise invalid("Pod", "", old["metadata"]["name"], [FieldError("FieldValueForbidden", "spec", text)])
    before, after = qos_class(old.get("spec") or {}), qos_class(spec)
    if before != after:
        error = FieldError("FieldValueInvalid", "metadata", "Pod QOS Class may not change as a result of resizing", before)
        raise invalid("Pod", "", old["metadata"]["name"], [error])
    obj["spec"] = spec
    carry(obj, old, "status")


def _otherwise_changed(kept: Object, wanted: Object) -> bool:
    names = [[c.get("name") for c in spec.get("containers") or []] for spec in (kept, wanted)]
    return names[0] != names[1]
