"""Who is believed to be whom: tokens of every kind, certificates, nobody at all."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from k1s.api.errors import ApiError
from k1s.base import pki
from k1s.base.clock import VirtualClock, rfc3339
from k1s.base.http import Headers, PeerCertificate, Request
from k1s.server.apiserver.authn import signatures, static_tokens
from k1s.server.apiserver.authn.app import Authenticator
from k1s.server.apiserver.authn.bootstrap_tokens import BootstrapTokens
from k1s.server.apiserver.authn.jwt import InvalidToken, NotOurs, TokenKeys
from k1s.server.apiserver.authn.service_accounts import INVALID_SINCE, Bound, ServiceAccountTokens

ISSUER = "https://issuer"


def request(*fields: tuple[str, str], peer: PeerCertificate | None = None, path: str = "/api") -> Request:
    return Request("GET", path, headers=Headers(fields), peer=peer)


def text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


class World:
    """Service accounts, a pod, a node, a secret, and the checkers over them."""

    def __init__(self, informers: Any, **options: Any) -> None:
        self.informers, self.clock = informers, VirtualClock()
        self.account = informers.put("ServiceAccount", "sa", "ns")
        self.pod = informers.put("Pod", "p", "ns", spec={"nodeName": "n1", "serviceAccountName": "sa"})
        self.node = informers.put("Node", "n1")
        self.secret = informers.put("Secret", "s", "ns")
        self.key = pki.new_key()
        self.tokens = ServiceAccountTokens(TokenKeys([self.key]), informers, self.clock, issuer=ISSUER, **options)
        bootstrap = BootstrapTokens(informers, self.clock, self.tokens.audiences)
        self.authenticator = Authenticator([self.tokens, bootstrap])

    def issue(self, kind: str = "", seconds: int = 3600, audiences: Sequence[str] = ()) -> str:
        found = {"Pod": self.pod, "Node": self.node, "Secret": self.secret}.get(kind)
        bound = Bound(kind, found["metadata"]["name"], found["metadata"]["uid"]) if found is not None else None
        node = Bound("Node", "n1", self.node["metadata"]["uid"]) if kind == "Pod" else None
        return self.tokens.issue(self.account, audiences=audiences, seconds=seconds, bound=bound, node=node)[0]

    def refusal(self, token: str, audiences: Sequence[str] = ()) -> str:
        with pytest.raises(InvalidToken) as caught:
            self.tokens.check(token, audiences)
        return str(caught.value)

    def bootstrap_token(self, **data: str) -> None:
        data = {"token_id": "abcdef", "token_secret": "0123456789abcdef", "usage_bootstrap_authentication": "true", **data}
        encoded = {key.replace("_", "-"): text(value) for key, value in data.items() if value}
        self.informers.put("Secret", "bootstrap-token-abcdef", "kube-system", type="bootstrap.kubernetes.io/token", data=encoded)


@pytest.fixture
def world(informers: Any) -> World:
    return World(informers)


def test_what_a_bound_token_says(world: World) -> None:
    user, audiences = world.tokens.check(world.issue("Pod"))
    assert (user.name, user.uid, audiences) == ("system:serviceaccount:ns:sa", world.account["metadata"]["uid"], (ISSUER,))
    extra = {key.removeprefix("authentication.kubernetes.io/"): values for key, values in user.extra.items()}
    assert extra.pop("credential-id")[0].startswith("JTI=")
    uids = {kind: (world_object["metadata"]["uid"],) for kind, world_object in (("pod", world.pod), ("node", world.node))}
    assert extra == {"pod-name": ("p",), "pod-uid": uids["pod"], "node-name": ("n1",), "node-uid": uids["node"]}


@pytest.mark.parametrize("kind", ["Pod", "Secret", "Node"])
def test_a_token_dies_with_what_it_is_bound_to(world: World, kind: str) -> None:
    token = world.issue(kind)
    assert world.tokens.check(token)
    obj = {"Pod": world.pod, "Secret": world.secret, "Node": world.node}[kind]
    meta = obj["metadata"]
    namespace = meta.get("namespace", "")
    world.informers.put(kind, meta["name"], namespace, metadata={"uid": "another"})
    assert "does not match service account" in world.refusal(token)
    world.informers.drop(kind, meta["name"], namespace)
    assert world.refusal(token) == "service account token has been invalidated"


def test_the_node_of_a_bound_pod_is_information(world: World) -> None:
    token = world.issue("Pod")
    world.informers.drop("Node", "n1")
    assert world.tokens.check(token)


def test_a_token_dies_with_its_account(world: World) -> None:
    token = world.issue()
    world.informers.put("ServiceAccount", "sa", "ns", metadata={"uid": "new"})
    assert world.refusal(token) == f"service account UID (new) does not match claim ({world.account['metadata']['uid']})"
    world.informers.drop("ServiceAccount", "sa", "ns")
    assert world.refusal(token) == 'serviceaccounts "sa" not found'


async def test_deleted_but_kept_by_a_finalizer(world: World) -> None:
    token = world.issue()
    world.account["metadata"]["deletionTimestamp"] = rfc3339(world.clock.now())
    assert world.tokens.check(token)
    await world.clock.advance(120)
    assert world.refusal(token) == "service account ns/sa has been deleted"


async def test_dates(world: World) -> None:
    token = world.issue(seconds=600)
    await world.clock.advance(659)
    assert world.tokens.check(token)
    await world.clock.advance(2)
    assert world.refusal(token) == "service account token has expired"


async def test_pods_of_old_client_libraries_get_a_year(world: World) -> None:
    old, exact = world.issue("Pod", 3607), world.issue("Pod", 3600)
    await world.clock.advance(7200)
    assert world.tokens.check(old)
    assert world.refusal(exact) == "service account token has expired"


async def test_that_year_can_be_turned_off(informers: Any) -> None:
    world = World(informers, extend=False)
    token = world.issue("Pod", 3607)
    await world.clock.advance(7200)
    assert world.refusal(token) == "service account token has expired"


def test_audiences(world: World) -> None:
    token = world.issue(audiences=["vault", "other"])
    assert world.tokens.check(token, ["vault", "x"])[1] == ("vault",)
    assert world.refusal(token) == f'token audiences ["vault" "other"] is invalid for the target audiences ["{ISSUER}"]'


def test_rotated_keys_and_issuers(informers: Any) -> None:
    old = World(informers)
    token = old.issue()
    keys = TokenKeys([pki.new_key()], [old.key])
    tokens = ServiceAccountTokens(keys, informers, old.clock, issuer="https://new", audiences=[ISSUER], others=[ISSUER])
    assert tokens.check(token)[0].name == "system:serviceaccount:ns:sa"
    assert len(keys.jwks()["keys"]) == 2
    stranger = ServiceAccountTokens(TokenKeys([pki.new_key()]), informers, old.clock, issuer=ISSUER)
    with pytest.raises(InvalidToken, match="no keys found"):
        stranger.check(token)
    elsewhere = ServiceAccountTokens(keys, informers, old.clock, issuer="https://new")
    with pytest.raises(NotOurs):
        elsewhere.check(token)


def test_the_algorithm_is_not_the_senders_choice(world: World) -> None:
    head, claims, signature = world.issue().split(".")
    for algorithm in ("none", "HS256", "ES384", "RS256"):
        forged = base64.urlsafe_b64encode(f'{{"alg":"{algorithm}"}}'.encode()).rstrip(b"=").decode()
        assert world.refusal(f"{forged}.{claims}.{signature}")
        assert world.refusal(f"{forged}.{claims}.")
    crit = base64.urlsafe_b64encode(b'{"alg":"ES256","crit":["x"]}').rstrip(b"=").decode()
    assert world.refusal(f"{crit}.{claims}.{signature}")
    assert head


def test_tokens_that_live_in_secrets(world: World) -> None:
    token = world.tokens.issue_legacy(world.account, "legacy")
    assert world.refusal(token) == "Token has been invalidated"
    used: list[str] = []
    world.tokens.used = lambda secret: used.append(secret["metadata"]["name"])
    world.informers.put("Secret", "legacy", "ns", data={"token": text(token)})
    user, audiences = world.tokens.check(token)
    assert (user.name, audiences, used) == ("system:serviceaccount:ns:sa", (ISSUER,), ["legacy"])
    world.informers.put("Secret", "legacy", "ns", data={"token": text(token + "x")})
    assert world.refusal(token) == "Token does not match server's copy"
    labels = {"labels": {INVALID_SINCE: "2026-01-01"}}
    world.informers.put("Secret", "legacy", "ns", data={"token": text(token)}, metadata=labels)
    assert "has been marked invalid" in world.refusal(token)


async def test_a_bootstrap_token(world: World) -> None:
    world.bootstrap_token(auth_extra_groups="system:bootstrappers:worker,system:bootstrappers:a")
    user = await world.authenticator.authenticate(request(("Authorization", "Bearer abcdef.0123456789abcdef")))
    assert user.name == "system:bootstrap:abcdef"
    groups = ("system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:worker", "system:authenticated")
    assert user.groups == groups


@pytest.mark.parametrize(
    "data",
    [
        {"token_secret": "0123456789abcdee"},
        {"token_secret": ""},
        {"token_id": "abcdeg"},
        {"usage_bootstrap_authentication": ""},
        {"usage_bootstrap_authentication": "yes"},
        {"expiration": "2001-01-01T00:00:00Z"},
        {"expiration": "soon"},
        {"auth_extra_groups": "system:masters"},
        {"auth_extra_groups": "system:bootstrappers:ok,system:bootstrappers:UP"},
    ],
)
async def test_bootstrap_tokens_that_are_none(world: World, data: dict[str, str]) -> None:
    world.bootstrap_token(**data)
    with pytest.raises(InvalidToken, match=r"^invalid bearer token$"):
        await world.authenticator.check_token("abcdef.0123456789abcdef")


async def test_static_tokens(world: World, tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text('t1, ann ,7,"dev,ops"\n\nt2,bob,8\n,nobody,9\nt1,eve,10\n')
    tokens = static_tokens.StaticTokens(static_tokens.read(file), [ISSUER])
    ann, audiences = tokens.check("t1")
    assert (ann.name, ann.uid, ann.groups, audiences) == ("ann", "7", ("dev", "ops"), (ISSUER,))
    assert (await Authenticator([tokens]).check_token("t2"))[0].groups == ("system:authenticated",)
    for wrong in ("", "t", "t11"):
        with pytest.raises(NotOurs):
            tokens.check(wrong)
    with pytest.raises(NotOurs):
        tokens.check("t1", ["vault"])
    file.write_text("secret,ann")
    with pytest.raises(static_tokens.TokenFileError, match="line 1") as caught:
        static_tokens.read(file)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ([], "system:anonymous"),
        ([("Authorization", "Basic eDp5")], "system:anonymous"),
        ([("Authorization", "Bearer")], "system:anonymous"),
        ([("Authorization", "bearer  t1")], "system:anonymous"),
        ([("Authorization", "BEARER t1 more")], "ann"),
        ([("Authorization", "Bearer t1"), ("Authorization", "Bearer wrong")], "ann"),
        ([("Authorization", "Bearer wrong"), ("Authorization", "Bearer t1")], None),
        ([("Authorization", "Bearer wrong")], None),
        ([("Authorization", "Bearer t\udcff")], None),
        ([("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", "{t1}, v4.channel.k8s.io")], "ann"),
        ([("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", "v4.channel.k8s.io"), ("Sec-WebSocket-Protocol", "{t1}")], "ann"),
        ([("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", "{t1}")], None),
        ([("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", "{t1}, {t1}, x")], None),
        ([("Upgrade", "websocket"), ("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.!, x")], None),
        ([("Sec-WebSocket-Protocol", "{t1}, x")], "system:anonymous"),
    ],
)
async def test_where_a_token_may_stand(world: World, tmp_path: Path, fields: list[tuple[str, str]], name: str | None) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text("t1,ann,7\n")
    authenticator = Authenticator([static_tokens.StaticTokens(static_tokens.read(file), [ISSUER])])
    encoded = "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(b"t1").rstrip(b"=").decode()
    asked = request(*((key, value.replace("{t1}", encoded)) for key, value in fields))
    if name is None:
        with pytest.raises(ApiError) as caught:
            await authenticator.authenticate(asked)
        assert caught.value.code == 401
        return
    assert (await authenticator.authenticate(asked)).name == name
    if name == "ann":
        assert encoded not in asked.headers.get("sec-websocket-protocol", "")


@pytest.mark.parametrize(
    ("uids", "token", "name"),
    [
        ((), "", "jane"),
        (("7",), "", "jane"),
        (("7", "8"), "", None),
        (("",), "", None),
        (("7", "8"), "t1", "ann"),
    ],
)
async def test_certificates(tmp_path: Path, uids: tuple[str, ...], token: str, name: str | None) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text("t1,ann,7\n")
    authenticator = Authenticator([static_tokens.StaticTokens(static_tokens.read(file), [ISSUER])])
    peer = PeerCertificate("jane", ("dev", "ops"), "ff", uids=uids)
    asked = request(*([("Authorization", f"Bearer {token}")] if token else []), peer=peer)
    if name is None:
        with pytest.raises(ApiError):
            await authenticator.authenticate(asked)
        return
    user = await authenticator.authenticate(asked)
    assert user.name == name
    if name == "jane":
        assert (user.uid, user.groups) == ("".join(uids), ("dev", "ops", "system:authenticated"))
        assert user.extra == {"authentication.kubernetes.io/credential-id": ("X509SHA256=ff",)}


async def test_anonymous_only_where_it_is_wanted() -> None:
    authenticator = Authenticator([], anonymous=lambda path: path == "/livez")
    assert (await authenticator.authenticate(request(path="/livez"))).name == "system:anonymous"
    with pytest.raises(ApiError):
        await authenticator.authenticate(request(path="/livez/ping"))


@pytest.mark.parametrize("issuer", [[], {}, ["x"], None, 1])
def test_an_issuer_that_is_no_text_is_nobodys(world: World, issuer: Any) -> None:
    head, claims = (signatures.encode(orjson.dumps(part)).decode() for part in ({"alg": "ES256"}, {"iss": issuer}))
    with pytest.raises(NotOurs):
        world.tokens.check(f"{head}.{claims}.AAAA")
