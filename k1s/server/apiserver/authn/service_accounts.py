"""Tokens of service accounts: what they say, and whether it is still true.

Owns: issuing bound tokens (TokenRequest), validating bound and legacy ones against the live objects, the cache of verified
signatures. Called by: authn/app, subresources/token, secret_tokens. Never does: authorize; I/O (it reads informers).
Source: upstream pkg/serviceaccount (claims, legacy), kube-apiserver's service account admission (the 3607 seconds).

A token is bound to objects by uid: when the service account, pod, node or secret has gone or been replaced, it stops working,
whatever its expiry says. Signatures are checked once per token (cache: 4096 tokens, least recently used goes), the
objects on every request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from k1s.api.catalog import builtin
from k1s.base.clock import Clock, parse_rfc3339
from k1s.client.interface import Informer, InformerFactory, Object
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.authn.jwt import Claims, InvalidToken, NotOurs, TokenKeys, parse

LEGACY_ISSUER = "kubernetes/serviceaccount"
TOKEN_SECRET_TYPE = "kubernetes.io/service-account-token"
# Labels of a Secret whose token was used, or is not to be used any more (KEP-2799).
LAST_USED, INVALID_SINCE = "kubernetes.io/legacy-token-last-used", "kubernetes.io/legacy-token-invalid-since"
# What admission asks for in the projected volume. Old client libraries read the token once, so such a token lives a year
# while its reader is told to come back within the hour (upstream's ServiceAccountTokenExtension).
PROJECTED_SECONDS = 3607
_EXTENDED_SECONDS = 365 * 24 * 3600
# Clocks differ a little, and an object that is being deleted keeps its token for as long.
_LEEWAY = 60.0
_CACHE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Bound:
    """The object a token is bound to, beside its service account: kind Pod, Node or Secret."""

    kind: str
    name: str
    uid: str


class ServiceAccountTokens:
    """Issues and checks tokens. `audiences`: the API's own, `issuer` if none are named.

    `others`: issuers whose tokens are still good. `longest`: seconds that a token may live (0: as long as is asked for).
    `extend`: tokens of old client libraries live a year. `used` is told of each use of a token that lives in a Secret.
    """

    def __init__(
        self,
        keys: TokenKeys,
        informers: InformerFactory,
        clock: Clock,
        *,
        issuer: str,
        audiences: Sequence[str] = (),
        others: Sequence[str] = (),
        longest: int = 0,
        extend: bool = True,
    ) -> None:
        self.keys, self.issuer = keys, issuer
        self.audiences = tuple(dict.fromkeys(audiences)) or (issuer,)
        self._issuers = frozenset((issuer, *others))
        self.longest, self._extend = longest, extend
        self.used: Callable[[Object], None] = lambda secret: None
        self._clock = clock
        self._accounts = informers.informer(builtin("ServiceAccount"))
        self._bound: dict[str, Informer] = {
            "pod": informers.informer(builtin("Pod")),
            "node": informers.informer(builtin("Node")),
            "secret": informers.informer(builtin("Secret")),
        }
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()

    def issue(
        self, account: Object, *, audiences: Sequence[str], seconds: int, bound: Bound | None = None, node: Bound | None = None
    ) -> tuple[str, float]:
        """A token and the time at which its holder must have fetched the next. `node`: where a bound pod runs."""
        now = int(self._clock.now())
        meta = account["metadata"]
        inner: Claims = {"namespace": meta["namespace"], "serviceaccount": _reference(meta["name"], meta["uid"])}
        for reference in (bound, node):
            if reference is not None:
                inner[reference.kind.lower()] = _reference(reference.name, reference.uid)
        wanted = tuple(audiences) or self.audiences
        expiry = now + seconds
        extended = self._extend and bound is not None and bound.kind == "Pod" and seconds == PROJECTED_SECONDS
        if extended and set(wanted) <= set(self.audiences):
            inner["warnafter"] = now + seconds
            expiry = now + _EXTENDED_SECONDS
        claims = {
            "aud": list(wanted),
            "exp": expiry,
            "iat": now,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": inner,
            "nbf": now,
            "sub": subject(meta["namespace"], meta["name"]),
        }
        return self.keys.sign(claims), float(now + seconds)

    def issue_legacy(self, account: Object, secret_name: str) -> str:
        """The token that lives in a Secret, for as long as the Secret does."""
        meta = account["metadata"]
        return self.keys.sign(
            {
                "iss": LEGACY_ISSUER,
                "kubernetes.io/serviceaccount/namespace": meta["namespace"],
                "kubernetes.io/serviceaccount/secret.name": secret_name,
                "kubernetes.io/serviceaccount/service-account.name": meta["name"],
                "kubernetes.io/serviceaccount/service-account.uid": meta["uid"],
                "sub": subject(meta["namespace"], meta["name"]),
            }
        )

    def check(self, token: str, audiences: Sequence[str] = ()) -> tuple[UserInfo, tuple[str, ...]]:
        """The token's user, and those of `audiences` (default: the API's) that it is meant for. InvalidToken otherwise."""
        claims = self._verify(token)
        wanted = tuple(audiences) or self.audiences
        if claims.get("iss") == LEGACY_ISSUER:
            # Legacy tokens name no audience: they are the API's.
            shared = _shared(wanted, self.audiences)
            return self._check_legacy(claims, token), shared
        named = claims.get("aud") or self.audiences
        shared = _shared(wanted, [named] if isinstance(named, str) else named)
        self._check_dates(claims)
        return self._check_bound(claims), shared

    def _verify(self, token: str) -> Claims:
        # What strangers send in a header need not be text.
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        claims = self._verified.get(digest)
        if claims is not None:
            self._verified.move_to_end(digest)
            return claims
        # Whose it is comes first: another issuer's token costs no signature here, and is no error.
        issuer = parse(token).claims.get("iss")
        if not isinstance(issuer, str) or (issuer != LEGACY_ISSUER and issuer not in self._issuers):
            raise NotOurs("issued by someone else")
        claims = self.keys.verify(token)
        self._verified[digest] = claims
        if len(self._verified) > _CACHE_SIZE:
            self._verified.popitem(last=False)
        return claims

    def _check_dates(self, claims: Claims) -> None:
        now = self._clock.now()
        expiry, start, issued = claims.get("exp"), claims.get("nbf", 0), claims.get("iat", 0)
        if not all(isinstance(moment, int | float) for moment in (expiry, start, issued)):
            raise InvalidToken("service account token claims could not be validated due to unexpected validation error")
        if now < start - _LEEWAY:
            raise InvalidToken("service account token is not valid yet")
        if now > (expiry or 0) + _LEEWAY:
            raise InvalidToken("service account token has expired")
        if now < issued - _LEEWAY:
            raise InvalidToken("service account token is issued in the future")

    def _check_bound(self, claims: Claims) -> UserInfo:
        inner = claims.get("kubernetes.io")
        if not isinstance(inner, dict) or not isinstance(inner.get("serviceaccount"), dict):
            raise InvalidToken("names no service account")
        namespace, account = str(inner.get("namespace")), inner["serviceaccount"]
        name = str(account.get("name"))
        if claims.get("sub") != subject(namespace, name):
            raise InvalidToken("names two service accounts")
        self._check_account(namespace, name, str(account.get("uid")), "service account")
        extra: dict[str, tuple[str, ...]] = {}
        if claims.get("jti"):
            extra["authentication.kubernetes.io/credential-id"] = (f"JTI={claims['jti']}",)
        pod = inner.get("pod")
        for kind, reference in ((k, inner.get(k)) for k in ("secret", "pod", "node")):
            if reference is None:
                continue
            # The node of a bound pod is information; a token bound to the node alone dies with it.
            if kind != "node" or pod is None:
                self._check_reference(kind, "" if kind == "node" else namespace, reference)
            if kind != "secret":
                extra[f"authentication.kubernetes.io/{kind}-name"] = (str(reference.get("name")),)
                if reference.get("uid"):
                    extra[f"authentication.kubernetes.io/{kind}-uid"] = (str(reference["uid"]),)
        return account_user(namespace, name, str(account["uid"]), extra)

    def _check_legacy(self, claims: Claims, token: str) -> UserInfo:
        prefix = "kubernetes.io/serviceaccount/"
        fields = {
            word: str(claims.get(prefix + key) or "")
            for word, key in (
                ("namespace", "namespace"),
                ("secretName", "secret.name"),
                ("serviceAccountName", "service-account.name"),
                ("serviceAccountUID", "service-account.uid"),
            )
        }
        missing = next((word for word, value in fields.items() if not value), "")
        if missing:
            raise InvalidToken(f"{missing} claim is missing")
        namespace, secret_name, name, uid = fields.values()
        if claims.get("sub") != subject(namespace, name):
            raise InvalidToken("sub claim is invalid")
        secret = self._bound["secret"].get(secret_name, namespace)
        if secret is None or secret["metadata"].get("deletionTimestamp"):
            raise InvalidToken("Token has been invalidated")
        held = b64decode((secret.get("data") or {}).get("token") or "")
        if not hmac.compare_digest(held, token.encode()):
            raise InvalidToken("Token does not match server's copy")
        self._check_account(namespace, name, uid, "ServiceAccount")
        if (secret["metadata"].get("labels") or {}).get(INVALID_SINCE):
            raise InvalidToken(
                f"the token in secret {namespace}/{secret_name} for service account {namespace}/{name} has been marked invalid. "
                "Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the "
                f"'{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            )
        self.used(secret)
        return account_user(namespace, name, uid, {})

    def _check_account(self, namespace: str, name: str, uid: str, word: str) -> None:
        found = self._accounts.get(name, namespace)
        if found is None:
            raise InvalidToken(f'serviceaccounts "{name}" not found')
        if self._gone(found):
            raise InvalidToken(f"{word} {namespace}/{name} has been deleted")
        if found["metadata"].get("uid") != uid:
            raise InvalidToken(f"{word} UID ({found['metadata'].get('uid')}) does not match claim ({uid})")

    def _check_reference(self, kind: str, namespace: str, reference: Any) -> None:
        if not isinstance(reference, dict):
            raise InvalidToken("is bound to something unreadable")
        found = self._bound[kind].get(str(reference.get("name")), namespace)
        if found is None or self._gone(found):
            raise InvalidToken("service account token has been invalidated")
        uid = found["metadata"].get("uid")
        if uid != reference.get("uid"):
            words = f"does not match service account {kind} ref claim ({reference.get('uid')})"
            raise InvalidToken(f"{kind} UID ({uid}) {words}")

    def _gone(self, obj: Object) -> bool:
        deleted = obj["metadata"].get("deletionTimestamp")
        return bool(deleted) and parse_rfc3339(deleted) + _LEEWAY < self._clock.now()


def subject(namespace: str, name: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def account_user(namespace: str, name: str, uid: str, extra: dict[str, tuple[str, ...]]) -> UserInfo:
    """The user that a service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return UserInfo(subject(namespace, name), groups, uid, extra)


def split_subject(user: str) -> tuple[str, str] | None:
    """(namespace, name) of a service account's user name, None for anyone else."""
    parts = user.split(":")
    if len(parts) == 4 and parts[:2] == ["system", "serviceaccount"] and parts[2] and parts[3]:
        return parts[2], parts[3]
    return None


def _shared(wanted: Sequence[str], meant: Sequence[str]) -> tuple[str, ...]:
    shared = tuple(a for a in wanted if a in meant)
    if not shared:
        raise InvalidToken(f"token audiences {_quoted(meant)} is invalid for the target audiences {_quoted(wanted)}")
    return shared


def _quoted(words: Sequence[str]) -> str:
    return "[" + " ".join(json.dumps(word) for word in words) + "]"


def _reference(name: str, uid: str) -> dict[str, str]:
    return {"name": name, "uid": uid} if uid else {"name": name}
