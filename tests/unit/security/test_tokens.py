"""Service account tokens: what they say, when they stop working, and how they are asked for."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.base import pki
from k1s.base.clock import VirtualClock, parse_rfc3339, rfc3339
from k1s.base.http import Headers, PeerCertificate, Request
from k1s.server.apiserver.attributes import ANONYMOUS, UserInfo
from k1s.server.apiserver.authn import openid
from k1s.server.apiserver.authn.app import Authenticator
from k1s.server.apiserver.authn.jwt import InvalidToken, TokenKeys, peek
from k1s.server.apiserver.authn.secret_tokens import SecretTokens
from k1s.server.apiserver.authn.service_accounts import Bound, ServiceAccountTokens
from k1s.server.apiserver.subresources.token import TokenHandler

ISSUER = "https://kubernetes.default.svc.cluster.local"
KEY = pki.new_key()
NAME = "system:serviceaccount:ns:sa"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def tokens(informers: Any, clock: VirtualClock) -> ServiceAccountTokens:
    informers.put("ServiceAccount", "sa", "ns")
    informers.put("Pod", "p", "ns", spec={"serviceAccountName": "sa", "nodeName": "n"})
    informers.put("Pod", "other", "ns", spec={"serviceAccountName": "default"})
    informers.put("Node", "n")
    return ServiceAccountTokens(TokenKeys([KEY]), informers, clock, issuer=ISSUER, audiences=("k1s",))


def account(informers: Any) -> Any:
    from k1s.api.catalog import builtin

    return informers.informer(builtin("ServiceAccount")).get("sa", "ns")


def issue(tokens: ServiceAccountTokens, informers: Any, **options: Any) -> str:
    return tokens.issue(account(informers), **{"audiences": (), "seconds": 3600, **options})[0]


POD = Bound("Pod", "p", "uid-pods-ns-p")


def test_claims_are_upstreams(tokens: ServiceAccountTokens, informers: Any, clock: VirtualClock) -> None:
    node = Bound("Node", "n", "uid-nodes--n")
    claims = peek(issue(tokens, informers, bound=POD, node=node, seconds=3607))
    jti = claims.pop("jti")
    now = int(clock.now())
    assert claims == {
        "aud": [ISSUER, "k1s"],
        "exp": now + 365 * 86400,
        "iat": now,
        "iss": ISSUER,
        "nbf": now,
        "sub": NAME,
        "kubernetes.io": {
            "namespace": "ns",
            "node": {"name": "n", "uid": "uid-nodes--n"},
            "pod": {"name": "p", "uid": "uid-pods-ns-p"},
            "serviceaccount": {"name": "sa", "uid": "uid-serviceaccounts-ns-sa"},
            "warnafter": now + 3607,
        },
    }
    assert len(jti) == 36


def test_a_good_token_names_its_user(tokens: ServiceAccountTokens, informers: Any) -> None:
    token = issue(tokens, informers, bound=POD, node=Bound("Node", "n", "uid-nodes--n"))
    user, audiences = tokens.check(token)
    assert user.name == NAME
    assert user.uid == "uid-serviceaccounts-ns-sa"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated")
    prefix = "authentication.kubernetes.io/"
    assert user.extra == {
        f"{prefix}credential-id": (f"JTI={peek(token)['jti']}",),
        f"{prefix}pod-name": ("p",),
        f"{prefix}pod-uid": ("uid-pods-ns-p",),
        f"{prefix}node-name": ("n",),
        f"{prefix}node-uid": ("uid-nodes--n",),
    }
    assert audiences == (ISSUER, "k1s")


async def test_a_token_expires(tokens: ServiceAccountTokens, informers: Any, clock: VirtualClock) -> None:
    token = issue(tokens, informers, seconds=600)
    tokens.check(token)
    await clock.advance(650)
    tokens.check(token)  # within the leeway for clocks that differ
    await clock.advance(20)
    with pytest.raises(InvalidToken, match="expired"):
        tokens.check(token)


@pytest.mark.parametrize(
    ("kind", "name", "bound"),
    [("ServiceAccount", "sa", None), ("Pod", "p", POD), ("Node", "n", Bound("Node", "n", "uid-nodes--n"))],
)
def test_a_token_dies_with_what_it_is_bound_to(
    tokens: ServiceAccountTokens, informers: Any, kind: str, name: str, bound: Bound | None
) -> None:
    token = issue(tokens, informers, bound=bound)
    tokens.check(token)
    namespace = "" if kind == "Node" else "ns"
    informers.drop(kind, name, namespace)
    with pytest.raises(InvalidToken, match="has gone"):
        tokens.check(token)
    informers.put(kind, name, namespace, metadata={"uid": "another"}, spec={})
    with pytest.raises(InvalidToken, match="has gone"):
        tokens.check(token)


async def test_a_pod_that_is_being_deleted_keeps_its_token_for_a_minute(
    tokens: ServiceAccountTokens, informers: Any, clock: VirtualClock
) -> None:
    token = issue(tokens, informers, bound=POD)
    informers.put("Pod", "p", "ns", metadata={"deletionTimestamp": rfc3339(clock.now())}, spec={})
    tokens.check(token)
    await clock.advance(61)
    with pytest.raises(InvalidToken):
        tokens.check(token)


def test_audiences(tokens: ServiceAccountTokens, informers: Any) -> None:
    token = issue(tokens, informers, audiences=("vault",))
    with pytest.raises(InvalidToken, match="audience"):
        tokens.check(token)
    assert tokens.check(token, ["x", "vault"])[1] == ("vault",)


def forge(token: str, **claims: Any) -> str:
    parts = token.split(".")
    body = {**peek(token), **claims}
    parts[1] = base64.urlsafe_b64encode(json.dumps(body).encode()).rstrip(b"=").decode()
    return ".".join(parts)


def unsigned(token: str) -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    return f"{header}.{token.split('.')[1]}."


def test_forged_tokens_are_refused(tokens: ServiceAccountTokens, informers: Any) -> None:
    token = issue(tokens, informers)
    foreign = ServiceAccountTokens(TokenKeys([pki.new_key()]), informers, VirtualClock(), issuer=ISSUER)
    for bad in (
        forge(token, sub="system:serviceaccount:kube-system:x"),
        unsigned(token),
        issue(foreign, informers),
        token[:-4],
        token + "A",
        "a.b.c",
        "",
        "x" * 100_000,
        "ü.ü.ü",
    ):
        with pytest.raises(InvalidToken):
            tokens.check(bad)


def test_a_retired_key_still_verifies(informers: Any, tokens: ServiceAccountTokens, clock: VirtualClock) -> None:
    token = issue(tokens, informers)
    rotated = ServiceAccountTokens(TokenKeys([pki.new_key(), KEY]), informers, clock, issuer=ISSUER)
    rotated.check(token)
    assert len(rotated.keys.jwks()["keys"]) == 2


def test_the_cache_of_verified_tokens_is_bounded(tokens: ServiceAccountTokens, informers: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("k1s.server.apiserver.authn.service_accounts._CACHE_SIZE", 3)
    for _ in range(5):
        tokens.check(issue(tokens, informers))
    assert len(tokens._verified) == 3


def request(token: str = "", peer: PeerCertificate | None = None, protocol: str = "") -> Request:
    fields = [("Authorization", f"Bearer {token}")] if token else []
    fields += [("Sec-WebSocket-Protocol", protocol)] if protocol else []
    return Request("GET", "/api", headers=Headers(fields), peer=peer)


async def test_ways_to_prove_who_one_is(tokens: ServiceAccountTokens, informers: Any) -> None:
    authenticator = Authenticator([tokens])
    token = issue(tokens, informers)
    assert await authenticator.authenticate(request()) == ANONYMOUS
    assert (await authenticator.authenticate(request(token))).name == NAME
    encoded = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
    offered = f"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{encoded}"
    assert (await authenticator.authenticate(request(protocol=offered))).name == NAME
    peer = PeerCertificate("jane", ("dev",), "ab12")
    assert await authenticator.authenticate(request(peer=peer)) == UserInfo(
        "jane", ("dev", "system:authenticated"), "", {"authentication.kubernetes.io/credential-id": ("X509SHA256=ab12",)}
    )
    inside = request()
    inside.context["user"] = UserInfo("controller")
    assert (await authenticator.authenticate(inside)).name == "controller"


async def test_a_wrong_credential_is_never_anonymous(tokens: ServiceAccountTokens) -> None:
    for bad in (request("nonsense"), request(protocol="base64url.bearer.authorization.k8s.io.!")):
        with pytest.raises(ApiError) as caught:
            await Authenticator([tokens]).authenticate(bad)
        assert (caught.value.code, caught.value.message) == (401, "Unauthorized")
    with pytest.raises(ApiError):
        await Authenticator([tokens], anonymous=False).authenticate(request())


def ask(seconds: int | None = None, bound: dict[str, Any] | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"audiences": [ISSUER]}
    if seconds is not None:
        spec["expirationSeconds"] = seconds
    if bound is not None:
        spec["boundObjectRef"] = {"apiVersion": "v1", **bound}
    return {"spec": spec}


def test_token_request(tokens: ServiceAccountTokens, informers: Any, clock: VirtualClock) -> None:
    handler = TokenHandler(tokens, informers)
    answer = handler.issue(account(informers), ask(3607, {"kind": "Pod", "name": "p", "uid": "uid-pods-ns-p"}))
    # The holder is told to come back within the hour although the token lives longer.
    assert parse_rfc3339(answer["status"]["expirationTimestamp"]) == int(clock.now()) + 3607
    assert peek(answer["status"]["token"])["kubernetes.io"]["node"]["name"] == "n"
    assert handler.issue(account(informers), ask(), dry_run=True)["status"]["token"] == ""


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (ask(599), 422, "may not specify a duration less than 10 minutes"),
        (ask(1 << 33), 422, "larger than 2^32"),
        (ask(600, {"kind": "Pod", "name": "absent"}), 404, 'pods "absent" not found'),
        (ask(600, {"kind": "Pod", "name": "p", "uid": "x"}), 409, "does not match the UID in record"),
        (ask(600, {"kind": "Pod", "name": "other"}), 400, "different serviceaccount name"),
        (ask(600, {"kind": "ConfigMap", "name": "x"}), 400, "cannot bind token"),
    ],
)
def test_token_requests_that_are_refused(
    tokens: ServiceAccountTokens, informers: Any, body: dict[str, Any], code: int, text: str
) -> None:
    with pytest.raises(ApiError) as caught:
        TokenHandler(tokens, informers).issue(account(informers), body)
    assert caught.value.code == code
    assert text in caught.value.message


class Writer:
    def __init__(self, informers: Any) -> None:
        self._informers = informers
        self.deleted: list[str] = []
        self.failures = 0

    async def update(self, resource: Any, obj: Any, **_: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise ApiError(409, "Conflict", "changed meanwhile")
        return self._informers.informer(resource).put(clone(obj))

    async def delete(self, resource: Any, name: str, namespace: str = "", **_: Any) -> None:
        self.deleted.append(name)
        self._informers.drop(resource.kind, name, namespace)


async def test_legacy_secrets_are_filled_work_and_go(tokens: ServiceAccountTokens, informers: Any, clock: VirtualClock) -> None:
    writer = Writer(informers)
    writer.failures = 1
    controller = SecretTokens(writer, informers, tokens, clock, ca=b"CA")  # type: ignore[arg-type]
    task = asyncio.create_task(controller.run(lambda: None))
    annotations = {"kubernetes.io/service-account.name": "sa"}
    kind = "kubernetes.io/service-account-token"
    informers.put("Secret", "t", "ns", metadata={"annotations": annotations}, type=kind)
    await clock.advance(2)
    from k1s.api.catalog import builtin

    secret = informers.informer(builtin("Secret")).get("t", "ns")
    assert base64.b64decode(secret["data"]["ca.crt"]) == b"CA"
    assert secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == "uid-serviceaccounts-ns-sa"
    token = base64.b64decode(secret["data"]["token"]).decode()
    assert tokens.check(token)[0].name == NAME
    informers.put("Secret", "t", "ns", metadata={"annotations": annotations}, type=kind, data={"token": "eA=="})
    with pytest.raises(InvalidToken, match="not the one in its secret"):
        tokens.check(token)
    informers.put("Secret", "t", "ns", **{k: secret[k] for k in ("type", "data")}, metadata=secret["metadata"])
    informers.drop("ServiceAccount", "sa", "ns")
    with pytest.raises(InvalidToken):
        tokens.check(token)
    await clock.advance(2)
    assert writer.deleted == ["t"]
    task.cancel()


def test_discovery_documents(tokens: ServiceAccountTokens) -> None:
    document = json.loads(openid.configuration(ISSUER, "192.0.2.1:6443").body)
    assert document["issuer"] == ISSUER
    assert document["jwks_uri"] == "https://192.0.2.1:6443/openid/v1/jwks"
    answer = openid.jwks(tokens.keys)
    (key,) = json.loads(answer.body)["keys"]
    assert (key["kty"], key["crv"], key["alg"]) == ("EC", "P-256", "ES256")
    assert answer.content_type == "application/jwk-set+json"
