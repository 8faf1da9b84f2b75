"""Port-forward: connections of the user's joined to ports inside a pod's network namespace.

Owns: the portforward.k8s.io protocol over SPDY, over SPDY tunnelled in a WebSocket (KEP-4006), and the older channel form.
Called by: serving/app. Never does: go through the runtime; the socket is made in the pod's namespace by a thread.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

from k1s.agent.serving.command import negotiate
from k1s.api import errors
from k1s.base.http import Answer, ByteStream, ConnectionClosed, RawUpgrade, Request, WebSocket, WebSocketUpgrade
from k1s.base.sockets import streams_of
from k1s.base.spdy import SpdyConnection, SpdyError, SpdyStream

PROTOCOL = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
CHANNEL_PROTOCOLS = ("v4.channel.k8s.io",)
MAX_CONNECTIONS = 128
# Chunks waiting for one pod connection; a full queue holds the reading of the WebSocket.
CHANNEL_QUEUE = 64

# Gives a connected, non-blocking socket to a TCP port of the pod; raises OSError.
Dial = Callable[[int], Awaitable[socket.socket]]


def upgrade(request: Request, dial: Dial) -> Answer:
    """The answer that runs the session."""

    async def over_spdy(transport: ByteStream) -> None:
        await _Forwarder(transport, dial).run()

    async def over_websocket(websocket: WebSocket) -> None:
        if websocket.subprotocol == TUNNEL:
            await _Forwarder(_Tunnel(websocket), dial).run()
        else:
            await _serve_channels(websocket, ports, dial)

    if request.headers.get("Upgrade", "").lower() == "websocket":
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        ports = [] if TUNNEL in offered else _ports(request)
        return WebSocketUpgrade((TUNNEL, *CHANNEL_PROTOCOLS), over_websocket)
    return RawUpgrade("SPDY/3.1", over_spdy, [("X-Stream-Protocol-Version", negotiate(request, (PROTOCOL,)))])


def _ports(request: Request) -> list[int]:
    try:
        ports = [int(part) for value in request.params("ports") for part in value.split(",")]
    except ValueError as error:
        raise errors.bad_request(f"query parameter 'ports' must be a list of numbers: {error}") from error
    if not ports or any(not 0 < port < 65536 for port in ports):
        raise errors.bad_request("query parameter 'ports' is required and holds port numbers from 1 to 65535")
    return ports


class _Tunnel:
    """base.http.ByteStream over a WebSocket's binary messages."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def read(self) -> bytes:
        try:
            while True:
                data = await self._websocket.receive()
                if data:
                    return data.encode() if isinstance(data, str) else data
        except ConnectionClosed:
            return b""

    async def write(self, data: bytes) -> None:
        await self._websocket.send(data)

    async def close(self) -> None:
        await self._websocket.close()


class _Forwarder:
    """Each forwarded connection is a pair of streams, error and data, with the same request id."""

    def __init__(self, transport: ByteStream, dial: Dial) -> None:
        self._dial = dial
        self._waiting: dict[str, SpdyStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection = SpdyConnection(transport, client=False, on_stream=self._opened)

    async def run(self) -> None:
        try:
            await self._connection.run()
        except (SpdyError, ConnectionClosed):
            # The user's side is gone or talks nonsense; both end only this session.
            return
        finally:
            for task in list(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self._connection.close()

    async def _opened(self, stream: SpdyStream) -> None:
        request_id = stream.headers.get("requestid", stream.headers.get("port", ""))
        other = self._waiting.pop(request_id, None)
        if other is None:
            if len(self._waiting) + len(self._tasks) >= MAX_CONNECTIONS:
                await stream.reset()
                return
            self._waiting[request_id] = stream
            return
        data, error = (stream, other) if stream.headers.get("streamtype") == "data" else (other, stream)
        task = asyncio.create_task(self._forward(data, error), name=f"port-forward-{request_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, data: SpdyStream, error: SpdyStream) -> None:
        port_text = data.headers.get("port", "")
        try:
            try:
                peer = await self._dial(int(port_text))
            except (OSError, ValueError) as fault:
                await error.write(f"failed to connect to localhost:{port_text} inside the pod: {fault}".encode())
                return
            await _splice(peer, data.read, data.write, data.end)
        except ConnectionClosed:
            return
        finally:
            await _end_quietly(data, error)


async def _end_quietly(*streams: SpdyStream) -> None:
    for stream in streams:
        try:
            await stream.end()
        except ConnectionClosed:
            return


async def _splice(
    peer: socket.socket,
    read: Callable[[], Awaitable[bytes]],
    write: Callable[[bytes], Awaitable[None]],
    end: Callable[[], Awaitable[None]],
) -> None:
    """Copy both ways until both directions have ended."""
    reader, writer = await streams_of(peer)

    async def inwards() -> None:
        while chunk := await read():
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def outwards() -> None:
        while chunk := await reader.read(32 * 1024):
            await write(chunk)
        await end()

    tasks = [asyncio.create_task(inwards()), asyncio.create_task(outwards())]
    try:
        # When the pod has said all it had to say, what the user still sends has no reader.
        await tasks[1]
    except ConnectionError:
        return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        writer.close()


async def _serve_channels(websocket: WebSocket, ports: list[int], dial: Dial) -> None:
    """The older form: channels 2i (data) and 2i+1 (error) per port, each opened by its port number, little-endian."""
    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            await websocket.send(bytes((channel,)) + struct.pack("<H", port))
    queues: list[asyncio.Queue[bytes]] = [asyncio.Queue(CHANNEL_QUEUE) for _ in ports]

    async def forward(index: int) -> None:
        async def write(chunk: bytes) -> None:
            await websocket.send(bytes((2 * index,)) + chunk)

        async def end() -> None:
            return None

        try:
            peer = await dial(ports[index])
        except OSError as fault:
            message = f"failed to connect to localhost:{ports[index]} inside the pod: {fault}"
            await websocket.send(bytes((2 * index + 1,)) + message.encode())
            return
        await _splice(peer, queues[index].get, write, end)

    tasks = [asyncio.create_task(forward(index), name=f"port-forward-{port}") for index, port in enumerate(ports)]
    try:
        while True:
            frame = await websocket.receive()
            data = frame.encode() if isinstance(frame, str) else frame
            if len(data) > 1 and data[0] % 2 == 0 and data[0] // 2 < len(queues):
                await queues[data[0] // 2].put(data[1:])
    except ConnectionClosed:
        return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
