"""A request as webhooks and CEL expressions see it: the fields of admission.k8s.io/v1 AdmissionRequest without the objects.

Owns: describe. Called by: webhooks/review, conditions, policies. Never does: I/O.
"""

from __future__ import annotations

from typing import Any

from k1s.api.catalog import Resource
from k1s.server.apiserver.attributes import AdmissionRequest

Object = dict[str, Any]

_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions", "CONNECT": ""}


def describe(request: AdmissionRequest, row: Resource) -> Object:
    """`row`: the version that was matched, which may be another one than the client asked for."""
    asked, sub = request.resource, request.subresource
    out: Object = {
        "kind": _kind(row, request),
        "resource": {"group": row.group, "version": row.version, "resource": row.plural},
        "requestKind": _kind(asked, request),
        "requestResource": {"group": asked.group, "version": asked.version, "resource": asked.plural},
        "name": request.name,
        "namespace": request.namespace,
        "operation": request.operation,
        "userInfo": _user(request),
        "dryRun": request.dry_run,
        "options": request.options or _options(request),
    }
    if sub is not None:
        out["subResource"] = out["requestSubResource"] = sub.name
    if asked.qualified == "namespaces" and not request.namespace:
        out["namespace"] = request.name
    return out


def _kind(row: Resource, request: AdmissionRequest) -> Object:
    obj = request.obj or request.old or {}
    own = obj.get("kind")
    if request.subresource is not None and own and own != row.kind:
        group, _, version = str(obj.get("apiVersion") or "").rpartition("/")
        return {"group": group, "version": version, "kind": own}
    return {"group": row.group, "version": row.version, "kind": row.kind}


def _user(request: AdmissionRequest) -> Object:
    user = request.user
    out: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        out["uid"] = user.uid
    if user.extra:
        out["extra"] = {key: list(values) for key, values in user.extra.items()}
    return out


def _options(request: AdmissionRequest) -> Object | None:
    kind = _OPTIONS[request.operation]
    if not kind:
        return None
    options: Object = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    if request.dry_run:
        options["dryRun"] = ["All"]
    return options
