"""An API server in process, over the memory store, without authentication: requests in, decoded answers out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson
import pytest

from k1s.base.clock import VirtualClock
from k1s.base.http import Headers, MemoryBody, Request, Response, Stream
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.storage.memory import MemoryStore

Object = dict[str, Any]
ADMIN = UserInfo("admin", ("system:masters", "system:authenticated"))


class AllowAll:
    """Stands in for authentication and authorization, which have tests of their own."""

    async def authenticate(self, request: Request) -> UserInfo:
        return ADMIN

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        return None


class Answer:
    def __init__(self, response: Response) -> None:
        self.status, self.raw, self.headers = response.status, response.body, dict(response.headers)
        self.content_type = response.content_type
        self.warnings = [value for name, value in response.headers if name == "Warning"]

    @property
    def json(self) -> Any:
        return orjson.loads(self.raw)


class Watch:
    """Decoded events of a watch, one at a time."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lines: list[bytes] = []

    async def next(self, timeout: float = 2.0) -> Object:
        while not self._lines:
            chunk = await asyncio.wait_for(anext(self._stream.chunks), timeout)
            self._lines = chunk.splitlines()
        event: Object = orjson.loads(self._lines.pop(0))
        return event

    async def some(self, count: int) -> list[tuple[str, str]]:
        """(type, name) of so many events."""
        found = [await self.next() for _ in range(count)]
        return [(e["type"], e["object"]["metadata"].get("name", "")) for e in found]

    async def quiet(self) -> bool:
        try:
            await self.next(0.05)
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        await self._stream.chunks.aclose()  # type: ignore[attr-defined]


class Api:
    def __init__(self, server: ApiServer, clock: VirtualClock, store: MemoryStore) -> None:
        self.server, self.clock, self.store = server, clock, store

    async def send(
        self, method: str, target: str, body: Any = None, *, type: str = "application/json", **headers: str
    ) -> Response | Stream:
        path, _, query = target.partition("?")
        data = body if isinstance(body, bytes) else (orjson.dumps(body) if body is not None else b"")
        pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if data:
            pairs.append(("Content-Type", type))
        request = Request(
            method,
            unquote(path),
            parse_qsl(query, keep_blank_values=True),
            Headers(pairs),
            MemoryBody(data),
            target,
        )
        answer = await self.server.handle(request)
        assert isinstance(answer, Response | Stream)
        return answer

    async def __call__(self, method: str, target: str, body: Any = None, **options: Any) -> Answer:
        response = await self.send(method, target, body, **options)
        assert isinstance(response, Response)
        return Answer(response)

    async def ok(self, method: str, target: str, body: Any = None, **options: Any) -> Any:
        answer = await self(method, target, body, **options)
        assert answer.status < 300, answer.raw
        return answer.json

    async def watch(self, target: str, **headers: str) -> Watch:
        response = await self.send("GET", target, **headers)
        if isinstance(response, Response):
            raise AssertionError(response.body)
        return Watch(response)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Api]:
    store, clock = MemoryStore(), VirtualClock()
    await store.open()
    everybody = AllowAll()
    server = ApiServer(store, authenticator=everybody, authorizer=everybody, clock=clock, **options)
    ready = asyncio.Event()
    task = asyncio.create_task(server.run(ready.set))
    try:
        await asyncio.wait_for(ready.wait(), 5)
        yield Api(server, clock, store)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with running() as api:
        yield api


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, **spec: Any) -> Object:
    spec = {"containers": [{"name": "c", "image": "busybox"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


CMS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SERVICES = "/api/v1/namespaces/default/services"


def deployment(name: str, replicas: int = 1) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }
