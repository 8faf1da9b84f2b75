"""Server-side apply through the API: creation, conflicts, ownership by endpoint and version, resets, migration, scale."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.unit.apiserver.conftest import CMS, DEPLOYMENTS, PODS, Answer, Api, config_map, deployment, pod
from tests.unit.apiserver.crd_rig import WIDGETS, define, version, widget

Object = dict[str, Any]
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
STRATEGIC, JSON_PATCH = "application/strategic-merge-patch+json", "application/json-patch+json"
HPAS = "/apis/autoscaling/v{}/namespaces/default/horizontalpodautoscalers"


async def apply(api: Api, target: str, body: Object, manager: str = "m", **options: str) -> Answer:
    query = "".join(f"&{key}={value}" for key, value in options.items())
    return await api("PATCH", f"{target}?fieldManager={manager}{query}", body, type=APPLY)


async def applied(api: Api, target: str, body: Object, manager: str = "m", **options: str) -> Any:
    answer = await apply(api, target, body, manager, **options)
    assert answer.status in (200, 201), answer.raw
    return answer.json


def owners(obj: Object) -> dict[str, Any]:
    """manager, or manager/subresource -> its fields."""
    entries = obj["metadata"].get("managedFields") or []
    return {"/".join(filter(None, (e["manager"], e.get("subresource")))): e["fieldsV1"] for e in entries}


def full(kind: Object) -> Object:
    return {"apiVersion": "apps/v1", "kind": "Deployment", **kind}


async def test_create_and_the_same_again(api: Api) -> None:
    body = full(deployment("d", 2))
    first = await apply(api, f"{DEPLOYMENTS}/d", body)
    assert first.status == 201
    await api.clock.advance(5)
    again = await apply(api, f"{DEPLOYMENTS}/d", body)
    assert again.status == 200 and again.json == first.json


async def test_conflict_names_field_and_manager(api: Api) -> None:
    await applied(api, f"{DEPLOYMENTS}/d", full(deployment("d", 2)), "one")
    await api.ok("PATCH", f"{DEPLOYMENTS}/d?fieldManager=updater", {"spec": {"paused": True}}, type=MERGE)
    wanted = full(deployment("d", 3))
    wanted["spec"]["paused"] = False
    answer = await apply(api, f"{DEPLOYMENTS}/d", wanted, "two")
    assert (answer.status, answer.json["reason"]) == (409, "Conflict")
    assert answer.json["message"] == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .spec.replicas\n'
        'conflicts with "updater" using apps/v1:\n- .spec.paused'
    )
    assert answer.json["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".spec.replicas"},
        {"reason": "FieldManagerConflict", "message": 'conflict with "updater" using apps/v1', "field": ".spec.paused"},
    ]
    forced = await applied(api, f"{DEPLOYMENTS}/d", wanted, "two", force="true")
    assert forced["spec"]["replicas"] == 3 and "f:replicas" not in owners(forced)["one"]["f:spec"]
    assert "updater" not in owners(forced)


async def test_versions_and_uids(api: Api) -> None:
    body = full(deployment("d", 2))
    body["metadata"]["uid"] = "u"
    answer = await apply(api, f"{DEPLOYMENTS}/d", body)
    assert answer.status == 409 and answer.json["message"] == (
        'Operation cannot be fulfilled on deployments.apps "d": '
        "uid mismatch: the provided object specified uid u, and no existing object was found"
    )
    del body["metadata"]["uid"]
    made = await applied(api, f"{DEPLOYMENTS}/d", body)
    await api.ok("PATCH", f"{DEPLOYMENTS}/d", {"spec": {"paused": True}}, type=MERGE)
    body["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    stale = await apply(api, f"{DEPLOYMENTS}/d", body)
    assert stale.status == 409 and "the object has been modified" in stale.json["message"]


BAD: list[tuple[str, Any, int, str]] = [
    ("other kind", {"apiVersion": "v1", "kind": "Secret"}, 400, "invalid object type: /v1, Kind=Secret"),
    ("other version", {"apiVersion": "v2", "kind": "ConfigMap"}, 400, "invalid object type: /v2, Kind=ConfigMap"),
    ("no kind", {"metadata": {"name": "a"}}, 400, "invalid object type: /, Kind="),
    ("managedFields", {"metadata": {"name": "a", "managedFields": []}}, 400, "metadata.managedFields must be nil"),
    ("other name", {"metadata": {"name": "b"}}, 400, "the name of the object (b) does not match the name on the URL (a)"),
    ("other namespace", {"metadata": {"name": "a", "namespace": "x"}}, 400, "does not match the namespace sent on the request"),
    ("no YAML", b"a: [", 400, "error encoding patch: yaml: line 2: did not find expected node content"),
    ("a list", b"- a", 400, "error decoding patch: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array"),
    ("a wrong type", {"data": {"a": 1}}, 400, ".data.a: expected string, got &value.valueUnstructured{Value:1}"),
]


@pytest.mark.parametrize(("body", "status", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_bad_configurations(api: Api, body: Any, status: int, text: str) -> None:
    if isinstance(body, dict) and "kind" not in body and text != BAD[2][3]:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, **body}
    for _ in range(2):
        answer = await apply(api, f"{CMS}/a", body)
        assert answer.status == status and text in answer.json["message"], answer.raw
        await api("POST", CMS, config_map("a"))


async def test_yaml_in_braces(api: Api) -> None:
    made = await apply(api, f"{CMS}/a", b"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {b: c}}")
    assert made.status == 201 and made.json["data"] == {"b": "c"}


async def test_a_name_may_be_left_to_the_url_only_on_update(api: Api) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
    await api.ok("POST", CMS, config_map("a"))
    assert (await applied(api, f"{CMS}/a", body))["data"] == {"a": "b"}


async def test_empty_and_null(api: Api) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {}}, "data": {"x": "1"}}
    made = await applied(api, f"{CMS}/a", body)
    assert "labels" not in made["metadata"] and owners(made)["m"]["f:metadata"] == {"f:labels": {}}
    body["data"] = {"x": None}
    changed = await applied(api, f"{CMS}/a", body)
    assert "x" not in (changed.get("data") or {"x": ""}) or changed["data"]["x"] == ""
    body["data"] = {}
    emptied = await applied(api, f"{CMS}/a", body)
    assert "data" not in emptied and owners(emptied)["m"]["f:data"] == {}


async def test_who_sets_nothing_owns_nothing(api: Api) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    assert "managedFields" not in (await applied(api, f"{CMS}/a", body))["metadata"]


async def test_admission_and_defaults_are_nobodys(api: Api) -> None:
    made = await applied(api, f"{PODS}/p", {"apiVersion": "v1", "kind": "Pod", **pod("p")})
    assert made["spec"]["restartPolicy"] == "Always" and "f:restartPolicy" not in owners(made)["m"]["f:spec"]
    updated = await api.ok("POST", PODS, pod("q"), User_Agent="curl/8")
    assert "f:restartPolicy" in owners(updated)["curl"]["f:spec"]


CLEARED = [
    (MERGE, {"metadata": {"managedFields": [{}]}}),
    (STRATEGIC, {"metadata": {"managedFields": [{}]}}),
    (JSON_PATCH, [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]),
    (MERGE, {"metadata": {"managedFields": []}}),
]


@pytest.mark.parametrize(("type", "patch"), CLEARED)
async def test_clearing_the_record(api: Api, type: str, patch: Any) -> None:
    await applied(api, f"{CMS}/a", config_map("a", x="1"))
    cleared = await api.ok("PATCH", f"{CMS}/a", patch, type=type)
    assert "managedFields" not in cleared["metadata"]
    later = await api.ok("PATCH", f"{CMS}/a", {"data": {"y": "2"}}, type=MERGE)
    assert "managedFields" not in later["metadata"]
    tracked = await applied(api, f"{CMS}/a", config_map("a", x="1"))
    assert set(owners(tracked)) == {"m", "before-first-apply"}


async def test_clearing_by_put(api: Api) -> None:
    for record in ([{}], []):
        made = await applied(api, f"{CMS}/a", config_map("a", x="1"), force="true")
        made["metadata"]["managedFields"] = record
        assert "managedFields" not in (await api.ok("PUT", f"{CMS}/a", made))["metadata"]
    made["metadata"].pop("managedFields")
    await applied(api, f"{CMS}/a", config_map("a", x="1"), force="true")
    kept = await api.ok("PUT", f"{CMS}/a", {**made, "metadata": {**made["metadata"], "resourceVersion": ""}})
    assert kept["metadata"]["managedFields"]


async def test_broken_records_are_ignored(api: Api) -> None:
    body = config_map("a", x="1")
    broken = [{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "V9", "fieldsV1": {"f:data": {}}}]
    body["metadata"]["managedFields"] = broken
    made = await api.ok("POST", CMS, body)
    assert list(owners(made)) == ["unknown"]
    again = await api.ok("PATCH", f"{CMS}/a", {"metadata": {"managedFields": broken}}, type=MERGE)
    assert owners(again) == owners(made)
    # A good one is taken: so kubectl migrates from client-side apply.
    good = [{**broken[0], "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:x": {}}}}]
    moved = await api.ok("PATCH", f"{CMS}/a", {"metadata": {"managedFields": good}}, type=MERGE)
    assert owners(moved) == {"x": {"f:data": {"f:x": {}}}}


async def test_many_updaters_share_an_entry(api: Api) -> None:
    await api.ok("POST", CMS, config_map("a", first=""), User_Agent="first")
    for number in range(12):
        await api.clock.advance(1)
        live = await api.ok("PATCH", f"{CMS}/a?fieldManager=u{number:02}", {"data": {f"k{number}": ""}}, type=MERGE)
    names = [entry["manager"] for entry in live["metadata"]["managedFields"]]
    assert names == ["ancient-changes", *(f"u{number:02}" for number in range(3, 12))]


async def test_endpoints_own_what_they_can_set(api: Api) -> None:
    body = full({**deployment("d", 2), "status": {"replicas": 5}})
    made = await applied(api, f"{DEPLOYMENTS}/d", body, "main")
    assert "f:status" not in owners(made)["main"] and made["status"] == {}
    body["spec"]["replicas"] = 9
    after = await applied(api, f"{DEPLOYMENTS}/d/status", body, "status")
    assert after["spec"]["replicas"] == 2 and after["status"] == {"replicas": 5}
    assert owners(after)["status/status"] == {"f:status": {"f:replicas": {}}}
    body["spec"]["replicas"] = 3
    assert (await apply(api, f"{DEPLOYMENTS}/d", body, "main")).status == 200
    # A record that comes by a subresource is not listened to.
    same = await api.ok("PATCH", f"{DEPLOYMENTS}/d/status", {"metadata": {"managedFields": [{}]}}, type=MERGE)
    assert set(owners(same)) == {"main", "status/status"}
    updated = await api.ok("PATCH", f"{DEPLOYMENTS}/d/status?fieldManager=u", {"status": {"replicas": 7}}, type=MERGE)
    assert owners(updated)["u/status"] == {"f:status": {"f:replicas": {}}} and "status/status" not in owners(updated)
    assert (await apply(api, f"{DEPLOYMENTS}/none/status", full(deployment("none")), "status")).status == 404


async def test_ephemeral_containers_own_their_list_only(api: Api) -> None:
    await api.ok("POST", PODS, pod("p"), User_Agent="kubectl")
    patch = {"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}, "metadata": {"labels": {"x": "y"}}}
    live = await api.ok("PATCH", f"{PODS}/p/ephemeralcontainers?fieldManager=dbg", patch, type=STRATEGIC)
    assert list(owners(live)["dbg/ephemeralcontainers"]) == ["f:spec"]
    assert list(owners(live)["dbg/ephemeralcontainers"]["f:spec"]) == ["f:ephemeralContainers"]


async def test_scale_shares_the_replicas(api: Api) -> None:
    await applied(api, f"{DEPLOYMENTS}/d", full(deployment("d", 2)), "main")
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 5}}
    refused = await apply(api, f"{DEPLOYMENTS}/d/scale", scale, "scaler")
    assert refused.status == 409
    assert refused.json["message"] == 'Apply failed with 1 conflict: conflict with "main": .spec.replicas'
    assert (await applied(api, f"{DEPLOYMENTS}/d/scale", scale, "scaler", force="true"))["spec"]["replicas"] == 5
    live = await api.ok("GET", f"{DEPLOYMENTS}/d")
    assert owners(live)["scaler/scale"] == {"f:spec": {"f:replicas": {}}} and "f:replicas" not in owners(live)["main"]["f:spec"]
    entry = next(e for e in live["metadata"]["managedFields"] if e["manager"] == "scaler")
    assert (entry["apiVersion"], entry["operation"], entry["subresource"]) == ("apps/v1", "Apply", "scale")
    # Who stops applying the replicas on the main endpoint does not reset what the scaler set.
    body = full(deployment("d", 2))
    del body["spec"]["replicas"]
    assert (await applied(api, f"{DEPLOYMENTS}/d", body, "main"))["spec"]["replicas"] == 5
    await api.ok("PATCH", f"{DEPLOYMENTS}/d/scale?fieldManager=u", {"spec": {"replicas": 6}}, type=MERGE)
    live = await api.ok("GET", f"{DEPLOYMENTS}/d")
    assert owners(live)["u/scale"] == {"f:spec": {"f:replicas": {}}} and "scaler/scale" not in owners(live)
    assert live["metadata"]["managedFields"][-1]["apiVersion"] == "apps/v1"
    bad = await apply(api, f"{DEPLOYMENTS}/d/scale", {**scale, "kind": "Wibble"}, "scaler")
    assert bad.status == 400 and bad.json["message"] == "invalid object type: autoscaling/v1, Kind=Wibble"


async def test_scale_of_custom_resources(api: Api) -> None:
    await define(api)
    await applied(api, f"{WIDGETS}/w", widget(replicas=1), "main")
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "w"}, "spec": {"replicas": 5}}
    await applied(api, f"{WIDGETS}/w/scale", scale, "scaler", force="true")
    live = await api.ok("GET", f"{WIDGETS}/w")
    assert live["spec"]["replicas"] == 5 and owners(live) == {"scaler/scale": {"f:spec": {"f:replicas": {}}}}


async def test_custom_resources_by_their_schema(api: Api) -> None:
    await define(api)
    one = widget(ports=[{"port": 80, "host": "a"}], tags=["x"], steps=[{"a": 1}], atom={"k": "v"}, any={"deep": {"x": [1]}})
    made = await applied(api, f"{WIDGETS}/w", one, "one")
    assert made["spec"]["ports"] == [{"port": 80, "host": "a", "protocol": "TCP"}] and made["spec"]["color"] == "blue"
    two = widget(ports=[{"port": 80, "protocol": "UDP"}, {"port": 80, "protocol": "TCP", "host": "a"}], tags=["y"])
    both = await applied(api, f"{WIDGETS}/w", two, "two")
    assert [(p["port"], p["protocol"]) for p in both["spec"]["ports"]] == [(80, "UDP"), (80, "TCP")]
    assert both["spec"]["tags"] in (["x", "y"], ["y", "x"])
    refused = await apply(api, f"{WIDGETS}/w", widget(steps=[{"a": 2}], atom={"l": "v"}), "two")
    assert {c["field"] for c in refused.json["details"]["causes"]} == {".spec.steps", ".spec.atom"}
    gone = await applied(api, f"{WIDGETS}/w", widget(tags=["x"]), "one")
    assert "atom" not in gone["spec"] and "any" not in gone["spec"] and gone["spec"]["tags"] in (["x", "y"], ["y", "x"])
    assert len(gone["spec"]["ports"]) == 2
    alone = await applied(api, f"{WIDGETS}/w", widget(), "two")
    assert alone["spec"] == {"tags": ["x"], "color": "blue"}
    nulls = await applied(api, f"{WIDGETS}/w", widget(maybe=None, size=None, color=None), "one")
    assert nulls["spec"] == {"maybe": None, "color": "blue"}


async def test_status_of_custom_resources(api: Api) -> None:
    await define(api)
    made = await applied(api, f"{WIDGETS}/w", {**widget(size=1), "status": {"phase": "x"}}, "main")
    assert "status" not in made and owners(made) == {"main": {"f:spec": {"f:size": {}}}}
    body = {**widget(size=7), "status": {"phase": "y"}}
    body["metadata"]["labels"] = {"a": "b"}
    after = await applied(api, f"{WIDGETS}/w/status", body, "status")
    assert after["status"] == {"phase": "y"} and after["spec"]["size"] == 1 and "labels" not in after["metadata"]
    assert owners(after)["status/status"] == {"f:status": {"f:phase": {}}}


def autoscaler(target: int) -> Object:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    spec = {"maxReplicas": 5, "scaleTargetRef": reference, "targetCPUUtilizationPercentage": target}
    return {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec}


async def test_ownership_across_versions_of_a_kind(api: Api) -> None:
    one = autoscaler(50)
    made = await applied(api, f"{HPAS.format(1)}/h", one, "one")
    assert made["metadata"]["managedFields"][0]["apiVersion"] == "autoscaling/v1"
    assert "f:targetCPUUtilizationPercentage" in owners(made)["one"]["f:spec"]
    seen = await api.ok("GET", f"{HPAS.format(2)}/h")
    two = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}}
    two["spec"] = {**copy.deepcopy(seen["spec"]), "maxReplicas": 5}
    two["spec"].pop("minReplicas", None)
    two["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] = 80
    refused = await apply(api, f"{HPAS.format(2)}/h", two, "two")
    assert refused.status == 409
    assert [c["field"] for c in refused.json["details"]["causes"]] == [".spec.targetCPUUtilizationPercentage"]
    forced = await applied(api, f"{HPAS.format(2)}/h", two, "two", force="true")
    assert "f:targetCPUUtilizationPercentage" not in owners(forced)["one"]["f:spec"]
    old = await api.ok("GET", f"{HPAS.format(1)}/h")
    assert old["spec"]["targetCPUUtilizationPercentage"] == 80
    # The same manager may go on in another version: what it owned in the first is known to be the same.
    again = await applied(api, f"{HPAS.format(2)}/h", {**two, "metadata": {"name": "h"}}, "one", force="true")
    assert [e["apiVersion"] for e in again["metadata"]["managedFields"]] == ["autoscaling/v2", "autoscaling/v2"]


async def test_versions_of_a_custom_resource(api: Api) -> None:
    await define(api, version("v1"), version("v2", storage=False))
    await applied(api, f"{WIDGETS}/w", widget(size=1, tags=["a"]), "one")
    newer = WIDGETS.replace("/v1/", "/v2/")
    body = {**widget(size=2), "apiVersion": "example.com/v2"}
    assert (await apply(api, f"{newer}/w", body, "two")).status == 409
    moved = await applied(api, f"{newer}/w", {**body, "spec": {"size": 1}}, "one")
    assert moved["spec"] == {"size": 1, "color": "blue"}
    assert [e["apiVersion"] for e in moved["metadata"]["managedFields"]] == ["example.com/v2"]
    updated = await api.ok("PATCH", f"{newer}/w?fieldManager=u", {"spec": {"size": 7}}, type=MERGE)
    assert updated["metadata"]["managedFields"][0]["apiVersion"] == "example.com/v2" and owners(updated) == {
        "u": {"f:spec": {"f:size": {}}}
    }
    made = await api.ok("POST", f"{newer}?fieldManager=u", {**body, "metadata": {"name": "x"}})
    assert made["metadata"]["managedFields"][0]["apiVersion"] == "example.com/v2"
    same = await api.ok("PATCH", f"{WIDGETS}/x?fieldManager=v", {"metadata": {"labels": {"a": "b"}}}, type=MERGE)
    assert set(owners(same)) == {"u", "v"}


async def test_what_became_atomic_is_owned_whole(api: Api) -> None:
    await define(api)
    await applied(api, f"{WIDGETS}/w", widget(tags=["a"], options={"x": "1"}), "one")
    crd = await api.ok("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com")
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec["options"]["x-kubernetes-map-type"] = "atomic"
    del spec["tags"]["x-kubernetes-list-type"]
    await api.ok("PUT", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com", crd)
    refused = await apply(api, f"{WIDGETS}/w", widget(tags=["b"], options={"y": "1"}), "two")
    assert {c["field"] for c in refused.json["details"]["causes"]} == {".spec.tags", ".spec.options"}


async def test_from_client_side_to_server_side(api: Api) -> None:
    last = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "annotations": {}}, "data": {"x": "1", "y": "1"}}
    body = copy.deepcopy(last)
    body["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(last) + "\n"}
    await api.ok("POST", f"{CMS}?fieldManager=kubectl-client-side-apply", body)
    wanted = {**last, "data": {"x": "2", "y": "1"}}
    del wanted["metadata"]["annotations"]
    assert (await apply(api, f"{CMS}/a", wanted, "other")).status == 409
    now = await applied(api, f"{CMS}/a", wanted, "kubectl")
    assert now["data"]["x"] == "2" and "f:x" in owners(now)["kubectl"]["f:data"]
    assert json.loads(now["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]) == wanted
    again = await applied(api, f"{CMS}/a", wanted, "kubectl")
    assert again["metadata"]["resourceVersion"] == now["metadata"]["resourceVersion"]


async def test_dry_run(api: Api) -> None:
    before = api.store.revision
    assert (await apply(api, f"{CMS}/a", config_map("a", x="1"), dryRun="All")).status == 201
    assert api.store.revision == before
    await applied(api, f"{CMS}/a", config_map("a", x="1"))
    before = api.store.revision
    shown = await applied(api, f"{CMS}/a", config_map("a", x="2"), dryRun="All")
    assert shown["data"]["x"] == "2" and api.store.revision == before
    bad = await apply(api, f"{CMS}/a", config_map("a"), dryRun="Some", fieldValidation="Wibble")
    assert bad.status == 422 and bad.json["message"] == (
        'PatchOptions.meta.k8s.io "" is invalid: [dryRun: Unsupported value: []string{"Some"}: supported values: "All", '
        'fieldValidation: Unsupported value: "Wibble": supported values: "", "Ignore", "Strict", "Warn"]'
    )
