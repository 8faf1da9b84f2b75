"""An HTTPS server on loopback with certificates of its own: a webhook, or an API server behind a Service."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from k1s.api.catalog import builtin
from k1s.base import http_server, pki
from k1s.base.http import Answer, Request, Response
from k1s.server.apiserver.app import ApiServer
from k1s.storage.interface import Origin

Object = dict[str, Any]
NAME = "ext.default.svc"


class ExtensionServer:
    """Answers with `answer(path, request, body)`; remembers what it was asked."""

    def __init__(self, home: Path, answer: Callable[[Request, bytes], Awaitable[Answer]]) -> None:
        now = time.time()
        self.ca = pki.create_ca("ext-ca", now)
        key = pki.new_key()
        leaf = pki.issue(self.ca, key, pki.Subject("ext", sans=("127.0.0.1", NAME)), usage="server", now=now)
        (home / "ext.pem").write_bytes(leaf)
        (home / "ext.key").write_bytes(key)
        self.home, self.port, self._answer = home, 0, answer
        self.seen: list[Request] = []
        self.bodies: list[Any] = []
        self._listener: http_server.Listener | None = None

    @property
    def ca_bundle(self) -> str:
        return base64.b64encode(self.ca.certificate).decode()

    def url(self, path: str = "/") -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    async def handle(self, request: Request) -> Answer:
        body = await request.body.read(1 << 20)
        self.seen.append(request)
        self.bodies.append(orjson.loads(body) if body else None)
        return await self._answer(request, body)

    async def start(self, client_ca: bytes = b"") -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.home / "ext.pem", self.home / "ext.key")
        if client_ca:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=client_ca.decode())
        self._listener = await http_server.listen(self.handle, host="127.0.0.1", port=self.port, tls=context)
        self.port = self._listener.port

    async def stop(self) -> None:
        if self._listener is not None:
            await self._listener.close(0.1)
            self._listener = None


@asynccontextmanager
async def extension_server(
    home: Path, answer: Callable[[Request, bytes], Awaitable[Answer]], client_ca: bytes = b""
) -> AsyncIterator[ExtensionServer]:
    server = ExtensionServer(home, answer)
    await server.start(client_ca)
    try:
        yield server
    finally:
        await server.stop()


def json_response(value: Any, status: int = 200) -> Response:
    return Response(status, orjson.dumps(value))


def service(port: int = 443) -> Object:
    spec = {"ports": [{"name": "https", "port": port, "protocol": "TCP"}], "clusterIP": "None"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext"}, "spec": spec}


async def put_endpoints(server: ApiServer, port: int, *, ready: bool = True) -> None:
    """The Service's EndpointSlice, past validation, which refuses addresses on loopback."""
    resource = builtin("EndpointSlice")
    obj = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "ext-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "ext"}},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}],
    }
    origin = Origin("test", "create")
    found = await server.objects.find(resource, "default", "ext-1")
    if found is not None:
        await server.objects.remove(resource, found, origin)
    await server.objects.create(resource, "default", "ext-1", obj, origin)
