"""Tokens of OpenID Connect providers: keys, claims, configuration; over real TLS."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from k1s.base.clock import VirtualClock
from k1s.base.http import Answer, Request
from k1s.server.apiserver.authn import configuration, signatures
from k1s.server.apiserver.authn.app import Authenticator
from k1s.server.apiserver.authn.configuration import AuthenticationConfig
from k1s.server.apiserver.authn.jwt import InvalidToken
from k1s.server.apiserver.authn.providers import Providers
from k1s.server.apiserver.config_file import ConfigFileError, WatchedFile
from k1s.server.apiserver.dial import direct
from k1s.server.apiserver.outgoing import Outgoing
from tests.unit.apiserver.extension_server import ExtensionServer, extension_server, json_response

API = ("https://kubernetes.default.svc",)
RSA = rsa.generate_private_key(65537, 2048)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def sign(key: Any, algorithm: str, claims: dict[str, Any], kid: str = "k") -> str:
    head = {"alg": algorithm, **({"kid": kid} if kid else {})}
    signed = b".".join(signatures.encode(orjson.dumps(part)) for part in (head, claims))
    digest: Any = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}[algorithm[2:]]()
    if algorithm[0] == "E":
        r, s = utils.decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
        size = (key.curve.key_size + 7) // 8
        made = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    elif algorithm[0] == "R":
        made = key.sign(signed, padding.PKCS1v15(), digest)
    else:
        made = key.sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    return b".".join((signed, signatures.encode(made))).decode()


class Provider:
    def __init__(self, server: ExtensionServer, tmp_path: Path) -> None:
        self.server, self.file, self.clock = server, tmp_path / "authentication.yaml", VirtualClock()
        self.outgoing = Outgoing(direct)
        self.keys: list[dict[str, Any]] = [signatures.to_jwk(RSA.public_key(), "k")]
        self.up = True

    async def answer(self, request: Request, _body: bytes) -> Answer:
        if not self.up:
            return json_response({}, 500)
        if request.path == "/keys":
            return json_response({"keys": self.keys})
        return json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    @property
    def url(self) -> str:
        return self.server.url("")

    def entry(self, **more: Any) -> dict[str, Any]:
        issuer = {"url": self.url, "audiences": ["app"], "certificateAuthority": self.server.ca.certificate.decode()}
        username = {"claim": "sub", "prefix": "corp:"}
        mappings = {"username": username, "groups": {"claim": "groups", "prefix": "corp:"}, **more.pop("claimMappings", {})}
        return {"issuer": {**issuer, **more.pop("issuer", {})}, "claimMappings": mappings, **more}

    def write(self, *entries: dict[str, Any], **more: Any) -> Path:
        obj = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": list(entries), **more}
        self.file.write_text(yaml.safe_dump(obj))
        return self.file

    def authenticator(self, *entries: dict[str, Any]) -> Authenticator:
        config = configuration.read(self.write(*entries or (self.entry(),)))
        return self.over(config)

    def over(self, config: AuthenticationConfig) -> Authenticator:
        providers = Providers(lambda: config, self.outgoing, self.clock, API)
        return Authenticator([], remote=providers.remote)

    def claims(self, **more: Any) -> dict[str, Any]:
        now = int(self.clock.now())
        return {"iss": self.url, "aud": "app", "sub": "jane", "exp": now + 600, "iat": now, "groups": ["dev"], **more}

    def token(self, **more: Any) -> str:
        return sign(RSA, "RS256", self.claims(**more))


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Provider]:
    found: list[Provider] = []

    async def answer(request: Request, body: bytes) -> Answer:
        return await found[0].answer(request, body)

    async with extension_server(tmp_path, answer) as server:
        found.append(Provider(server, tmp_path))
        yield found[0]
        found[0].outgoing.close()


async def refusal(authenticator: Authenticator, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        await authenticator.check_token(token)
    return str(caught.value)


async def test_a_token_becomes_a_user(provider: Provider) -> None:
    authenticator = provider.authenticator()
    user, audiences = await authenticator.check_token(provider.token(jti="7"))
    assert (user.name, user.groups, audiences) == ("corp:jane", ("corp:dev", "system:authenticated"), API)
    assert user.extra == {"authentication.kubernetes.io/credential-id": ("JTI=7",)}
    asked = len(provider.server.seen)
    await authenticator.check_token(provider.token(sub="joe"))
    assert len(provider.server.seen) == asked, "keys are fetched once"


@pytest.mark.parametrize("algorithm", signatures.ALGORITHMS)
async def test_every_algorithm(provider: Provider, algorithm: str) -> None:
    key: Any = ec.generate_private_key(CURVES[algorithm]) if algorithm[0] == "E" else RSA
    jwk = signatures.to_jwk(key.public_key(), "k")
    provider.keys = [{**jwk, "alg": algorithm}, {"kty": "oct", "k": "x"}, {"kty": "RSA", "n": "!", "e": ""}]
    authenticator = provider.authenticator()
    token = sign(key, algorithm, provider.claims())
    assert (await authenticator.check_token(token))[0].name == "corp:jane"
    other = next(a for a in signatures.ALGORITHMS if a[0] == algorithm[0] and a != algorithm)
    head = signatures.encode(json.dumps({"alg": other, "kid": "k"}).encode()).decode()
    assert "failed to verify" in await refusal(authenticator, ".".join((head, *token.split(".")[1:])))


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"aud": "other"}, 'oidc: verify token: oidc: expected audience in ["app"] got ["other"]'),
        ({"aud": 7}, 'oidc: verify token: oidc: expected audience in ["app"] got [7]'),
        ({"exp": 1}, "oidc: verify token: oidc: token is expired"),
        ({"nbf": 1 << 40}, "oidc: verify token: oidc: current time is before the nbf (not before) time"),
        ({"sub": ""}, "oidc: username claim is empty"),
        ({"sub": 7}, 'oidc: parse username claims "sub": claim is not a string'),
        ({"groups": [1]}, 'oidc: parse groups claim "groups": must be a string or a list of strings'),
    ],
)
async def test_claims_that_do_not_do(provider: Provider, claims: dict[str, Any], words: str) -> None:
    assert await refusal(provider.authenticator(), provider.token(**claims)) == f"[invalid bearer token, {words}]"


async def test_expressions(provider: Provider) -> None:
    mappings = {
        "username": {"expression": "claims.email + ':' + claims.sub"},
        "groups": {"expression": "claims.roles.filter(r, r != 'none')"},
        "uid": {"expression": "claims.sub"},
        "extra": [{"key": "acme.io/team", "valueExpression": "claims.?team.orValue('')"}],
    }
    rules = [{"expression": "claims.?email_verified.orValue(false)", "message": "verify your address"}]
    users = [{"expression": "!user.username.startsWith('system:')", "message": "not yours"}]
    authenticator = provider.authenticator(
        provider.entry(claimMappings=mappings, claimValidationRules=rules, userValidationRules=users)
    )
    good = {"email": "j@x", "email_verified": True, "roles": ["a", "none"], "team": "t"}
    user, _ = await authenticator.check_token(provider.token(**good))
    assert (user.name, user.groups[0], user.uid, user.extra) == ("j@x:jane", "a", "jane", {"acme.io/team": ("t",)})
    assert "failed: verify your address" in await refusal(authenticator, provider.token(**{**good, "email_verified": False}))
    assert "failed: not yours" in await refusal(authenticator, provider.token(**{**good, "email": "system:masters"}))
    assert "error evaluating username claim expression" in await refusal(authenticator, provider.token(roles=[]))


async def test_required_claims(provider: Provider) -> None:
    authenticator = provider.authenticator(provider.entry(claimValidationRules=[{"claim": "hd", "requiredValue": "corp"}]))
    assert (await authenticator.check_token(provider.token(hd="corp")))[0].name == "corp:jane"
    assert "oidc: required claim hd not present in ID token" in await refusal(authenticator, provider.token())
    words = "oidc: required claim hd value does not match. Got = x, want = corp"
    assert words in await refusal(authenticator, provider.token(hd="x"))


async def test_an_address_that_nobody_looked_at(provider: Provider) -> None:
    mappings = {"username": {"claim": "email", "prefix": ""}}
    authenticator = provider.authenticator(provider.entry(claimMappings=mappings))
    assert (await authenticator.check_token(provider.token(email="a@b")))[0].name == "a@b"
    assert "oidc: email not verified" in await refusal(authenticator, provider.token(email="a@b", email_verified=False))
    assert "oidc: email not verified" in await refusal(authenticator, provider.token(email="a@b", email_verified="true"))


async def test_a_new_key_is_fetched_but_not_for_everyone_who_asks(provider: Provider) -> None:
    authenticator = provider.authenticator()
    await authenticator.check_token(provider.token())
    key = rsa.generate_private_key(65537, 2048)
    token = sign(key, "RS256", provider.claims(), "new")
    asked = len(provider.server.seen)
    for _ in range(3):
        assert "failed to verify" in await refusal(authenticator, token)
    assert len(provider.server.seen) == asked
    await provider.clock.advance(11)
    provider.keys.append(signatures.to_jwk(key.public_key(), "new"))
    assert (await authenticator.check_token(token))[0].name == "corp:jane"


async def test_a_provider_that_is_away_breaks_only_its_own(provider: Provider) -> None:
    provider.up = False
    other = provider.entry(issuer={"url": "https://127.0.0.1:1/x"})
    authenticator = provider.authenticator(other, provider.entry())
    words = await refusal(authenticator, provider.token())
    assert "is not initialized" in words
    assert "status 500" in words
    assert await refusal(authenticator, provider.token(iss="https://nobody")) == "invalid bearer token"
    provider.up = True
    await provider.clock.advance(11)
    assert (await authenticator.check_token(provider.token()))[0].name == "corp:jane"


async def test_a_document_of_somebody_else(provider: Provider) -> None:
    entry = provider.entry(issuer={"url": "https://claimed", "discoveryURL": f"{provider.url}/doc"})
    words = await refusal(provider.authenticator(entry), provider.token(iss="https://claimed"))
    assert "did not match the issuer URL returned by provider" in words


BAD = [
    ({"issuer": {"url": ""}}, "jwt[0].issuer.url: Required value: URL is required"),
    ({"issuer": {"url": "http://x"}}, 'jwt[0].issuer.url: Invalid value: "http://x": URL scheme must be https'),
    ({"issuer": {"url": "https://u:p@x"}}, "URL must not contain a username or password"),
    ({"issuer": {"url": "https://x?a=b"}}, "URL must not contain a query"),
    ({"issuer": {"url": "https://x#f"}}, "URL must not contain a fragment"),
    ({"issuer": {"url": "https://own"}}, "URL must not overlap with disallowed issuers: [https://own]"),
    ({"issuer": {"discoveryURL": "https://x/"}}, "jwt[0].issuer.discoveryURL: Invalid value"),
    ({"issuer": {"audiences": []}}, "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required"),
    ({"issuer": {"audiences": ["a", "b"]}}, "audienceMatchPolicy must be MatchAny for multiple audiences"),
    ({"issuer": {"audiences": ["a"], "audienceMatchPolicy": "x"}}, "audienceMatchPolicy must be empty or MatchAny"),
    ({"issuer": {"certificateAuthority": "x"}}, 'jwt[0].issuer.certificateAuthority: Invalid value: "<omitted>"'),
    ({"claimMappings": {"username": {}}}, "jwt[0].claimMappings.username: Required value: claim or expression is required"),
    ({"claimMappings": {"username": {"claim": "a", "expression": "b"}}}, "claim and expression can't both be set"),
    ({"claimMappings": {"username": {"claim": "a"}}}, "jwt[0].claimMappings.username.prefix: Required value"),
    ({"claimMappings": {"username": {"expression": "x.y"}}}, "undeclared reference to 'x'"),
    ({"claimMappings": {"username": {"expression": "claims.email"}}}, "claims.email_verified must be used"),
    ({"claimMappings": {"extra": [{"key": "a", "valueExpression": "'x'"}]}}, "must be a domain-prefixed path"),
    ({"claimMappings": {"extra": [{"key": "x.k8s.io/a", "valueExpression": "'x'"}]}}, "reserved for Kubernetes use"),
    ({"claimMappings": {"extra": [{"key": "a.b/C", "valueExpression": "'x'"}]}}, "key must be lowercase"),
    ({"claimValidationRules": [{}]}, "jwt[0].claimValidationRules[0]: Required value: claim or expression is required"),
    ({"claimValidationRules": [{"claim": "a"}, {"claim": "a"}]}, 'jwt[0].claimValidationRules[1].claim: Duplicate value: "a"'),
    ({"claimValidationRules": [{"expression": "1"}]}, "must evaluate to bool"),
    ({"userValidationRules": [{"expression": ""}]}, "jwt[0].userValidationRules[0].expression: Required value"),
    ({"surprise": 1}, 'strict decoding error: unknown field "jwt[0].surprise"'),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[words for _, words in BAD])
def test_files_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    issuer = {"url": "https://x", "audiences": ["a"], **change.get("issuer", {})}
    mappings = {"username": {"claim": "sub", "prefix": ""}, **change.get("claimMappings", {})}
    rest = {key: value for key, value in change.items() if key not in ("issuer", "claimMappings")}
    obj = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"}
    file = tmp_path / "f.yaml"
    file.write_text(yaml.safe_dump({**obj, "jwt": [{"issuer": issuer, "claimMappings": mappings, **rest}]}))
    with pytest.raises(ConfigFileError) as caught:
        configuration.read(file, ["https://own"])
    assert words in str(caught.value)


def test_anonymous_conditions(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"

    def read(anonymous: str) -> AuthenticationConfig:
        file.write_text(f"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {anonymous}\n")
        return configuration.read(file)

    health = read("{enabled: true, conditions: [{path: /livez}]}")
    assert (health.allows_anonymous("/livez"), health.allows_anonymous("/livez/x"), health.allows_anonymous("/")) == (
        True,
        False,
        False,
    )
    assert not read("{enabled: false}").allows_anonymous("/livez")
    assert read("{enabled: true}").allows_anonymous("/api")
    with pytest.raises(ConfigFileError, match="enabled should be set to true when conditions are defined"):
        read("{enabled: false, conditions: [{path: /livez}]}")


async def test_a_file_is_followed_and_a_bad_one_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, clock = tmp_path / "f.yaml", VirtualClock()
    head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"

    def write(text: str, stamp: int) -> None:
        file.write_text(text)
        os.utime(file, ns=(stamp, stamp))

    write(head, 1)
    watched = WatchedFile(file, configuration.read, clock)
    assert watched.value().anonymous
    write(f"{head}anonymous: {{enabled: false}}\n", 2)
    assert watched.value().anonymous, "looked at once a second at most"
    await clock.advance(1)
    assert not watched.value().anonymous
    write("nonsense", 3)
    await clock.advance(1)
    assert not watched.value().anonymous
    assert "what was read before holds" in caplog.text


def test_the_older_flags(tmp_path: Path) -> None:
    flags = {"oidc-issuer-url": ("https://x",), "oidc-client-id": ("app",)}
    issuer = configuration.from_flags(flags)
    assert issuer is not None
    assert (issuer.username.claim, issuer.username.prefix, issuer.algorithms) == ("sub", "https://x#", ("RS256",))
    more = {"oidc-username-claim": ("email",), "oidc-groups-claim": ("roles",), "oidc-required-claim": ("a=b,c=d", "e=f")}
    issuer = configuration.from_flags({**flags, **more})
    assert issuer is not None
    assert (issuer.username.prefix, issuer.groups.claim) == ("", "roles")
    assert [(rule.claim, rule.required) for rule in issuer.claim_rules] == [("a", "b"), ("c", "d"), ("e", "f")]
    assert configuration.from_flags({}) is None
    with pytest.raises(ConfigFileError, match="must be specified together"):
        configuration.from_flags({"oidc-issuer-url": ("https://x",)})


async def test_a_key_that_was_taken_back_is_good_for_no_token_any_more(provider: Provider) -> None:
    authenticator = provider.authenticator()
    old = provider.token()
    await authenticator.check_token(old)
    key = rsa.generate_private_key(65537, 2048)
    provider.keys[:] = [signatures.to_jwk(key.public_key(), "new")]
    await provider.clock.advance(11)
    await authenticator.check_token(sign(key, "RS256", provider.claims(), "new"))
    assert "failed to verify" in await refusal(authenticator, old)
