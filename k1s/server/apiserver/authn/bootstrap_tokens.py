"""Bootstrap tokens on the API: Secrets of kube-system that let a machine ask for its first certificate.

Owns: BootstrapTokens. Called by: authn/app. Never does: delete what has expired (controllers/token_cleaner).
Source: upstream plugin/pkg/auth/authenticator/token/bootstrap. A user system:bootstrap:<id> of the group system:bootstrappers.
Whatever is wrong with a token, it is just not known: who guesses ids learns nothing.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Sequence

from k1s.api import bootstrap_token
from k1s.api.catalog import builtin
from k1s.base.clock import Clock
from k1s.client.interface import InformerFactory
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.authn.app import Checked, shared_audiences
from k1s.server.apiserver.authn.jwt import NotOurs

_EXTRA_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


class BootstrapTokens:
    """`audiences`: the API's own."""

    def __init__(self, informers: InformerFactory, clock: Clock, audiences: Sequence[str]) -> None:
        self._secrets = informers.informer(builtin("Secret"))
        self._clock, self._audiences = clock, tuple(audiences)

    def check(self, token: str, audiences: Sequence[str] = ()) -> Checked:
        parts = bootstrap_token.split(token)
        if parts is None:
            raise NotOurs
        identity, given = parts
        secret = self._secrets.get(bootstrap_token.secret_name(identity), bootstrap_token.NAMESPACE)
        known = bootstrap_token.field(secret, "token-secret") if secret is not None else ""
        same = hmac.compare_digest(given.encode(), (known or secrets.token_hex(8)).encode())
        if secret is None or not same or secret["metadata"].get("deletionTimestamp"):
            raise NotOurs
        if bootstrap_token.field(secret, "token-id") != identity or not bootstrap_token.may_authenticate(secret):
            raise NotOurs
        left = bootstrap_token.seconds_left(secret, self._clock.now())
        if left is not None and left <= 0:
            raise NotOurs
        more = [g.strip() for g in bootstrap_token.field(secret, "auth-extra-groups").split(",") if g.strip()]
        if not all(_EXTRA_GROUP.fullmatch(group) for group in more):
            raise NotOurs
        groups = tuple(sorted({bootstrap_token.GROUP, *more}))
        user = UserInfo(bootstrap_token.USER_PREFIX + identity, groups)
        return user, shared_audiences(audiences, self._audiences)
