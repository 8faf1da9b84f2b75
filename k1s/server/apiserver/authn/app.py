"""Who asks: the ways to prove it, in the order in which they are tried.

1. in-process caller (context["user"])  2. client certificate  3. bearer token (also as WebSocket subprotocol)  4. anonymous
Tokens: static file, service accounts, bootstrap tokens, then those that somebody else has to be asked about (OIDC, webhook).

Owns: Authenticator. Called by: apiserver/app, the agent's TokenReviews. Never does: authorize.
A credential that is presented and wrong is 401, never anonymous. Nothing behind this filter (a proxied pod, an extension
server) gets to see a token: forward.py passes no Authorization on, one in a subprotocol is taken off here.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from k1s.api.errors import unauthorized
from k1s.base.http import Request
from k1s.server.apiserver.attributes import ANONYMOUS, UserInfo
from k1s.server.apiserver.authn import x509
from k1s.server.apiserver.authn.jwt import InvalidToken, NotOurs
from k1s.server.apiserver.authn.node_keys import NodeKeys

log = logging.getLogger("k1s.apiserver.authn")

ALL_AUTHENTICATED = "system:authenticated"
ALL_UNAUTHENTICATED = "system:unauthenticated"
_WEBSOCKET_PREFIX = "base64url.bearer.authorization.k8s.io."
_NOT_ANYBODYS = "invalid bearer token"
# A user and the audiences that the token is good for.
Checked = tuple[UserInfo, tuple[str, ...]]


class TokenChecker(Protocol):
    """Knows one kind of bearer token, from memory. InvalidToken if it is not a good one, NotOurs if it is of no kind it knows."""

    def check(self, token: str, audiences: Sequence[str] = ()) -> Checked: ...


class RemoteTokenChecker(Protocol):
    """The same where somebody may have to be asked."""

    async def check(self, token: str, audiences: Sequence[str] = ()) -> Checked: ...


class Authenticator:
    """`tokens`: the checkers of bearer tokens, asked in order; `remote` those asked after them. `nodes`: shuts out nodes that
    were removed. `anonymous`: whether a path may be asked for without credentials."""

    def __init__(
        self,
        tokens: Sequence[TokenChecker],
        *,
        remote: Callable[[], Sequence[RemoteTokenChecker]] = tuple,
        nodes: NodeKeys | None = None,
        anonymous: Callable[[str], bool] = lambda path: True,
    ) -> None:
        self._tokens, self._remote, self._nodes = tuple(tokens), remote, nodes
        self._anonymous = anonymous

    async def authenticate(self, request: Request) -> UserInfo:
        """The user behind a request; ApiError 401 if its credentials are wrong, 403 if it is a node that was removed."""
        known = request.context.get("user")
        if isinstance(known, UserInfo):
            return known
        faults: list[str] = []
        if request.peer is not None and request.peer.common_name:
            try:
                found = x509.user(request.peer)
                if self._nodes is not None:
                    self._nodes.check(found, request.peer)
                return _authenticated(found)
            except InvalidToken as error:
                faults.append(str(error))
        try:
            token = bearer_token(request)
            if token:
                user, _ = await self.check_token(token)
                return user
        except InvalidToken as error:
            faults.append(str(error))
        if faults or not self._anonymous(request.path):
            log.debug("request of %s refused: %s", request.remote, "; ".join(faults) or "no credentials")
            raise unauthorized()
        return ANONYMOUS

    async def check_token(self, token: str, audiences: Sequence[str] = ()) -> Checked:
        """The token's user and the audiences it is good for. InvalidToken, worded as in a TokenReview, if no checker knows it."""
        faults = [_NOT_ANYBODYS]
        for checker in self._tokens:
            try:
                user, meant = checker.check(token, audiences)
                return _authenticated(user), meant
            except NotOurs:
                continue
            except InvalidToken as error:
                faults.append(str(error))
        for remote in self._remote():
            try:
                user, meant = await remote.check(token, audiences)
                return _authenticated(user), meant
            except NotOurs:
                continue
            except InvalidToken as error:
                faults.append(str(error))
        unique = list(dict.fromkeys(faults))
        raise InvalidToken(unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]")


def bearer_token(request: Request) -> str:
    """From the Authorization header, or from the WebSocket subprotocol that browsers use instead; "" if there is none.

    Raises InvalidToken.
    """
    parts = request.headers.first("authorization").strip().split(" ", 2)
    if len(parts) > 1 and parts[0].lower() == "bearer" and parts[1]:
        return parts[1]
    if "sec-websocket-protocol" not in request.headers or request.headers.first("upgrade").lower() != "websocket":
        return ""
    return _websocket_token(request)


def _websocket_token(request: Request) -> str:
    name = "sec-websocket-protocol"
    offered = [text.strip() for value in request.headers.each(name) for text in value.split(",")]
    found = [text[len(_WEBSOCKET_PREFIX) :] for text in offered if text.startswith(_WEBSOCKET_PREFIX)]
    if not found:
        return ""
    if len(found) > 1:
        raise InvalidToken("multiple base64.bearer.authorization tokens specified")
    rest = [text for text in offered if text and not text.startswith(_WEBSOCKET_PREFIX)]
    if not rest:
        raise InvalidToken("missing additional subprotocol")
    encoded = found[0].rstrip("=")
    try:
        token = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidToken("invalid base64.bearer.authorization token encoding") from error
    # The other end of a proxied WebSocket is not told the token.
    request.headers = type(request.headers)([*request.headers.without(name).items(), (name, ", ".join(rest))])
    return token


def shared_audiences(wanted: Sequence[str], meant: Sequence[str]) -> tuple[str, ...]:
    """For tokens that name no audience: they are good for the API's own (`meant`). NotOurs if none of those is wanted."""
    shared = tuple(audience for audience in wanted if audience in meant) if wanted else tuple(meant)
    if not shared:
        raise NotOurs
    return shared


def _authenticated(user: UserInfo) -> UserInfo:
    if ALL_AUTHENTICATED in user.groups or ALL_UNAUTHENTICATED in user.groups:
        return user
    return replace(user, groups=(*user.groups, ALL_AUTHENTICATED))
