"""pods/proxy and services/proxy over real sockets: as upstream's conformance cases ask, and the refusals in its words."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from k1s.api.catalog import builtin_catalog
from k1s.base import http_server
from k1s.base.http import Request, Response, Stream
from k1s.server.apiserver.forward import chunked
from k1s.server.apiserver.request_info import parse
from k1s.server.apiserver.subresources.proxy import ObjectProxy
from k1s.server.apiserver.subresources.streams import Streams
from tests.unit.apiserver.conftest import PODS, SERVICES, Api, pod, running


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Api, list[Request]]]:
    """Whatever address the server dials, one backend answers."""
    seen: list[Request] = []

    async def backend(request: Request) -> Response:
        seen.append(request)
        if request.path == "/go":
            return Response(302, b"", "text/plain", [("Location", "/there?x=1")])
        if request.path == "/page":
            return Response(200, b'<a href="/other">x</a>', "text/html")
        return Response(200, request.method.encode() + b" " + await request.body.read(10_000_000), "text/plain")

    listener = await http_server.listen(backend, host="127.0.0.1", port=0, tls=None)
    async with running(handlers=Streams(lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)).handlers()) as api:

        async def connect(target: Any) -> Any:
            return await asyncio.open_connection("127.0.0.1", listener.port)

        api.server.dialer.connect = connect  # type: ignore[method-assign]
        made = await api.ok("POST", PODS, pod("p"))
        made["status"] = {**made.get("status", {}), "phase": "Running", "podIP": "10.42.0.9", "podIPs": [{"ip": "10.42.0.9"}]}
        await api.ok("PUT", f"{PODS}/p/status", made)
        ports = [{"name": "web", "port": 80, "targetPort": 8080}, {"name": "tls", "port": 443, "targetPort": 8443}]
        await api.ok("POST", SERVICES, {"metadata": {"name": "s"}, "spec": {"selector": {"app": "p"}, "ports": ports}})
        await api.ok("POST", SERVICES, {"metadata": {"name": "empty"}, "spec": {"selector": {"app": "none"}, "ports": ports}})
        slice_ = {
            "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.42.0.9"], "conditions": {"ready": True}}],
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
        }
        await api.ok("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice_)
        try:
            yield api, seen
        finally:
            await listener.close(0.1)


async def whole(api: Api, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    answer = await api.send(method, path, body, **headers)
    if isinstance(answer, Stream):
        return answer.status, b"".join([chunk async for chunk in answer.chunks]), dict(answer.headers)
    return answer.status, answer.body, dict(answer.headers)


@pytest.mark.parametrize(
    "root", [f"{PODS}/p/proxy", f"{PODS}/http:p:8080/proxy", f"{SERVICES}/s:web/proxy", f"{SERVICES}/s:80/proxy"]
)
async def test_every_method_and_path_arrives(root: str) -> None:
    async with proxied() as (api, seen):
        for method in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"):
            sent = b"body" if method in ("PATCH", "POST", "PUT") else b""
            headers = {"Content_Length": str(len(sent))} if sent else {}
            status, body, _ = await whole(api, method, f"{root}/some/path%20x?method={method}", sent or None, **headers)
            assert status == 200 and body == (b"" if method == "HEAD" else method.encode() + b" " + sent)
            assert (seen[-1].method, seen[-1].raw_path) == (method, f"/some/path%20x?method={method}")
        status, _, headers = await whole(api, "GET", f"{root}?method=GET")
        assert (status, headers["Location"]) == (301, f"{root}/?method=GET")
        assert (await whole(api, "POST", f"{root}?method=POST"))[0] == 200 and seen[-1].raw_path == "/?method=POST"


async def test_headers_links_and_redirects_lead_through_the_proxy() -> None:
    root = f"{PODS}/p:8080/proxy"
    async with proxied() as (api, seen):
        status, _, headers = await whole(api, "GET", f"{root}/go", authorization="Bearer secret", x_mine="1")
        assert (status, headers["Location"]) == (302, f"{root}/there?x=1")
        got = seen[-1].headers
        assert "authorization" not in got and got["x-mine"] == "1" and got["x-forwarded-uri"] == f"{root}/go"
        assert (await whole(api, "GET", f"{root}/page"))[1] == f'<a href="{root}/other">x</a>'.encode()
        big = b"x" * 5_000_000  # more than a body of the API may have
        status, body, _ = await whole(api, "POST", f"{root}/big", big, content_length=str(len(big)))
        assert status == 200 and len(body) == len(big) + 5


@pytest.mark.parametrize(
    "path, code, message",
    [
        (f"{PODS}/a:b:c:d/proxy/", 400, 'invalid pod request "a:b:c:d"'),
        (f"{PODS}/ftp:p:80/proxy/", 400, 'invalid pod request "ftp:p:80"'),
        (f"{PODS}/none/proxy/", 404, 'pods "none" not found'),
        (f"{SERVICES}/none/proxy/", 404, 'services "none" not found'),
        (f"{SERVICES}/s:99/proxy/", 503, 'no service port "99" found for service "s"'),
        (f"{SERVICES}/empty:web/proxy/", 503, 'no endpoints available for service "empty:web"'),
    ],
)
async def test_refusals(path: str, code: int, message: str) -> None:
    async with proxied() as (api, _):
        answer = await api("GET", path)
        assert (answer.status, answer.json["message"]) == (code, message)


@pytest.mark.parametrize(
    "path, tail",
    [
        ("/api/v1/namespaces/a/services/web/proxy/x/y", "/x/y"),
        ("/api/v1/namespaces/a/services/web/proxy", ""),
        ("/api/v1/namespaces/a/services/web/proxy/", "/"),
        ("/api/v1/namespaces/a/services/proxy/proxy/x", "/x"),
        ("/api/v1/namespaces/proxy/services/proxy-public/proxy/proxy/x", "/proxy/x"),
        ("/api/v1/nodes/proxy-1/proxy/stats", "/stats"),
        ("/api/v1/namespaces/api/pods/api/proxy/api/", "/api/"),
        ("/api/v1//namespaces/a/pods//p/proxy//x", "//x"),
    ],
)
def test_what_follows_proxy_whatever_things_are_called(path: str, tail: str) -> None:
    assert parse(Request("GET", path), builtin_catalog()).tail == tail


@pytest.mark.parametrize("port", ["99999", "\u00b2", "-1", "1" * 5000, "web"])
async def test_ports_that_are_none(port: str) -> None:
    async with proxied() as (api, seen):
        assert (await whole(api, "GET", f"{PODS}/http:p:{port}/proxy/x"))[0] == 400 and not seen


async def test_a_service_does_not_lead_back_to_the_server() -> None:
    async with proxied() as (api, _):
        streams = ObjectProxy(api.server.informers, None, None)  # type: ignore[arg-type]
        for address in ("127.0.0.1", "169.254.169.254", "::1", "localhost"):
            piece = {"metadata": {"labels": {"kubernetes.io/service-name": "s"}}, "ports": [{"name": "web", "port": 80}]}
            streams._slices = SimpleNamespace(list=lambda ns, p=piece, a=address: [{**p, "endpoints": [{"addresses": [a]}]}])  # type: ignore[assignment]
            assert streams._endpoints("default", "s", "web") == []


@pytest.mark.parametrize("data", [b"-1\r\nxxxx", b"0x4\r\nxxxx", b"+4\r\nxxxx\r\n", b"\r\n", b"zz\r\n", b"1" * 100_000 + b"\r\n"])
async def test_chunks_that_are_none_are_a_connection_that_broke(data: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(data + b"more" * 1000)
    with pytest.raises(ConnectionResetError):
        [piece async for piece in chunked(reader)]
