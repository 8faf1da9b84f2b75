"""Exec and attach: the user's streams joined to the runtime's.

Owns: the pumps between a Remote and a RuntimeSession, and the answer to the upgrade. Called by: serving/app.
Never does: find the container (serving/lookup.py) or speak a wire format (serving/remote.py, cri/streaming.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from k1s.agent.serving.remote import (
    SPDY_PROTOCOLS,
    STDERR,
    STDOUT,
    WEBSOCKET_PROTOCOLS,
    Remote,
    serve_spdy,
    serve_websocket,
)
from k1s.api import errors
from k1s.base.http import Answer, ByteStream, ConnectionClosed, RawUpgrade, Request, WebSocket, WebSocketUpgrade
from k1s.base.spdy import SpdyStream
from k1s.cri.errors import RuntimeFailure
from k1s.cri.streaming import RuntimeSession, open_session

# containerd 1.6 now and then leaves a stream of an attach open that met the container's end; so long it is waited for.
OVER_SECONDS = 1.0
_TRUE = ("1", "true", "t", "T", "TRUE", "True")


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Which streams the user wants (PodExecOptions, PodAttachOptions)."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def from_request(cls, request: Request) -> StreamOptions:
        """From the kubelet's parameter names (input, output, error) or the API's. Raises ApiError 400."""

        def wanted(*names: str) -> bool:
            return any(request.param(name) in _TRUE for name in names)

        tty = wanted("tty")
        stderr = wanted("error", "stderr")
        options = cls(wanted("input", "stdin"), wanted("output", "stdout"), stderr and not tty, tty)
        if not (options.stdin or options.stdout or options.stderr):
            raise errors.bad_request("you must specify at least 1 of stdin, stdout, stderr")
        return options

    def stream_types(self) -> frozenset[str]:
        kinds = {"error"}
        kinds |= {"stdin"} if self.stdin else set()
        kinds |= {"stdout"} if self.stdout else set()
        kinds |= {"stderr"} if self.stderr else set()
        return frozenset(kinds)


def upgrade(
    request: Request,
    options: StreamOptions,
    url: Callable[[], Awaitable[str]],
    *,
    over: Callable[[], Awaitable[None]] | None = None,
) -> Answer:
    """The answer that runs the session; `url` asks the runtime for the streaming URL once the user is connected.

    `over` (attach) returns when the container has ended: then the session ends even if the runtime forgets to end a stream.
    """

    async def run(remote: Remote) -> None:
        try:
            session = await open_session(
                await url(), stdin=options.stdin, stdout=options.stdout, stderr=options.stderr, tty=options.tty
            )
        except RuntimeFailure as error:
            await _finish(remote, _failure(str(error)))
            return
        try:
            await _join(remote, session, options, over)
        finally:
            await session.close()

    async def over_websocket(socket: WebSocket) -> None:
        await serve_websocket(socket, run)

    if request.headers.get("Upgrade", "").lower() == "websocket":
        return WebSocketUpgrade(WEBSOCKET_PROTOCOLS, over_websocket)
    protocol = negotiate(request, SPDY_PROTOCOLS)

    async def over_spdy(transport: ByteStream) -> None:
        wanted = options.stream_types()
        # Protocols before v3 have no resize stream.
        if options.tty and protocol.startswith(("v3.", "v4.")):
            wanted |= {"resize"}
        await serve_spdy(transport, protocol, wanted, run)

    return RawUpgrade("SPDY/3.1", over_spdy, [("X-Stream-Protocol-Version", protocol)])


def negotiate(request: Request, supported: tuple[str, ...]) -> str:
    """The first of the client's SPDY subprotocols that we speak. Raises ApiError."""
    if request.headers.get("Upgrade", "").lower() != "spdy/3.1":
        raise errors.bad_request("unable to upgrade: missing upgrade headers in request")
    offered = [p.strip() for p in request.headers.get("X-Stream-Protocol-Version", "").split(",") if p.strip()]
    if not offered:
        return supported[-1]
    for protocol in offered:
        if protocol in supported:
            return protocol
    raise errors.ApiError(403, "Forbidden", f"unable to upgrade: unable to negotiate protocol: client supports {offered}")


async def _join(
    remote: Remote, session: RuntimeSession, options: StreamOptions, over: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Pump until the runtime has ended all of its streams, or the user has left."""
    flow = _Flow()
    outputs = [_read_all(session.error)]
    if session.stdout is not None:
        outputs.append(_pump_out(session.stdout, remote, STDOUT, flow))
    if session.stderr is not None:
        outputs.append(_pump_out(session.stderr, remote, STDERR, flow))
    finished = asyncio.create_task(_together(outputs), name="exec-outputs")
    left = asyncio.create_task(remote.gone(), name="exec-gone")
    first: list[asyncio.Task[Any]] = [finished, left]
    if over is not None:
        first.append(asyncio.create_task(_after(over, flow), name="exec-over"))
    others: list[asyncio.Task[Any]] = []
    if session.stdin is not None:
        others.append(asyncio.create_task(_pump_in(remote.read_stdin, session.stdin), name="exec-stdin"))
    if session.resize is not None:
        others.append(asyncio.create_task(_pump_in(remote.read_resize, session.resize), name="exec-resize"))
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not left.done():
            status = finished.result() if finished.done() else first[-1].result()
            await _finish(remote, _plain(status) if not remote.structured_errors else status or _SUCCESS)
    except ConnectionClosed:
        # The user left while output was on its way: nobody is there to be told.
        return
    finally:
        for task in (*first, *others):
            task.cancel()
        # Their ends are looked at, so that none is reported as forgotten.
        await asyncio.gather(*first, *others, return_exceptions=True)


async def _together(outputs: list[Coroutine[Any, Any, bytes]]) -> bytes:
    """What the first of them gives, once all have ended; the first failure ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(output) for output in outputs]
    except* ConnectionClosed as closed:
        raise ConnectionClosed(str(closed.exceptions[0])) from None
    return tasks[0].result()


@dataclass(slots=True)
class _Flow:
    """Whether output still moves: chunks seen, and how many are on their way to the user now."""

    chunks: int = 0
    writing: int = 0


async def _after(over: Callable[[], Awaitable[None]], flow: _Flow) -> bytes:
    """The status, when the container has ended and no output has come for a while although its streams are open."""
    try:
        await over()
    except RuntimeFailure as error:
        return _failure(str(error))
    while True:
        before = flow.chunks
        await asyncio.sleep(OVER_SECONDS)
        if flow.chunks == before and not flow.writing:
            return b""


_SUCCESS = b'{"metadata":{},"status":"Success"}'


async def _finish(remote: Remote, status: bytes) -> None:
    try:
        await remote.finish(status)
    except ConnectionClosed:
        return


def _failure(message: str) -> bytes:
    return json.dumps(errors.internal(message).status()).encode()


def _plain(status: bytes) -> bytes:
    """The error channel before v4: only a failure's text."""
    try:
        parsed = json.loads(status or b"{}")
    except ValueError:
        return status
    return b"" if parsed.get("status") != "Failure" else str(parsed.get("message", "")).encode()


async def _read_all(stream: SpdyStream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def _pump_out(stream: SpdyStream, remote: Remote, channel: int, flow: _Flow) -> bytes:
    while data := await stream.read():
        flow.chunks += 1
        flow.writing += 1
        await remote.write(channel, data)
        flow.writing -= 1
    return b""


async def _pump_in(read: Callable[[], Awaitable[bytes]], stream: SpdyStream) -> None:
    try:
        while data := await read():
            await stream.write(data)
        await stream.end()
    except ConnectionClosed:
        # The process ended before it read all of its input; what it left is its own affair.
        return
