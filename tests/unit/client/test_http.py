"""HttpTransport against the real adapter: the same client calls as over LocalTransport, and what breaks."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base import http_server
from k1s.client.rest import RestClient
from k1s.client.transport import HttpTransport, TransportError

CONFIG_MAP = builtin("ConfigMap")


@pytest.fixture
async def url(server):
    listener = await http_server.listen(server.handle, host="127.0.0.1", port=0, tls=None)
    yield f"http://127.0.0.1:{listener.port}"
    await listener.close(0.1)


async def test_verbs_token_and_escaping(server, url: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    client = RestClient(HttpTransport(url, token_file=token), "agent")
    server.put("a", x="1")
    assert [o["data"] for o in await client.list(CONFIG_MAP, label_selector="a in (b,c)")] == [{"x": "1"}]
    assert server.requests[0].headers["authorization"] == "Bearer secret"
    assert server.requests[0].param("labelSelector") == "a in (b,c)"
    await client.patch(builtin("ClusterRole"), "system:x y", "", {"a": 1}, cause=5)
    request = server.requests[1]
    assert request.path.endswith("/system:x y") and request.context == {}
    assert request.headers["content-type"] == "application/merge-patch+json"
    await client.close()


async def test_watch_streams_and_a_broken_one_is_an_api_error(server, url: str) -> None:
    client = RestClient(HttpTransport(url))
    server.put("a")
    async with aclosing(client.watch(CONFIG_MAP, resource_version="1")) as events:
        assert (await anext(events))[1]["metadata"]["name"] == "a"
        server.break_watches()
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    await client.close()


async def test_a_server_that_is_away_is_an_api_error() -> None:
    client = RestClient(HttpTransport("http://127.0.0.1:1"))
    with pytest.raises(TransportError) as caught:
        await client.get(CONFIG_MAP, "a", "n")
    assert isinstance(caught.value, ApiError) and caught.value.code == 503
    await client.close()


async def test_an_answer_that_takes_too_long_is_an_api_error(url: str, server) -> None:
    client = RestClient(HttpTransport(url, timeout=0.2))
    server.break_watches()

    # A watch without the stream flag hits the time limit, as a hanging server would.
    reply = await client.transport.request("GET", "/api/v1/configmaps", [("watch", "true"), ("resourceVersion", "1")])
    with pytest.raises(TransportError, match="timed out"):
        await reply.read()
    await client.close()


async def test_a_watch_learns_that_its_connection_was_given_up(url: str) -> None:
    """The machine's address changed: connections are dropped, and who reads from one must not wait for ever."""
    transport = HttpTransport(url)
    client = RestClient(transport)
    events = client.watch(CONFIG_MAP, resource_version="1")

    async def follow() -> None:
        async for _ in events:
            pass

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.1)
    transport.disconnect()
    with pytest.raises(ApiError, match="given up"):
        await asyncio.wait_for(following, 5)
    await transport.close()
