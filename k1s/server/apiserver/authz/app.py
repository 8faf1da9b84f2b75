"""May they: the authorizers in the order in which they are asked; the first that says yes decides.

1. system:masters  2. node (kubelets: only what their pods need)  3. RBAC

Owns: Authorizer and the wording of a refusal. Called by: apiserver/app, reviews, impersonation, admission.
Never does: I/O.
"""

from __future__ import annotations

import json

from k1s.api.errors import ApiError, forbidden
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.authz.node import NodeAuthorizer
from k1s.server.apiserver.authz.rbac import RbacAuthorizer

MASTERS = "system:masters"


class Authorizer:
    def __init__(self, rbac: RbacAuthorizer, node: NodeAuthorizer) -> None:
        self.rbac, self._node = rbac, node

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        """ApiError 403 unless the user may."""
        good, reason = self.decide(user, info)
        if not good:
            raise refusal(user, info, reason)

    async def allowed(self, user: UserInfo, info: RequestInfo) -> tuple[bool, str]:
        return self.decide(user, info)

    def decide(self, user: UserInfo, info: RequestInfo) -> tuple[bool, str]:
        """The same without waiting: every authorizer reads memory only."""
        if MASTERS in user.groups:
            return True, ""
        reasons = []
        for authorizer in (self._node, self.rbac):
            good, reason = authorizer.allowed(user, info)
            if good:
                return True, reason
            if reason:
                reasons.append(reason)
        return False, "\n".join(reasons)


def refusal(user: UserInfo, info: RequestInfo, reason: str) -> ApiError:
    """The 403 as upstream words it."""
    text = describe(user, info) + (f": {reason}" if reason else "")
    if not info.is_resource:
        return ApiError(403, "Forbidden", f"forbidden: {text}")
    return forbidden(info.plural, info.group, info.name, text)


def describe(user: UserInfo, info: RequestInfo) -> str:
    """`User "u" cannot get resource "pods/log" in API group "" in the namespace "n"`."""
    q = json.dumps
    if not info.is_resource:
        return f"User {q(user.name)} cannot {info.verb} path {q(info.path)}"
    resource = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
    scope = f"in the namespace {q(info.namespace)}" if info.namespace else "at the cluster scope"
    return f"User {q(user.name)} cannot {info.verb} resource {q(resource)} in API group {q(info.group)} {scope}"
