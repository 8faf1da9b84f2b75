"""What the filters and admission steps are told about a request.

Owns: UserInfo, RequestInfo, AdmissionRequest. Called by: every filter. Never does: I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from k1s.api.catalog import Resource, Subresource

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class UserInfo:
    """Who asks (authentication.k8s.io UserInfo). `extra` maps a key to its values."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)


ANONYMOUS = UserInfo("system:anonymous", ("system:unauthenticated",))


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What is asked, as apiserver/pkg/endpoints/request.RequestInfo: `verb` is the API verb for resource requests, the
    lower-case HTTP method for others (`resource` is then None). `plural` etc. are set even if the resource is not served."""

    is_resource: bool
    path: str
    verb: str
    group: str = ""
    version: str = ""
    plural: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    resource: Resource | None = None
    # What follows proxy/ in a proxy request's path, with its leading slash.
    tail: str = ""
    label_selector: str = ""
    field_selector: str = ""


@dataclass(slots=True)
class AdmissionRequest:
    """One write on its way in. Mutating steps change `obj` in place; `obj` is None for deletions, `old` for creations.

    `operation`: CREATE, UPDATE, DELETE, CONNECT. `subresource` is None for the object itself.
    `warnings` end up as Warning headers, `annotations` in the audit log.
    """

    operation: str
    resource: Resource
    subresource: Subresource | None
    namespace: str
    name: str
    obj: Object | None
    old: Object | None
    user: UserInfo
    dry_run: bool = False
    options: Object = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    # A webhook has changed `obj`: it has to be pruned and given defaults again.
    patched: bool = False
    # The object as each webhook that wants to be asked again saw it last.
    seen: dict[str, bytes] = field(default_factory=dict)
