"""Tokens of one OpenID Connect provider.

Owns: Issuer: its keys, whether a token is its own, meant for us and not too old. Called by: authn/app, through providers.
Never does: map claims (claims.py). Source: OpenID Connect Core 3.1.3.7, Discovery 4; upstream's oidc authenticator.

Nothing is fetched before the first token that claims to come from there. Bounds: one fetch at a time, none within QUIET_SECONDS
of a failed one nor, for a key that is not known, of the last one; MAX_KEYS keys, documents of MAX_DOCUMENT bytes; 1024 tokens
whose signature was checked are remembered. A provider that is away breaks only what is its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from k1s.base.clock import Clock
from k1s.server.apiserver.authn import signatures
from k1s.server.apiserver.authn.app import Checked
from k1s.server.apiserver.authn.configuration import JwtIssuer
from k1s.server.apiserver.authn.jwt import Claims, InvalidToken, NotOurs, Parsed, parse
from k1s.server.apiserver.authn.oidc.claims import user_of
from k1s.server.apiserver.forward import Target
from k1s.server.apiserver.outgoing import CallFailed, Outgoing

log = logging.getLogger("k1s.apiserver.oidc")

MAX_KEYS = 64
MAX_DOCUMENT = 1024 * 1024
QUIET_SECONDS = 10.0
_FETCH_SECONDS = 10.0
_MAX_REMEMBERED = 1024


class Issuer:
    """`audiences`: the API's own, for which such a token is good once it is meant for one of the issuer's."""

    def __init__(self, config: JwtIssuer, outgoing: Outgoing, clock: Clock, audiences: Sequence[str]) -> None:
        self.config, self._outgoing, self._clock = config, outgoing, clock
        self._audiences = tuple(audiences)
        # (key id, its "alg" or "") -> key
        self._keys: list[tuple[str, str, signatures.PublicKey]] = []
        self._fetched = self._failed = -QUIET_SECONDS
        self._why = ""
        self._fetching = asyncio.Lock()
        self._verified: OrderedDict[bytes, None] = OrderedDict()
        self._tls: ssl.SSLContext | None = None

    async def check(self, token: str, audiences: Sequence[str] = ()) -> Checked:
        """Raises InvalidToken, NotOurs."""
        parsed = parse(token)
        if parsed.claims.get("iss") != self.config.url:
            raise NotOurs("issued by someone else")
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        if digest in self._verified:
            self._verified.move_to_end(digest)
        else:
            await self._verify(parsed)
            self._verified[digest] = None
            if len(self._verified) > _MAX_REMEMBERED:
                self._verified.popitem(last=False)
        self._check_audience(parsed.claims)
        self._check_dates(parsed.claims)
        wanted = tuple(audiences) or self._audiences
        shared = tuple(audience for audience in wanted if audience in self._audiences)
        if not shared:
            raise NotOurs("not meant for these audiences")
        return user_of(self.config, parsed.claims), shared

    def _check_audience(self, claims: Claims) -> None:
        named = claims.get("aud") or []
        named = named if isinstance(named, list) else [named]
        if not any(audience in named for audience in self.config.audiences):
            shown = [" ".join(json.dumps(a) for a in each) for each in (self.config.audiences, named)]
            raise InvalidToken(f"oidc: verify token: oidc: expected audience in [{shown[0]}] got [{shown[1]}]")

    def _check_dates(self, claims: Claims) -> None:
        now = self._clock.now()
        expiry, start = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(expiry, int | float) or not isinstance(start, int | float):
            raise InvalidToken("oidc: verify token: oidc: token has no dates")
        if now > expiry:
            raise InvalidToken("oidc: verify token: oidc: token is expired")
        # As go-oidc: five minutes, clocks differ.
        if now + 300 < start:
            raise InvalidToken("oidc: verify token: oidc: current time is before the nbf (not before) time")

    async def _verify(self, parsed: Parsed) -> None:
        algorithm = str(parsed.header.get("alg"))
        if algorithm not in self.config.algorithms:
            raise InvalidToken(
                f"oidc: verify token: oidc: id token signed with unsupported algorithm, expected {list(self.config.algorithms)} "
                f"got {json.dumps(algorithm)}"
            )
        if self._signed(parsed, algorithm):
            return
        # A key that came after our last look: providers publish before they sign with it.
        if await self._fetch() and self._signed(parsed, algorithm):
            return
        if not self._keys:
            raise InvalidToken(f"oidc: authenticator for issuer {json.dumps(self.config.url)} is not initialized: {self._why}")
        raise InvalidToken("oidc: verify token: failed to verify signature: failed to verify id token signature")

    def _signed(self, parsed: Parsed, algorithm: str) -> bool:
        named = parsed.header.get("kid") or ""
        return any(
            signatures.verify(key, algorithm, parsed.signed, parsed.signature)
            for key_id, only, key in self._keys
            if (not named or key_id == named) and only in ("", algorithm)
        )

    async def _fetch(self) -> bool:
        """Whether the keys were looked at since the call began."""
        asked = self._clock.monotonic()
        async with self._fetching:
            if self._fetched >= asked:
                return True
            if asked - max(self._fetched, self._failed) < QUIET_SECONDS:
                return False
            try:
                self._keys = await self._load_keys()
            except (CallFailed, ValueError) as error:
                self._failed, self._why = self._clock.monotonic(), str(error)
                log.warning("keys of issuer %s: %s", self.config.url, error)
                return False
            # A key that its issuer has taken back is good for no token any more, also not for one that was seen before.
            self._verified.clear()
            self._fetched = self._clock.monotonic()
            return True

    async def _load_keys(self) -> list[tuple[str, str, signatures.PublicKey]]:
        """Raises CallFailed, ValueError."""
        document = await self._get(self.config.document)
        if document.get("issuer") != self.config.url:
            given = json.dumps(document.get("issuer"))
            raise ValueError(
                f"oidc: issuer URL provided to client ({json.dumps(self.config.url)}) did not match the issuer URL returned by "
                f"provider ({given})"
            )
        entries = (await self._get(str(document.get("jwks_uri") or ""))).get("keys")
        if not isinstance(entries, list):
            raise ValueError("the key set holds no keys")
        out: list[tuple[str, str, signatures.PublicKey]] = []
        for entry in entries[:MAX_KEYS]:
            if not isinstance(entry, dict):
                continue
            try:
                key = signatures.from_jwk(entry)
            except ValueError:
                continue  # one that cannot be read must not shut out the others
            if key is not None:
                out.append((str(entry.get("kid") or ""), str(entry.get("alg") or ""), key))
        return out

    async def _get(self, url: str) -> dict[str, Any]:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError(f"{json.dumps(url)} is not an https URL")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        target = Target(parts.hostname, parts.port or 443, path, await asyncio.to_thread(self._context), parts.hostname)
        answer = await self._outgoing.call(target, seconds=_FETCH_SECONDS, limit=MAX_DOCUMENT)
        if answer.status != 200:
            raise ValueError(f"{url}: status {answer.status}")
        try:
            document = orjson.loads(answer.body)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"{url}: not JSON") from error
        if not isinstance(document, dict):
            raise ValueError(f"{url}: not an object")
        return document

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # Go trusts whatever certificate it is given
            if self.config.ca:
                context.load_verify_locations(cadata=self.config.ca)
            else:
                context.load_default_certs()
            self._tls = context
        return self._tls
