"""What strangers and slow clients may cost: every limit over real sockets, shortened."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from k1s.base import http, http_server, pki
from k1s.base.http import Request, Response, Stream
from k1s.base.http_door import Door, Limits

Serve = Callable[..., Any]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    listeners = []

    async def start(handler: http.Handler, tls: ssl.SSLContext | None = None, **limits: Any) -> http_server.Listener:
        listener = await http_server.listen(handler, host="127.0.0.1", port=0, tls=tls, limits=Limits(**limits))
        listeners.append(listener)
        return listener

    yield start
    for listener in listeners:
        await listener.close(0.1)


async def hello(request: Request) -> Response:
    if request.headers.get("authorization"):
        request.context["known"] = True
    return Response(body=b"hello", content_type="text/plain")


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, listener: http_server.Listener, **options: Any) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", listener.port, **options))

    async def ask(self, head: bytes = b"GET / HTTP/1.1", *lines: bytes, body: bytes = b"") -> bytes:
        self.writer.write(b"\r\n".join([head, b"Host: x", *lines, b"", body]))
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    async def closed(self, seconds: float = 3.0) -> bool:
        """Whether the server ends the connection without another word."""
        try:
            return await asyncio.wait_for(self.reader.read(), seconds) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    now = time.time()
    ca, key = pki.create_ca("ca", now), pki.new_key()
    leaf = pki.issue(ca, key, pki.Subject("k1s", sans=("127.0.0.1",)), usage="server", now=now)
    for name, data in (("ca.pem", ca.certificate), ("leaf.pem", leaf), ("leaf.key", key)):
        (tmp_path / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "leaf.pem", tmp_path / "leaf.key")
    return context, ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))


def test_the_oldest_stranger_of_an_address_goes_first() -> None:
    door, gone = Door(Limits(strangers=4, strangers_per_address=2, connections=10)), []

    def come(address: str, name: str) -> Any:
        guest = door.admit(address)
        assert guest is not None
        guest.drop = lambda: gone.append(name)
        return guest

    come("a", "a1")
    known = come("a", "a2")
    known.know()
    come("a", "a3")
    come("a", "a4")
    assert gone == ["a1"]
    come("b", "b1")
    last = come("c", "c1")
    come("d", "d1")
    assert gone == ["a1", "a3"]  # too many altogether: the address that has most loses one
    last.leave()
    last.leave()
    assert (door.connections, door.strangers, door.dropped) == (4, 3, 2)


def test_who_is_known_is_never_dropped() -> None:
    door = Door(Limits(strangers=4, connections=2))
    for _ in range(2):
        guest = door.admit("a")
        assert guest is not None
        guest.know()
    assert door.admit("b") is None
    assert (door.refused, door.connections, door.strangers) == (1, 2, 0)


async def test_strangers_are_bounded_and_acquaintances_stay(serve: Serve) -> None:
    listener = await serve(hello, strangers_per_address=3)
    friend = await Client.open(listener)
    assert (await friend.ask(b"GET / HTTP/1.1", b"Authorization: Bearer x")).startswith(b"HTTP/1.1 200")
    clients = []
    for _ in range(5):
        clients.append(await Client.open(listener))
        assert b" 200 " in await clients[-1].ask()
    for client in clients:
        assert await client.reader.readexactly(5) == b"hello"
    assert await clients[0].closed() and await clients[1].closed()
    assert (await clients[4].ask()).startswith(b"HTTP/1.1 200")
    await friend.reader.readexactly(5)
    assert (await friend.ask()).startswith(b"HTTP/1.1 200")
    assert (listener.door.connections, listener.door.strangers, listener.door.dropped) == (4, 3, 2)


async def test_a_handshake_that_takes_too_long(serve: Serve, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    listener = await serve(hello, tls[0], handshake=0.2)
    silent = await Client.open(listener)
    good = await Client.open(listener, ssl=tls[1])
    assert (await good.ask()).startswith(b"HTTP/1.1 200")
    assert await silent.closed()
    async with asyncio.timeout(3):
        await until(lambda: listener.door.connections == 1)
    garbage = await Client.open(listener)
    garbage.writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await garbage.closed()
    assert (await (await Client.open(listener, ssl=tls[1])).ask()).startswith(b"HTTP/1.1 200")


async def test_strangers_in_their_handshake_count(serve: Serve, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    listener = await serve(hello, tls[0], strangers_per_address=4)
    silent = [await Client.open(listener) for _ in range(10)]
    good = await Client.open(listener, ssl=tls[1])
    assert (await good.ask()).startswith(b"HTTP/1.1 200")
    assert [await client.closed(0.2) for client in silent] == [True] * 7 + [False] * 3


async def test_a_body_that_does_not_come(serve: Serve) -> None:
    lost: list[http.BodyLost] = []

    async def handler(request: Request) -> Response:
        try:
            return Response(body=await request.body.read(1000))
        except http.BodyLost as error:
            lost.append(error)
            return Response(400)

    listener = await serve(handler, body=0.2)
    slow = await Client.open(listener)
    slow.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
    assert (await asyncio.wait_for(slow.reader.readuntil(b"\r\n\r\n"), 3)).startswith(b"HTTP/1.1 400")
    assert lost[0].slow and await slow.closed()
    gone = await Client.open(listener)
    gone.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
    await asyncio.sleep(0.05)
    gone.writer.close()
    broken = await Client.open(listener)
    broken.writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
    await asyncio.sleep(0.05)
    broken.writer.write(b"cdeXYZ\r\n")
    async with asyncio.timeout(3):
        await until(lambda: len(lost) == 3)
    assert not lost[1].slow


async def test_bodies_stay_as_they_were_sent(serve: Serve) -> None:
    """Unpacking what somebody sent would let a few kilobytes become gigabytes; and who it is passed on to would get a lie."""
    bomb = gzip.compress(b"x" * 10_000_000)

    async def handler(request: Request) -> Response:
        return Response(body=b"%d" % len(await request.body.read(1_000_000)))

    client = await Client.open(await serve(handler))
    await client.ask(b"POST / HTTP/1.1", b"Content-Encoding: gzip", b"Content-Length: %d" % len(bomb), body=bomb)
    assert int(await client.reader.read(100)) == len(bomb)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_too_large_a_body(serve: Serve, framing: str) -> None:
    async def handler(request: Request) -> Response:
        try:
            await request.body.read(1000)
        except http.BodyTooLarge:
            return Response(413)
        return Response()

    client = await Client.open(await serve(handler))
    if framing == "length":
        answer = await client.ask(b"POST / HTTP/1.1", b"Content-Length: 1001", body=b"x" * 1001)
    else:
        chunks = b"1f4\r\n" + b"x" * 500 + b"\r\n"
        answer = await client.ask(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", body=chunks * 3 + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_client_that_does_not_read_its_answer_is_cut_off(serve: Serve) -> None:
    done = asyncio.Event()

    async def big(request: Request) -> http.Answer:
        if request.path == "/small":
            return Response()

        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 100_000
            finally:
                done.set()

        return Response(body=b"x" * 50_000_000) if request.path == "/body" else Stream(chunks(), patience=0.2)

    listener = await serve(big, write=0.2)
    for path in (b"/body", b"/stream"):
        client = await Client.open(listener, limit=1000)
        client.writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        async with asyncio.timeout(5):
            await until(lambda: listener.door.connections == 1)
            await until(lambda: listener.door.connections == 0)
    await asyncio.wait_for(done.wait(), 2)


async def test_idle_connections_are_closed(serve: Serve) -> None:
    listener = await serve(hello, keepalive=0.2)
    client = await Client.open(listener)
    await client.ask()
    await client.reader.readexactly(5)
    assert await client.closed()


@pytest.mark.parametrize(
    "lines, status",
    [
        ([b"X-Long: " + b"x" * 40_000], b"431"),
        ([b"X-%d: y" % i for i in range(200)], b"431"),
        ([b"Content-Length: x"], b"400"),
        ([b"X-%d: y" % i for i in range(100)], b"200"),
    ],
)
async def test_heads_are_bounded(serve: Serve, lines: list[bytes], status: bytes) -> None:
    client = await Client.open(await serve(hello))
    assert (await client.ask(b"GET / HTTP/1.1", *lines)).startswith(b"HTTP/1.1 " + status)


async def test_pipelined_requests_are_answered_in_order_and_bounded(serve: Serve) -> None:
    most, running = 0, 0

    async def handler(request: Request) -> Response:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Response(body=request.path.encode())

    client = await Client.open(await serve(handler))
    client.writer.write(b"".join(b"GET /%04d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(500)))
    for i in range(500):
        await client.reader.readuntil(b"\r\n\r\n")
        assert await client.reader.readexactly(5) == b"/%04d" % i
    assert most == 1


async def test_a_stream_says_when_it_has_ended(serve: Serve) -> None:
    ended = asyncio.Event()

    async def handler(request: Request) -> Stream:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.Event().wait()

        return Stream(chunks(), ended=ended.set)

    client = await Client.open(await serve(handler))
    await client.ask()
    client.writer.close()
    await asyncio.wait_for(ended.wait(), 2)
