"""Webhooks that say who somebody is and what they may; over real TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from k1s.api.errors import ApiError
from k1s.base.clock import VirtualClock
from k1s.base.http import Answer, Request
from k1s.client import kubeconfig
from k1s.server.apiserver.answer_cache import AnswerCache
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.authn.app import Authenticator
from k1s.server.apiserver.authn.jwt import InvalidToken
from k1s.server.apiserver.authn.webhook import TokenWebhook
from k1s.server.apiserver.authz import configuration
from k1s.server.apiserver.authz.app import Authorizer
from k1s.server.apiserver.authz.node import NodeAuthorizer
from k1s.server.apiserver.authz.rbac import RbacAuthorizer
from k1s.server.apiserver.config_file import ConfigFileError
from k1s.server.apiserver.dial import direct
from k1s.server.apiserver.kubeconfig_call import KubeconfigCall
from k1s.server.apiserver.outgoing import Outgoing
from k1s.server.identity import Modes
from tests.unit.apiserver.extension_server import ExtensionServer, extension_server, json_response

API = ("https://kubernetes.default.svc",)
JANE = UserInfo("jane", ("dev",), "7", {"team": ("a",)})
GET = RequestInfo(True, "/x", "get", "", "v1", "pods", "log", "n", "p")


class RealSleeps(VirtualClock):
    """Pauses between tries take no time."""

    async def sleep(self, seconds: float) -> None:
        self._elapsed += seconds


class Hook:
    def __init__(self, server: ExtensionServer, home: Path) -> None:
        self.server, self.clock, self.outgoing = server, RealSleeps(), Outgoing(direct)
        self.status: dict[str, Any] = {}
        self.code = 200
        self.file = home / "hook.kubeconfig"
        credentials = kubeconfig.Credentials(server.url("/review"), server.ca.certificate, token="hook")
        kubeconfig.write(self.file, credentials)

    def call(self) -> KubeconfigCall:
        return KubeconfigCall(self.file, self.outgoing, self.clock)

    async def answer(self, _request: Request, _body: bytes) -> Answer:
        asked = self.server.bodies[-1]
        return json_response({"apiVersion": asked["apiVersion"], "kind": asked["kind"], "status": self.status}, self.code)


@pytest.fixture
async def hook(tmp_path: Path) -> AsyncIterator[Hook]:
    found: list[Hook] = []

    async def answer(request: Request, body: bytes) -> Answer:
        return await found[0].answer(request, body)

    async with extension_server(tmp_path, answer) as server:
        found.append(Hook(server, tmp_path))
        yield found[0]
        found[0].outgoing.close()


def tokens(hook: Hook) -> Authenticator:
    webhook = TokenWebhook(hook.call(), AnswerCache(hook.clock, 8), API)
    return Authenticator([], remote=lambda: (webhook,))


async def test_a_token_is_asked_about_once(hook: Hook) -> None:
    user = {"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"Team": ["a"]}}
    hook.status = {"authenticated": True, "user": user}
    authenticator = tokens(hook)
    for _ in range(3):
        found, audiences = await authenticator.check_token("t")
        assert (found.name, found.uid, found.groups, found.extra) == (
            "jane",
            "7",
            ("dev", "system:authenticated"),
            {"team": ("a",)},
        )
        assert audiences == API
    assert len(hook.server.seen) == 1
    assert hook.server.seen[0].headers["authorization"] == "Bearer hook"
    assert hook.server.bodies[0]["spec"] == {"token": "t", "audiences": list(API)}
    await hook.clock.advance(121)
    await authenticator.check_token("t")
    assert len(hook.server.seen) == 2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"authenticated": False}, "invalid bearer token"),
        ({"authenticated": "true"}, "invalid bearer token"),
        ({"error": "no such token"}, "[invalid bearer token, no such token]"),
        ({"authenticated": True, "user": {"username": "x"}, "audiences": ["vault"]}, "invalid bearer token"),
    ],
)
async def test_tokens_it_does_not_know(hook: Hook, status: dict[str, Any], words: str) -> None:
    hook.status = status
    with pytest.raises(InvalidToken) as caught:
        await tokens(hook).check_token("t")
    assert str(caught.value) == words


async def test_a_failure_is_tried_again_and_not_remembered(hook: Hook) -> None:
    hook.code = 500
    authenticator = tokens(hook)
    with pytest.raises(InvalidToken, match="status code 500"):
        await authenticator.check_token("t")
    assert len(hook.server.seen) == 3
    hook.code, hook.status = 200, {"authenticated": True, "user": {"username": "jane"}}
    assert (await authenticator.check_token("t"))[0].name == "jane"


def config(hook: Hook, file: Path, **more: Any) -> Path:
    webhook = {
        "timeout": "3s",
        "subjectAccessReviewVersion": "v1",
        "matchConditionSubjectAccessReviewVersion": "v1",
        "failurePolicy": "NoOpinion",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": str(hook.file)},
        **more,
    }
    entries = [{"type": "Webhook", "name": "ask", "webhook": webhook}, {"type": "RBAC", "name": "rbac"}]
    obj = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": entries}
    file.write_text(yaml.safe_dump(obj))
    return file


def authorizer(hook: Hook, informers: Any, file: Path, **more: Any) -> Authorizer:
    out = Authorizer(RbacAuthorizer(informers), NodeAuthorizer(informers, ()))
    modes = configuration.read(config(hook, file, **more))
    Modes(out, lambda: modes, hook.outgoing, hook.clock)
    return out


async def test_a_request_is_asked_about(hook: Hook, informers: Any, tmp_path: Path) -> None:
    hook.status = {"allowed": True, "reason": "because"}
    found = authorizer(hook, informers, tmp_path / "c.yaml")
    for _ in range(2):
        assert await found.allowed(JANE, GET) == (True, "because")
    assert hook.server.bodies == [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": "jane",
                "groups": ["dev"],
                "uid": "7",
                "extra": {"team": ["a"]},
                "resourceAttributes": {
                    "namespace": "n",
                    "verb": "get",
                    "version": "v1",
                    "resource": "pods",
                    "subresource": "log",
                    "name": "p",
                },
            },
        }
    ]
    await hook.clock.advance(301)
    hook.status = {"denied": True, "reason": "no"}
    with pytest.raises(ApiError, match=r"no$") as caught:
        await found.authorize(JANE, GET)
    assert caught.value.code == 403


async def test_selectors_are_told(hook: Hook, informers: Any, tmp_path: Path) -> None:
    hook.status = {"allowed": True}
    selectors = {"field_selector": "spec.nodeName=a,x!=y", "label_selector": "a in (b,c),!d"}
    info = RequestInfo(True, "", "list", "", "v1", "pods", "", "n", **selectors)
    await authorizer(hook, informers, tmp_path / "c.yaml").allowed(JANE, info)
    attributes = hook.server.bodies[0]["spec"]["resourceAttributes"]
    assert attributes["fieldSelector"]["requirements"] == [
        {"key": "spec.nodeName", "operator": "In", "values": ["a"]},
        {"key": "x", "operator": "NotIn", "values": ["y"]},
    ]
    assert attributes["labelSelector"]["requirements"] == [
        {"key": "a", "operator": "In", "values": ["b", "c"]},
        {"key": "d", "operator": "DoesNotExist"},
    ]


@pytest.mark.parametrize(("policy", "code"), [("NoOpinion", 500), ("Deny", 500)])
async def test_one_that_fails(hook: Hook, informers: Any, tmp_path: Path, policy: str, code: int) -> None:
    hook.code = 503
    found = authorizer(hook, informers, tmp_path / "c.yaml", failurePolicy=policy)
    informers.put("ClusterRole", "r", rules=[{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}])
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}
    with pytest.raises(ApiError) as caught:
        await found.authorize(JANE, GET)
    assert caught.value.code == code
    informers.put("ClusterRoleBinding", "b", roleRef=reference, subjects=[{"kind": "User", "name": "jane"}])
    assert (await found.allowed(JANE, GET))[0] is (policy == "NoOpinion")


async def test_conditions(hook: Hook, informers: Any, tmp_path: Path) -> None:
    conditions = [
        {"expression": "has(request.resourceAttributes)"},
        {"expression": "request.resourceAttributes.namespace == 'n'"},
        {"expression": "!('system:serviceaccounts' in request.groups)"},
    ]
    hook.status = {"allowed": True}
    found = authorizer(hook, informers, tmp_path / "c.yaml", matchConditions=conditions)
    assert (await found.allowed(JANE, GET))[0]
    assert not (await found.allowed(UserInfo("x", ("system:serviceaccounts",)), GET))[0]
    assert not (await found.allowed(JANE, RequestInfo(False, "/x", "get")))[0]
    assert len(hook.server.seen) == 1


async def test_masters_are_not_asked_about(hook: Hook, informers: Any, tmp_path: Path) -> None:
    hook.status = {"denied": True}
    found = authorizer(hook, informers, tmp_path / "c.yaml")
    assert (await found.allowed(UserInfo("root", ("system:masters",)), GET))[0]
    assert not hook.server.seen
    rules = found.rules_for(JANE, "n")
    assert rules == ((), ("webhook authorizer does not support user rule resolution",), True)


BAD: list[tuple[Any, str]] = [
    ([], "authorizers: Required value: at least one authorization mode must be defined"),
    ([{"type": "RBAC"}], "authorizers[0].name: Required value"),
    ([{"type": "RBAC", "name": "a"}, {"type": "RBAC", "name": "b"}], 'authorizers[1].type: Duplicate value: "RBAC"'),
    ([{"type": "RBAC", "name": "A"}], "authorizers[0].name: Invalid value"),
    ([{"type": "ABAC", "name": "a"}], 'authorizers[0].type: Unsupported value: "ABAC"'),
    ([{"type": "RBAC", "name": "a", "webhook": {}}], "may only be specified when type=Webhook"),
    ([{"type": "Webhook", "name": "a"}], "authorizers[0].webhook: Required value: required when type=Webhook"),
    ([{"type": "Webhook", "name": "a", "webhook": {"timeout": "31s"}}], "must be > 0s and <= 30s"),
    ([{"type": "Webhook", "name": "a", "webhook": {}}], "authorizers[0].webhook.failurePolicy: Required value"),
    (
        [{"type": "Webhook", "name": "a", "webhook": {"connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "x"}}}],
        "must be an absolute path",
    ),
    ([{"type": "Webhook", "name": "a", "webhook": {"matchConditions": [{"expression": "x"}]}}], "undeclared reference"),
    ([{"type": "RBAC", "name": "a", "what": 1}], 'unknown field "authorizers[0].what"'),
]


@pytest.mark.parametrize(("entries", "words"), BAD, ids=[words for _, words in BAD])
def test_files_that_cannot_be_used(tmp_path: Path, entries: Any, words: str) -> None:
    obj = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": entries}
    (tmp_path / "f.yaml").write_text(yaml.safe_dump(obj))
    with pytest.raises(ConfigFileError) as caught:
        configuration.read(tmp_path / "f.yaml")
    assert words in str(caught.value)


def test_the_older_flags() -> None:
    assert configuration.from_flags({}) == configuration.DEFAULT
    flags = {"authorization-mode": ("Node,RBAC",)}
    assert [mode.type for mode in configuration.from_flags(flags)] == ["Node", "RBAC"]
    for bad in ("Webhook", "ABAC", "RBAC,RBAC"):
        with pytest.raises(ConfigFileError):
            configuration.from_flags({"authorization-mode": (bad,)})
