"""pods/ephemeralcontainers: adds debugging containers to a running pod; nothing else of it can be changed here.

Owns: update, patch. Called by: registry. Never does: start them.
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

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]


async def update(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await put(request, info, user, server, _reset)


async def patch(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    return await patch_handler(request, info, user, server, _reset)


def _reset(strategy: Strategy, obj: Object, old: Object) -> None:
    """Keep all of the pod but the list of ephemeral containers (validation lets it only grow). Raises ApiError 422."""
    wanted = (obj.get("spec") or {}).get("ephemeralContainers") or []
    spec = clone(old.get("spec") or {})
    errors = _clashes(wanted, spec)
    if errors:
        raise invalid("Pod", "", old["metadata"]["name"], errors)
    spec.pop("ephemeralContainers", None)
    if wanted:
        spec["ephemeralContainers"] = wanted
    obj["spec"] = spec
    carry(obj, old, "status")


def _clashes(wanted: list[Object], spec: Object) -> list[FieldError]:
    """Names that another container has, and targets that none has."""
    errors: list[FieldError] = []
    taken = {c.get("name") for c in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]}
    for position, container in enumerate(wanted):
        path = f"spec.ephemeralContainers[{position}]"
        name, target = container.get("name"), container.get("targetContainerName")
        if name in taken:
            errors.append(FieldError("FieldValueDuplicate", f"{path}.name", "", name))
        if target and target not in taken:
            errors.append(FieldError("FieldValueNotFound", f"{path}.targetContainerName", "", target))
    return errors
