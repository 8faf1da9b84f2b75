"""Those outside who say who somebody is: OpenID Connect providers and a webhook, as they are configured at the moment.

Owns: Providers. Called by: server/security; authn/app asks `remote` and `anonymous`. Never does: check a token.
A provider that a changed configuration leaves as it was keeps its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from k1s.base.clock import Clock
from k1s.server.apiserver.authn.app import RemoteTokenChecker
from k1s.server.apiserver.authn.configuration import AuthenticationConfig
from k1s.server.apiserver.authn.oidc.issuer import Issuer
from k1s.server.apiserver.outgoing import Outgoing


class Providers:
    """`config` says what holds now. `audiences`: the API's own. `webhook` is asked last."""

    def __init__(
        self,
        config: Callable[[], AuthenticationConfig],
        outgoing: Outgoing,
        clock: Clock,
        audiences: Sequence[str],
        webhook: RemoteTokenChecker | None = None,
    ) -> None:
        self._config, self._outgoing, self._clock = config, outgoing, clock
        self._audiences, self._webhook = tuple(audiences), webhook
        self._known: AuthenticationConfig | None = None
        self._issuers: tuple[Issuer, ...] = ()
        self._all: tuple[RemoteTokenChecker, ...] = ()

    def remote(self) -> Sequence[RemoteTokenChecker]:
        config = self._config()
        if config is not self._known:
            kept = {issuer.config: issuer for issuer in self._issuers}
            self._issuers = tuple(
                kept.get(wanted) or Issuer(wanted, self._outgoing, self._clock, self._audiences) for wanted in config.issuers
            )
            self._all = (*self._issuers, *(() if self._webhook is None else (self._webhook,)))
            self._known = config
        return self._all

    def anonymous(self, path: str) -> bool:
        return self._config().allows_anonymous(path)
