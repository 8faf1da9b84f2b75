"""Exec sessions end to end in process: a fake runtime streaming server behind, WebSocket and SPDY clients in front."""

from __future__ import annotations

import asyncio
import gc
import json

import aiohttp
import pytest

from k1s.agent.serving import command, port_forward
from k1s.agent.serving.command import StreamOptions
from k1s.agent.serving.remote import SPDY_PROTOCOLS, serve_spdy
from k1s.base import http_server
from k1s.base.http import Answer, ByteStream, ConnectionClosed, RawUpgrade, Request
from k1s.base.spdy import SpdyConnection, SpdyStream
from k1s.cri.streaming import _SocketStream


async def runtime_cat(remote) -> None:
    """What `cat` in a container does, then exit code 3."""
    while data := await remote.read_stdin():
        await remote.write(1, data)
    await remote.write(2, b"done")
    await remote.finish(
        json.dumps({"status": "Failure", "message": "exit 3", "details": {"causes": [{"message": "3"}]}}).encode()
    )


@pytest.fixture
async def agent_port():
    async def runtime(request: Request) -> Answer:
        async def serve(stream: ByteStream) -> None:
            await serve_spdy(stream, SPDY_PROTOCOLS[0], frozenset({"error", "stdin", "stdout", "stderr"}), runtime_cat)

        return RawUpgrade("SPDY/3.1", serve, [("X-Stream-Protocol-Version", SPDY_PROTOCOLS[0])])

    behind = await http_server.listen(runtime, host="127.0.0.1", port=0, tls=None)

    async def agent(request: Request) -> Answer:
        async def url() -> str:
            return f"http://127.0.0.1:{behind.port}/exec/token"

        return command.upgrade(request, StreamOptions(True, True, True, False), url)

    front = await http_server.listen(agent, host="127.0.0.1", port=0, tls=None)
    yield front.port
    await front.close(0.1)
    await behind.close(0.1)


async def test_v5_websocket_half_closes_stdin(agent_port: int) -> None:
    out: dict[int, bytes] = {1: b"", 2: b"", 3: b""}
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"http://127.0.0.1:{agent_port}/", protocols=["v5.channel.k8s.io"]) as socket:
            await socket.send_bytes(b"\x00hello ")
            await socket.send_bytes(b"\x00world")
            await socket.send_bytes(b"\xff\x00")
            async with asyncio.timeout(5):
                async for message in socket:
                    out[message.data[0]] += message.data[1:]
    assert (out[1], out[2]) == (b"hello world", b"done")
    assert json.loads(out[3])["details"]["causes"][0]["message"] == "3"


async def spdy_client(port: int, path: str, protocol: str) -> tuple[SpdyConnection, asyncio.Task[None]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        f"X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head and protocol.encode() in head
    connection = SpdyConnection(_SocketStream(reader, writer), client=True)
    return connection, asyncio.create_task(connection.run())


async def read_all(stream: SpdyStream) -> bytes:
    out = b""
    while data := await stream.read():
        out += data
    return out


async def test_spdy_passes_megabytes_and_the_status(agent_port: int) -> None:
    connection, reader = await spdy_client(agent_port, "/", "v4.channel.k8s.io")
    streams = {kind: await connection.open({"streamType": kind}) for kind in ("error", "stdin", "stdout", "stderr")}
    data = bytes(range(256)) * 8192

    async def feed() -> None:
        await streams["stdin"].write(data)
        await streams["stdin"].end()

    async with asyncio.timeout(20):
        _, out, err, status = await asyncio.gather(
            feed(), read_all(streams["stdout"]), read_all(streams["stderr"]), read_all(streams["error"])
        )
    assert out == data and err == b"done" and json.loads(status)["status"] == "Failure"
    await connection.close()
    reader.cancel()


async def test_attach_ends_with_the_container_even_if_the_runtime_forgets_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """containerd 1.6 does, when an attach meets the end of the container."""
    monkeypatch.setattr(command, "OVER_SECONDS", 0.05)
    ended = asyncio.Event()

    async def forgetful(remote) -> None:
        await remote.write(1, b"last words")
        ended.set()
        await remote.gone()

    async def runtime(request: Request) -> Answer:
        async def serve(stream: ByteStream) -> None:
            await serve_spdy(stream, SPDY_PROTOCOLS[0], frozenset({"error", "stdout", "stderr"}), forgetful)

        return RawUpgrade("SPDY/3.1", serve, [("X-Stream-Protocol-Version", SPDY_PROTOCOLS[0])])

    behind = await http_server.listen(runtime, host="127.0.0.1", port=0, tls=None)

    async def agent(request: Request) -> Answer:
        async def url() -> str:
            return f"http://127.0.0.1:{behind.port}/attach/token"

        async def over() -> None:
            await ended.wait()

        return command.upgrade(request, StreamOptions(False, True, True, False), url, over=over)

    front = await http_server.listen(agent, host="127.0.0.1", port=0, tls=None)
    forgotten: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: forgotten.append(context["message"]))
    connection, reader = await spdy_client(front.port, "/", "v4.channel.k8s.io")
    streams = {kind: await connection.open({"streamType": kind}) for kind in ("error", "stdout", "stderr")}
    async with asyncio.timeout(5):
        out, status = await asyncio.gather(read_all(streams["stdout"]), read_all(streams["error"]))
    assert out == b"last words" and json.loads(status)["status"] == "Success"
    await connection.close()
    reader.cancel()
    await front.close(0.1)
    await behind.close(0.1)
    gc.collect()
    assert not forgotten


async def test_no_stream_is_opened_on_a_connection_that_has_ended() -> None:
    class Gone:
        async def read(self) -> bytes:
            return b""

        async def write(self, data: bytes) -> None:
            return None

        async def close(self) -> None:
            return None

    connection = SpdyConnection(Gone(), client=True)
    await connection.run()
    with pytest.raises(ConnectionClosed):
        await connection.open({"streamtype": "error"})


async def test_an_unreachable_runtime_is_told_on_the_error_channel() -> None:
    async def agent(request: Request) -> Answer:
        async def url() -> str:
            return "http://127.0.0.1:1/gone"

        return command.upgrade(request, StreamOptions(False, True, False, False), url)

    front = await http_server.listen(agent, host="127.0.0.1", port=0, tls=None)
    try:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"http://127.0.0.1:{front.port}/", protocols=["v4.channel.k8s.io"]) as socket:
                message = await socket.receive(5)
                assert message.data[0] == 3 and "streaming server cannot be reached" in json.loads(message.data[1:])["message"]
    finally:
        await front.close(0.1)


@pytest.fixture
async def forward_port():
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[1]

    async def agent(request: Request) -> Answer:
        import socket

        async def dial(port: int) -> socket.socket:
            if port != 80:
                raise ConnectionRefusedError(111, "Connection refused")
            made = socket.create_connection(("127.0.0.1", target))
            made.setblocking(False)
            return made

        return port_forward.upgrade(request, dial)

    front = await http_server.listen(agent, host="127.0.0.1", port=0, tls=None)
    yield front.port
    await front.close(0.1)
    server.close()


async def test_port_forward_over_spdy(forward_port: int) -> None:
    connection, reader = await spdy_client(forward_port, "/portForward/n/p", "portforward.k8s.io")
    for request_id in ("0", "1"):
        headers = {"port": "80", "requestID": request_id}
        error = await connection.open({**headers, "streamType": "error"})
        await error.end()
        data = await connection.open({**headers, "streamType": "data"})
        await data.write(b"hello")
        await data.end()
        async with asyncio.timeout(5):
            assert await read_all(data) == b"HELLO"
            assert await read_all(error) == b""
    error = await connection.open({"port": "81", "requestID": "2", "streamType": "error"})
    data = await connection.open({"port": "81", "requestID": "2", "streamType": "data"})
    async with asyncio.timeout(5):
        assert b"Connection refused" in await read_all(error)
        assert await read_all(data) == b""
    await connection.close()
    reader.cancel()


async def test_port_forward_over_websocket_channels(forward_port: int) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"http://127.0.0.1:{forward_port}/?ports=80", protocols=["v4.channel.k8s.io"]) as socket:
            assert (await socket.receive(5)).data == b"\x00\x50\x00"
            assert (await socket.receive(5)).data == b"\x01\x50\x00"
            await socket.send_bytes(b"\x00hi")
            assert (await socket.receive(5)).data == b"\x00HI"
