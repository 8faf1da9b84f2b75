"""Admission webhooks over real HTTPS: what they are asked, what becomes of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from k1s.base.http import Headers, MemoryBody, Request, Response
from tests.unit.apiserver.conftest import CMS, PODS, SERVICES, config_map, pod
from tests.unit.apiserver.extension_server import NAME, put_endpoints, service
from tests.unit.apiserver.webhook_server import WEBHOOKS, Hooks, annotate, patching, webhooks

Object = dict[str, Any]
MERGE = "application/merge-patch+json"


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Hooks]:
    async with webhooks(tmp_path) as hooks:
        yield hooks


async def test_a_review_says_all_there_is_to_say(hooks: Hooks) -> None:
    await hooks.validating(hooks.hook("/v"))
    await hooks.api.ok("POST", f"{CMS}?dryRun=All&fieldManager=me", config_map("a", x="1"))
    asked = hooks.asked()
    assert len(asked.pop("uid")) == 36
    obj = asked.pop("object")
    assert obj["kind"] == "ConfigMap" and obj["data"] == {"x": "1"} and obj["metadata"]["namespace"] == "default"
    options = asked.pop("options")
    assert options == {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"], "fieldManager": "me"}
    kind = {"group": "", "version": "v1", "kind": "ConfigMap"}
    resource = {"group": "", "version": "v1", "resource": "configmaps"}
    assert asked == {
        "kind": kind,
        "requestKind": kind,
        "resource": resource,
        "requestResource": resource,
        "name": "a",
        "namespace": "default",
        "operation": "CREATE",
        "userInfo": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
        "oldObject": None,
        "dryRun": True,
    }
    assert hooks.server.seen[-1].param("timeout") == "10s" and hooks.server.seen[-1].method == "POST"


async def test_updates_and_deletions_bring_the_old_object(hooks: Hooks) -> None:
    await hooks.api.ok("POST", CMS, config_map("a", x="1"))
    await hooks.validating(hooks.hook("/v"))
    await hooks.api.ok("PATCH", f"{CMS}/a", {"data": {"x": "2"}}, type=MERGE)
    asked = hooks.asked()
    assert asked["operation"] == "UPDATE" and (asked["object"]["data"], asked["oldObject"]["data"]) == ({"x": "2"}, {"x": "1"})
    await hooks.api.ok("DELETE", f"{CMS}/a?propagationPolicy=Foreground&gracePeriodSeconds=0")
    asked = hooks.asked()
    options = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}
    assert asked["options"] == {**options, "propagationPolicy": "Foreground", "gracePeriodSeconds": 0}
    assert asked["operation"] == "DELETE" and asked["object"] is None and asked["oldObject"]["data"] == {"x": "2"}


@pytest.mark.parametrize(
    ("answer", "code", "reason", "message"),
    [
        ({"allowed": False}, 400, "", 'admission webhook "v.example.com" denied the request without explanation'),
        (
            {"allowed": False, "status": {"message": "too big", "code": 403}},
            403,
            "",
            'admission webhook "v.example.com" denied the request: too big',
        ),
        (
            {"allowed": False, "status": {"reason": "Forbidden", "code": 200}},
            400,
            "Forbidden",
            'admission webhook "v.example.com" denied the request: Forbidden',
        ),
    ],
)
async def test_a_denial_is_in_the_webhooks_words(hooks: Hooks, answer: Object, code: int, reason: str, message: str) -> None:
    hooks.on["/v"] = lambda _: answer
    await hooks.validating(hooks.hook("/v"))
    refused = await hooks.api("POST", CMS, config_map("a"))
    assert (refused.status, refused.json["message"], refused.json.get("reason", "")) == (code, message, reason)
    assert (await hooks.api("GET", f"{CMS}/a")).status == 404


async def test_warnings_reach_the_client(hooks: Hooks) -> None:
    hooks.on["/v"] = lambda _: {"allowed": True, "warnings": ["old field"]}
    hooks.on["/m"] = lambda _: {"allowed": True, "warnings": ["from a mutator"]}
    await hooks.validating(hooks.hook("/v"))
    await hooks.mutating(hooks.hook("/m"))
    made = await hooks.api("POST", CMS, config_map("a"))
    assert sorted(made.warnings) == ['299 - "from a mutator"', '299 - "old field"']


async def test_a_refusal_brings_its_warnings(hooks: Hooks) -> None:
    hooks.on["/v"] = lambda _: {"allowed": False, "warnings": ["think of it"]}
    await hooks.validating(hooks.hook("/v"))
    refused = await hooks.api("POST", CMS, config_map("a"))
    assert refused.status == 400 and refused.warnings == ['299 - "think of it"']


async def test_what_webhooks_did_is_noted_for_the_audit(hooks: Hooks) -> None:
    hooks.on["/m"] = lambda request: annotate("a", "b", request)
    hooks.on["/v"] = lambda _: {"allowed": True, "auditAnnotations": {"why": "because"}}
    hooks.on["/broken"] = lambda _: Response(500, b"boom")
    await hooks.mutating(hooks.hook("/m"), hooks.hook("/none"))
    await hooks.validating(hooks.hook("/v"), hooks.hook("/broken", failurePolicy="Ignore"))
    body = MemoryBody(orjson.dumps(config_map("a")))
    request = Request("POST", CMS, headers=Headers([("Content-Type", "application/json")]), body=body, raw_path=CMS)
    assert (await hooks.api.server.handle(request)).status == 201  # type: ignore[union-attr]
    assert request.context["annotations"] == {
        "mutation.webhook.admission.k8s.io/round_0_index_0": '{"configuration":"m","webhook":"m.example.com","mutated":true}',
        "mutation.webhook.admission.k8s.io/round_0_index_1": '{"configuration":"m","webhook":"none.example.com","mutated":false}',
        "patch.webhook.admission.k8s.io/round_0_index_0": (
            '{"configuration":"m","webhook":"m.example.com",'
            '"patch":[{"op":"add","path":"/metadata/annotations","value":{"a":"b"}}],"patchType":"JSONPatch"}'
        ),
        "v.example.com/why": "because",
        "failed-open.validating.webhook.admission.k8s.io/round_0_index_1": "broken.example.com",
    }


async def test_mutating_webhooks_go_by_name_and_each_sees_the_one_before(hooks: Hooks) -> None:
    for path in ("/one", "/two", "/three"):
        hooks.on[path] = lambda request, path=path: annotate(path.strip("/"), "yes", request)  # type: ignore[misc]
    await hooks.mutating(hooks.hook("/three"), name="b")
    await hooks.mutating(hooks.hook("/two"), hooks.hook("/one"), name="a")
    made = await hooks.api.ok("POST", CMS, config_map("a"))
    assert hooks.calls == ["/two", "/one", "/three"]
    assert made["metadata"]["annotations"] == {"two": "yes", "one": "yes", "three": "yes"}
    assert hooks.asked()["object"]["metadata"]["annotations"] == {"two": "yes", "one": "yes"}


async def test_what_a_webhook_puts_in_is_pruned_defaulted_and_validated(hooks: Hooks) -> None:
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    sidecar = {"name": "sidecar", "image": "busybox", "unknown": 1}
    hooks.on["/m"] = lambda _: patching({"op": "add", "path": "/spec/containers/-", "value": sidecar})
    await hooks.mutating(hooks.hook("/m", rules=[rule]))
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await hooks.api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", account)
    made = await hooks.api.ok("POST", PODS, pod("a"))
    added = made["spec"]["containers"][1]
    assert added["terminationMessagePath"] == "/dev/termination-log" and "unknown" not in added
    # The steps before the webhook have another look: the token is mounted into the new container, too.
    assert [m["mountPath"] for m in added["volumeMounts"]] == ["/var/run/secrets/kubernetes.io/serviceaccount"]
    hooks.on["/m"] = lambda _: patching({"op": "replace", "path": "/spec/containers/0/name", "value": "UPPER"})
    refused = await hooks.api("POST", PODS, pod("b"))
    assert refused.status == 422 and "spec.containers[0].name" in refused.json["message"]


async def test_a_webhook_is_asked_again_if_it_wants_and_something_changed(hooks: Hooks) -> None:
    hooks.on["/late"] = lambda request: annotate("late", "yes", request)
    await hooks.mutating(
        hooks.hook("/again", reinvocationPolicy="IfNeeded"),
        hooks.hook("/never"),
        hooks.hook("/late", reinvocationPolicy="IfNeeded"),
    )
    await hooks.api.ok("POST", CMS, config_map("a"))
    assert hooks.calls == ["/again", "/never", "/late", "/again"]
    assert hooks.asked()["object"]["metadata"]["annotations"] == {"late": "yes"}
    hooks.forget()
    hooks.on["/late"] = lambda _: {"allowed": True}
    await hooks.api.ok("POST", CMS, config_map("b"))
    assert hooks.calls == ["/again", "/never", "/late"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            Response(500, b"boom", "text/plain"),
            'failed to call webhook: an error on the server ("boom") has prevented the request from succeeding',
        ),
        (Response(404, b"nothing"), "failed to call webhook: the server could not find the requested resource"),
        (
            Response(200, b'{"response": {"uid": "x"}}'),
            "received invalid webhook response: expected response.uid=",
        ),
        ({"allowed": "yes"}, "received invalid webhook response: json: cannot unmarshal response.allowed"),
        ({"allowed": True, "patchType": "JSONPatch"}, "webhook returned response.patchType but not response.patch"),
        ({"allowed": True, "patchType": "Merge", "patch": "W10="}, 'unsupported patch type "Merge"'),
        (Response(200, b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}'), "webhook response was absent"),
        ({"uid": "other", "allowed": True}, "received invalid webhook response: expected response.uid="),
        ({"allowed": True, "patch": "W10="}, "webhook returned response.patch but not response.patchType"),
    ],
)
async def test_a_broken_webhook_fails_the_request_unless_told_to_ignore(hooks: Hooks, answer: Any, text: str) -> None:
    hooks.on["/m"] = lambda _: answer
    await hooks.mutating(hooks.hook("/m"))
    refused = await hooks.api("POST", CMS, config_map("a"))
    assert refused.status == 500 and text in refused.json["message"], refused.raw
    assert refused.json["message"].startswith('Internal error occurred: failed calling webhook "m.example.com": ')
    await hooks.api.ok("DELETE", f"{WEBHOOKS}/mutatingwebhookconfigurations/m")
    await hooks.mutating(hooks.hook("/m", failurePolicy="Ignore"))
    assert (await hooks.api("POST", CMS, config_map("a"))).status == 201


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
async def test_a_patch_that_does_not_apply_fails_whatever_the_policy(hooks: Hooks, policy: str) -> None:
    hooks.on["/m"] = lambda _: patching({"op": "replace", "path": "/none/there", "value": 1})
    await hooks.mutating(hooks.hook("/m", failurePolicy=policy))
    refused = await hooks.api("POST", CMS, config_map("a"))
    assert refused.status == 500 and "replace operation does not apply" in refused.json["message"], refused.raw


async def test_a_validating_webhook_changes_nothing(hooks: Hooks) -> None:
    hooks.on["/v"] = lambda _: patching({"op": "remove", "path": "/data"})
    await hooks.validating(hooks.hook("/v"))
    refused = await hooks.api("POST", CMS, config_map("a"))
    assert "received invalid webhook response: validating webhook may not return response.patch" in refused.json["message"]


async def test_one_that_did_not_match_at_first_is_not_asked_again(hooks: Hooks) -> None:
    selected = {"matchLabels": {"late": "yes"}}
    hooks.on["/late"] = lambda _: patching({"op": "add", "path": "/metadata/labels", "value": {"late": "yes"}})
    await hooks.mutating(hooks.hook("/again", reinvocationPolicy="IfNeeded", objectSelector=selected), hooks.hook("/late"))
    await hooks.api.ok("POST", CMS, config_map("a"))
    assert hooks.calls == ["/late"]


async def test_a_slow_webhook_is_not_waited_for_longer_than_it_may_take(hooks: Hooks) -> None:
    await hooks.validating(hooks.hook("/v", timeoutSeconds=1))
    answering = hooks.server.handle

    async def slow(request: Any) -> Any:
        await asyncio.sleep(3)
        return await answering(request)

    hooks.server.handle = slow  # type: ignore[method-assign]
    await hooks.server.stop()
    await hooks.server.start()
    refused = await hooks.api("POST", CMS, config_map("a"))
    expected = (
        'Internal error occurred: failed calling webhook "v.example.com": failed to call webhook: '
        f'Post "{hooks.server.url("/v")}?timeout=1s": context deadline exceeded'
    )
    assert refused.json["message"] == expected


async def test_a_webhook_that_is_not_there_or_not_trusted(hooks: Hooks) -> None:
    bad = hooks.hook("/v")
    bad["clientConfig"] = {"url": hooks.server.url("/v")}
    await hooks.validating(bad)
    refused = await hooks.api("POST", CMS, config_map("a"))
    assert "tls: failed to verify certificate: x509: certificate signed by unknown authority" in refused.json["message"]
    await hooks.api.ok("DELETE", f"{WEBHOOKS}/validatingwebhookconfigurations/v")
    await hooks.validating(hooks.hook("/v"))
    await hooks.server.stop()
    refused = await hooks.api("POST", CMS, config_map("a"))
    assert f"dial tcp 127.0.0.1:{hooks.server.port}: connect: connection refused" in refused.json["message"]


async def test_a_webhook_behind_a_service(hooks: Hooks) -> None:
    hook = hooks.hook("/v")
    hook["clientConfig"] = {
        "caBundle": hooks.server.ca_bundle,
        "service": {"namespace": "default", "name": "ext", "path": "/v"},
    }
    await hooks.validating(hook)
    head = f'failed calling webhook "v.example.com": failed to call webhook: Post "https://{NAME}:443/v?timeout=10s": '
    refused = await hooks.api("POST", CMS, config_map("a"))
    assert refused.json["message"] == f'Internal error occurred: {head}service "ext" not found'
    await hooks.api.ok("POST", SERVICES, service())
    refused = await hooks.api("POST", CMS, config_map("a"))
    assert refused.json["message"] == f'Internal error occurred: {head}no endpoints available for service "ext"'
    await put_endpoints(hooks.api.server, hooks.server.port)
    await hooks.api.ok("POST", CMS, config_map("a"))
    assert hooks.calls == ["/v"]


async def test_connections_are_kept_and_one_that_was_closed_is_replaced(hooks: Hooks) -> None:
    await hooks.validating(hooks.hook("/v"))
    for index in range(3):
        await hooks.api.ok("POST", CMS, config_map(f"a{index}"))
    await hooks.server.stop()
    await hooks.server.start()
    await hooks.api.ok("POST", CMS, config_map("b"))
    assert hooks.calls == ["/v"] * 4


async def test_webhook_configurations_are_beyond_webhooks(hooks: Hooks) -> None:
    hooks.on["/v"] = lambda _: {"allowed": False}
    rule = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
    await hooks.validating(hooks.hook("/v", rules=[rule]))
    assert (await hooks.api("POST", CMS, config_map("a"))).status == 400
    await hooks.api.ok("DELETE", f"{WEBHOOKS}/validatingwebhookconfigurations/v")
    await hooks.api.ok("POST", CMS, config_map("a"))
