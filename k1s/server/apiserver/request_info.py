"""What a request asks for, read off its path and method.

Owns: parse(). Called by: app. Never does: check that the resource is served or that the caller may.
Source: apiserver/pkg/endpoints/request.RequestInfoFactory.
"""

from __future__ import annotations

from k1s.api.catalog import Catalog
from k1s.api.errors import ApiError, bad_request
from k1s.api.selectors import parse_fields
from k1s.base.http import Request
from k1s.server.apiserver.attributes import RequestInfo

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NAMESPACE_SUBRESOURCES = ("status", "finalize")
_NO_SUBRESOURCES = ("proxy", "watch")


def parse(request: Request, catalog: Catalog) -> RequestInfo:
    """The RequestInfo. Raises ApiError 400 for /api/v1/watch without anything behind it."""
    path = request.path
    parts = [part for part in path.split("/") if part]
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return _other(request)
    group = ""
    if parts[0] == "apis":
        if len(parts) < 4:
            return _other(request)
        group = parts[1]
        parts = parts[2:]
    else:
        parts = parts[1:]
    version, parts = parts[0], parts[1:]
    verb = _VERBS.get(request.method, "")
    if parts[0] in _NO_SUBRESOURCES:
        if len(parts) < 2:
            raise bad_request(f"unable to determine kind and namespace from url, {path}")
        verb, parts = parts[0], parts[1:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
    plural = parts[0]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 and verb not in _NO_SUBRESOURCES else ""
    labels = fields = ""
    if not name or verb == "watch":
        labels, fields = request.param("labelSelector"), request.param("fieldSelector")
    if not name:
        if verb == "get":
            verb = "watch" if truthy(request, "watch") else "list"
            name = _name_from(fields)
        elif verb == "delete":
            verb = "deletecollection"
    tail = ""
    if subresource == "proxy":
        tail = _behind(path, len([part for part in path.split("/") if part]) - len(parts) + 3)
    resource = catalog.by_plural(group, version, plural)
    return RequestInfo(True, path, verb, group, version, plural, subresource, namespace, name, resource, tail, labels, fields)


def _behind(path: str, count: int) -> str:
    """What follows so many segments, empty ones not counted; by number, for names may be `proxy` or `api` as well."""
    at = 0
    for _ in range(count):
        while path[at : at + 1] == "/":
            at += 1
        at = path.find("/", at)
        if at < 0:
            return ""
    return path[at:]


def _other(request: Request) -> RequestInfo:
    return RequestInfo(False, request.path, request.method.lower())


def truthy(request: Request, name: str) -> bool:
    """A boolean query parameter as upstream reads it: there, and neither 0 nor false."""
    for key, value in request.query:
        if key == name:
            return value.lower() not in ("0", "false")
    return False


def _name_from(fields: str) -> str:
    """A list of one name counts as a request for that name, so that a role may allow it by resourceNames.

    Read as the handler reads it: `x!=a\\,metadata.name=b` names nobody, and would else list what one may not see.
    """
    if "metadata.name" not in fields:
        return ""
    try:
        name = parse_fields(fields).required_value("metadata.name") or ""
    except ApiError:
        return ""
    return "" if name in (".", "..") or "/" in name or "%" in name else name
