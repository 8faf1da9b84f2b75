"""A watch over a WebSocket: one text frame an event, as browsers and the JavaScript client read it."""

from __future__ import annotations

import ssl

import aiohttp
import orjson

from tests.wire.conftest import Wire


async def test_events_are_text_frames(wire: Wire, namespace: str) -> None:
    base = f"https://127.0.0.1:{wire.port}/api/v1/namespaces/{namespace}/configmaps"
    tls = ssl.create_default_context(cafile=str(wire.home / "ca.pem"))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        target = f"{base}?watch=1&resourceVersion=0&timeoutSeconds=2&allowWatchBookmarks=1"
        async with session.ws_connect(target, autoclose=False) as socket:
            for name in ("a", "b"):
                async with session.post(base, json={"metadata": {"name": name}}) as made:
                    assert made.status == 201
            seen = []
            while (message := await socket.receive(10)).type == aiohttp.WSMsgType.TEXT:
                event = orjson.loads(message.data)
                seen.append((event["type"], event["object"]["metadata"].get("name", "")))
        # The watch's time ends it in good order, after a last bookmark.
        assert seen == [("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", "")] and (message.type, message.data) == (
            aiohttp.WSMsgType.CLOSE,
            1000,
        )
        # What is wrong with the request is told before the upgrade.
        try:
            await session.ws_connect(f"{base}?watch=1&resourceVersion=x")
        except aiohttp.WSServerHandshakeError as error:
            assert error.status == 400
        else:
            raise AssertionError("upgraded")
