"""Which function answers which request for a resource.

Owns: Registry: (group, plural, subresource) and verb -> handler. Called by: app, server/app (through ApiServer's parameters).
Never does: handle anything itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from k1s.api.catalog import Resource
from k1s.api.errors import bad_request, method_not_allowed, path_not_found
from k1s.base.http import Answer, Request
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.handlers import create, delete, get, list, patch, update, watch
from k1s.server.apiserver.subresources import approval, binding, ephemeral, eviction, finalize, resize, scale

# (request, info, user, server) -> answer
ResourceHandler = Callable[[Request, RequestInfo, UserInfo, Any], Awaitable[Answer]]
# A resource and subresource: one handler for all its verbs, whatever they are.
HandlerKey = tuple[str, str, str]

_VERBS: dict[str, ResourceHandler] = {
    "create": create.handle,
    "get": get.handle,
    "list": list.handle,
    "watch": watch.handle,
    "update": update.handle,
    "patch": patch.handle,
    "delete": delete.handle,
    "deletecollection": delete.handle_collection,
}

_STATUS: dict[str, ResourceHandler] = {"get": get.handle, "update": update.handle_status, "patch": patch.handle_status}

_SUBRESOURCES: dict[str, dict[str, ResourceHandler]] = {
    "status": _STATUS,
    "scale": {"get": scale.get, "update": scale.update, "patch": scale.patch},
    "binding": {"create": binding.handle},
    "eviction": {"create": eviction.handle},
    "finalize": {"update": finalize.handle},
    "ephemeralcontainers": {"get": get.handle, "update": ephemeral.update, "patch": ephemeral.patch},
    "resize": {"get": get.handle, "update": resize.update, "patch": resize.patch},
    "approval": {"get": get.handle, "update": approval.update, "patch": approval.patch},
}

# Kinds that are not stored, of ours: ("", "bindings") is the old way to bind a pod.
_OWN: dict[HandlerKey, ResourceHandler] = {("", "bindings", ""): binding.handle_collection}


class Registry:
    """`extra`: handlers of other parts (reviews, tokens, exec, logs, proxies), for whole resources or subresources."""

    def __init__(self, extra: Mapping[HandlerKey, ResourceHandler]) -> None:
        self._extra = {**_OWN, **extra}

    def find(self, info: RequestInfo) -> ResourceHandler:
        """Raises ApiError 404, 405."""
        resource = info.resource
        if resource is None or not _has_such_a_path(resource, info):
            raise path_not_found()
        name = info.subresource
        if name:
            subresource = resource.subresource(name)
            if subresource is None:
                raise path_not_found()
            verbs = subresource.verbs
        else:
            verbs = resource.verbs
        verb = info.verb
        extra = self._extra.get((resource.group, resource.plural, name))
        # OPTIONS has no verb of its own, and is passed on by proxies as every other method is.
        passed_on = name == "proxy" and not verb
        if (verb not in verbs and not passed_on) or (not name and info.name and verb in ("create",)):
            raise method_not_allowed()
        if verb in ("update", "patch") and not info.name:
            # Routes of built-in kinds know no such thing; those of custom resources look for the name later.
            raise bad_request("name must be provided") if resource.custom else method_not_allowed()
        if extra is not None:
            return extra
        if not resource.persisted:
            raise path_not_found()
        table = _SUBRESOURCES.get(name) if name else _VERBS
        handler = table.get(verb) if table is not None else None
        if handler is None:
            raise path_not_found()
        return handler


def _has_such_a_path(resource: Resource, info: RequestInfo) -> bool:
    """Nothing that is the cluster's lies below a namespace: whoever may do everything in theirs was let through until here.

    A namespace itself, and its subresources, count as in it.
    """
    if not info.namespace or resource.namespaced:
        return True
    return not resource.group and resource.plural == "namespaces" and info.name == info.namespace
