"""May they: the authorizers in the order in which they are asked; the first that says yes (or, a webhook, no) decides.

1. system:masters  2. those that were configured; by default node (kubelets: only what their pods need), then RBAC

Owns: Authorizer, Decision and the wording of a refusal. Called by: apiserver/app, reviews, impersonation, admission.
Never does: I/O. Source: upstream pkg/kubeapiserver/authorizer, apiserver/pkg/authorization/union.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from k1s.api.errors import ApiError, forbidden
from k1s.server.apiserver.answers import PlainError
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.authz.node import NodeAuthorizer, node_name
from k1s.server.apiserver.authz.rbac import RbacAuthorizer
from k1s.server.apiserver.authz.rules import Rule

MASTERS = "system:masters"


@dataclass(frozen=True, slots=True)
class Decision:
    """Neither `allowed` nor `denied`: no opinion, which refuses in the end. `error`: what could not be found out."""

    allowed: bool
    denied: bool = False
    reason: str = ""
    error: str = ""


@runtime_checkable
class LocalAuthorizer(Protocol):
    """Decides from memory."""

    def allowed(self, user: UserInfo, info: RequestInfo) -> tuple[bool, str]: ...


class RemoteAuthorizer(Protocol):
    """Asks somebody."""

    async def decide(self, user: UserInfo, info: RequestInfo) -> Decision: ...


class Fixed:
    """The modes AlwaysAllow and AlwaysDeny."""

    def __init__(self, allow: bool) -> None:
        self._allow = allow

    def allowed(self, user: UserInfo, info: RequestInfo) -> tuple[bool, str]:
        return self._allow, "" if self._allow else "Everything is forbidden."


class Authorizer:
    """`configured`: who is asked, in order; node and RBAC unless there is a configuration of another mind."""

    def __init__(
        self, rbac: RbacAuthorizer, node: NodeAuthorizer, configured: Sequence[LocalAuthorizer | RemoteAuthorizer] | None = None
    ) -> None:
        self.rbac, self.node = rbac, node
        self.configure((node, rbac) if configured is None else configured)

    def configure(self, authorizers: Sequence[LocalAuthorizer | RemoteAuthorizer]) -> None:
        """From now on these are asked."""
        self._all = tuple(authorizers)
        self._local = tuple(a for a in authorizers if isinstance(a, LocalAuthorizer))
        self._remote = len(self._local) < len(self._all)

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        """ApiError 403 unless the user may."""
        if not self._remote:
            good, reason = self.decide(user, info)
            if not good:
                raise refusal(user, info, reason)
            return
        decision = await self._ask(user, info)
        if decision.allowed:
            return
        if decision.error:
            # Nobody said yes, and somebody could not be asked.
            raise PlainError(500, "InternalError", f"Internal Server Error: {_q(info.path)}: {decision.error}")
        raise refusal(user, info, decision.reason)

    async def allowed(self, user: UserInfo, info: RequestInfo) -> tuple[bool, str]:
        if not self._remote:
            return self.decide(user, info)
        decision = await self._ask(user, info)
        return decision.allowed, decision.reason

    async def review(self, user: UserInfo, info: RequestInfo) -> Decision:
        """As SubjectAccessReviews answer: with the reason for a yes, too."""
        if self._remote:
            return await self._ask(user, info)
        good, reason = self.decide(user, info)
        return Decision(good, reason=reason or self.why(user, info) if good else reason)

    def decide(self, user: UserInfo, info: RequestInfo) -> tuple[bool, str]:
        """Without waiting: what those say that read memory only."""
        if MASTERS in user.groups:
            return True, ""
        reasons = []
        for authorizer in self._local:
            good, reason = authorizer.allowed(user, info)
            if good:
                return True, reason
            if reason:
                reasons.append(reason)
        return False, "\n".join(reasons)

    def rules_for(self, user: UserInfo, namespace: str) -> tuple[tuple[Rule, ...], tuple[str, ...], bool]:
        """Every rule that can be named for a user in a namespace, what is wrong, and whether there may be more."""
        rules: tuple[Rule, ...] = ()
        errors: list[str] = []
        incomplete = False
        for authorizer in self._all:
            if authorizer is self.rbac:
                found, faults = self.rbac.rules_for(user, namespace)
                rules += found
                errors += faults
            elif authorizer is self.node and node_name(user):
                errors.append("node authorizer does not support user rule resolution")
                incomplete = True
            elif not isinstance(authorizer, LocalAuthorizer):
                errors.append("webhook authorizer does not support user rule resolution")
                incomplete = True
            elif isinstance(authorizer, Fixed) and authorizer.allowed(user, RequestInfo(False, "/", "get"))[0]:
                rules += (
                    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                    {"verbs": ["*"], "nonResourceURLs": ["*"]},
                )
        return rules, tuple(errors), incomplete

    async def _ask(self, user: UserInfo, info: RequestInfo) -> Decision:
        if MASTERS in user.groups:
            return Decision(True)
        reasons: list[str] = []
        errors: list[str] = []
        for authorizer in self._all:
            if isinstance(authorizer, LocalAuthorizer):
                good, reason = authorizer.allowed(user, info)
                decision = Decision(good, reason=reason or self.why(user, info) if good and authorizer is self.rbac else reason)
            else:
                decision = await authorizer.decide(user, info)
            if decision.error:
                errors.append(decision.error)
            if decision.reason:
                reasons.append(decision.reason)
            if decision.allowed or decision.denied:
                return Decision(decision.allowed, decision.denied, decision.reason, ", ".join(errors))
        return Decision(False, False, "\n".join(reasons), ", ".join(errors))

    def why(self, user: UserInfo, info: RequestInfo) -> str:
        """What lets a request through, "" where nothing needs to be said."""
        return "" if MASTERS in user.groups or self.rbac not in self._all else self.rbac.why(user, info)


def refusal(user: UserInfo, info: RequestInfo, reason: str) -> ApiError:
    """The 403 as upstream words it."""
    text = describe(user, info) + (f": {reason}" if reason else "")
    if not info.is_resource:
        return ApiError(403, "Forbidden", f"forbidden: {text}")
    return forbidden(info.plural, info.group, info.name, text)


def describe(user: UserInfo, info: RequestInfo) -> str:
    """`User "u" cannot get resource "pods/log" in API group "" in the namespace "n"`."""
    if not info.is_resource:
        return f"User {_q(user.name)} cannot {info.verb} path {_q(info.path)}"
    resource = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
    scope = f"in the namespace {_q(info.namespace)}" if info.namespace else "at the cluster scope"
    return f"User {_q(user.name)} cannot {info.verb} resource {_q(resource)} in API group {_q(info.group)} {scope}"


def _q(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
