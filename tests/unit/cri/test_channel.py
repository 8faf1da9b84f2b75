"""k1s.cri.channel against a gRPC server in this process: calls, errors, breaks."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

from k1s.cri import errors, grpc_health
from k1s.cri.channel import Channel, Service, cri_messages, open_channel

API = cri_messages()


class Methods:
    """What the server serves."""

    async def version(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(API.VersionResponse(version=request.version, runtime_name="r" * 100_000))

    async def status(self, stream: Any) -> None:
        await stream.recv_message()
        raise GRPCError(Status.NOT_FOUND, "no such ünit")

    async def hang(self, stream: Any) -> None:
        await stream.recv_message()
        await asyncio.sleep(60)

    async def events(self, stream: Any) -> None:
        await stream.recv_message()
        for number in range(3):
            await stream.send_message(API.ContainerEventResponse(container_id=str(number)))
        await asyncio.sleep(60)

    async def health(self, stream: Any) -> None:
        request = await stream.recv_message()
        answer = {"": 1, "sick": 2}.get(request.version)
        if answer is None:
            raise GRPCError(Status.NOT_FOUND, "unknown service")
        # The health messages have the same shape as these: one string, one number, in field 1.
        await stream.send_message(API.UInt64Value(value=answer))

    def __mapping__(self) -> dict[str, Handler]:
        def entry(method: Callable[[Any], Any], request: type, answer: type, kind: Cardinality) -> Handler:
            return Handler(method, kind, request, answer)

        unary, streaming = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            "/runtime.v1.RuntimeService/Version": entry(self.version, API.VersionRequest, API.VersionResponse, unary),
            "/runtime.v1.RuntimeService/Status": entry(self.status, API.StatusRequest, API.StatusResponse, unary),
            "/runtime.v1.RuntimeService/StopContainer": entry(
                self.hang, API.StopContainerRequest, API.StopContainerResponse, unary
            ),
            "/runtime.v1.RuntimeService/GetContainerEvents": entry(
                self.events, API.GetEventsRequest, API.ContainerEventResponse, streaming
            ),
            "/grpc.health.v1.Health/Check": entry(self.health, API.VersionRequest, API.UInt64Value, unary),
        }


@pytest.fixture
async def path() -> AsyncIterator[str]:
    directory = Path(tempfile.mkdtemp(prefix="k1sg", dir="/tmp"))
    yield str(directory / "s")
    shutil.rmtree(directory)


class Runtime:
    """The server behind `path`; in between a relay, because only that can cut connections."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._server = Server([Methods()])
        self._relay: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        await self._server.start(path=f"{self.path}.server")
        await self.mend()

    async def mend(self) -> None:
        self._relay = await asyncio.start_unix_server(self._carry, self.path)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(f"{self.path}.server")
        self._writers += [writer, forth]
        await asyncio.gather(self._copy(reader, forth), self._copy(back, writer))

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                target.write(data)
        except ConnectionError:
            pass

    async def cut(self) -> None:
        """As a runtime that is killed."""
        assert self._relay is not None
        self._relay.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        Path(self.path).unlink()
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await self.cut()
        self._server.close()
        await self._server.wait_closed()


@pytest.fixture
async def runtime(path: str) -> AsyncIterator[Runtime]:
    made = Runtime(path)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def channel(path: str) -> AsyncIterator[Channel]:
    made = open_channel(f"unix://{path}")
    yield made
    made.close()


def service(channel: Channel) -> Service:
    return Service(channel, API.DESCRIPTOR.services_by_name["RuntimeService"])


async def test_answers_come_back_whole_and_side_by_side(runtime: Runtime, channel: Channel) -> None:
    calls = [service(channel).Version(API.VersionRequest(version=str(n)), timeout=10) for n in range(20)]
    answers = await asyncio.gather(*calls)
    assert [answer.version for answer in answers] == [str(n) for n in range(20)]
    assert len(answers[0].runtime_name) == 100_000


async def test_the_servers_error_is_the_runtimes(runtime: Runtime, channel: Channel) -> None:
    with pytest.raises(errors.NotFound, match="rpc error: code = NotFound desc = no such ünit"):
        await service(channel).Status(API.StatusRequest(), timeout=10)


async def test_a_hung_server_is_given_up(runtime: Runtime, channel: Channel) -> None:
    with pytest.raises(errors.DeadlineExceeded, match="DeadlineExceeded"):
        await service(channel).StopContainer(API.StopContainerRequest(), timeout=0.1)
    # The connection is still of use.
    assert (await service(channel).Version(API.VersionRequest(version="v1"), timeout=10)).version == "v1"


async def test_without_a_server_calls_fail_and_later_ones_find_it(path: str, channel: Channel) -> None:
    with pytest.raises(errors.Unavailable, match="Unavailable"):
        await service(channel).Version(API.VersionRequest(), timeout=10)
    runtime = Runtime(path)
    await runtime.start()
    for _ in range(2):
        assert (await service(channel).Version(API.VersionRequest(version="v1"), timeout=10)).version == "v1"
        hung = asyncio.ensure_future(service(channel).StopContainer(API.StopContainerRequest(), timeout=60))
        await asyncio.sleep(0.05)
        await runtime.cut()
        with pytest.raises(errors.Unavailable):
            async with asyncio.timeout(5):
                await hung
        with pytest.raises(errors.Unavailable):
            await service(channel).Version(API.VersionRequest(), timeout=10)
        await runtime.mend()
    await runtime.stop()


async def test_a_stream_gives_what_came_and_breaks_with_the_connection(runtime: Runtime, channel: Channel) -> None:
    stream = channel.stream("/runtime.v1.RuntimeService/GetContainerEvents", API.GetEventsRequest(), API.ContainerEventResponse)
    assert [(await anext(stream)).container_id for _ in range(3)] == ["0", "1", "2"]
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    await runtime.cut()
    with pytest.raises(errors.Unavailable):
        async with asyncio.timeout(5):
            await waiting
    await runtime.mend()


async def test_health(unused_tcp_port: int) -> None:
    server = Server([Methods()])
    await server.start("127.0.0.1", unused_tcp_port)
    try:
        assert await grpc_health.check("127.0.0.1", unused_tcp_port, "", 5) == "SERVING"
        assert await grpc_health.check("127.0.0.1", unused_tcp_port, "sick", 5) == "NOT_SERVING"
        with pytest.raises(errors.NotFound):
            await grpc_health.check("127.0.0.1", unused_tcp_port, "unknown", 5)
    finally:
        server.close()
        await server.wait_closed()
    with pytest.raises(errors.Unavailable):
        await grpc_health.check("127.0.0.1", unused_tcp_port, "", 5)


async def test_what_does_not_speak_grpc(unused_tcp_port: int) -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(rude, "127.0.0.1", unused_tcp_port):
        with pytest.raises(errors.RuntimeFailure):
            await grpc_health.check("127.0.0.1", unused_tcp_port, "", 5)
