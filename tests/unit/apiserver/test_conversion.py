"""Conversion webhooks: a definition with two versions that differ, and a real HTTPS server that knows both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from k1s.api.clone import clone
from k1s.base.http import Answer, Request
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.server.apiserver.admission.chain import build
from k1s.server.apiserver.authz.app import Authorizer
from k1s.server.apiserver.authz.node import NodeAuthorizer
from k1s.server.apiserver.authz.rbac import RbacAuthorizer
from k1s.server.defaults.rbac import node_rules
from k1s.storage.interface import Origin
from tests.unit.apiserver.conftest import ADMIN, Api, running
from tests.unit.apiserver.extension_server import ExtensionServer, extension_server, json_response, put_endpoints, service

Object = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
V1 = "/apis/example.com/v1/namespaces/default/boxes"
V2 = "/apis/example.com/v2/namespaces/default/boxes"
MERGE = "application/merge-patch+json"


def _version(name: str, field: str, kind: str, *, storage: bool) -> Object:
    spec = {"type": "object", "properties": {field: {"type": kind}}}
    schema = {"type": "object", "properties": {"spec": spec}}
    columns = [{"name": "Size", "type": "string", "jsonPath": f".spec.{field}"}]
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": columns,
    }


def _definition(server: ExtensionServer, config: Object | None) -> Object:
    config = config or {"url": server.url("/convert")}
    webhook = {"conversionReviewVersions": ["v1"], "clientConfig": {"caBundle": server.ca_bundle, **config}}
    spec = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "boxes", "kind": "Box"},
        "versions": [_version("v1", "size", "integer", storage=True), _version("v2", "length", "string", storage=False)],
        "conversion": {"strategy": "Webhook", "webhook": webhook},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.example.com"},
        "spec": spec,
    }


def _box(name: str, size: int = 3) -> Object:
    return {"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"name": name}, "spec": {"size": size}}


def _other(obj: Object, version: str) -> Object:
    """v1 says size: 3, v2 says length: 3cm."""
    out: Object = clone(obj)
    out["apiVersion"] = version
    if version == "example.com/v2":
        out["spec"] = {"length": f"{obj['spec']['size']}cm", "unknown": True}
    else:
        out["spec"] = {"size": int(obj["spec"]["length"].removesuffix("cm"))}
    out["metadata"].setdefault("labels", {})["converted"] = "yes"
    out["metadata"]["resourceVersion"] = "17"
    return out


def _answer(review: Object) -> Object:
    asked = review["request"]
    converted = [_other(obj, asked["desiredAPIVersion"]) for obj in asked["objects"]]
    response = {"uid": asked["uid"], "result": {"status": "Success"}, "convertedObjects": converted}
    return {"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response}


@asynccontextmanager
async def _converting(
    home: Path, answer: Callable[[Object], Object] = _answer, config: Object | None = None
) -> AsyncIterator[tuple[Api, ExtensionServer]]:
    async def respond(request: Request, body: bytes) -> Answer:
        return json_response(answer(orjson.loads(body)))

    async with extension_server(home, respond) as server, running() as api:
        await api.ok("POST", CRDS, _definition(server, config))
        for _ in range(200):
            if (await api("GET", V2)).status == 200:
                break
            await asyncio.sleep(0.01)
        server.bodies.clear()
        yield api, server


async def test_an_object_is_shown_in_the_version_that_is_asked_for(tmp_path: Path) -> None:
    async with _converting(tmp_path) as (api, server):
        made = await api.ok("POST", V1, _box("a"))
        assert server.bodies == []  # the stored version costs no call
        shown = await api.ok("GET", f"{V2}/a")
        assert shown["spec"] == {"length": "3cm"} and shown["apiVersion"] == "example.com/v2"
        # Of the metadata only labels and annotations are the webhook's.
        assert shown["metadata"]["labels"] == {"converted": "yes"}
        assert shown["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        assert shown["metadata"]["uid"] == made["metadata"]["uid"]
        request = server.bodies[0]["request"]
        assert request["desiredAPIVersion"] == "example.com/v2" and len(request["objects"]) == 1
        assert server.seen[-1].path == "/convert" and server.seen[-1].param("timeout") == "30s"


async def test_writes_in_another_version_are_stored_in_the_stored_one(tmp_path: Path) -> None:
    async with _converting(tmp_path) as (api, _):
        box = {"apiVersion": "example.com/v2", "kind": "Box", "metadata": {"name": "a"}, "spec": {"length": "7cm"}}
        made = await api.ok("POST", V2, box)
        assert made["spec"] == {"length": "7cm"}
        assert (await api.ok("GET", f"{V1}/a"))["spec"] == {"size": 7}
        await api.ok("PATCH", f"{V2}/a", {"spec": {"length": "8cm"}}, type=MERGE)
        assert (await api.ok("GET", f"{V1}/a"))["spec"] == {"size": 8}
        made = await api.ok("GET", f"{V2}/a")
        made["spec"]["length"] = "9cm"
        assert (await api.ok("PUT", f"{V2}/a", made))["spec"] == {"length": "9cm"}
        gone = await api("DELETE", f"{V2}/a")
        assert gone.status == 200 and (await api("GET", f"{V1}/a")).status == 404


async def test_a_list_is_converted_in_one_call(tmp_path: Path) -> None:
    async with _converting(tmp_path) as (api, server):
        for index in range(3):
            await api.ok("POST", V1, _box(f"b{index}", index))
        listed = await api.ok("GET", V2)
        assert [item["spec"]["length"] for item in listed["items"]] == ["0cm", "1cm", "2cm"]
        assert [len(body["request"]["objects"]) for body in server.bodies] == [3]
        table = await api.ok("GET", V2, Accept="application/json;as=Table;v=v1;g=meta.k8s.io")
        assert [row["cells"][1] for row in table["rows"]] == ["0cm", "1cm", "2cm"]
        assert (await api.ok("GET", V1))["items"][0]["spec"] == {"size": 0}
        assert len(server.bodies) == 2


@pytest.mark.parametrize("initial", [True, False])
async def test_a_watch_is_converted(tmp_path: Path, initial: bool) -> None:
    async with _converting(tmp_path) as (api, _):
        made = await api.ok("POST", V1, _box("a"))
        version = "" if initial else f"&resourceVersion={made['metadata']['resourceVersion']}"
        watch = await api.watch(f"{V2}?watch=true{version}")
        if initial:
            event = await watch.next()
            assert (event["type"], event["object"]["spec"]) == ("ADDED", {"length": "3cm"})
        await api.ok("PATCH", f"{V1}/a", {"spec": {"size": 4}}, type=MERGE)
        event = await watch.next()
        assert (event["type"], event["object"]["spec"]) == ("MODIFIED", {"length": "4cm"})
        await api.ok("DELETE", f"{V1}/a")
        event = await watch.next()
        assert (event["type"], event["object"]["apiVersion"]) == ("DELETED", "example.com/v2")
        await watch.close()


async def test_a_watch_as_table_is_converted_too(tmp_path: Path) -> None:
    async with _converting(tmp_path) as (api, _):
        await api.ok("POST", V1, _box("a"))
        watch = await api.watch(f"{V2}?watch=true", Accept="application/json;as=Table;v=v1;g=meta.k8s.io")
        event = await watch.next()
        assert event["object"]["rows"][0]["cells"][1] == "3cm"
        await watch.close()


async def test_objects_of_a_former_storage_version_are_converted(tmp_path: Path) -> None:
    async with _converting(tmp_path) as (api, server):
        await api.ok("POST", V1, _box("a"))
        crd = await api.ok("GET", f"{CRDS}/boxes.example.com")
        crd["spec"]["versions"][0]["storage"], crd["spec"]["versions"][1]["storage"] = False, True
        await api.ok("PUT", f"{CRDS}/boxes.example.com", crd)
        server.bodies.clear()
        assert (await api.ok("GET", f"{V2}/a"))["spec"] == {"length": "3cm"}
        assert (await api.ok("GET", f"{V1}/a"))["spec"] == {"size": 3}
        assert len(server.bodies) == 1
        await api.ok("PATCH", f"{V1}/a", {"spec": {"size": 5}}, type=MERGE)
        server.bodies.clear()
        assert (await api.ok("GET", f"{V2}/a"))["spec"] == {"length": "5cm"}
        assert server.bodies == []


async def test_the_webhook_may_be_a_service(tmp_path: Path) -> None:
    config = {"service": {"namespace": "default", "name": "ext", "path": "/c", "port": 9443}}
    async with _converting(tmp_path, config=config) as (api, server):
        await api.ok("POST", V1, _box("a"))
        head = 'conversion webhook for example.com/v1, Kind=Box failed: Post "https://ext.default.svc:9443/c?timeout=30s": '
        refused = await api("GET", f"{V2}/a")
        assert (refused.status, refused.json["message"]) == (500, f'{head}service "ext" not found')
        await api.ok("POST", "/api/v1/namespaces/default/services", service(9443))
        assert (await api("GET", V2)).json["message"] == f'{head}no endpoints available for service "ext"'
        await put_endpoints(api.server, server.port)
        assert (await api.ok("GET", f"{V2}/a"))["spec"] == {"length": "3cm"}
        assert server.seen[-1].path == "/c"


def _failing(change: Callable[[Object], None]) -> Callable[[Object], Object]:
    def answer(review: Object) -> Object:
        out = _answer(review)
        change(out["response"])
        return out

    return answer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(result={"status": "Failure", "message": "no way"}), "failed: no way"),
        (lambda r: r.update(result={}), "failed: response.result.status was '', not 'Success'"),
        (lambda r: r.update(convertedObjects=[]), "returned 0 objects, expected 1"),
        (
            lambda r: r["convertedObjects"][0].update(apiVersion="example.com/v9"),
            "returned invalid converted object: invalid groupVersion (expected example.com/v2, received example.com/v9)",
        ),
        (
            lambda r: r["convertedObjects"][0]["metadata"].update(name="z"),
            "returned invalid converted object: must have the same name: a != z",
        ),
    ],
)
async def test_a_wrong_answer_is_refused(tmp_path: Path, change: Callable[[Object], None], message: str) -> None:
    async with _converting(tmp_path, _failing(change)) as (api, _):
        await api.ok("POST", V1, _box("a"))
        refused = await api("GET", f"{V2}/a")
        assert refused.json["message"] == f"conversion webhook for example.com/v1, Kind=Box {message}"
        watch = await api.watch(f"{V2}?watch=true")
        event = await watch.next()
        assert event["type"] == "ERROR" and event["object"]["message"] == refused.json["message"]
        await watch.close()


async def test_without_a_webhook_only_the_version_changes(tmp_path: Path) -> None:
    async with _converting(tmp_path) as (api, server):
        crd = await api.ok("GET", f"{CRDS}/boxes.example.com")
        crd["spec"]["conversion"] = {"strategy": "None"}
        await api.ok("PUT", f"{CRDS}/boxes.example.com", crd)
        resource = api.server.catalog.by_plural("example.com", "v1", "boxes")
        assert resource is not None
        old = {**_box("a"), "metadata": {"name": "a", "namespace": "default", "uid": "u"}}
        await api.server.objects.create(resource, "default", "a", old, Origin("test", "create"))
        shown = await api.ok("GET", f"{V2}/a")
        assert (shown["apiVersion"], shown["spec"]) == ("example.com/v2", {"size": 3})
        assert server.bodies == []


async def test_each_version_has_its_own_schema(tmp_path: Path) -> None:
    async with _converting(tmp_path) as (api, server):
        crd = await api.ok("GET", f"{CRDS}/boxes.example.com")
        length = crd["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["length"]
        length.update(pattern="^[0-9]+cm$", default="4cm")
        await api.ok("PUT", f"{CRDS}/boxes.example.com", crd)
        box = {"apiVersion": "example.com/v2", "kind": "Box", "metadata": {"name": "a"}, "spec": {"length": "long"}}
        refused = await api("POST", V2, box)
        assert refused.status == 422 and "spec.length" in refused.json["message"] and server.bodies == []
        assert (await api.ok("POST", V2, {**box, "spec": {}}))["spec"] == {"length": "4cm"}
        assert (await api.ok("GET", f"{V1}/a"))["spec"] == {"size": 4}


async def test_webhooks_see_the_version_they_ask_for(tmp_path: Path) -> None:
    asked: list[Object] = []

    def answer(review: Object) -> Object:
        if review["kind"] == "ConversionReview":
            return _answer(review)
        asked.append(review["request"])
        response = {"uid": review["request"]["uid"], "allowed": True}
        return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}

    async with _converting(tmp_path, answer) as (api, server):
        client = RestClient(LocalTransport(api.server.handle, ADMIN), "test", clock=api.clock)
        informers = api.server.informers
        authorizer = Authorizer(RbacAuthorizer(informers), NodeAuthorizer(informers, node_rules()))
        await api.ok("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
        api.server.admission = build(client, informers, authorizer, api.server.catalog, api.server.convert)
        rule = {"operations": ["*"], "apiGroups": ["example.com"], "apiVersions": ["v2"], "resources": ["boxes"]}
        hook = {
            "name": "v.example.com",
            "clientConfig": {"url": server.url("/v"), "caBundle": server.ca_bundle},
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        configuration = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "v"},
            "webhooks": [hook],
        }
        await api.ok("POST", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", configuration)
        await api.ok("POST", V1, _box("a"))
        assert asked[0]["object"]["spec"] == {"length": "3cm"} and asked[0]["kind"]["version"] == "v2"
        assert asked[0]["requestKind"]["version"] == "v1"
