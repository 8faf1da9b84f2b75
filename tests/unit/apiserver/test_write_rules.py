"""Rules of every write: what a client may not change, what it must name, which kinds a PUT creates, what JSON patches may do."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from k1s.api.catalog import builtin_catalog
from k1s.server.apiserver.strategies.table import strategy_for
from tests.unit.apiserver.conftest import CMS, DEPLOYMENTS, Api, config_map, deployment
from tests.unit.apiserver.crd_rig import WIDGETS, define, widget

Object = dict[str, Any]
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"


async def made(api: Api) -> Object:
    obj: Object = await api.ok("POST", CMS, config_map("a", x="1"))
    return obj


METADATA: list[tuple[str, Any, int, str]] = [
    ("uid", "other", 409, "AdditionalErrorMsg: Precondition failed: UID in precondition: other, UID in object meta: "),
    ("name", "", 400, "the name of the object (a based on URL) was undeterminable: name must be provided"),
    ("name", "b", 400, "the name of the object (b) does not match the name on the URL (a)"),
    ("namespace", "b", 400, "the namespace of the provided object does not match the namespace sent on the request"),
    ("deletionTimestamp", "2001-01-01T00:00:00Z", 422, "metadata.deletionTimestamp: Invalid value"),
    ("deletionGracePeriodSeconds", 3, 422, "metadata.deletionGracePeriodSeconds: Invalid value: 3: field is immutable"),
    (
        "resourceVersion",
        "999",
        409,
        "the object has been modified; please apply your changes to the latest version and try again",
    ),
]


@pytest.mark.parametrize(("field", "value", "status", "text"), METADATA)
async def test_metadata_that_is_refused(api: Api, field: str, value: Any, status: int, text: str) -> None:
    obj = await made(api)
    obj["metadata"][field] = value
    answer = await api("PUT", f"{CMS}/a", obj)
    assert answer.status == status and text in answer.json["message"], answer.raw


async def test_the_uid_in_a_patch_is_immutable(api: Api) -> None:
    await made(api)
    answer = await api("PATCH", f"{CMS}/a", {"metadata": {"uid": "other"}}, type=MERGE)
    assert answer.status == 422
    assert answer.json["message"] == 'ConfigMap "a" is invalid: metadata.uid: Invalid value: "other": field is immutable'


@pytest.mark.parametrize(
    ("field", "value"), [("creationTimestamp", "2001-01-01T00:00:00Z"), ("generation", 7), ("selfLink", "/x"), ("uid", "")]
)
async def test_metadata_that_is_not_listened_to(api: Api, field: str, value: Any) -> None:
    obj = await made(api)
    changed = copy.deepcopy(obj)
    changed["metadata"][field] = value
    assert await api.ok("PUT", f"{CMS}/a", changed) == obj


async def test_what_a_create_does_not_listen_to(api: Api) -> None:
    body = config_map("a", x="1")
    body["metadata"] |= {"uid": "u", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 4, "selfLink": "/x"}
    body["metadata"] |= {"deletionTimestamp": "2001-01-01T00:00:00Z", "deletionGracePeriodSeconds": 3}
    meta = (await api.ok("POST", CMS, body))["metadata"]
    assert meta["uid"] != "u" and meta["creationTimestamp"] > "2002"
    assert not {"generation", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"} & set(meta)


async def test_owners_that_stand_twice(api: Api) -> None:
    owners = [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1"}] * 2
    answer = await api("POST", CMS, {"metadata": {"name": "a", "ownerReferences": owners}})
    assert len(answer.json["metadata"]["ownerReferences"]) == 1
    assert ".metadata.ownerReferences contains duplicate entries; API server dedups" in answer.warnings[0]
    patched = await api("PATCH", f"{CMS}/a", {"metadata": {"ownerReferences": owners}}, type=MERGE)
    assert "duplicate entries after mutating admission happens; API server" in patched.warnings[0]


async def test_generated_names(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k1s.server.apiserver.write_meta.random.choices", lambda letters, k: ["b"] * k)
    assert (await api.ok("POST", CMS, {"metadata": {"generateName": "g" * 100}}))["metadata"]["name"] == "g" * 58 + "bbbbb"
    await api.ok("POST", CMS, {"metadata": {"generateName": "x-"}})
    for body in ({"generateName": "x-"}, {"generateName": "y-", "name": "x-bbbbb"}):
        taken = await api("POST", CMS, {"metadata": body})
        assert (taken.status, taken.json["reason"]) == (409, "AlreadyExists")
        assert taken.json["message"] == (
            'configmaps "x-bbbbb" already exists, the server was not able to generate a unique name for the object'
        )


CREATED_BY_PUT = {
    "endpoints", "events", "limitranges", "podtemplates", "resourcequotas", "services", "events.events.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io", "clusterroles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io", "roles.rbac.authorization.k8s.io", "leases.coordination.k8s.io",
}  # fmt: skip


def test_kinds_that_a_put_creates() -> None:
    kinds = {r.qualified for r in builtin_catalog() if r.persisted and strategy_for(r).create_on_update}
    assert kinds == CREATED_BY_PUT


async def test_a_put_that_creates(api: Api) -> None:
    target = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l"
    body: Object = {"metadata": {"name": "l", "uid": "u"}, "spec": {}}
    refused = await api("PUT", target, body)
    assert refused.status == 409 and refused.json["message"].endswith("UID in precondition: u, UID in object meta: ")
    body["metadata"] = {"name": "l", "resourceVersion": "77"}
    created = await api("PUT", target, body)
    assert created.status == 201 and created.json["metadata"]["resourceVersion"] != "77"
    again = await api("PUT", target, {"metadata": {"name": "l"}, "spec": {}})
    assert again.status == 422 and again.json["message"] == (
        'leases.coordination.k8s.io "l" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update'
    )


OPERATIONS: list[tuple[Any, int, Any]] = [
    ([{"op": "replace", "path": "", "value": {"metadata": {"name": "a"}, "data": {"z": "1"}}}], 200, {"z": "1"}),
    ([{"op": "replace", "path": "", "value": []}], 422, "cannot unmarshal array"),
    ([{"op": "replace", "path": "", "value": 1}], 422, "the server rejected our request due to an error in our request"),
    ([{"op": "test", "path": "/data/x", "value": "1"}, {"op": "remove", "path": "/data/x"}], 200, None),
    ([{"op": "test", "path": "/data/x", "value": "2"}], 422, "the server rejected our request due to an error in our request"),
    ([{"op": "copy", "from": "/data/x", "path": "/data/y"}], 200, {"x": "1", "y": "1"}),
    ([{"op": "remove", "path": "/metadata/name"}], 400, "name must be provided"),
    ([{"op": 1}], 400, "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"),
    (["x"], 400, "error decoding patch: json: cannot unmarshal string into Go value of type handlers.jsonPatchOp"),
    ({}, 400, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
    ([{"op": "test", "path": "/data/x", "value": "1"}] * 10_001, 413, "operations in a JSON patch is 10000, got 10001"),
    (b"null", 200, {"x": "1"}),
    (b"{", 400, "invalid JSON patch"),
]


@pytest.mark.parametrize(("patch", "status", "outcome"), OPERATIONS)
async def test_json_patches(api: Api, patch: Any, status: int, outcome: Any) -> None:
    await made(api)
    answer = await api("PATCH", f"{CMS}/a", patch, type=JSON_PATCH)
    assert answer.status == status, answer.raw
    if status == 200:
        assert answer.json.get("data") == outcome
    else:
        assert outcome in answer.json["message"]


async def test_a_patch_that_does_not_apply_keeps_its_reasons_to_itself(api: Api) -> None:
    await made(api)
    answer = await api("PATCH", f"{CMS}/a", [{"op": "remove", "path": "/data/none"}], type=JSON_PATCH)
    assert answer.json["reason"] == "Invalid" and answer.json["details"] == {}


MERGED: list[tuple[str, Any, int, str]] = [
    (MERGE, b"null", 400, "error decoding patch: json: cannot unmarshal null"),
    (MERGE, b"[]", 400, "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"),
    (STRATEGIC, b"null", 200, ""),
    (STRATEGIC, b"[]", 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
    (STRATEGIC, {"data": 3}, 422, '"map[data:3]": json: cannot unmarshal number into Go struct field ConfigMap.data of type'),
    (STRATEGIC, {"kind": "Secret", "apiVersion": "v9"}, 200, ""),
    (STRATEGIC, {"$patch": "wibble"}, 422, "the server rejected our request due to an error in our request"),
    (MERGE, {"kind": "Secret"}, 422, "converting (v1.Secret) to (core.ConfigMap): unknown conversion"),
    (MERGE, {"apiVersion": "v9"}, 422, 'no kind "ConfigMap" is registered for version "v9"'),
    ("application/json", {}, 415, "json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, app"),
]


@pytest.mark.parametrize(("type", "patch", "status", "text"), MERGED)
async def test_merge_patches(api: Api, type: str, patch: Any, status: int, text: str) -> None:
    obj = await made(api)
    answer = await api("PATCH", f"{CMS}/a", patch, type=type)
    assert answer.status == status, answer.raw
    if status == 200:
        assert answer.json == obj
    else:
        assert text in answer.json["message"]


async def test_custom_resources(api: Api) -> None:
    await define(api)
    nameless = await api("POST", WIDGETS, {"metadata": {"name": "w"}})
    assert nameless.status == 400 and nameless.json["message"].startswith(
        "the object provided is unrecognized (must be of type Widget): Object 'Kind' is missing in '{"
    )
    for meta, text in (
        ("x", "json: cannot unmarshal string into Go value of type v1.ObjectMeta"),
        ({"labels": {"a": 1}}, "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string"),
    ):
        typed = await api("POST", WIDGETS, {**widget(), "metadata": meta})
        assert (typed.status, typed.json["message"]) == (400, f'Widget in version "v1" cannot be handled as a Widget: {text}')
    await api.ok("POST", WIDGETS, widget(size=1))
    refused = await api("PATCH", f"{WIDGETS}/w", {}, type=STRATEGIC)
    assert refused.status == 415 and refused.json["message"].endswith(
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    )
    unversioned = await api("PUT", f"{WIDGETS}/w", widget(size=2))
    assert (
        unversioned.status == 422 and "metadata.resourceVersion: Invalid value: 0: must be specified" in unversioned.raw.decode()
    )
    cleared = await api("PATCH", f"{WIDGETS}/w", {"metadata": {"resourceVersion": None}, "spec": {"size": 3}}, type=MERGE)
    assert cleared.status == 422 and "must be specified for an update" in cleared.json["message"]


async def test_bad_options(api: Api) -> None:
    obj = await made(api)
    for method, target, body, type, kind in (
        ("POST", CMS, config_map("b"), "application/json", "CreateOptions"),
        ("PUT", f"{CMS}/a", obj, "application/json", "UpdateOptions"),
        ("PATCH", f"{CMS}/a", {}, MERGE, "PatchOptions"),
        ("PUT", f"{DEPLOYMENTS}/d/scale", {}, "application/json", "UpdateOptions"),
        ("PUT", f"{DEPLOYMENTS}/d/status", deployment("d"), "application/json", "UpdateOptions"),
    ):
        answer = await api(method, f"{target}?dryRun=All&dryRun=x&fieldManager={'m' * 129}", body, type=type)
        assert answer.status == 422 and answer.json["message"] == (
            f'{kind}.meta.k8s.io "" is invalid: [fieldManager: Too long: may not be more than 128 bytes, '
            'dryRun: Unsupported value: []string{"All", "x"}: supported values: "All"]'
        )
        fine = await api(method, f"{target}?wibble=x&pretty=1&timeout=5s", body, type=type)
        assert fine.status in (200, 201, 404, 400)
    odd = await api("PATCH", f"{CMS}/a?fieldManager=a%07b", {}, type=MERGE)
    assert odd.status == 422 and "invalid character U+0007 (at position 1)" in odd.json["message"]
    force = await api("PATCH", f"{CMS}/a?force=", {}, type=MERGE)
    assert force.status == 422 and "force: Forbidden: may not be specified for non-apply patch" in force.json["message"]


async def test_patches_cannot_make_an_object_grow_without_end(api: Api) -> None:
    await define(api)
    await api.ok("POST", WIDGETS, widget(any={"x": "y" * 1_200_000}))
    grown = [{"op": "copy", "from": "/spec/any/x", "path": f"/spec/any/{key}"} for key in "abc"]
    too_much = await api("PATCH", f"{WIDGETS}/w", grown, type=JSON_PATCH)
    assert too_much.status == 422 and too_much.json["details"] == {}
    answer = await api("PATCH", f"{WIDGETS}/w", grown[:2], type=JSON_PATCH)
    assert answer.status == 413 and answer.json["message"] == "Request entity too large: limit is 3145728"


async def test_patches_cannot_make_an_object_too_deep(api: Api) -> None:
    await define(api)
    nested: Any = 1
    for _ in range(200):
        nested = {"a": nested}
    await api.ok("POST", WIDGETS, widget(any=nested))
    deepest = "/spec/any" + "/a" * 150
    answer = await api("PATCH", f"{WIDGETS}/w", [{"op": "copy", "from": "/spec/any", "path": f"{deepest}/b"}], type=JSON_PATCH)
    assert answer.status == 400 and answer.json["message"] == "error decoding patch: exceeded max depth"
