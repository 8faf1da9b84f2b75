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
    """Keep all of the pod but the list of ephemeral containers, which may only grow. Raises ApiError 422."""
    wanted = (obj.get("spec") or {}).get("ephemeralContainers") or []
    spec = clone(old.get("spec") or {})
    errors = _errors(wanted, spec)
    if errors:
        raise invalid("Pod", "", old["metadata"]["name"], errors)
    if wanted:
        spec["ephemeralContainers"] = wanted
    obj["spec"] = spec
    carry(obj, old, "status")


def _errors(wanted: list[Object], spec: Object) -> list[FieldError]:
    errors: list[FieldError] = []
    path = "spec.ephemeralContainers"
    by_name = {c.get("name"): c for c in wanted}
    for existing in spec.get("ephemeralContainers") or []:
        found = by_name.get(existing.get("name"))
        if found is None or found != existing:
            text = f"existing ephemeral containers {existing.get('name')!r} may not be removed or changed"
            errors.append(FieldError("FieldValueForbidden", path, text.replace("'", '"')))
    taken = {c.get("name") for c in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]}
    targets = taken | {""}
    seen: set[Any] = set()
    for position, container in enumerate(wanted):
        name = container.get("name")
        if not name:
            errors.append(FieldError("FieldValueRequired", f"{path}[{position}].name"))
        elif name in taken or name in seen:
            errors.append(FieldError("FieldValueDuplicate", f"{path}[{position}].name", "", name))
        if not container.get("image"):
            errors.append(FieldError("FieldValueRequired", f"{path}[{position}].image"))
        target = container.get("targetContainerName") or ""
        if target not in targets:
            errors.append(FieldError("FieldValueNotFound", f"{path}[{position}].targetContainerName", "", target))
        for field in ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"):
            if container.get(field):
                text = "cannot be set for an Ephemeral Container"
                errors.append(FieldError("FieldValueForbidden", f"{path}[{position}].{field}", text))
        seen.add(name)
    return errors
