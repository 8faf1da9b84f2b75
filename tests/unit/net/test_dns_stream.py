"""DNS over TCP: many questions on one connection, and clients that behave badly."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import dnslib
import pytest
import uvloop

from k1s.net.dns import stream

from .dns_world import World, data


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    found.zone.add("web", clusterIP="10.43.0.7")
    await found.first.start()
    await found.second.start()
    await found.server.start()
    yield found
    await found.server.stop()
    found.first.stop()
    found.second.stop()


def frame(name: str, identifier: int) -> bytes:
    message = dnslib.DNSRecord.question(name)
    message.header.id = identifier
    packed = bytes(message.pack())
    return struct.pack(">H", len(packed)) + packed


async def receive(reader: asyncio.StreamReader) -> dnslib.DNSRecord:
    (length,) = struct.unpack(">H", await asyncio.wait_for(reader.readexactly(2), 10))
    return dnslib.DNSRecord.parse(await reader.readexactly(length))


async def test_answers_come_as_they_are_there(world: World) -> None:
    world.first.mode = "slow"
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(frame("slow.example", 1) + b"".join(frame("web.shop.svc.cluster.local", n) for n in range(2, 200)))
    order = [(await receive(reader)).header.id for _ in range(199)]
    assert sorted(order) == list(range(1, 200))
    assert order[0] == 2, "nobody waits for a slow name"
    writer.close()


async def test_one_connection_cannot_have_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.first.mode = "slow"
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    count = 3 * stream.MOST_UNANSWERED
    writer.write(b"".join(frame(f"n{n}.example", n) for n in range(count)))
    await asyncio.sleep(0.15)
    assert len(world.server._waiting) == stream.MOST_UNANSWERED
    assert sorted([(await receive(reader)).header.id for _ in range(count)]) == list(range(count))
    writer.close()


async def test_a_question_in_pieces(world: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    for byte in frame("web.shop.svc.cluster.local", 5):
        writer.write(bytes((byte,)))
        await asyncio.sleep(0)
    assert data(await receive(reader)) == ["10.43.0.7"]
    writer.close()


async def test_garbage_ends_the_connection(world: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"\0\3abc")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_idle_connections_end_and_there_are_not_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_CONNECTIONS", 4)
    monkeypatch.setattr(stream, "IDLE_SECONDS", 0.2)
    held = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(4)]
    held[0][1].write(b"\0")
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        writer.write(frame("web.shop.svc.cluster.local", 5))
        await asyncio.wait_for(reader.readexactly(2), 5)
    for reader, writer in held:
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()
    assert not world.server._tcp.open


async def eventually(check: Callable[[], bool], what: str) -> None:
    for _ in range(300):
        if check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never: {what}")


async def test_a_client_that_does_not_read_is_not_read_from(world: World) -> None:
    endpoints = [{"addresses": [f"10.42.{n // 250}.{n % 250}"]} for n in range(2000)]
    world.zone.add("db", clusterIP="None")
    world.zone.pieces = [{"metadata": {}, "addressType": "IPv4", "ports": None, "endpoints": endpoints}]
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", world.port))
        questions = frame("db.shop.svc.cluster.local", 5) * 2000
        await loop.sock_sendall(client, questions[: 64 * 1024])
        await eventually(lambda: len(world.server._tcp.open) > 0, "accepted")
        (connection,) = world.server._tcp.open
        await eventually(lambda: connection._full, "the answers pile up")
        await asyncio.sleep(0.1)
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() < 4 << 20
        assert len(connection._buffer) < 512 << 10
        assert data(await world.udp("web.shop.svc.cluster.local")) == ["10.43.0.7"]


def test_the_same_under_the_agents_event_loop(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(tmp_path)
        world.zone.add("web", clusterIP="10.43.0.7")
        await world.first.start()
        await world.second.start()
        await world.server.start()
        try:
            await test_answers_come_as_they_are_there(world)
            await test_a_question_in_pieces(world)
            await test_garbage_ends_the_connection(world)
            await test_a_client_that_does_not_read_is_not_read_from(world)
        finally:
            await world.server.stop()
            world.first.stop()
            world.second.stop()

    uvloop.run(main())
