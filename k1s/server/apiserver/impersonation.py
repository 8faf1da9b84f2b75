"""Acting as someone else: Impersonate-User, -Group, -Uid, -Extra-*.

Owns: reading the headers, checking the verb `impersonate` for every part. Called by: apiserver/app after authentication.
Never does: authenticate. Source: upstream apiserver/pkg/endpoints/filters/impersonation.go.
"""

from __future__ import annotations

from urllib.parse import unquote

from k1s.api.errors import bad_request
from k1s.base.http import Request
from k1s.server.apiserver.attributes import ANONYMOUS, RequestInfo, UserInfo
from k1s.server.apiserver.authn.app import ALL_AUTHENTICATED, ALL_UNAUTHENTICATED
from k1s.server.apiserver.authn.service_accounts import split_subject
from k1s.server.apiserver.authz.app import Authorizer

_USER, _GROUP, _UID, _EXTRA = "impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-"


class Impersonation:
    """`apply` is a filter of the API server."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def apply(self, request: Request, user: UserInfo) -> UserInfo:
        """The user to act as: `user` itself without such headers. Raises ApiError 400, 403."""
        return await impersonate(request, user, self._authorizer)


async def impersonate(request: Request, user: UserInfo, authorizer: Authorizer) -> UserInfo:
    name = request.headers.get(_USER, "")
    groups = _values(request, _GROUP)
    uid = request.headers.get(_UID, "")
    extra = {unquote(key[len(_EXTRA) :]).lower(): _values(request, key) for key in request.headers if key.startswith(_EXTRA)}
    if not name:
        if groups or uid or extra:
            raise bad_request("requested impersonation of groups, uid or extra without impersonating a user")
        return user
    for info in _checks(name, groups, uid, extra):
        await authorizer.authorize(user, info)
    return UserInfo(name, _implied(name, groups), uid, extra)


def _checks(name: str, groups: tuple[str, ...], uid: str, extra: dict[str, tuple[str, ...]]) -> list[RequestInfo]:
    account = split_subject(name)
    if account is not None:
        out = [_info("", "serviceaccounts", account[1], namespace=account[0])]
    else:
        out = [_info("", "users", name)]
    out += [_info("", "groups", group) for group in groups]
    if uid:
        out.append(_info("authentication.k8s.io", "uids", uid))
    for key, values in extra.items():
        out += [_info("authentication.k8s.io", "userextras", value, subresource=key) for value in values]
    return out


def _info(group: str, plural: str, name: str, *, namespace: str = "", subresource: str = "") -> RequestInfo:
    return RequestInfo(True, "", "impersonate", group, "v1", plural, subresource, namespace, name)


def _implied(name: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    """The groups that such a user would have had by logging in."""
    account = split_subject(name)
    if account is not None and not groups:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{account[0]}")
    if name == ANONYMOUS.name:
        return groups if ALL_UNAUTHENTICATED in groups else (*groups, ALL_UNAUTHENTICATED)
    if ALL_AUTHENTICATED in groups or ALL_UNAUTHENTICATED in groups:
        return groups
    return (*groups, ALL_AUTHENTICATED)


def _values(request: Request, name: str) -> tuple[str, ...]:
    """The values of a repeated header, which arrive joined by commas."""
    return tuple(part.strip() for part in request.headers.get(name, "").split(",") if part.strip())
