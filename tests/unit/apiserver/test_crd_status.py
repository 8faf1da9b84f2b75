"""What a definition says of itself, which names it gets, which versions it serves; and what that does to its objects."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.apiserver.conftest import Api

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = "application/merge-patch+json"
Object = dict[str, Any]


def definition(plural: str, kind: str, group: str = "example.com", *versions: Object, **names: Any) -> Object:
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": {"plural": plural, "kind": kind, **names},
        "versions": list(versions) or [version("v1", storage=True)],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": spec,
    }


def version(name: str, *, storage: bool = False, served: bool = True, schema: Object | None = None, **more: Any) -> Object:
    root = schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {"name": name, "served": served, "storage": storage, "schema": {"openAPIV3Schema": root}, **more}


async def settle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def conditions(api: Api, name: str) -> dict[str, tuple[str, str, str]]:
    await settle()
    status = (await api.ok("GET", f"{CRDS}/{name}"))["status"]
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in status["conditions"]}


async def test_names_wait_until_they_are_given_back(api: Api) -> None:
    await api.ok("POST", CRDS, definition("foos", "Foo", shortNames=["f"]))
    await settle()
    await api.ok("POST", CRDS, definition("bars", "Bar", shortNames=["f"]))
    found = await conditions(api, "bars.example.com")
    assert found["NamesAccepted"] == ("False", "ShortNamesConflict", '"f" is already in use')
    assert found["Established"] == ("False", "NotAccepted", "not all names are accepted")
    assert (await api("GET", "/apis/example.com/v1/bars")).status == 404
    await api.ok("DELETE", f"{CRDS}/foos.example.com")
    await settle()
    found = await conditions(api, "bars.example.com")
    assert found["NamesAccepted"][:2] == ("True", "NoConflicts") and found["Established"][:2] == ("True", "InitialNamesAccepted")
    assert (await api("GET", "/apis/example.com/v1/bars")).status == 200


async def test_protected_groups_need_an_approval(api: Api) -> None:
    made = definition("foos", "Foo", "x.k8s.io")
    answer = await api("POST", CRDS, made)
    assert answer.status == 422 and "metadata.annotations[api-approved.kubernetes.io]: Required value" in answer.json["message"]
    made["metadata"]["annotations"] = {"api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/1"}
    await api.ok("POST", CRDS, made)
    found = await conditions(api, "foos.x.k8s.io")
    assert found["KubernetesAPIApprovalPolicyConformant"][:2] == ("True", "ApprovedAnnotation")


async def test_a_storage_version_that_is_not_served(api: Api) -> None:
    await api.ok("POST", CRDS, definition("foos", "Foo", "example.com", version("v1", storage=True, served=False), version("v2")))
    await settle()
    foos = "/apis/example.com/{}/namespaces/default/foos"
    body = {"apiVersion": "example.com/v2", "kind": "Foo", "metadata": {"name": "a"}, "spec": {"x": 1}}
    await api.ok("POST", foos.format("v2"), body)
    assert (await api("GET", foos.format("v1"))).status == 404
    assert (await api.ok("GET", f"{foos.format('v2')}/a"))["apiVersion"] == "example.com/v2"
    served = await api.ok("GET", "/apis/example.com")
    assert [v["version"] for v in served["versions"]] == ["v2"]
    crd = await api.ok("GET", f"{CRDS}/foos.example.com")
    crd["spec"]["versions"] = [version("v1"), version("v2", storage=True)]
    await api.ok("PUT", f"{CRDS}/foos.example.com", crd)
    await settle()
    assert (await api.ok("GET", f"{CRDS}/foos.example.com"))["status"]["storedVersions"] == ["v1", "v2"]
    assert (await api.ok("GET", f"{foos.format('v1')}/a"))["apiVersion"] == "example.com/v1"


async def test_what_did_not_change_is_only_warned_of(api: Api) -> None:
    spec: Object = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    await api.ok("POST", CRDS, definition("foos", "Foo", "example.com", version("v1", storage=True, schema=schema_of(spec))))
    await settle()
    foos = "/apis/example.com/v1/namespaces/default/foos"
    await api.ok("POST", foos, {"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": {"a": 1}})
    spec["properties"]["a"]["x-kubernetes-validations"] = [{"rule": "self > 5"}]
    crd = await api.ok("GET", f"{CRDS}/foos.example.com")
    crd["spec"]["versions"] = [version("v1", storage=True, schema=schema_of(spec))]
    await api.ok("PUT", f"{CRDS}/foos.example.com", crd)
    await settle()
    answer = await api("PATCH", f"{foos}/a", {"spec": {"b": 2}}, type=MERGE)
    assert answer.status == 200
    assert answer.warnings == ['299 - "spec.a: Invalid value: 1: failed rule: self > 5"']
    assert (await api("PATCH", f"{foos}/a", {"spec": {"a": 2}}, type=MERGE)).status == 422


def schema_of(spec: Object) -> Object:
    return {
        "type": "object",
        "properties": {"spec": spec, "status": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    }


async def test_a_status_is_named_from_its_own_root(api: Api) -> None:
    spec: Object = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    served = version("v1", storage=True, schema=schema_of(spec), subresources={"status": {}})
    await api.ok("POST", CRDS, definition("foos", "Foo", "example.com", served))
    await settle()
    foos = "/apis/example.com/v1/namespaces/default/foos"
    await api.ok("POST", foos, {"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": {"a": 1}})
    answer = await api("PATCH", f"{foos}/a/status", {"status": {"n": "x"}}, type=MERGE)
    assert answer.status == 422
    assert 'status.n: Invalid value: "string": n in body must be of type integer: "string"' in answer.json["message"]


async def test_selectable_fields(api: Api) -> None:
    spec: Object = {
        "type": "object",
        "properties": {"color": {"type": "string"}, "l": {"type": "array", "items": {"type": "string"}}},
    }
    served = version("v1", storage=True, schema=schema_of(spec), selectableFields=[{"jsonPath": ".spec.color"}])
    bad = {**served, "selectableFields": [{"jsonPath": ".spec.l"}, {"jsonPath": ".spec.no"}, {"jsonPath": ".spec['color']"}]}
    answer = await api("POST", CRDS, definition("foos", "Foo", "example.com", bad))
    assert [c["field"] for c in answer.json["details"]["causes"]] == [f"spec.selectableFields[{i}].jsonPath" for i in range(3)]
    await api.ok("POST", CRDS, definition("foos", "Foo", "example.com", served))
    await settle()
    foos = "/apis/example.com/v1/namespaces/default/foos"
    for name, color in (("a", "red"), ("b", "blue"), ("c", "red")):
        body = {"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}, "spec": {"color": color}}
        await api.ok("POST", foos, body)
    found = await api.ok("GET", f"{foos}?fieldSelector=spec.color%3Dred")
    assert [i["metadata"]["name"] for i in found["items"]] == ["a", "c"]
    assert (await api("GET", f"{foos}?fieldSelector=spec.l%3Dred")).status == 400
    await api.ok("DELETE", f"{foos}?fieldSelector=spec.color%3Dred")
    assert [i["metadata"]["name"] for i in (await api.ok("GET", foos))["items"]] == ["b"]


async def test_lists_have_the_kind_they_are_given(api: Api) -> None:
    await api.ok("POST", CRDS, definition("foos", "Foo", listKind="ManyFoos"))
    await settle()
    assert (await api.ok("GET", "/apis/example.com/v1/foos"))["kind"] == "ManyFoos"


async def test_what_is_published(api: Api) -> None:
    embedded = {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {"type": "object"}}}
    spec: Object = {
        "type": "object",
        "description": "Specification of Foo",
        "required": ["a", "b"],
        "oneOf": [{"required": ["a"]}],
        "properties": {
            "a": {"type": "string", "nullable": True},
            "b": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"c": {"type": "string"}}},
            "e": embedded,
        },
    }
    kept = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"spec": {"type": "object"}}}
    versions = (version("v1", storage=True, schema=schema_of(spec)), version("v2", schema=kept))
    await api.ok("POST", CRDS, definition("foos", "Foo", "example.com", *versions))
    await settle()
    v2 = (await api.ok("GET", "/openapi/v2"))["definitions"]
    found = v2["com.example.v1.Foo"]["properties"]["spec"]
    # v2 knows no alternatives and no null; what is not named would be forbidden to its readers.
    assert found["required"] == ["b"] and "oneOf" not in found and found["description"] == "Specification of Foo"
    assert found["properties"]["a"] == {} and found["properties"]["b"] == {"x-kubernetes-preserve-unknown-fields": True}
    assert set(found["properties"]["e"]["properties"]) == {"spec", "apiVersion", "kind", "metadata"}
    gvk = [{"group": "example.com", "version": "v2", "kind": "Foo"}]
    assert v2["com.example.v2.Foo"] == {"type": "object", "x-kubernetes-group-version-kind": gvk}
    assert v2["com.example.v1.FooList"]["properties"]["items"]["items"]["$ref"] == "#/definitions/com.example.v1.Foo"
    v3 = (await api.ok("GET", "/openapi/v3/apis/example.com/v1"))["components"]["schemas"]
    assert v3["com.example.v1.Foo"]["properties"]["spec"]["oneOf"] == [{"required": ["a"]}]
    before = (await api.ok("GET", "/openapi/v3"))["paths"]
    crd = await api.ok("GET", f"{CRDS}/foos.example.com")
    crd["spec"]["versions"][1]["served"] = False
    await api.ok("PUT", f"{CRDS}/foos.example.com", crd)
    await settle()
    after = (await api.ok("GET", "/openapi/v3"))["paths"]
    assert "apis/example.com/v2" in before and "apis/example.com/v2" not in after
    assert "com.example.v2.Foo" not in (await api.ok("GET", "/openapi/v2"))["definitions"]
