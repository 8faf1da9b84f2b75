"""Create, get, update, patch: what is stored, what is answered, what is refused, in upstream's words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.apiserver.conftest import CMS, DEPLOYMENTS, PODS, Api, config_map, deployment, pod


async def test_create_fills_in_what_the_server_owns(api: Api) -> None:
    answer = await api("POST", CMS, config_map("a", x="1"))
    meta = answer.json["metadata"]
    assert answer.status == 201
    assert meta["namespace"] == "default" and meta["uid"] and meta["creationTimestamp"] and meta["resourceVersion"]
    assert (await api.ok("GET", f"{CMS}/a")) == answer.json


async def test_generate_name(api: Api) -> None:
    body = {"metadata": {"generateName": "x-"}}
    names = {(await api.ok("POST", CMS, body))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3 and all(len(name) == 7 and name.startswith("x-") for name in names)


REFUSED: list[tuple[str, str, str, Any, int, str]] = [
    ("not found", "GET", f"{CMS}/none", None, 404, 'configmaps "none" not found'),
    ("no such kind", "GET", "/api/v1/namespaces/default/wibbles", None, 404, "the server could not find the requested resource"),
    ("no such group", "GET", "/apis/apps/v7/bars", None, 404, "the server could not find the requested resource"),
    (
        "verb not served",
        "DELETE",
        "/api/v1/namespaces",
        None,
        405,
        "the server does not allow this method on the requested resource",
    ),
    ("PUT without a name", "PUT", CMS, {}, 405, "the server does not allow this method on the requested resource"),
    ("PATCH without a name", "PATCH", CMS, {}, 405, "the server does not allow this method on the requested resource"),
    ("broken JSON", "POST", CMS, b"{", 400, "couldn't get version/kind; json parse error"),
    ("no body", "POST", CMS, None, 400, "unexpected end of JSON input"),
    ("a list", "POST", CMS, b"[]", 400, "cannot unmarshal array into Go value"),
    ("metadata is a string", "POST", CMS, {"metadata": "x"}, 400, "cannot unmarshal string into Go struct field"),
    ("kind is a number", "POST", CMS, {"kind": 3}, 400, "cannot unmarshal"),
    (
        "other kind",
        "POST",
        CMS,
        {"apiVersion": "v1", "kind": "Secret"},
        400,
        'Secret in version "v1" cannot be handled as a ConfigMap',
    ),
    ("unknown kind", "POST", CMS, {"apiVersion": "v1", "kind": "Wibble"}, 400, 'no kind "Wibble" is registered for version "v1"'),
    (
        "other version",
        "POST",
        CMS,
        {"apiVersion": "v2", "kind": "ConfigMap"},
        400,
        'no kind "ConfigMap" is registered for version "v2"',
    ),
    (
        "other namespace",
        "POST",
        CMS,
        {"metadata": {"name": "a", "namespace": "b"}},
        400,
        "the namespace of the provided object does not match the namespace sent on the request",
    ),
    (
        "with a version",
        "POST",
        CMS,
        {"metadata": {"name": "a", "resourceVersion": "5"}},
        400,
        "resourceVersion should not be set on objects to be created",
    ),
    ("no name", "POST", CMS, {"metadata": {}}, 422, "name or generateName is required"),
    ("bad name", "POST", CMS, config_map("A_b"), 422, "a lowercase RFC 1123 subdomain must consist of"),
    ("dry run of something", "POST", f"{CMS}?dryRun=Some", config_map("a"), 422, 'supported values: "All"'),
    ("validation word", "POST", f"{CMS}?fieldValidation=Foo", config_map("a"), 422, "fieldValidation"),
    ("data is a list", "POST", CMS, {"metadata": {"name": "a"}, "data": []}, 400, "cannot unmarshal array"),
    ("replicas is a string", "POST", DEPLOYMENTS, {"metadata": {"name": "a"}, "spec": {"replicas": "x"}}, 400, "of type int32"),
    ("name in the URL", "PUT", f"{CMS}/a", config_map("b"), 400, "does not match the name on the URL"),
    ("update of nothing", "PUT", f"{CMS}/a", config_map("a"), 404, 'configmaps "a" not found'),
    ("patch of nothing", "PATCH", f"{CMS}/a", {"data": {}}, 415, "application/strategic-merge-patch+json"),
    ("bad limit", "GET", f"{CMS}?limit=x", None, 400, "invalid syntax"),
    ("bad version", "GET", f"{CMS}?resourceVersion=x", None, 400, "invalid syntax"),
    ("bad label selector", "GET", f"{CMS}?labelSelector=a%20b%20c", None, 400, "unable to parse requirement"),
    ("bad field selector", "GET", f"{CMS}?fieldSelector=data.x=1", None, 400, "is not a known field selector"),
    ("bad pod field", "GET", f"{PODS}?fieldSelector=spec.foo=1", None, 400, "field label not supported: spec.foo"),
    (
        "match without version",
        "GET",
        f"{CMS}?resourceVersionMatch=Exact",
        None,
        422,
        "forbidden unless resourceVersion is provided",
    ),
    ("broken token", "GET", f"{CMS}?continue=!!", None, 400, "continue key is not valid"),
]


@pytest.mark.parametrize(("method", "target", "body", "status", "text"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
async def test_refusals(api: Api, method: str, target: str, body: Any, status: int, text: str) -> None:
    answer = await api(method, target, body)
    assert (answer.status, answer.json["kind"], answer.json["code"]) == (status, "Status", status), answer.raw
    assert text in answer.json["message"]


async def test_already_exists(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a"))
    answer = await api("POST", CMS, config_map("a"))
    assert answer.json["message"] == 'configmaps "a" already exists' and answer.json["reason"] == "AlreadyExists"


async def test_update_conflict_and_no_op(api: Api) -> None:
    first = await api.ok("POST", CMS, config_map("a", x="1"))
    second = await api.ok("PUT", f"{CMS}/a", {**first, "data": {"x": "2"}})
    answer = await api("PUT", f"{CMS}/a", {**first, "data": {"x": "3"}})
    assert answer.status == 409
    assert answer.json["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    before = api.store.revision
    again = await api.ok("PUT", f"{CMS}/a", second)
    assert again["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"] and api.store.revision == before


async def test_update_with_another_uid(api: Api) -> None:
    first = await api.ok("POST", CMS, config_map("a"))
    first["metadata"].update(uid="other", resourceVersion="")
    answer = await api("PUT", f"{CMS}/a", first)
    assert answer.status == 409 and "Precondition failed: UID in precondition: other" in answer.json["message"]


async def test_put_creates_where_the_kind_allows_it(api: Api) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}
    answer = await api("PUT", "/apis/coordination.k8s.io/v1/namespaces/default/leases/l", lease)
    assert answer.status == 201


async def test_put_without_version_where_that_is_not_allowed(api: Api) -> None:
    path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}
    await api.ok("POST", path, budget)
    answer = await api("PUT", f"{path}/b", budget)
    assert answer.status == 422 and "must be specified for an update" in answer.json["message"]


PATCHES = [
    ("application/merge-patch+json", {"data": {"x": None, "y": "2"}}, {"y": "2"}),
    ("application/json-patch+json", [{"op": "add", "path": "/data/y", "value": "2"}], {"x": "1", "y": "2"}),
    ("application/strategic-merge-patch+json", {"data": {"y": "2"}}, {"x": "1", "y": "2"}),
]


@pytest.mark.parametrize(("type", "patch", "data"), PATCHES)
async def test_patches(api: Api, type: str, patch: Any, data: dict[str, str]) -> None:
    await api.ok("POST", CMS, config_map("a", x="1"))
    assert (await api.ok("PATCH", f"{CMS}/a", patch, type=type))["data"] == data


BAD_PATCHES = [
    ("application/merge-patch+json", b"{", 400),
    ("application/merge-patch+json", [], 400),
    ("application/merge-patch+json", {"data": 3}, 422),
    ("application/merge-patch+json", {"metadata": None}, 400),
    ("application/merge-patch+json", {"metadata": {"name": "b"}}, 400),
    ("application/merge-patch+json", {"kind": "Secret"}, 422),
    ("application/merge-patch+json", {"metadata": {"resourceVersion": "1"}}, 409),
    ("application/json-patch+json", {}, 400),
    ("application/json-patch+json", [{"op": "remove", "path": "/data/none"}], 422),
    ("application/json-patch+json", [{"op": "test", "path": "/data/x", "value": "9"}], 422),
    ("application/json-patch+json", [{"op": "wibble"}], 422),
    ("application/strategic-merge-patch+json", {"data": "x"}, 422),
    ("application/apply-patch+yaml", b"data: {x: 1", 400),
    ("text/html", {}, 415),
]


@pytest.mark.parametrize(("type", "patch", "status"), BAD_PATCHES)
async def test_bad_patches_are_the_clients_fault(api: Api, type: str, patch: Any, status: int) -> None:
    await api.ok("POST", CMS, config_map("a", x="1"))
    answer = await api("PATCH", f"{CMS}/a?fieldManager=m", patch, type=type)
    assert answer.status == status, answer.raw


async def test_concurrent_patches_all_count(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a"))
    merge = "application/merge-patch+json"
    patches = [api.ok("PATCH", f"{CMS}/a", {"data": {f"k{i}": "v"}}, type=merge) for i in range(20)]
    await asyncio.gather(*patches)
    assert len((await api.ok("GET", f"{CMS}/a"))["data"]) == 20


async def test_apply_creates_and_merges(api: Api) -> None:
    apply = "application/apply-patch+yaml"
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: '1'\n"
    answer = await api("PATCH", f"{CMS}/a?fieldManager=one", body, type=apply)
    assert answer.status == 201, answer.raw
    assert [m["manager"] for m in answer.json["metadata"]["managedFields"]] == ["one"]
    answer = await api("PATCH", f"{CMS}/a?fieldManager=two", body.replace(b"'1'", b"'2'"), type=apply)
    assert answer.status == 409 and "conflict" in answer.json["message"]
    answer = await api("PATCH", f"{CMS}/a?fieldManager=two&force=true", body.replace(b"'1'", b"'2'"), type=apply)
    assert answer.status == 200 and answer.json["data"] == {"x": "2"}
    version = answer.json["metadata"]["resourceVersion"]
    again = await api("PATCH", f"{CMS}/a?fieldManager=two", body.replace(b"'1'", b"'2'"), type=apply)
    assert again.json["metadata"]["resourceVersion"] == version


async def test_apply_needs_a_manager(api: Api) -> None:
    answer = await api("PATCH", f"{CMS}/a", {}, type="application/apply-patch+yaml")
    assert answer.status == 422 and "is required for apply patch" in answer.json["message"]
    answer = await api("PATCH", f"{CMS}/a?force=true", {}, type="application/merge-patch+json")
    assert answer.status == 422 and "may not be specified for non-apply patch" in answer.json["message"]


async def test_field_validation(api: Api) -> None:
    body = {**deployment("a"), "foo": 1}
    body["spec"]["bar"] = 2
    strict = await api("POST", f"{DEPLOYMENTS}?fieldValidation=Strict", body)
    assert strict.status == 400
    assert 'strict decoding error: unknown field "spec.bar", unknown field "foo"' in strict.json["message"] or (
        'unknown field "foo"' in strict.json["message"] and 'unknown field "spec.bar"' in strict.json["message"]
    )
    warned = await api("POST", f"{DEPLOYMENTS}?dryRun=All", body)
    assert warned.status == 201 and '299 - "unknown field \\"spec.bar\\""' in warned.warnings
    silent = await api("POST", f"{DEPLOYMENTS}?dryRun=All&fieldValidation=Ignore", body)
    assert silent.status == 201 and not silent.warnings
    twice = b'{"metadata":{"name":"d"},"data":{"a":"1","a":"2"}}'
    answer = await api("POST", f"{CMS}?fieldValidation=Strict", twice)
    assert answer.status == 400 and 'duplicate field "data.a"' in answer.json["message"]


async def test_dry_run_stores_nothing(api: Api) -> None:
    before = api.store.revision
    assert (await api("POST", f"{CMS}?dryRun=All", config_map("a"))).status == 201
    assert api.store.revision == before
    await api.ok("POST", CMS, config_map("a", x="1"))
    before = api.store.revision
    answer = await api.ok("PATCH", f"{CMS}/a?dryRun=All", {"data": {"x": "2"}}, type="application/merge-patch+json")
    assert answer["data"] == {"x": "2"} and api.store.revision == before
    assert (await api("DELETE", f"{CMS}/a?dryRun=All")).status == 200
    assert (await api("GET", f"{CMS}/a")).status == 200


async def test_managers_come_from_the_user_agent(api: Api) -> None:
    made = await api.ok("POST", CMS, config_map("a", x="1"), User_Agent="helm/v3.1 (linux)")
    assert [(m["manager"], m["operation"]) for m in made["metadata"]["managedFields"]] == [("helm", "Update")]


async def test_generation_moves_with_the_spec_only(api: Api) -> None:
    made = await api.ok("POST", DEPLOYMENTS, deployment("d"))
    assert made["metadata"]["generation"] == 1 and made["status"] == {}
    merge = "application/merge-patch+json"
    labelled = await api.ok("PATCH", f"{DEPLOYMENTS}/d", {"metadata": {"labels": {"a": "b"}}}, type=merge)
    assert labelled["metadata"]["generation"] == 1
    scaled = await api.ok("PATCH", f"{DEPLOYMENTS}/d", {"spec": {"replicas": 5}}, type=merge)
    assert scaled["metadata"]["generation"] == 2
    ignored = await api.ok("PATCH", f"{DEPLOYMENTS}/d", {"status": {"replicas": 9}}, type=merge)
    assert ignored["status"] == {} and ignored["metadata"]["resourceVersion"] == scaled["metadata"]["resourceVersion"]
    status = await api.ok("PATCH", f"{DEPLOYMENTS}/d/status", {"status": {"replicas": 9}, "spec": {"replicas": 1}}, type=merge)
    assert status["status"]["replicas"] == 9 and status["spec"]["replicas"] == 5 and status["metadata"]["generation"] == 2


async def test_pods_begin_pending_with_a_quality_class(api: Api) -> None:
    made = await api.ok("POST", PODS, {**pod("p"), "status": {"phase": "Running"}})
    assert made["status"]["phase"] == "Pending" and made["status"]["qosClass"] == "BestEffort"
    limits = {"cpu": "1", "memory": "1Gi"}
    made = await api.ok("POST", PODS, pod("g", containers=[{"name": "c", "image": "i", "resources": {"limits": limits}}]))
    assert made["status"]["qosClass"] == "Guaranteed"


async def test_yaml_in_and_out(api: Api) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {a: 'b'}\n"
    answer = await api("POST", CMS, body, type="application/yaml", Accept="application/yaml")
    assert answer.status == 201 and answer.content_type == "application/yaml" and b"a: b" in answer.raw


async def test_too_large(api: Api) -> None:
    answer = await api("POST", CMS, b'{"a":"' + b"x" * (3 * 1024 * 1024) + b'"}')
    assert answer.status == 413 and answer.json["reason"] == "RequestEntityTooLarge"


async def test_secret_texts_become_data(api: Api) -> None:
    body = {"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}}
    made = await api.ok("POST", "/api/v1/namespaces/default/secrets", body)
    assert made["data"] == {"a": "Yg==", "c": "ZA=="} and "stringData" not in made and made["type"] == "Opaque"


async def test_two_versions_of_one_kind(api: Api) -> None:
    v1 = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
    v2 = v1.replace("v1", "v2")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    spec = {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}
    made = await api.ok("POST", v1, {"apiVersion": "autoscaling/v1", "metadata": {"name": "h"}, "spec": spec})
    assert made["apiVersion"] == "autoscaling/v1" and made["spec"]["targetCPUUtilizationPercentage"] == 50
    other = await api.ok("GET", f"{v2}/h")
    assert (
        other["apiVersion"] == "autoscaling/v2" and other["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
    )
    listed = await api.ok("GET", v1)
    assert listed["items"][0]["spec"]["targetCPUUtilizationPercentage"] == 50


async def test_a_field_that_stands_twice_in_a_patch(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a"))
    body, merge = b'{"data":{"x":"1","x":"2"}}', "application/merge-patch+json"
    strict = await api("PATCH", f"{CMS}/a?fieldValidation=Strict", body, type=merge)
    assert strict.status == 422 and 'strict decoding error: duplicate field "data.x"' in strict.json["message"]
    warned = await api("PATCH", f"{CMS}/a", body, type=merge)
    assert warned.json["data"] == {"x": "2"} and 'duplicate field \\"data.x\\"' in warned.warnings[0]


async def test_zeros_that_go_leaves_out_are_not_kept(api: Api) -> None:
    """A client in Go writes an object back without them: that changes nothing, and rolls nothing out."""
    body = deployment("d", replicas=0)
    body["spec"] |= {"paused": False, "minReadySeconds": 0}
    body["spec"]["template"]["spec"] |= {
        "hostNetwork": False,
        "nodeName": "",
        "dnsPolicy": "",
        "automountServiceAccountToken": False,
    }
    made = await api.ok("POST", DEPLOYMENTS, body)
    spec, template = made["spec"], made["spec"]["template"]["spec"]
    assert spec["replicas"] == 0 and template["automountServiceAccountToken"] is False
    assert template["dnsPolicy"] == "ClusterFirst"
    assert not {"paused", "minReadySeconds"} & set(spec) and not {"hostNetwork", "nodeName"} & set(template)
    found = await api.ok("PATCH", f"{DEPLOYMENTS}/d", {"spec": {"paused": False}}, type="application/merge-patch+json")
    assert found == made
