"""One suite over every Transport: in process, and over HTTP through the real adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import orjson
import pytest

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError, conflict
from k1s.base import http_server
from k1s.base.http import Answer, Request, Response, Stream
from k1s.client.rest import RestClient
from k1s.client.transport import HttpTransport, LocalTransport

POD = builtin("Pod")


class Server:
    """Answers by path; keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[Request, bytes]] = []
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def handle(self, request: Request) -> Answer:
        body = await request.body.read(1 << 24)
        self.requests.append((request, body))
        if request.param("watch"):
            return Stream(self._stream())
        if request.method == "PUT":
            return Response(409, orjson.dumps(conflict("pods", "", "p").status()))
        if request.method == "GET" and request.path.endswith("/pods"):
            items = [{"metadata": {"name": f"p{n}", "note": "x" * 100}} for n in range(5000)]
            return Response(200, orjson.dumps({"metadata": {"resourceVersion": "7"}, "items": items}))
        return Response(200, body or b"{}")

    async def _stream(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield await self.lines.get()
        finally:
            self.closed.set()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture(params=["local", "http"])
async def client(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[RestClient]:
    if request.param == "local":
        yield RestClient(LocalTransport(server.handle, "user"), "contract")
        return
    listener = await http_server.listen(server.handle, host="127.0.0.1", port=0, tls=None)
    made = RestClient(HttpTransport(f"http://127.0.0.1:{listener.port}"), "contract")
    yield made
    await made.close()
    await listener.close(0.1)


async def test_method_path_query_headers_and_body_arrive(client: RestClient, server: Server) -> None:
    pod = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"text": "ü"}}
    made = await client.create(POD, pod)
    request, body = server.requests[0]
    assert (request.method, request.path, request.param("fieldManager")) == ("POST", "/api/v1/namespaces/n/pods", "contract")
    assert request.headers["content-type"] == "application/json" and request.headers["user-agent"] == "k1s/contract"
    assert orjson.loads(body) == made == {"apiVersion": "v1", "kind": "Pod", **pod}


async def test_odd_names_survive(client: RestClient, server: Server) -> None:
    await client.get(builtin("ClusterRole"), "system:a b%2f+ü?#")
    assert server.requests[0][0].path.endswith("/system:a b%2f+ü?#")
    await client.list(POD, label_selector="a in (b, c),d!=e&f")
    assert server.requests[1][0].param("labelSelector") == "a in (b, c),d!=e&f"


async def test_a_refusal_is_its_api_error(client: RestClient) -> None:
    with pytest.raises(ApiError) as caught:
        await client.update(POD, {"metadata": {"name": "p", "namespace": "n"}})
    assert (caught.value.code, caught.value.reason) == (409, "Conflict")


async def test_large_answers_arrive_whole(client: RestClient) -> None:
    items, version = await client.list_at(POD)
    assert len(items) == 5000 and version == "7" and items[0]["kind"] == "Pod"


async def test_events_arrive_one_by_one_and_leaving_ends_the_stream(client: RestClient, server: Server) -> None:
    async with aclosing(client.watch(POD, "n", resource_version="7")) as events:
        for number in range(3):
            server.lines.put_nowait(orjson.dumps({"type": "ADDED", "object": {"metadata": {"name": f"p{number}"}}}) + b"\n")
            kind, obj = await asyncio.wait_for(anext(events), 5)
            assert (kind, obj["metadata"]["name"]) == ("ADDED", f"p{number}")
    await asyncio.wait_for(server.closed.wait(), 5)


async def test_only_callers_in_process_give_a_user_and_a_cause(client: RestClient, server: Server) -> None:
    await client.delete(POD, "p", "n", cause=9)
    local = isinstance(client.transport, LocalTransport)
    assert server.requests[0][0].context == ({"user": "user", "cause": 9} if local else {})
