"""The user's side of exec and attach: stdin, stdout, stderr, error and resize over WebSocket or SPDY.

Owns: the remote command subprotocols (v5 to v1) of both transports. Called by: serving/command.py.
Never does: talk to the runtime. Source: KEP-4006, k8s.io/apiserver's wsstream and k8s.io/kubelet's remotecommand.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Protocol

from k1s.base.http import ByteStream, ConnectionClosed, WebSocket
from k1s.base.spdy import SpdyConnection, SpdyError, SpdyStream

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255

WEBSOCKET_PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
SPDY_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
# How long a SPDY client may take to open the streams it asked for (upstream's default).
STREAM_CREATION_SECONDS = 30.0
_STDIN_QUEUE = 64
_RESIZE_QUEUE = 16


class Remote(Protocol):
    """The user's terminal. `read_stdin` and `read_resize` return b"" at their end."""

    @property
    def structured_errors(self) -> bool:
        """v4 and later: the error channel carries a metav1.Status; before, plain text."""

    async def read_stdin(self) -> bytes: ...
    async def read_resize(self) -> bytes: ...
    async def write(self, channel: int, data: bytes) -> None: ...
    async def finish(self, status: bytes) -> None:
        """Send `status` (b"": nothing) on the error channel and end the connection."""

    async def gone(self) -> None:
        """Return when the user has left."""


async def serve_websocket(socket: WebSocket, run: Callable[[Remote], Awaitable[None]]) -> None:
    """Run a command session on an open WebSocket."""
    remote = _WebSocketRemote(socket)
    receiver = asyncio.create_task(remote.receive(), name="remote-websocket")
    try:
        await run(remote)
    finally:
        receiver.cancel()
        await asyncio.wait({receiver})


class _WebSocketRemote:
    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._base64 = "base64" in socket.subprotocol
        self._stdin: asyncio.Queue[bytes] = asyncio.Queue(_STDIN_QUEUE)
        self._resize: asyncio.Queue[bytes] = asyncio.Queue(_RESIZE_QUEUE)
        self._stdin_ended = False
        self._gone = asyncio.Event()

    @property
    def structured_errors(self) -> bool:
        return self._socket.subprotocol.startswith(("v4.", "v5."))

    async def receive(self) -> None:
        """Sort what arrives into the channels' queues; a full stdin queue holds the socket's reading."""
        try:
            while True:
                channel, data = self._decode(await self._socket.receive())
                if channel == STDIN and data and not self._stdin_ended:
                    await self._stdin.put(data)
                elif channel == CLOSE and data[:1] == bytes((STDIN,)):
                    await self._end_stdin()
                elif channel == RESIZE and data:
                    if self._resize.full():
                        self._resize.get_nowait()
                    self._resize.put_nowait(data)
        except ConnectionClosed:
            self._gone.set()
            await self._end_stdin()

    async def _end_stdin(self) -> None:
        if not self._stdin_ended:
            self._stdin_ended = True
            await self._stdin.put(b"")

    def _decode(self, frame: str | bytes) -> tuple[int, bytes]:
        data = frame.encode() if isinstance(frame, str) else frame
        if not data:
            return -1, b""
        if not self._base64:
            return data[0], data[1:]
        try:
            return data[0] - ord("0"), base64.b64decode(data[1:], validate=True)
        except binascii.Error as error:
            raise ConnectionClosed(f"bad base64: {error}") from error

    async def read_stdin(self) -> bytes:
        return await self._stdin.get()

    async def read_resize(self) -> bytes:
        return await self._resize.get()

    async def write(self, channel: int, data: bytes) -> None:
        if self._base64:
            await self._socket.send(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self._socket.send(bytes((channel,)) + data)

    async def finish(self, status: bytes) -> None:
        if status:
            await self.write(ERROR, status)
        await self._socket.close()

    async def gone(self) -> None:
        await self._gone.wait()


async def serve_spdy(
    transport: ByteStream,
    protocol: str,
    wanted: frozenset[str],
    run: Callable[[Remote], Awaitable[None]],
) -> None:
    """Run a command session on an upgraded connection once the client has opened the `wanted` streams.

    `wanted` holds stream types: error, stdin, stdout, stderr, resize.
    """
    streams: dict[str, SpdyStream] = {}
    complete = asyncio.Event()

    async def opened(stream: SpdyStream) -> None:
        streams[stream.headers.get("streamtype", "")] = stream
        if wanted <= streams.keys():
            complete.set()

    connection = SpdyConnection(transport, client=False, on_stream=opened)
    reader = asyncio.create_task(connection.run(), name="remote-spdy")
    try:
        waiter = asyncio.create_task(complete.wait(), name="remote-spdy-streams")
        await asyncio.wait({reader, waiter}, timeout=STREAM_CREATION_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if complete.is_set():
            await run(_SpdyRemote(connection, reader, streams, protocol))
    finally:
        await connection.close()
        reader.cancel()
        await asyncio.wait({reader})
        error = None if reader.cancelled() else reader.exception()
        if error is not None and not isinstance(error, (SpdyError, ConnectionClosed)):
            raise error


class _SpdyRemote:
    def __init__(
        self, connection: SpdyConnection, reader: asyncio.Task[None], streams: dict[str, SpdyStream], protocol: str
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._streams = streams
        self._protocol = protocol

    @property
    def structured_errors(self) -> bool:
        return self._protocol.startswith("v4.")

    async def read_stdin(self) -> bytes:
        return await self._streams["stdin"].read()

    async def read_resize(self) -> bytes:
        return await self._streams["resize"].read()

    async def write(self, channel: int, data: bytes) -> None:
        stream = self._streams.get("stdout" if channel == STDOUT else "stderr")
        if stream is not None:
            await stream.write(data)

    async def finish(self, status: bytes) -> None:
        error = self._streams["error"]
        if status:
            await error.write(status)
        for stream in self._streams.values():
            await stream.end()

    async def gone(self) -> None:
        await asyncio.wait({self._reader})
