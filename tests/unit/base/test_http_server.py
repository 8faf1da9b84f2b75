"""The adapter over real sockets: answers, streams that end with their client, upgrades, limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from k1s.base import http, http_server
from k1s.base.http import RawUpgrade, Request, Response, Stream, WebSocket, WebSocketUpgrade
from k1s.base.http_door import Limits


@pytest.fixture
async def serve():
    listeners = []

    async def start(handler: http.Handler, **options: Any) -> int:
        listener = await http_server.listen(handler, host="127.0.0.1", port=0, **{"tls": None, **options})
        listeners.append(listener)
        return listener.port

    yield start
    for listener in listeners:
        await listener.close(0.1)


async def test_request_is_translated_and_answered(serve) -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return Response(201, b"got " + await request.body.read(100), "text/plain", [("Warning", '299 - "x"')])

    port = await serve(handler)
    async with aiohttp.ClientSession() as session:
        async with session.post(f"http://127.0.0.1:{port}/a%20b?x=1&x=2&y", data=b"body") as answer:
            assert (answer.status, await answer.read()) == (201, b"got body")
            assert answer.headers["Warning"] == '299 - "x"'
        # The connection is reused, so the framing was right.
        async with session.get(f"http://127.0.0.1:{port}/second") as answer:
            assert await answer.read() == b"got "
    first = seen[0]
    assert (first.method, first.path, first.params("x"), first.param("y", "no")) == ("POST", "/a b", ["1", "2"], "")
    assert first.remote == "127.0.0.1"
    assert first.headers["content-length"] == "4"


async def test_body_over_the_limit_is_refused(serve) -> None:
    async def handler(request: Request) -> Response:
        try:
            await request.body.read(10)
        except http.BodyTooLarge:
            return Response(413)
        return Response()

    port = await serve(handler)
    async with aiohttp.ClientSession() as session:
        async with session.post(f"http://127.0.0.1:{port}/", data=b"x" * 11) as answer:
            assert answer.status == 413
        async with session.post(f"http://127.0.0.1:{port}/", data=b"x" * 10) as answer:
            assert answer.status == 200


async def test_stream_is_sent_as_it_comes_and_closed_with_its_client(serve) -> None:
    closed = asyncio.Event()
    idle = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield b"one\n"
            idle.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def handler(request: Request) -> Stream:
        return Stream(chunks())

    port = await serve(handler)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"one\n" in await reader.readuntil(b"one\n\r\n")
    await idle.wait()
    assert not closed.is_set()
    writer.close()
    await asyncio.wait_for(closed.wait(), 2)


async def test_stream_ends_orderly_and_the_connection_lives_on(serve) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def handler(request: Request) -> http.Answer:
        return Stream(chunks()) if request.path == "/s" else Response(body=b"{}")

    port = await serve(handler)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/s") as answer:
            assert await answer.read() == b"ab"
        async with session.get(f"http://127.0.0.1:{port}/r") as answer:
            assert await answer.read() == b"{}"


@pytest.mark.parametrize("method, status", [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_a_stream_without_a_body_has_no_last_chunk(serve, method: str, status: int) -> None:
    """It would be taken for the answer to the connection's next request."""

    async def nothing() -> AsyncIterator[bytes]:
        for chunk in ():
            yield chunk

    async def handler(request: Request) -> http.Answer:
        return Stream(nothing(), status=status) if request.path == "/s" else Response(body=b"{}")

    reader, writer = await asyncio.open_connection("127.0.0.1", await serve(handler))
    for line in (f"{method} /s", "GET /r"):
        writer.write(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)
        assert head.startswith(f"HTTP/1.1 {status if line.endswith('/s') else 200} ".encode())
        assert b"chunked" not in head
    assert await reader.readexactly(2) == b"{}"
    writer.close()


async def test_websocket_echo_picks_the_offered_protocol(serve) -> None:
    async def echo(socket: WebSocket) -> None:
        while True:
            try:
                await socket.send(await socket.receive())
            except http.ConnectionClosed:
                return

    async def handler(request: Request) -> WebSocketUpgrade:
        return WebSocketUpgrade(["v5.channel.k8s.io", "v4.channel.k8s.io"], echo)

    port = await serve(handler)
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"http://127.0.0.1:{port}/", protocols=["v4.channel.k8s.io"]) as socket:
            assert socket.protocol == "v4.channel.k8s.io"
            await socket.send_bytes(b"\x00hi")
            assert (await socket.receive()).data == b"\x00hi"


async def test_raw_upgrade_hands_the_bytes_over(serve) -> None:
    async def upper(stream: http.ByteStream) -> None:
        while data := await stream.read():
            await stream.write(data.upper())

    async def handler(request: Request) -> RawUpgrade:
        return RawUpgrade("SPDY/3.1", upper)

    port = await serve(handler)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101") and b"Upgrade: SPDY/3.1" in head
    big = b"get / http/1.1\r\n\r\n" * 40_000
    writer.write(big)
    assert await asyncio.wait_for(reader.readexactly(len(big)), 5) == big.upper()
    writer.close()


async def test_an_ordinary_request_goes_on_when_its_client_leaves(serve) -> None:
    started, release, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Response:
        started.set()
        await release.wait()
        finished.set()
        return Response()

    port = await serve(handler)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await started.wait()
    writer.close()
    await asyncio.sleep(0.05)
    release.set()
    await asyncio.wait_for(finished.wait(), 2)


async def test_a_stream_whose_client_left_before_it_began_gives_back_what_it_holds() -> None:
    class Watch:
        closed = False

        def __aiter__(self) -> Watch:
            return self

        async def __anext__(self) -> bytes:
            raise AssertionError("nobody listens")

        async def aclose(self) -> None:
            self.closed = True

    watch = Watch()
    wire = SimpleNamespace(_protocol=SimpleNamespace(transport=None))
    await http_server._send(wire, Stream(watch))  # type: ignore[arg-type]
    assert watch.closed


async def ask(port: int, *lines: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\r\n".join([*lines, b"Host: x", b"Connection: close", b"", b""]))
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def test_header_fields_that_are_no_text(serve) -> None:
    """Strangers send them, and everything else writes them on: into JSON, logs, other requests."""
    seen: list[str] = []

    async def handler(request: Request) -> Response:
        seen.append(request.headers["User-Agent"])
        return Response()

    port = await serve(handler)
    for value in (b"a\xff\xfeb", "Zoë".encode()):
        assert (await ask(port, b"GET / HTTP/1.1", b"User-Agent: " + value)).startswith(b"HTTP/1.1 200")
    assert seen == ["a\ufffd\ufffdb", "Zoë"]
    assert [text.encode().decode() for text in seen] == seen


async def test_what_is_no_http_is_not_worth_a_line(serve, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> Response:
        if request.path == "/fault":
            raise KeyError("ours")
        return Response()

    port = await serve(handler)
    for lines in ((b"\xff\xfe / HTTP/1.1",), (b"GET /\xff HTTP/1.1",), (b"GET / HTTP/1.1", b"Content-Length: -5")):
        assert b" 400 " in await ask(port, *lines)
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    await ask(port, b"GET /fault HTTP/1.1")
    assert [record.levelname for record in caplog.records if record.levelno > logging.DEBUG] == ["ERROR"]


async def test_a_connection_that_never_asks_is_closed(serve) -> None:
    async def handler(request: Request) -> Response:
        await asyncio.sleep(0.3)
        return Response()

    port = await serve(handler, limits=Limits(first_request=0.1))
    silent, one = await asyncio.open_connection("127.0.0.1", port)
    slow, two = await asyncio.open_connection("127.0.0.1", port)
    two.write(b"GET / HTTP/1.1\r\nHost: ")
    asked = asyncio.create_task(ask(port, b"GET / HTTP/1.1"))
    for reader, writer in ((silent, one), (slow, two)):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 2)
        writer.close()
    assert (await asked).startswith(b"HTTP/1.1 200")
