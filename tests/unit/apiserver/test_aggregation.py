"""Aggregation: APIServices of one's own, and an extension API server behind a Service whose endpoint is on loopback."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from k1s.base import pki
from k1s.base.http import Answer, Request, Response, Stream
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.group_order import version_key
from tests.unit.apiserver.conftest import Api, running
from tests.unit.apiserver.extension_server import (
    ExtensionServer,
    extension_server,
    json_response,
    put_endpoints,
    service,
)
from tests.unit.apiserver.test_custom_resources import CRDS, definition

Object = dict[str, Any]
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
NAME = "v1beta1.metrics.example.com"
BASE = "/apis/metrics.example.com/v1beta1"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


release = asyncio.Event()


async def _events() -> AsyncIterator[bytes]:
    """The second event waits until the first has been seen."""
    yield b'{"number":0}\n'
    await release.wait()
    yield b'{"number":1}\n'


async def _extension(request: Request, body: bytes) -> Answer:
    if request.path == BASE:
        rows = [
            {"name": "things", "singularName": "thing", "namespaced": True, "kind": "Thing", "verbs": ["get", "list"]},
            {"name": "things/status", "singularName": "", "namespaced": True, "kind": "Thing", "verbs": ["get"]},
        ]
        value = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.example.com/v1beta1", "resources": rows}
        return json_response(value)
    if request.path == f"/openapi/v3{BASE}":
        return json_response({"openapi": "3.0.0", "info": {}, "paths": {BASE: {}}})
    if request.path == "/openapi/v2":
        ref = {"200": {"schema": {"$ref": "#/definitions/example.Thing"}}}
        names = {"example.Thing": {"type": "object"}, "example.Other": {"type": "object"}}
        paths = {f"{BASE}/things": {"get": {"responses": ref}}, "/apis/other/v1/x": {}}
        return json_response({"swagger": "2.0", "paths": paths, "definitions": names})
    if request.path == f"{BASE}/events":
        release.clear()
        return Stream(_events())
    if request.path == f"{BASE}/elsewhere":
        return Response(302, b"", headers=[("Location", "https://elsewhere.example.com/")])
    if request.path.startswith(f"{BASE}/"):
        return json_response({"kind": "ThingList", "path": request.path, "query": list(request.query), "method": request.method})
    return Response(404, b"{}")


@asynccontextmanager
async def _aggregating(identity: Callable[[ssl.SSLContext], None] | None = None) -> AsyncIterator[Api]:
    async with running(proxy_identity=identity) as api:
        started = asyncio.Event()
        task = asyncio.create_task(api.server.aggregation.run(started.set))
        await started.wait()
        try:
            yield api
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _api_service(ca_bundle: str, **more: Any) -> Object:
    spec = {
        "group": "metrics.example.com",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "caBundle": ca_bundle,
        "service": {"namespace": "default", "name": "ext"},
        **more,
    }
    return {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME}, "spec": spec}


async def _condition(api: Api, reason: str, name: str = NAME) -> Object:
    """The condition Available once it has that reason."""
    found: Object = {}
    for _ in range(200):
        answer = await api("GET", f"{API_SERVICES}/{name}")
        if answer.status == 200:
            found = next(iter(answer.json.get("status", {}).get("conditions") or []), {})
            if found.get("reason") == reason:
                return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"{name}: {reason} expected, found {found}")


@asynccontextmanager
async def _served(tmp_path: Path) -> AsyncIterator[tuple[Api, ExtensionServer]]:
    async with extension_server(tmp_path, _extension) as server, _aggregating() as api:
        await api.ok("POST", "/api/v1/namespaces/default/services", service())
        await put_endpoints(api.server, server.port)
        await api.ok("POST", API_SERVICES, _api_service(server.ca_bundle))
        assert (await _condition(api, "Passed"))["status"] == "True"
        yield api, server


async def test_every_served_group_has_a_local_api_service() -> None:
    async with _aggregating() as api:
        core = await _condition(api, "Local", "v1.")
        assert (core["status"], core["message"]) == ("True", "Local APIServices are always available")
        await _condition(api, "Local", "v2.autoscaling")
        listed = {obj["metadata"]["name"]: obj for obj in (await api.ok("GET", API_SERVICES))["items"]}
        assert "v1.apiregistration.k8s.io" not in listed
        apps = listed["v1.apps"]
        assert apps["spec"] == {"group": "apps", "groupPriorityMinimum": 17800, "version": "v1", "versionPriority": 15}
        assert apps["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}


async def test_a_custom_groups_api_service_comes_and_goes_with_it() -> None:
    async with _aggregating() as api:
        await api.ok("POST", CRDS, definition())
        await _condition(api, "Local", "v2.example.com")
        await api.ok("DELETE", f"{API_SERVICES}/v2.example.com")
        await _condition(api, "Local", "v2.example.com")  # it is made again
        await api.ok("DELETE", f"{CRDS}/foos.example.com")
        for _ in range(200):
            if (await api("GET", f"{API_SERVICES}/v2.example.com")).status == 404:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the APIService outlived its definition")


async def test_a_request_goes_on_in_the_users_name(tmp_path: Path) -> None:
    async with _served(tmp_path) as (api, server):
        user = UserInfo("ann", ("devs", "system:authenticated"), "7", {"example.com/Scope": ("a", "b")})
        server.seen.clear()
        request = Request("GET", f"{BASE}/namespaces/default/things", [("limit", "5")])
        request.raw_path = f"{BASE}/namespaces/default/things?limit=5"
        request.headers = type(request.headers)([("X-Remote-User", "root"), ("Authorization", "Bearer x"), ("Accept", "a/b")])
        request.context["user"] = user
        answer = await api.server.handle(request)
        body = b"".join([chunk async for chunk in answer.chunks])  # type: ignore[union-attr]
        assert b'"query":[["limit","5"]]' in body
        headers = server.seen[-1].headers
        assert headers["X-Remote-User"] == "ann" and headers["X-Remote-Group"] == "devs,system:authenticated"
        assert headers["X-Remote-Uid"] == "7" and headers["X-Remote-Extra-Example.com%2fscope"] == "a,b"
        assert "Authorization" not in headers and headers["Accept"] == "a/b"


async def test_the_front_proxys_certificate_is_shown(tmp_path: Path) -> None:
    now = time.time()
    ca = pki.create_ca("front", now)
    key = pki.new_key()
    leaf = pki.issue(ca, key, pki.Subject("system:auth-proxy"), usage="client", now=now)
    (tmp_path / "front.pem").write_bytes(leaf)
    (tmp_path / "front.key").write_bytes(key)

    def identity(context: ssl.SSLContext) -> None:
        context.load_cert_chain(tmp_path / "front.pem", tmp_path / "front.key")

    async with extension_server(tmp_path, _extension, ca.certificate) as server, _aggregating(identity) as api:
        await api.ok("POST", "/api/v1/namespaces/default/services", service())
        await put_endpoints(api.server, server.port)
        await api.ok("POST", API_SERVICES, _api_service(server.ca_bundle))
        await _condition(api, "Passed")
        peer = server.seen[0].peer
        assert peer is not None and peer.common_name == "system:auth-proxy"
        assert server.seen[0].headers["X-Remote-User"] == "system:kube-aggregator"


async def test_a_redirect_is_not_passed_on(tmp_path: Path) -> None:
    async with _served(tmp_path) as (api, _):
        refused = await api("GET", f"{BASE}/elsewhere")
        assert (refused.status, refused.raw) == (
            502,
            b"the backend attempted to redirect this request, which is not permitted",
        )
        assert "Location" not in refused.headers


async def test_a_watch_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    async with _served(tmp_path) as (api, _):
        watch = await api.watch(f"{BASE}/events?watch=true")
        assert (await watch.next())["number"] == 0
        release.set()
        assert (await watch.next())["number"] == 1
        await watch.close()


async def test_its_resources_are_in_discovery(tmp_path: Path) -> None:
    async with _served(tmp_path) as (api, _):
        groups = (await api.ok("GET", "/apis"))["groups"]
        assert groups[-1]["name"] == "metrics.example.com"
        group = await api.ok("GET", "/apis/metrics.example.com")
        assert group["preferredVersion"]["groupVersion"] == "metrics.example.com/v1beta1"
        items = (await api.ok("GET", "/apis", Accept=AGGREGATED))["items"]
        version = items[-1]["versions"][0]
        assert version["freshness"] == "Current"
        thing = version["resources"][0]
        assert thing["resource"] == "things" and thing["scope"] == "Namespaced"
        assert thing["responseKind"] == {"group": "metrics.example.com", "version": "v1beta1", "kind": "Thing"}
        assert [sub["subresource"] for sub in thing["subresources"]] == ["status"]


async def test_its_documents_are_in_openapi(tmp_path: Path) -> None:
    async with _served(tmp_path) as (api, _):
        assert f"apis{BASE[5:]}" in (await api.ok("GET", "/openapi/v3"))["paths"]
        assert (await api.ok("GET", f"/openapi/v3{BASE}"))["paths"] == {BASE: {}}
        v2 = await api.ok("GET", "/openapi/v2")
        assert f"{BASE}/things" in v2["paths"] and "/apis/other/v1/x" not in v2["paths"]
        assert "example.Thing" in v2["definitions"] and "example.Other" not in v2["definitions"]
        await api.ok("DELETE", f"{API_SERVICES}/{NAME}")
        assert "example.Thing" not in (await api.ok("GET", "/openapi/v2"))["definitions"]
        assert (await api("GET", "/apis/metrics.example.com")).status == 404


async def test_an_odd_document_spoils_nothing(tmp_path: Path) -> None:
    async def odd(request: Request, body: bytes) -> Answer:
        if request.path == "/openapi/v2":
            return json_response({"swagger": "2.0", "paths": {f"{BASE}/things": {"get": ["?"]}}, "definitions": 7})
        return await _extension(request, body)

    async with extension_server(tmp_path, odd) as server, _aggregating() as api:
        await api.ok("POST", "/api/v1/namespaces/default/services", service())
        await put_endpoints(api.server, server.port)
        await api.ok("POST", API_SERVICES, _api_service(server.ca_bundle))
        await _condition(api, "Passed")
        assert f"{BASE}/things" not in (await api.ok("GET", "/openapi/v2"))["paths"]
        assert (await api.ok("GET", "/apis", Accept=AGGREGATED))["items"][-1]["versions"][0]["freshness"] == "Current"


async def test_what_is_missing_is_said_and_seen_when_it_comes(tmp_path: Path) -> None:
    async with extension_server(tmp_path, _extension) as server, _aggregating() as api:
        await api.ok("POST", API_SERVICES, _api_service(server.ca_bundle))
        found = await _condition(api, "ServiceNotFound")
        assert found["message"] == 'service/ext in "default" is not present' and found["status"] == "False"
        refused = await api("GET", f"{BASE}/things")
        assert (refused.status, refused.raw) == (503, b"service unavailable\n")
        await api.ok("POST", "/api/v1/namespaces/default/services", service())
        await _condition(api, "EndpointsNotFound")
        await put_endpoints(api.server, server.port, ready=False)
        found = await _condition(api, "MissingEndpoints")
        assert found["message"] == 'endpoints for service/ext in "default" have no addresses with port name "https"'
        await put_endpoints(api.server, server.port)
        await _condition(api, "Passed")
        assert (await api.send("GET", f"{BASE}/things")).status == 200


async def test_a_server_that_goes_is_noticed_by_the_next_request_and_found_again(tmp_path: Path) -> None:
    async with _served(tmp_path) as (api, server):
        await server.stop()
        answer = await api.send("GET", f"{BASE}/things")
        where = f"127.0.0.1:{server.port}"
        text = f"error trying to reach service: dial tcp {where}: connect: connection refused\n"
        assert isinstance(answer, Response) and (answer.status, answer.content_type) == (503, "text/plain; charset=utf-8")
        assert answer.body == text.encode()
        found = await _condition(api, "FailedDiscoveryCheck")
        assert f"https://127.0.0.1:{server.port}{BASE}" in found["message"]
        items = (await api.ok("GET", "/apis", Accept=AGGREGATED))["items"]
        assert items[-1]["versions"][0]["freshness"] == "Stale"
        await server.start()
        for _ in range(20):
            await api.clock.advance(5)
            await asyncio.sleep(0.05)
        await _condition(api, "Passed")


@pytest.mark.parametrize("more", [{"caBundle": None}, {"caBundle": None, "insecureSkipTLSVerify": True}])
async def test_certificates_are_checked_unless_told_otherwise(tmp_path: Path, more: Object) -> None:
    async with extension_server(tmp_path, _extension) as server, _aggregating() as api:
        await api.ok("POST", "/api/v1/namespaces/default/services", service())
        await put_endpoints(api.server, server.port)
        await api.ok("POST", API_SERVICES, _api_service("", **more))
        if more.get("insecureSkipTLSVerify"):
            await _condition(api, "Passed")
        else:
            found = await _condition(api, "FailedDiscoveryCheck")
            assert "x509: certificate signed by unknown authority" in found["message"]


def test_versions_are_in_the_order_of_their_names() -> None:
    names = ["foo1", "v1alpha1", "v1", "v10", "v2beta2", "v2", "v1beta1", "v2beta10", "foo10"]
    assert sorted(names, key=version_key) == ["v10", "v2", "v1", "v2beta10", "v2beta2", "v1beta1", "v1alpha1", "foo1", "foo10"]
