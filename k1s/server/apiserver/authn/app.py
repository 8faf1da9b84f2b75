"""Who asks: the ways to prove it, in the order in which they are tried.

1. in-process caller (context["user"])  2. client certificate  3. bearer token (also as WebSocket subprotocol)  4. anonymous

Owns: Authenticator. Called by: apiserver/app, the agent's TokenReviews. Never does: authorize.
A credential that is presented and wrong is 401, never anonymous.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from k1s.api.errors import unauthorized
from k1s.base.http import Request
from k1s.server.apiserver.attributes import ANONYMOUS, UserInfo
from k1s.server.apiserver.authn import x509
from k1s.server.apiserver.authn.jwt import InvalidToken
from k1s.server.apiserver.authn.node_keys import NodeKeys

ALL_AUTHENTICATED = "system:authenticated"
ALL_UNAUTHENTICATED = "system:unauthenticated"
_WEBSOCKET_PREFIX = "base64url.bearer.authorization.k8s.io."


class TokenChecker(Protocol):
    """Knows one kind of bearer token. InvalidToken if it is not a good one of that kind."""

    def check(self, token: str, audiences: Sequence[str] = ()) -> tuple[UserInfo, tuple[str, ...]]: ...


class Authenticator:
    """`tokens`: the checkers of bearer tokens, asked in order. `nodes`: shuts out nodes that were removed."""

    def __init__(self, tokens: Sequence[TokenChecker], *, nodes: NodeKeys | None = None, anonymous: bool = True) -> None:
        self._tokens, self._nodes = tuple(tokens), nodes
        self._anonymous = anonymous

    async def authenticate(self, request: Request) -> UserInfo:
        """The user behind a request; ApiError 401 if its credentials are wrong, 403 if it is a node that was removed."""
        known = request.context.get("user")
        if isinstance(known, UserInfo):
            return known
        if request.peer is not None and request.peer.common_name:
            found = x509.user(request.peer)
            if self._nodes is not None:
                self._nodes.check(found, request.peer)
            return _authenticated(found)
        token = bearer_token(request)
        if token:
            user, _ = self.check_token(token)
            return user
        if not self._anonymous:
            raise unauthorized()
        return ANONYMOUS

    def check_token(self, token: str, audiences: Sequence[str] = ()) -> tuple[UserInfo, tuple[str, ...]]:
        """The token's user and the audiences it is good for; ApiError 401 if no checker knows it."""
        for checker in self._tokens:
            try:
                user, meant = checker.check(token, audiences)
            except InvalidToken:
                continue
            return _authenticated(user), meant
        raise unauthorized()


def bearer_token(request: Request) -> str:
    """From the Authorization header, or from the WebSocket subprotocol that browsers use instead; "" if there is none."""
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and value.strip():
        return value.strip()
    for protocol in request.headers.get("sec-websocket-protocol", "").split(","):
        text = protocol.strip()
        if text.startswith(_WEBSOCKET_PREFIX):
            encoded = text[len(_WEBSOCKET_PREFIX) :]
            try:
                return base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode()
            except (binascii.Error, ValueError) as error:
                raise unauthorized() from error
    return ""


def _authenticated(user: UserInfo) -> UserInfo:
    if ALL_AUTHENTICATED in user.groups or ALL_UNAUTHENTICATED in user.groups:
        return user
    return replace(user, groups=(*user.groups, ALL_AUTHENTICATED))
