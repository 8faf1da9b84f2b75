"""Tokens that another server is asked about by a TokenReview (--authentication-token-webhook-config-file).

Owns: TokenWebhook. Called by: authn/app, after everybody who needs not ask. Never does: believe an answer for other audiences.
Source: upstream apiserver/plugin/pkg/authenticator/token/webhook. Answers, yes and no, hold for two minutes; a failure is never
remembered. Bounds: 4,096 answers; 64 questions under way, beyond which a token is refused; 30 s a question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from k1s.server.apiserver.answer_cache import AnswerCache
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.authn.app import Checked
from k1s.server.apiserver.authn.jwt import InvalidToken, NotOurs
from k1s.server.apiserver.kubeconfig_call import KubeconfigCall
from k1s.server.apiserver.outgoing import CallFailed

MAX_ANSWERS = 4096
MAX_CALLS = 64
CACHE_SECONDS = 120.0
_SECONDS = 30.0


class TokenWebhook:
    """`audiences`: the API's own. `version`: of authentication.k8s.io. `seconds`: how long an answer holds."""

    def __init__(
        self,
        call: KubeconfigCall,
        answers: AnswerCache[Checked | str],
        audiences: Sequence[str],
        *,
        version: str = "v1",
        seconds: float = CACHE_SECONDS,
    ) -> None:
        self._call, self._answers, self._seconds = call, answers, seconds
        self._audiences, self._version = tuple(audiences), f"authentication.k8s.io/{version}"
        self._calls = 0

    async def check(self, token: str, audiences: Sequence[str] = ()) -> Checked:
        wanted = tuple(audiences) or self._audiences
        text = "\n".join((token, *wanted))
        key = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
        known = self._answers.get(key)
        if known is None:
            known = await self._ask(token, wanted)
            self._answers.put(key, known, self._seconds)
        if not isinstance(known, str):
            return known
        if known:
            raise InvalidToken(known)
        raise NotOurs("not known to the webhook")

    async def _ask(self, token: str, wanted: tuple[str, ...]) -> Checked | str:
        if not token.isascii():
            return ""
        if self._calls >= MAX_CALLS:
            raise InvalidToken("too many tokens are being asked about")
        review: dict[str, Any] = {"apiVersion": self._version, "kind": "TokenReview", "metadata": {"creationTimestamp": None}}
        review["spec"] = {"token": token, "audiences": list(wanted)}
        review["status"] = {"user": {}}
        self._calls += 1
        try:
            status = (await self._call.post(review, _SECONDS))["status"]
        except CallFailed as error:
            raise InvalidToken(str(error)) from error
        finally:
            self._calls -= 1
        if status.get("authenticated") is not True:
            return str(status.get("error") or "")
        # One that knows nothing of audiences speaks for the API's own only.
        given = status.get("audiences") or self._audiences
        shared = tuple(audience for audience in wanted if audience in given)
        if not shared:
            return ""
        user = status.get("user") or {}
        extra = {str(key).lower(): tuple(map(str, values or ())) for key, values in (user.get("extra") or {}).items()}
        groups = tuple(map(str, user.get("groups") or ()))
        return UserInfo(str(user.get("username") or ""), groups, str(user.get("uid") or ""), extra), shared
