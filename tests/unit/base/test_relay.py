"""Two transports joined: bytes, ends, faults and backpressure pass through."""

from __future__ import annotations

import asyncio
import socket

import pytest

from k1s.base.relay import Relay, joined

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def line():
    """Two ends; what is between them is a relay over two socket pairs."""
    loop = asyncio.get_running_loop()
    (ours, near), (theirs, far) = socket.socketpair(), socket.socketpair()
    one, two = joined()
    await loop.create_unix_connection(lambda: one, sock=near)
    await loop.create_unix_connection(lambda: two, sock=far)
    left = await asyncio.open_unix_connection(sock=ours)
    right = await asyncio.open_unix_connection(sock=theirs)
    yield left, right, one, two
    for _, writer in (left, right):
        writer.close()
    for relay in (one, two):
        relay.transport.abort()
    await asyncio.sleep(0)


async def test_each_direction_ends_by_itself(line: tuple[Streams, Streams, Relay, Relay]) -> None:
    (left_in, left_out), (right_in, right_out), one, two = line
    left_out.write(b"question")
    left_out.write_eof()
    assert await asyncio.wait_for(right_in.read(), 5) == b"question"
    right_out.write(b"a long answer")
    await right_out.drain()
    assert await asyncio.wait_for(left_in.readexactly(13), 5) == b"a long answer"
    right_out.write_eof()
    assert await asyncio.wait_for(left_in.read(), 5) == b""
    await asyncio.sleep(0.01)
    assert one.transport.is_closing() and two.transport.is_closing(), "after the second end nothing is left"


async def test_the_end_of_a_final_side_is_the_end_of_all(line: tuple[Streams, Streams, Relay, Relay]) -> None:
    (_, left_out), (right_in, _), one, two = line
    one._final = True
    left_out.write(b"last")
    left_out.close()
    assert await asyncio.wait_for(right_in.read(), 5) == b"last"
    await asyncio.sleep(0.01)
    assert one.transport.is_closing() and two.transport.is_closing()


async def test_a_fault_of_one_side_takes_the_other_along(line: tuple[Streams, Streams, Relay, Relay]) -> None:
    _, (right_in, _), one, two = line
    one.connection_lost(ConnectionResetError())
    assert await asyncio.wait_for(right_in.read(), 5) == b""
    await asyncio.sleep(0)
    assert two.transport.is_closing()


async def test_a_reader_that_stops_stops_the_writer(line: tuple[Streams, Streams, Relay, Relay]) -> None:
    (_, left_out), (right_in, right_out), _, two = line
    right_out.transport.pause_reading()  # type: ignore[attr-defined]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            while True:
                left_out.write(b"x" * 65536)
                await left_out.drain()
    assert two.transport.get_write_buffer_size() < 1024 * 1024
    right_out.transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        await right_in.readexactly(500_000)
        await left_out.drain()
