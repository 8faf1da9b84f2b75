"""Acting as someone else: Impersonate-User, -Group, -Uid, -Extra-*.

Owns: reading the headers, checking the verb `impersonate` for every part. Called by: apiserver/app after authentication.
Never does: authenticate. Source: upstream apiserver/pkg/endpoints/filters/impersonation.

What was asked for must be allowed part by part: naming a user alone gives none of their groups, uid or extra. The headers are
taken off the request then, so that nothing behind (an extension server, a pod) acts on them once more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import unquote

from k1s.base.http import Headers, Request
from k1s.server.apiserver.answers import PlainError
from k1s.server.apiserver.attributes import ANONYMOUS, RequestInfo, UserInfo
from k1s.server.apiserver.authn.app import ALL_AUTHENTICATED, ALL_UNAUTHENTICATED
from k1s.server.apiserver.authn.service_accounts import split_subject
from k1s.server.apiserver.authz.app import Authorizer

_USER, _GROUP, _UID, _EXTRA = "impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-"
_AUTHENTICATION = "authentication.k8s.io"
# Where Request.context keeps who really asks, for the audit log.
IMPERSONATOR = "impersonator"


@dataclass(frozen=True, slots=True)
class _Part:
    """One thing to be: an ObjectReference upstream, which its error message prints."""

    kind: str
    name: str
    namespace: str = ""
    version: str = ""
    key: str = ""

    def __str__(self) -> str:
        return "{" + " ".join((self.kind, self.namespace, self.name, "", self.version, "", self.key)) + "}"

    def question(self) -> RequestInfo:
        match self.kind:
            case "ServiceAccount":
                return _ask("", "serviceaccounts", self.name, namespace=self.namespace)
            case "User":
                return _ask("", "users", self.name)
            case "Group":
                return _ask("", "groups", self.name)
            case "UID":
                return _ask(_AUTHENTICATION, "uids", self.name)
            case _:
                return _ask(_AUTHENTICATION, "userextras", self.name, subresource=self.key)


class Impersonation:
    """`apply` is a filter of the API server."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def apply(self, request: Request, user: UserInfo) -> UserInfo:
        """The user to act as: `user` itself without such headers. Raises ApiError 403, 500."""
        return await impersonate(request, user, self._authorizer)


async def impersonate(request: Request, user: UserInfo, authorizer: Authorizer) -> UserInfo:
    headers = request.headers
    # Most requests have none: one look at the names is all it costs them.
    named = [key for key in headers if key.startswith("impersonate-")]
    parts = _parts(headers, named) if named else []
    if not parts:
        return user
    if parts[0].kind not in ("User", "ServiceAccount"):
        asked = " ".join(str(part) for part in parts)
        text = f"Internal Server Error: {json.dumps(request.raw_path or request.path)}: requested [{asked}]"
        raise PlainError(500, "InternalError", f"{text} without impersonating a user")
    for part in parts:
        await authorizer.authorize(user, part.question())
    request.headers = headers.without(*named)
    request.context[IMPERSONATOR] = user
    return _whole(parts)


def _parts(headers: Headers, named: list[str]) -> list[_Part]:
    """In upstream's order: user, groups, extra, uid."""
    out: list[_Part] = []
    user, uid = headers.first(_USER), headers.first(_UID)
    if user:
        account = split_subject(user)
        out.append(_Part("ServiceAccount", account[1], account[0]) if account else _Part("User", user))
    out += [_Part("Group", group) for group in headers.each(_GROUP)]
    for key in named:
        if key.startswith(_EXTRA):
            extra = unquote(key[len(_EXTRA) :])
            out += [_Part("UserExtra", value, version=f"{_AUTHENTICATION}/v1", key=extra) for value in headers.each(key)]
    if uid:
        out.append(_Part("UID", uid, version=f"{_AUTHENTICATION}/v1"))
    return out


def _whole(parts: list[_Part]) -> UserInfo:
    first = parts[0]
    name = f"system:serviceaccount:{first.namespace}:{first.name}" if first.kind == "ServiceAccount" else first.name
    groups = tuple(part.name for part in parts if part.kind == "Group")
    if first.kind == "ServiceAccount" and not groups:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{first.namespace}")
    extra: dict[str, tuple[str, ...]] = {}
    for part in parts:
        if part.kind == "UserExtra":
            extra[part.key] = (*extra.get(part.key, ()), part.name)
    uid = next((part.name for part in parts if part.kind == "UID"), "")
    return UserInfo(name, _completed(name, groups), uid, extra)


def _completed(name: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    """With the group that such a user would have had by logging in."""
    if name == ANONYMOUS.name:
        return groups if ALL_UNAUTHENTICATED in groups else (*groups, ALL_UNAUTHENTICATED)
    if ALL_AUTHENTICATED in groups or ALL_UNAUTHENTICATED in groups:
        return groups
    return (*groups, ALL_AUTHENTICATED)


def _ask(group: str, plural: str, name: str, *, namespace: str = "", subresource: str = "") -> RequestInfo:
    return RequestInfo(True, "", "impersonate", group, "v1", plural, subresource, namespace, name)
