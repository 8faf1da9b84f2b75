"""Service account tokens bound to pods.

Owns: asking for them by TokenRequest and getting a new one in time. Called by: volumes/payload.
Never does: write files, log a token.
Bounds: one token per (pod, audience, lifetime); dropped with the pod. A new one after 80 % of its life, or 24 hours.
Source: pkg/kubelet/token/token_manager.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from k1s.agent.pods.model import Object, pod_uid
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.clock import Clock, parse_rfc3339
from k1s.client.interface import Client

_DEFAULT_SECONDS = 3600
_REFRESH_SHARE = 0.8
_MAX_AGE = 24 * 3600.0


class TokenFault(Exception):
    """No token could be had."""


@dataclass(frozen=True, slots=True)
class _Token:
    """`expires` and `refresh_at` by this machine's clock."""

    text: str
    expires: float
    refresh_at: float


class TokenManager:
    """One for the agent."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._tokens: dict[tuple[str, str, int], _Token] = {}

    async def get(self, pod: Object, source: Object) -> str:
        """A token for a serviceAccountToken source; the cached one while it is young. Raises TokenFault."""
        seconds = int(source.get("expirationSeconds") or _DEFAULT_SECONDS)
        key = (pod_uid(pod), source.get("audience") or "", seconds)
        known = self._tokens.get(key)
        if known is not None and self._clock.now() < known.refresh_at:
            return known.text
        try:
            known = self._tokens[key] = await self._request(pod, key[1], seconds)
        except ApiError as error:
            if known is not None and self._clock.now() < known.expires:
                return known.text  # the old one still works; the next refresh tries again
            raise TokenFault(f"failed to fetch token: {error}") from error
        return known.text

    def next_refresh(self, uid: str) -> float | None:
        """When the pod's volumes must be looked at again because of a token."""
        return min((t.refresh_at for key, t in self._tokens.items() if key[0] == uid), default=None)

    def forget(self, uid: str) -> None:
        for key in [k for k in self._tokens if k[0] == uid]:
            del self._tokens[key]

    async def _request(self, pod: Object, audience: str, seconds: int) -> _Token:
        meta = pod["metadata"]
        account = pod["spec"].get("serviceAccountName") or "default"
        request: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {},
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
            },
        }
        answer = await self._client.create(
            builtin("ServiceAccount"), request, meta["namespace"], subresource="token", name=account
        )
        status, now = answer["status"], self._clock.now()
        # Both times are the server's: a clock of this machine that is off makes no token old or everlasting.
        issued = (answer.get("metadata") or {}).get("creationTimestamp")
        life = parse_rfc3339(status["expirationTimestamp"]) - (parse_rfc3339(issued) if issued else now)
        return _Token(status["token"], now + life, now + min(life * _REFRESH_SHARE, _MAX_AGE))
