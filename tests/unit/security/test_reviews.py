"""The reviews and token requests through the whole API server, over the reference store, with the default roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from k1s.api.catalog import builtin
from k1s.base import pki
from k1s.base.clock import REAL_CLOCK
from k1s.base.http import Headers, MemoryBody, Request, Response
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.bootstrap import ensure_defaults
from k1s.server.config import ServerConfig
from k1s.server.security import Security
from k1s.storage.memory import MemoryStore

ROOT = UserInfo("root", ("system:masters", "system:authenticated"))
JANE = UserInfo("jane", ("dev", "system:authenticated"))


class Api:
    def __init__(self) -> None:
        config = ServerConfig(data_dir=Path("/nonexistent"))
        self.security = Security(config, REAL_CLOCK, [pki.new_key()])
        security = self.security
        self.store = MemoryStore()
        self.server = ApiServer(
            self.store,
            authenticator=security,
            authorizer=security,
            config=config,
            impersonate=security.impersonate,
            handlers=security.handlers(),
            paths=security.paths(),
        )
        self.client = RestClient(LocalTransport(self.server.handle, ROOT))

    async def start(self) -> asyncio.Task[None]:
        await self.store.open()
        loaded = asyncio.Event()
        task = asyncio.create_task(self.server.run(loaded.set))
        await loaded.wait()
        self.server.admission = self.security.attach(self.server.informers, self.client)
        await ensure_defaults(
            self.client,
            self.server.informers,
            self.server.config,
            advertise_address="192.0.2.1",
            client_ca=b"CA",
            request_header_ca=b"RH",
        )
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa", "namespace": "default"}}
        await self.client.create(builtin("ServiceAccount"), account)
        return task

    async def call(
        self, method: str, path: str, body: Any = None, user: UserInfo | None = ROOT, **headers: str
    ) -> tuple[int, Any]:
        data = b"" if body is None else orjson.dumps(body)
        fields = [(key.replace("_", "-"), value) for key, value in {"content_type": "application/json", **headers}.items()]
        context = {"user": user} if user is not None else {}
        request = Request(method, path, headers=Headers(fields), body=MemoryBody(data), raw_path=path, context=context)
        answer = await self.server.handle(request)
        assert isinstance(answer, Response)
        return answer.status, orjson.loads(answer.body)

    async def review(self, kind: str, spec: Any, user: UserInfo = ROOT, namespace: str = "") -> tuple[int, Any]:
        resource = builtin(kind)
        obj: dict[str, Any] = {"apiVersion": resource.api_version, "kind": kind, "metadata": {}, "spec": spec}
        return await self.call("POST", resource.path(namespace), obj, user)

    async def token(self) -> str:
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        code, answer = await self.call("POST", "/api/v1/namespaces/default/serviceaccounts/sa/token", request)
        assert code == 201, answer
        return str(answer["status"]["token"])


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    task = await made.start()
    yield made
    task.cancel()
    await made.store.close()


async def test_a_token_is_asked_for_used_and_reviewed(api: Api) -> None:
    token = await api.token()
    whoami = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    code, answer = await api.call("POST", path, whoami, None, authorization=f"Bearer {token}")
    assert (code, answer["status"]["userInfo"]["username"]) == (201, "system:serviceaccount:default:sa")
    code, answer = await api.review("TokenReview", {"token": token})
    assert answer["status"]["authenticated"]
    assert answer["status"]["user"]["groups"][1] == "system:serviceaccounts:default"
    code, answer = await api.review("TokenReview", {"token": "abc"})
    assert (code, answer["status"]) == (201, {"user": {}, "error": "invalid bearer token"})
    code, answer = await api.review("TokenReview", {"token": f"{token[:-8]}AAAAAAAA"})
    words = "go-jose/go-jose: error in cryptographic primitive"
    assert (code, answer["status"]) == (201, {"user": {}, "error": f"[invalid bearer token, {words}]"})
    code, answer = await api.review("TokenReview", {"token": token, "audiences": ["elsewhere"]})
    meant = '["https://kubernetes.default.svc.cluster.local" "k1s"]'
    words = f'token audiences {meant} is invalid for the target audiences ["elsewhere"]'
    assert answer["status"] == {"user": {}, "error": f"[invalid bearer token, {words}]"}
    code, answer = await api.call("GET", "/api/v1/pods", None, None, authorization=f"Bearer {token}")
    assert code == 403
    assert 'User "system:serviceaccount:default:sa" cannot list resource "pods"' in answer["message"]
    code, answer = await api.call("GET", "/api/v1/pods", None, None, authorization="Bearer x.y.z")
    assert code == 401


async def test_access_reviews(api: Api) -> None:
    attributes = {"verb": "get", "resource": "pods", "namespace": "default"}
    ask: dict[str, Any] = {"resourceAttributes": attributes, "user": "jane"}
    assert (await api.review("SubjectAccessReview", ask))[1]["status"] == {"allowed": False}
    masters = {**ask, "groups": ["system:masters"]}
    assert (await api.review("SubjectAccessReview", masters))[1]["status"] == {"allowed": True}
    path = {"nonResourceAttributes": {"verb": "get", "path": "/version"}, "user": "x", "groups": ["system:unauthenticated"]}
    name = '"system:public-info-viewer"'
    why = f'RBAC: allowed by ClusterRoleBinding {name} of ClusterRole {name} to Group "system:unauthenticated"'
    assert (await api.review("SubjectAccessReview", path))[1]["status"] == {"allowed": True, "reason": why}
    mine = {"resourceAttributes": {"verb": "create", "group": "authorization.k8s.io", "resource": "selfsubjectaccessreviews"}}
    assert (await api.review("SelfSubjectAccessReview", mine, JANE))[1]["status"]["allowed"]
    assert (await api.review("LocalSubjectAccessReview", ask, namespace="default"))[0] == 201
    assert (await api.review("SubjectAccessReview", ask, JANE))[0] == 403


@pytest.mark.parametrize(
    ("kind", "spec", "text"),
    [
        ("SubjectAccessReview", {"user": "u"}, "exactly one of nonResourceAttributes or resourceAttributes must be specified"),
        ("SubjectAccessReview", {"resourceAttributes": {"verb": "get"}}, "at least one of user or group must be specified"),
        (
            "SelfSubjectAccessReview",
            {"resourceAttributes": {}, "nonResourceAttributes": {}},
            "cannot be specified in combination",
        ),
        (
            "SelfSubjectAccessReview",
            {"resourceAttributes": {"fieldSelector": {}}},
            "spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is "
            "specified, requirements or rawSelector is required",
        ),
        (
            "SelfSubjectAccessReview",
            {"resourceAttributes": {"labelSelector": {"rawSelector": "a", "requirements": [{"key": "", "operator": "In"}]}}},
            '[spec.resourceAttributes.labelSelector.rawSelector: Invalid value: "a": may not specified at the same time as '
            "requirements, spec.resourceAttributes.labelSelector.requirements[0].key: Required value: must be specified, "
            "spec.resourceAttributes.labelSelector.requirements[0].values: Required value: must be specified when `operator` is "
            "'In' or 'NotIn']",
        ),
    ],
)
async def test_reviews_that_ask_nothing(api: Api, kind: str, spec: Any, text: str) -> None:
    code, answer = await api.review(kind, spec)
    assert code == 422
    assert text in answer["message"]


async def test_what_may_i_do(api: Api) -> None:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "b", "namespace": "default"},
        "roleRef": reference,
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "dev"}],
    }
    await api.client.create(builtin("RoleBinding"), binding)
    status = (await api.review("SelfSubjectRulesReview", {"namespace": "default"}, JANE))[1]["status"]
    assert not status["incomplete"]
    assert any("pods" in rule["resources"] and rule["verbs"] == ["get", "list", "watch"] for rule in status["resourceRules"])
    assert any("/version" in rule["nonResourceURLs"] for rule in status["nonResourceRules"])
    other = (await api.review("SelfSubjectRulesReview", {"namespace": "kube-system"}, JANE))[1]["status"]
    assert not any("pods" in rule["resources"] for rule in other["resourceRules"])


async def test_a_pod_passes_admission_on_its_way_in(api: Api) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    code, made = await api.call(
        "POST", "/api/v1/namespaces/default/pods", {**pod, "spec": {**pod["spec"], "serviceAccountName": "sa"}}
    )
    assert code == 201, made
    assert made["spec"]["volumes"][0]["projected"]["defaultMode"] == 420
    code, answer = await api.call("POST", "/api/v1/namespaces/nowhere/pods", pod)
    assert (code, answer["message"]) == (404, 'namespaces "nowhere" not found')
    code, answer = await api.call("DELETE", "/api/v1/namespaces/kube-system")
    assert (code, answer["reason"]) == (403, "Forbidden")


async def test_nobody_raises_their_own_rights(api: Api) -> None:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding"}
    first = {**kind, "metadata": {"name": "a", "namespace": "default"}, "roleRef": reference, "subjects": [subject]}
    await api.client.create(builtin("RoleBinding"), first)
    wanted = {**first, "metadata": {"name": "b"}, "roleRef": {**reference, "name": "cluster-admin"}}
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
    code, answer = await api.call("POST", path, wanted, JANE)
    assert code == 403
    assert "not currently held" in answer["message"]
    code, answer = await api.call("POST", path, {**wanted, "roleRef": {**reference, "name": "edit"}}, JANE)
    assert code == 201, answer


async def test_openid_documents_are_for_service_accounts(api: Api) -> None:
    account = {"authorization": f"Bearer {await api.token()}"}
    code, document = await api.call("GET", "/.well-known/openid-configuration", None, None, **account, host="k:6443")
    assert (code, document["jwks_uri"]) == (200, "https://k:6443/openid/v1/jwks")
    assert (await api.call("GET", "/openid/v1/jwks", None, None, **account))[1]["keys"]
    assert (await api.call("GET", "/openid/v1/jwks", None, None))[0] == 403


async def test_a_second_bootstrap_writes_nothing(api: Api) -> None:
    before = api.server.hub.revision
    written = await ensure_defaults(
        api.client,
        api.server.informers,
        api.server.config,
        advertise_address="192.0.2.1",
        client_ca=b"CA",
        request_header_ca=b"RH",
    )
    assert (written, api.server.hub.revision) == (0, before)


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        (
            {"expirationSeconds": 599},
            422,
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        ),
        ({"expirationSeconds": 1 << 33}, 422, "may not specify a duration larger than 2^32 seconds"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none"}}, 404, 'pods "none" not found'),
        (
            {"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}},
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap",
        ),
        (
            {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}},
            400,
            'cannot bind token for serviceaccount "sa" to pod running with different serviceaccount name.',
        ),
        (
            {"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": "other"}},
            409,
            'Operation cannot be fulfilled on Secret "s": the UID in the bound object reference (other) does not match the UID '
            "in record. The object might have been deleted and then recreated",
        ),
    ],
)
async def test_token_requests_that_cannot_be_met(api: Api, spec: Any, code: int, text: str) -> None:
    meta = {"namespace": "default"}
    await api.client.create(builtin("Secret"), {"metadata": {**meta, "name": "s"}})
    await api.client.create(builtin("ServiceAccount"), {"metadata": {**meta, "name": "default"}})
    pod = {"metadata": {**meta, "name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await api.client.create(builtin("Pod"), pod)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    found, answer = await api.call("POST", "/api/v1/namespaces/default/serviceaccounts/sa/token", request)
    assert (found, text in answer["message"]) == (code, True), answer["message"]


async def test_a_token_request_for_another_account(api: Api) -> None:
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {"name": "x"}, "spec": {}}
    code, answer = await api.call("POST", "/api/v1/namespaces/default/serviceaccounts/sa/token", request)
    assert code == 422
    assert 'metadata.name: Invalid value: "x": must match the service account name if specified' in answer["message"]
