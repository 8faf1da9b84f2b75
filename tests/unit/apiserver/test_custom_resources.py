"""Custom resources: served while their definition is there, by its schema."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.apiserver.conftest import Api, running

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
FOOS = "/apis/example.com/v1/namespaces/default/foos"
MERGE = "application/merge-patch+json"
Object = dict[str, Any]

SCHEMA: Object = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 9},
                "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
                "name": {"type": "string", "pattern": "^[a-z]+$"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
        "status": {"type": "object", "properties": {"size": {"type": "integer"}}},
    },
}


def definition(**more: Any) -> Object:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": SCHEMA},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
    }
    other = {**version, "name": "v2", "storage": False, "additionalPrinterColumns": []}
    names = {"plural": "foos", "kind": "Foo", "shortNames": ["fo"]}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version, other], **more}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.example.com"},
        "spec": spec,
    }


def foo(name: str, /, **spec: Any) -> Object:
    return {"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}, "spec": {"size": 3, **spec}}


async def _established(api: Api) -> None:
    await api.ok("POST", CRDS, definition())
    for _ in range(100):
        status = (await api.ok("GET", f"{CRDS}/foos.example.com"))["status"]
        if any(c["type"] == "Established" and c["status"] == "True" for c in status["conditions"]):
            assert status["storedVersions"] == ["v1"] and status["acceptedNames"]["listKind"] == "FooList"
            return
        await asyncio.sleep(0)
    raise AssertionError(status)


async def test_from_definition_to_objects_and_back(api: Api) -> None:
    assert (await api("GET", FOOS)).status == 404
    await _established(api)
    made = await api.ok("POST", FOOS, foo("a", unknown=1, free={"x": 1}))
    assert made["spec"] == {"size": 3, "free": {"x": 1}, "color": "red"} and made["metadata"]["generation"] == 1
    other = await api.ok("GET", FOOS.replace("v1", "v2") + "/a")
    assert other["apiVersion"] == "example.com/v2"
    listed = await api.ok("GET", FOOS.replace("v1", "v2"))
    assert listed["kind"] == "FooList" and listed["items"][0]["apiVersion"] == "example.com/v2"
    table = (await api("GET", FOOS, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")).json
    assert table["rows"][0]["cells"] == ["a", 3]
    rows = {r["name"]: r for r in (await api.ok("GET", "/apis/example.com/v1"))["resources"]}
    assert rows["foos"]["shortNames"] == ["fo"] and "foos/scale" in rows
    document = await api.ok("GET", "/openapi/v3/apis/example.com/v1")
    assert document["components"]["schemas"]["com.example.v1.Foo"]["properties"]["spec"]["required"] == ["size"]
    watch = await api.watch(f"{FOOS}?watch=1")
    assert await watch.some(1) == [("ADDED", "a")]
    await api.ok("DELETE", f"{CRDS}/foos.example.com")
    assert await watch.some(1) == [("DELETED", "a")]
    for _ in range(200):
        if (await api("GET", f"{CRDS}/foos.example.com")).status == 404:
            break
        await asyncio.sleep(0)
    assert (await api("GET", FOOS)).status == 404 and (await api("GET", "/apis/example.com")).status == 404


async def test_the_schema_is_kept(api: Api) -> None:
    await _established(api)
    for spec, text in (
        ({"size": 10}, "spec.size in body should be less than or equal to 9"),
        ({"size": "x"}, 'spec.size in body must be of type integer: "string"'),
        ({"color": "green"}, 'Unsupported value: "green": supported values: "red", "blue"'),
        ({"name": "UPPER"}, "should match '^[a-z]+$'"),
    ):
        answer = await api("POST", FOOS, foo("a", **spec))
        assert answer.status == 422 and text in answer.json["message"], answer.raw
    missing = {**foo("a"), "spec": {}}
    assert "spec.size: Required value" in (await api("POST", FOOS, missing)).json["message"]
    strict = await api("POST", f"{FOOS}?fieldValidation=Strict", foo("a", unknown=1))
    assert strict.status == 400 and 'unknown field "spec.unknown"' in strict.json["message"]
    assert (await api("PATCH", f"{FOOS}/a", {}, type="application/strategic-merge-patch+json")).status == 415


async def test_status_and_scale(api: Api) -> None:
    await _established(api)
    await api.ok("POST", FOOS, {**foo("a"), "status": {"size": 7}})
    assert "status" not in await api.ok("GET", f"{FOOS}/a")
    status = await api.ok("PATCH", f"{FOOS}/a/status", {"status": {"size": 2}, "spec": {"size": 9}}, type=MERGE)
    assert status["status"] == {"size": 2} and status["spec"]["size"] == 3 and status["metadata"]["generation"] == 1
    scale = await api.ok("GET", f"{FOOS}/a/scale")
    assert scale["spec"]["replicas"] == 3 and scale["status"]["replicas"] == 2
    await api.ok("PATCH", f"{FOOS}/a/scale", {"spec": {"replicas": 5}}, type=MERGE)
    changed = await api.ok("GET", f"{FOOS}/a")
    assert changed["spec"]["size"] == 5 and changed["metadata"]["generation"] == 2
    bare = {**changed}
    del bare["metadata"]["resourceVersion"]
    assert (await api("PUT", f"{FOOS}/a", bare)).status == 422


async def test_apply_and_finalizers(api: Api) -> None:
    await _established(api)
    body = foo("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    made = await api("PATCH", f"{FOOS}/a?fieldManager=m", body, type="application/apply-patch+yaml")
    assert made.status == 201, made.raw
    await api.ok("DELETE", f"{CRDS}/foos.example.com")
    for _ in range(50):
        await asyncio.sleep(0)
    held = await api.ok("GET", f"{FOOS}/a")
    assert held["metadata"]["deletionTimestamp"]
    await api.ok("PATCH", f"{FOOS}/a", {"metadata": {"finalizers": None}}, type=MERGE)
    for _ in range(200):
        if (await api("GET", f"{CRDS}/foos.example.com")).status == 404:
            return
        await asyncio.sleep(0)
    raise AssertionError("the definition is still there")


async def _after_restart(api: Api) -> list[Object]:
    """What a second server on the same store lists."""
    from k1s.server.apiserver.app import ApiServer
    from tests.unit.apiserver.conftest import AllowAll

    again = ApiServer(api.store, authenticator=AllowAll(), authorizer=AllowAll(), clock=api.clock)
    ready = asyncio.Event()
    task = asyncio.create_task(again.run(ready.set))
    await asyncio.wait_for(ready.wait(), 5)
    found = await Api(again, api.clock, api.store).ok("GET", FOOS)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    items: list[Object] = found["items"]
    return items


async def test_definitions_outlive_a_restart(api: Api) -> None:
    await _established(api)
    await api.ok("POST", FOOS, foo("a"))
    assert [i["metadata"]["name"] for i in await _after_restart(api)] == ["a"]


async def test_stored_objects_get_the_defaults_that_there_are_now(api: Api) -> None:
    await _established(api)
    made = await api.ok("POST", FOOS, foo("a"))
    assert made["spec"] == {"size": 3, "color": "red"}
    properties = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties"
    patch = [
        {"op": "add", "path": f"{properties}/name/default", "value": "x"},
        {"op": "remove", "path": f"{properties}/color/default"},
    ]
    await api.ok("PATCH", f"{CRDS}/foos.example.com", patch, type="application/json-patch+json")
    for _ in range(100):
        found = await api.ok("GET", f"{FOOS}/a")
        if "name" in found["spec"]:
            break
        await asyncio.sleep(0.01)
    assert found["spec"] == {"size": 3, "color": "red", "name": "x"}
    assert found["metadata"] == made["metadata"]
    assert (await api.ok("GET", FOOS))["items"] == [found]
    assert await _after_restart(api) == [found]


async def test_names_that_are_taken() -> None:
    async with running() as api:
        await _established(api)
        names = {"plural": "bars", "kind": "Foo"}
        clash = definition(names=names)
        clash["metadata"]["name"] = "bars.example.com"
        await api.ok("POST", CRDS, clash)
        for _ in range(50):
            await asyncio.sleep(0)
        conditions = {c["type"]: c["status"] for c in (await api.ok("GET", f"{CRDS}/bars.example.com"))["status"]["conditions"]}
        assert conditions == {"NamesAccepted": "False", "Established": "False"}


async def test_informers_follow_a_definition_that_comes_back(api: Api) -> None:
    await _established(api)
    resource = api.server.catalog.by_plural("example.com", "v1", "foos")
    assert resource is not None
    seen: list[str] = []
    api.server.informers.informer(resource).add_handler(lambda old, new: seen.append("+" if new else "-"))
    for _ in range(2):
        await api.ok("POST", FOOS, foo("a"))
        await api.ok("DELETE", f"{CRDS}/foos.example.com")
        for _ in range(200):
            if (await api("GET", f"{CRDS}/foos.example.com")).status == 404:
                break
            await asyncio.sleep(0)
        await _established(api)
    assert seen == ["+", "-", "+", "-"]


async def test_a_deprecated_version_warns_everybody(api: Api) -> None:
    (one, two) = definition()["spec"]["versions"]
    made = definition(versions=[{**one, "deprecated": True}, two])
    await api.ok("POST", CRDS, made)
    for _ in range(100):
        if (await api("GET", FOOS)).status == 200:
            break
        await asyncio.sleep(0)
    assert (await api("GET", FOOS)).warnings == ['299 - "example.com/v1 Foo is deprecated; use example.com/v2 Foo"']
    assert (await api("POST", FOOS, foo("a"))).warnings == ['299 - "example.com/v1 Foo is deprecated; use example.com/v2 Foo"']
    assert (await api("GET", FOOS.replace("v1", "v2"))).warnings == []
    found = await api.ok("GET", f"{CRDS}/foos.example.com")
    found["spec"]["versions"][0]["deprecationWarning"] = 'say "two"'
    await api.ok("PUT", f"{CRDS}/foos.example.com", found)
    for _ in range(100):
        if (warnings := (await api("GET", FOOS)).warnings) == ['299 - "say \\"two\\""']:
            return
        await asyncio.sleep(0)
    raise AssertionError(warnings)


async def test_endpoints_are_deprecated(api: Api) -> None:
    words = ['299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"']
    assert (await api("GET", "/api/v1/namespaces/default/endpoints")).warnings == words
    assert (await api("GET", "/api/v1/namespaces/default/configmaps")).warnings == []
