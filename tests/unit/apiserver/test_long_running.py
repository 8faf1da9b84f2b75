"""Watches and streams are counted per user, refused beyond a bound, and forgotten when they end."""

from __future__ import annotations

import asyncio

import pytest

from k1s.base.http import RawUpgrade, Response, Stream, WebSocketUpgrade
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.long_running import LongRunning
from k1s.server.apiserver.registry import Registry
from tests.unit.apiserver.conftest import CMS, Api

WATCH = RequestInfo(True, "", "watch", "", "v1", "pods")
EXEC = RequestInfo(True, "", "create", "", "v1", "pods", "exec", "a", "b")
EVE, BOB = UserInfo("eve"), UserInfo("bob")


async def test_a_watch_counts_until_its_client_goes(api: Api) -> None:
    first = await api.send("GET", f"{CMS}?watch=1")
    assert isinstance(first, Stream) and first.patience > 0 and first.ended is not None
    line = b'apiserver_longrunning_requests{verb="WATCH",group="",version="v1",resource="configmaps",subresource="",'
    assert line + b'scope="namespace",component="apiserver"} 1' in api.server.exposition()
    first.ended()
    first.ended()
    assert line + b'scope="namespace",component="apiserver"} 0' in api.server.exposition()
    await first.chunks.aclose()  # type: ignore[attr-defined]


async def test_too_many_of_one_user() -> None:
    many = LongRunning(max_watches=1, max_streams=1)
    stream = many.follow(Stream(iter(())), WATCH, EVE, ("a",))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="too many watches of user 'eve'"):
        many.check(WATCH, EVE)
    many.check(WATCH, BOB)
    many.check(EXEC, EVE)
    assert isinstance(stream, Stream) and stream.ended is not None
    stream.ended()
    many.check(WATCH, EVE)

    async def serve(connection: object) -> None:
        with pytest.raises(Exception, match="too many streams"):
            many.check(EXEC, EVE)
        raise ConnectionError

    for answer in (RawUpgrade("SPDY/3.1", serve), WebSocketUpgrade((), serve)):
        followed = many.follow(answer, EXEC, EVE, ("b",))
        with pytest.raises(ConnectionError):
            await followed.serve(None)  # type: ignore[union-attr, arg-type]
        many.check(EXEC, EVE)
    assert many.running == {("a",): 0, ("b",): 0}
    refused = Response(404)
    assert many.follow(refused, EXEC, EVE, ("b",)) is refused


async def test_a_stream_counts_while_the_other_end_keeps_everybody_waiting(api: Api) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def silent(*_: object) -> Response:
        entered.set()
        await go.wait()
        return Response(204)

    api.server.long_running = LongRunning(max_streams=1)
    api.server._registry = Registry({("", "pods", "proxy"): silent})
    path = "/api/v1/namespaces/a/pods/p/proxy/x"
    first = asyncio.create_task(api.send("GET", path))
    await entered.wait()
    assert (await api("GET", path)).status == 429
    go.set()
    assert [(await first).status, (await api("GET", path)).status] == [204, 204]
