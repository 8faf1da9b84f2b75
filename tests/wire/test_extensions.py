"""What extends the API, with kubectl: an aggregated API server, conversion and admission webhooks, over real TLS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from k1s.base.http import Answer, Request, Response
from k1s.server.apiserver.admission.chain import AdmissionChain
from k1s.server.apiserver.admission.webhooks.caller import Caller
from k1s.server.apiserver.admission.webhooks.steps import MutatingWebhooks, ValidatingWebhooks
from k1s.server.apiserver.app import ApiServer
from tests.unit.apiserver.extension_server import ExtensionServer, json_response, put_endpoints
from tests.wire.conftest import Wire

Object = dict[str, Any]
BASE = "/apis/metrics.example.com/v1beta1"


async def _answer(request: Request, body: bytes) -> Answer:
    if request.path == BASE:
        verbs = ["get", "list"]
        row = {
            "name": "things",
            "singularName": "thing",
            "namespaced": False,
            "kind": "Thing",
            "verbs": verbs,
            "shortNames": ["th"],
        }
        value = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": BASE.removeprefix("/apis/"), "resources": [row]}
        return json_response(value)
    if request.path == f"{BASE}/things":
        user = request.headers["X-Remote-User"]
        item = {"apiVersion": BASE.removeprefix("/apis/"), "kind": "Thing", "metadata": {"name": f"for-{user}"}}
        return json_response({"kind": "ThingList", "apiVersion": item["apiVersion"], "metadata": {}, "items": [item]})
    if request.path in ("/convert", "/deny"):
        return json_response(_reviewed(orjson.loads(body)))
    return Response(404, b"{}")


def _reviewed(review: Object) -> Object:
    asked = review["request"]
    out: Object = {"apiVersion": review["apiVersion"], "kind": review["kind"]}
    if review["kind"] == "AdmissionReview":
        response: Object = {"uid": asked["uid"], "allowed": False, "status": {"message": "no boxes today", "code": 403}}
        return {**out, "response": response}
    converted = []
    for obj in asked["objects"]:
        size = obj["spec"].get("size") or obj["spec"].get("length", "").removesuffix("cm")
        spec = {"length": f"{size}cm"} if asked["desiredAPIVersion"].endswith("v2") else {"size": str(size)}
        converted.append({**obj, "apiVersion": asked["desiredAPIVersion"], "spec": spec})
    return {**out, "response": {"uid": asked["uid"], "result": {"status": "Success"}, "convertedObjects": converted}}


class ExtendedWire(Wire):
    """Also runs aggregation, admission webhooks, and the server that they all lead to."""

    async def extend(self, server: ApiServer) -> None:
        self.extension = ExtensionServer(self.home, _answer)
        await self.extension.start()
        await put_endpoints(server, self.extension.port)
        informers, caller = server.informers, Caller(server.informers, server.dialer.connect)
        steps = (
            MutatingWebhooks(informers, server.catalog, caller, convert=server.convert),
            ValidatingWebhooks(informers, server.catalog, caller, convert=server.convert),
        )
        server.admission = AdmissionChain(steps)
        started = asyncio.Event()
        self._aggregating = asyncio.create_task(server.aggregation.run(started.set))
        await started.wait()

    async def retract(self) -> None:
        self._aggregating.cancel()
        await asyncio.gather(self._aggregating, return_exceptions=True)
        await self.extension.stop()

    def create(self, api_version: str, kind: str, name: str, **fields: Any) -> None:
        obj = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **fields}
        self.kubectl("create", "-f", "-", input=json.dumps(obj))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExtendedWire]:
    home: Path = tmp_path_factory.mktemp("extended")
    wire = ExtendedWire(home)
    wire.start()
    try:
        wire.kubectl("create", "namespace", "default")
        wire.create("v1", "Service", "ext", spec={"ports": [{"name": "https", "port": 443}]})
        yield wire
    finally:
        wire.stop()


def test_an_aggregated_api(extended: ExtendedWire) -> None:
    spec = {
        "group": "metrics.example.com",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "caBundle": extended.extension.ca_bundle,
        "service": {"namespace": "default", "name": "ext"},
    }
    extended.create("apiregistration.k8s.io/v1", "APIService", "v1beta1.metrics.example.com", spec=spec)
    extended.kubectl("wait", "apiservice", "v1beta1.metrics.example.com", "--for=condition=Available", "--timeout=10s")
    rows = [line.split() for line in extended.kubectl("get", "apiservices", "--no-headers").splitlines()]
    shown = {row[0]: row[1:3] for row in rows}
    assert shown["v1beta1.metrics.example.com"] == ["default/ext", "True"]
    assert shown["v1."] == shown["v1.apps"] == ["Local", "True"]
    assert "things" in extended.kubectl("api-resources", "--api-group=metrics.example.com")
    assert extended.kubectl("get", "th", "-o", "name").strip() == "thing.metrics.example.com/for-admin"


def test_a_conversion_webhook(extended: ExtendedWire) -> None:
    versions = []
    for name, field in (("v1", "size"), ("v2", "length")):
        properties = {"spec": {"type": "object", "properties": {field: {"type": "string"}}}}
        schema = {"openAPIV3Schema": {"type": "object", "properties": properties}}
        versions.append({"name": name, "served": True, "storage": name == "v1", "schema": schema})
    config = {"caBundle": extended.extension.ca_bundle, "service": {"namespace": "default", "name": "ext", "path": "/convert"}}
    spec = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "boxes", "kind": "Box"},
        "versions": versions,
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": config}},
    }
    extended.create("apiextensions.k8s.io/v1", "CustomResourceDefinition", "boxes.example.com", spec=spec)
    extended.kubectl("wait", "crd", "boxes.example.com", "--for=condition=Established", "--timeout=10s")
    extended.create("example.com/v2", "Box", "a", spec={"length": "5cm"})
    assert extended.kubectl("get", "boxes.v1.example.com", "a", "-o", "jsonpath={.spec.size}") == "5"
    assert extended.kubectl("get", "boxes.v2.example.com", "-o", "jsonpath={.items[0].spec.length}") == "5cm"
    # kubectl prefers v2, as its name sorts before v1.
    extended.kubectl("patch", "box", "a", "--type=merge", "-p", '{"spec": {"length": "6cm"}}')
    assert extended.kubectl("get", "boxes.v1.example.com", "a", "-o", "jsonpath={.spec.size}") == "6"


def test_a_denial(extended: ExtendedWire) -> None:
    hook = {
        "name": "deny.example.com",
        "clientConfig": {
            "caBundle": extended.extension.ca_bundle,
            "service": {"namespace": "default", "name": "ext", "path": "/deny"},
        },
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    extended.create("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "deny", webhooks=[hook])
    refused = extended.kubectl("create", "configmap", "a", fails=True)
    assert 'admission webhook "deny.example.com" denied the request: no boxes today' in refused
    extended.kubectl("delete", "validatingwebhookconfiguration", "deny")
    extended.kubectl("create", "configmap", "a")
