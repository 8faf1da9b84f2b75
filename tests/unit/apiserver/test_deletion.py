"""How objects go: at once, gracefully, by finalizers, in bulk."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.conftest import CMS, DEPLOYMENTS, PODS, Api, config_map, deployment, pod

MERGE = "application/merge-patch+json"
NAMESPACES = "/api/v1/namespaces"


async def test_a_plain_object_goes_at_once(api: Api) -> None:
    made = await api.ok("POST", CMS, config_map("a"))
    answer = await api("DELETE", f"{CMS}/a")
    assert answer.status == 200 and answer.json["status"] == "Success"
    assert answer.json["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert (await api("GET", f"{CMS}/a")).status == 404
    assert (await api("DELETE", f"{CMS}/a")).status == 404


async def test_preconditions(api: Api) -> None:
    made = await api.ok("POST", CMS, config_map("a"))
    uid, version = made["metadata"]["uid"], made["metadata"]["resourceVersion"]
    words = {
        "uid": f"the UID in the precondition (0) does not match the UID in record ({uid}). "
        "The object might have been deleted and then recreated",
        "resourceVersion": "the ResourceVersion in the precondition (0) does not match the ResourceVersion in record "
        f"({version}). The object might have been modified",
    }
    for field, why in words.items():
        answer = await api("DELETE", f"{CMS}/a", {"preconditions": {field: "0"}})
        assert answer.status == 409
        assert answer.json["message"] == f'Operation cannot be fulfilled on ConfigMap "a": {why}'
        collection = await api("DELETE", CMS, {"preconditions": {field: "0"}})
        assert collection.status == 409 and (await api("GET", f"{CMS}/a")).status == 200
    right = {"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}
    assert (await api("DELETE", f"{CMS}/a", {"preconditions": right})).status == 200


async def test_finalizers_hold_an_object(api: Api) -> None:
    body = config_map("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.ok("POST", CMS, body)
    answer = await api("DELETE", f"{CMS}/a")
    assert answer.json["metadata"]["deletionTimestamp"] and answer.json["metadata"]["deletionGracePeriodSeconds"] == 0
    version = answer.json["metadata"]["resourceVersion"]
    again = await api("DELETE", f"{CMS}/a")
    assert again.json["metadata"]["resourceVersion"] == version
    last = await api.ok("PATCH", f"{CMS}/a", {"metadata": {"finalizers": None}}, type=MERGE)
    assert last["metadata"]["name"] == "a"
    assert (await api("GET", f"{CMS}/a")).status == 404


@pytest.mark.parametrize(("policy", "finalizer"), [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")])
async def test_propagation_policies(api: Api, policy: str, finalizer: str) -> None:
    await api.ok("POST", DEPLOYMENTS, deployment("d"))
    answer = await api("DELETE", f"{DEPLOYMENTS}/d", {"propagationPolicy": policy})
    assert answer.json["metadata"]["finalizers"] == [finalizer] and answer.json["metadata"]["generation"] == 2
    changed = await api("DELETE", f"{DEPLOYMENTS}/d", {"propagationPolicy": "Background"})
    assert changed.json["status"] == "Success"


BAD_OPTIONS: list[tuple[Any, int, str]] = [
    (
        {"propagationPolicy": "Wibble"},
        422,
        'propagationPolicy: Unsupported value: "Wibble": supported values: "Foreground", "Background", "Orphan", "nil"',
    ),
    (
        {"propagationPolicy": "Orphan", "orphanDependents": True},
        422,
        'propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set',
    ),
    ({"gracePeriodSeconds": "x"}, 400, "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of"),
    ({"preconditions": "x"}, 400, "json: cannot unmarshal string into Go struct field DeleteOptions.preconditions of type"),
    ({"dryRun": ["Some"]}, 422, 'dryRun: Unsupported value: []string{"Some"}: supported values: "All"'),
    (b"{", 400, "couldn't get version/kind; json parse error: unexpected end of JSON input"),
    ({"kind": "Pod", "apiVersion": "v1"}, 400, 'no kind "Pod" is registered for version "v1"'),
]


@pytest.mark.parametrize(("body", "status", "text"), BAD_OPTIONS)
async def test_bad_options(api: Api, body: Any, status: int, text: str) -> None:
    await api.ok("POST", CMS, config_map("a"))
    for target in (f"{CMS}/a", CMS):
        answer = await api("DELETE", target, body)
        assert answer.status == status and text in answer.json["message"], answer.raw
    assert (await api("GET", f"{CMS}/a")).status == 200


async def test_options_of_the_query(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a"))
    for query, status in [("dryRun=Some", 422), ("gracePeriodSeconds=x", 400), ("propagationPolicy=x", 422)]:
        assert (await api("DELETE", f"{CMS}/a?{query}")).status == status
    assert (await api("DELETE", f"{CMS}/a?dryRun=All")).status == 200
    assert (await api("DELETE", f"{CMS}?dryRun=All")).status == 200
    assert (await api("DELETE", f"{CMS}/a?propagationPolicy=Orphan&wibble=x")).json["metadata"]["finalizers"] == ["orphan"]
    body = config_map("b")
    await api.ok("POST", CMS, body)
    # As upstream: with a body the query says nothing.
    options = {"kind": "DeleteOptions", "apiVersion": "apps/v1"}
    assert (await api("DELETE", f"{CMS}/b?dryRun=All", options)).json["status"] == "Success"
    assert (await api("GET", f"{CMS}/b")).status == 404


async def test_names_of_what_is_going(api: Api) -> None:
    body = config_map("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.ok("POST", CMS, body)
    assert (await api("POST", CMS, body)).json["message"] == 'configmaps "a" already exists'
    await api("DELETE", f"{CMS}/a")
    assert (await api("POST", CMS, body)).json["message"] == 'object is being deleted: configmaps "a" already exists'


async def test_jobs_and_replication_controllers_orphan_by_default(api: Api) -> None:
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    made = await api.ok("POST", jobs, {"metadata": {"name": "j"}, "spec": {"template": template}})
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert made["spec"]["template"]["metadata"]["labels"]["job-name"] == "j"
    assert (await api("DELETE", f"{jobs}/j")).json["metadata"]["finalizers"] == ["orphan"]


async def test_pods_go_gracefully(api: Api) -> None:
    await api.ok("POST", PODS, pod("p", nodeName="n"))
    first = (await api("DELETE", f"{PODS}/p")).json
    assert first["metadata"]["deletionGracePeriodSeconds"] == 30
    longer = (await api("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 60})).json
    assert longer["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    shorter = (await api("DELETE", f"{PODS}/p?gracePeriodSeconds=5")).json
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    assert shorter["metadata"]["deletionTimestamp"] < first["metadata"]["deletionTimestamp"]
    # What is left of a grace period does not end in the past, and stays graceful.
    await api.clock.advance(20)
    late = (await api("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 2})).json
    assert late["metadata"]["deletionGracePeriodSeconds"] == 1
    assert late["metadata"]["deletionTimestamp"] > shorter["metadata"]["deletionTimestamp"]
    assert (await api("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})).status == 200
    assert (await api("GET", f"{PODS}/p")).status == 404


async def test_a_negative_grace_period_is_a_second(api: Api) -> None:
    await api.ok("POST", PODS, pod("p", nodeName="n"))
    assert (await api("DELETE", f"{PODS}/p", {"gracePeriodSeconds": -5})).json["metadata"]["deletionGracePeriodSeconds"] == 1


async def test_pods_that_nobody_runs_go_at_once(api: Api) -> None:
    await api.ok("POST", PODS, pod("pending"))
    assert (await api("DELETE", f"{PODS}/pending")).json["kind"] == "Pod"
    await api.ok("POST", PODS, pod("done", nodeName="n"))
    await api.ok("PATCH", f"{PODS}/done/status", {"status": {"phase": "Succeeded"}}, type=MERGE)
    await api("DELETE", f"{PODS}/done")
    assert (await api.ok("GET", PODS))["items"] == []


async def test_a_pod_with_a_finalizer_stays_until_it_is_taken_out(api: Api) -> None:
    body = pod("p", nodeName="n")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.ok("POST", PODS, body)
    await api("DELETE", f"{PODS}/p")
    stopped = (await api("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})).json
    assert stopped["metadata"]["deletionGracePeriodSeconds"] == 0
    await api.ok("PATCH", f"{PODS}/p", {"metadata": {"finalizers": []}}, type=MERGE)
    assert (await api("GET", f"{PODS}/p")).status == 404


async def test_namespaces_end_by_finalize(api: Api) -> None:
    made = await api.ok("POST", NAMESPACES, {"metadata": {"name": "n"}})
    assert made["spec"] == {"finalizers": ["kubernetes"]} and made["status"] == {"phase": "Active"}
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "n"}
    emptied = await api.ok("PUT", f"{NAMESPACES}/n", {**made, "spec": {"finalizers": []}})
    assert emptied["spec"] == {"finalizers": ["kubernetes"]}
    going = (await api("DELETE", f"{NAMESPACES}/n")).json
    assert going["status"]["phase"] == "Terminating" and going["metadata"]["deletionTimestamp"]
    await api.ok("PUT", f"{NAMESPACES}/n/finalize", {**going, "spec": {"finalizers": []}})
    assert (await api("GET", f"{NAMESPACES}/n")).status == 404


async def test_collections(api: Api) -> None:
    for name in ("a", "b", "c"):
        body = config_map(name)
        body["metadata"]["labels"] = {"go": "yes" if name != "c" else "no"}
        await api.ok("POST", CMS, body)
    answer = await api("DELETE", f"{CMS}?labelSelector=go%3Dyes")
    assert answer.json["kind"] == "ConfigMapList" and len(answer.json["items"]) == 2
    assert [i["metadata"]["name"] for i in (await api.ok("GET", CMS))["items"]] == ["c"]


async def test_collections_in_pieces(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.ok("POST", CMS, config_map(name))
    first = (await api("DELETE", f"{CMS}?limit=2")).json
    assert [i["metadata"]["name"] for i in first["items"]] == ["a", "b"]
    assert "deletionTimestamp" not in first["items"][0]["metadata"] and first["metadata"]["continue"]
    rest = (await api("DELETE", f"{CMS}?limit=2&continue={first['metadata']['continue']}")).json
    assert [i["metadata"]["name"] for i in rest["items"]] == ["c"] and "continue" not in rest["metadata"]
    assert (await api("DELETE", f"{CMS}?fieldSelector=data.x%3D1")).status == 400
    assert (await api("DELETE", CMS)).json["items"] == []
