"""The aiohttp adapter: puts base.http handlers on TLS sockets.

Owns: listening, the translation of requests and of the four kinds of answer, upgrades, the end of streams when a client goes.
Called by: server/app, agent/serving. Never does: routing, authentication, logging of requests.

Answers are written by hand on aiohttp's connection: its Response costs more than most of our handlers. An idle stream is ended
by the loss of its connection (`_Request._cancel`), so nothing polls; an ordinary request is never cancelled halfway.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

from k1s.base import pki
from k1s.base.http import (
    Answer,
    Handler,
    Headers,
    PeerCertificate,
    RawUpgrade,
    Request,
    Response,
    Stream,
    WebSocketUpgrade,
)
from k1s.base.http_body import WireBody
from k1s.base.http_door import Acceptor, Door, Guest, Limits
from k1s.base.http_library import without_system_cas
from k1s.base.http_sink import StreamSink
from k1s.base.http_upgrade import OpenWebSocket, RawStream
from k1s.base.sockets import notice_dead_peer

with without_system_cas():
    from aiohttp import web
    from aiohttp.http_exceptions import LineTooLong
    from aiohttp.web_protocol import RequestHandler

log = logging.getLogger("k1s.http")

SLICE_BYTES = 1024 * 1024
WEBSOCKET_MESSAGE_BYTES = 4 * 1024 * 1024
# Where a subject holds the user's uid (kubernetes/kubernetes pkg: authentication/request/x509).
_UID_ATTRIBUTE = "1.3.6.1.4.1.57683.2"
_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class Listener:
    """A listening socket; `close` stops accepting, gives requests `grace` seconds and then cuts what is left."""

    port: int
    door: Door
    _acceptor: Acceptor
    _web: web.Server

    async def close(self, grace_seconds: float = 2.0) -> None:
        self._acceptor.close()
        self._web.pre_shutdown()
        await self._web.shutdown(grace_seconds)

    def drop(self, key_fingerprint: str) -> int:
        """End the connections of the client whose certificate has this key, whatever is under way; how many there were."""
        count = 0
        for connection in self._web.connections:
            peer, transport = getattr(connection, "peer", None), connection.transport
            if peer is not None and peer.key_fingerprint == key_fingerprint and transport is not None:
                transport.close()
                count += 1
        return count


async def listen(
    handler: Handler,
    *,
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    backlog: int = 1024,
    limits: Limits = Limits(),  # noqa: B008 frozen
) -> Listener:
    """Serve `handler` on a TCP port (0: any free one). Raises OSError when the address cannot be had."""
    server = _Server(handler, asyncio.get_running_loop(), limits)
    door = Door(limits)
    acceptor = Acceptor(door, server.connection, tls)
    return Listener(acceptor.listen(host, port, backlog), door, acceptor, server)


class _Connection(RequestHandler):
    """aiohttp's connection, which also remembers who is at the other end."""

    __slots__ = ("_patience", "guest", "limits", "peer", "remote")

    def __init__(self, manager: web.Server, guest: Guest, limits: Limits, **options: Any) -> None:
        super().__init__(manager, **options)
        self.guest, self.limits = guest, limits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = _peer_certificate(transport)
        address = transport.get_extra_info("peername")
        self.remote = address[0] if isinstance(address, tuple) else ""
        self._patience = self._loop.call_later(self.limits.first_request, self._hear)
        self.guest.drop = getattr(transport, "abort", transport.close)
        if self.peer is not None:
            self.guest.know()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._patience.cancel()
        self.guest.leave()
        super().connection_lost(exc)

    def _hear(self) -> None:
        if self._request_count == 0 and self.transport is not None:
            self.transport.abort()

    def _make_error_handler(self, err_info: Any) -> Any:
        """What is no HTTP gets one line, as Go's server writes it, and none in our log: it is its sender's fault."""
        status = 431 if isinstance(err_info.exc, LineTooLong) or "Too many headers" in err_info.message else 400
        return lambda request: _refuse(request, status)


async def _refuse(wire: web.BaseRequest, status: int) -> _Sent:
    text = f"{status} {_REASONS[status]}".encode()
    return await _send_response(wire, Response(status, text, "text/plain; charset=utf-8"), keep_alive=False)


class _Request(web.BaseRequest):
    """Cancels the task that serves a stream when the connection is lost."""

    stream_task: asyncio.Task[Any] | None = None

    def _cancel(self, exc: BaseException) -> None:
        super()._cancel(exc)
        if self.stream_task is not None:
            self.stream_task.cancel()


class _Server(web.Server):
    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        super().__init__(self._serve, request_factory=self._request, loop=loop)
        self._handler, self._limits = handler, limits
        self._event_loop = loop

    def connection(self, guest: Guest) -> RequestHandler:
        return _Connection(
            self,
            guest,
            self._limits,
            loop=self._event_loop,
            access_log=None,
            keepalive_timeout=self._limits.keepalive,
            auto_decompress=False,
            lingering_time=1.0,
            max_field_size=32 * 1024,
            max_line_size=32 * 1024,
        )

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return _Request(message, payload, protocol, writer, task, self._event_loop)

    async def _serve(self, wire: web.BaseRequest) -> Any:
        request = _translate(wire, self._limits)
        answer = await self._handler(request)
        if "known" in request.context:
            connection: Any = wire._protocol
            connection.guest.know()
        return await _send(wire, answer)


def _translate(wire: web.BaseRequest, limits: Limits) -> Request:
    message: Any = wire._message
    target: str = message.path
    raw_path, _, query = target.partition("?")
    connection: Any = wire._protocol
    return Request(
        method=message.method,
        path=unquote(raw_path) if "%" in raw_path else raw_path,
        query=parse_qsl(query, keep_blank_values=True) if query else (),
        headers=Headers(map(_readable, message.headers.items())),
        body=WireBody(wire, limits.body),
        raw_path=target,
        remote=connection.remote,
        peer=connection.peer,
    )


def _readable(field: tuple[str, str]) -> tuple[str, str]:
    """Bytes that are no UTF-8 reach us as surrogates, on which whoever writes them (a log, JSON) would break."""
    name, value = field
    return field if value.isascii() else (name, value.encode(errors="surrogateescape").decode(errors="replace"))


def _peer_certificate(transport: asyncio.BaseTransport) -> PeerCertificate | None:
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert() if tls is not None else None
    if not certificate:
        return None
    subject = [pair for rdn in certificate.get("subject", ()) for pair in rdn]
    issuer = [pair for rdn in certificate.get("issuer", ()) for pair in rdn]
    der = tls.getpeercert(True)
    return PeerCertificate(
        "".join(_values(subject, "commonName")[-1:]),
        _values(subject, "organizationName"),
        hashlib.sha256(der).hexdigest(),
        pki.key_fingerprint(der),
        _values(subject, _UID_ATTRIBUTE),
        "".join(_values(issuer, "commonName")[-1:]),
    )


def _values(name: Sequence[tuple[str, str]], kind: str) -> tuple[str, ...]:
    return tuple(value for key, value in name if key == kind)


class _Sent:
    """What aiohttp's connection wants back: an answer that is on the wire already."""

    __slots__ = ("body_length", "keep_alive", "status")

    def __init__(self, keep_alive: bool, status: int = 200) -> None:
        self.keep_alive = keep_alive
        self.status = status
        self.body_length = 0

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self) -> None:
        return None


async def _send(wire: web.BaseRequest, answer: Answer) -> Any:
    if isinstance(answer, Response):
        return await _send_response(wire, answer)
    if isinstance(answer, Stream):
        return await _send_stream(wire, answer)
    if isinstance(answer, WebSocketUpgrade):
        return await _serve_websocket(wire, answer)
    return await _serve_raw(wire, answer)


def _head(status: int, content_type: str, headers: list[tuple[str, str]], keep_alive: bool, framing: str) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
    if framing:
        lines.append(framing)
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    for name, value in headers:
        lines.append(f"{name}: {value}")
    if not keep_alive:
        lines.append("Connection: close")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1:
        raise ValueError("a header holds a line break")
    return text.encode("utf-8", "surrogateescape") + b"\r\n\r\n"


async def _send_response(wire: web.BaseRequest, answer: Response, *, keep_alive: bool | None = None) -> _Sent:
    protocol: Any = wire._protocol
    transport = protocol.transport
    keep_alive = wire.keep_alive if keep_alive is None else keep_alive
    if transport is None:
        return _Sent(False, answer.status)
    bodiless = answer.status in (204, 304)
    framing = "" if bodiless else f"Content-Length: {len(answer.body)}"
    head = _head(answer.status, "" if bodiless else answer.content_type, answer.headers, keep_alive, framing)
    if bodiless or wire.method == "HEAD":
        transport.write(head)
    elif len(answer.body) < 16384:
        transport.write(head + answer.body)
    else:
        transport.write(head)
        # TLS copies what one call is given: in slices a list of 27 MB goes out twice as fast.
        for start in range(0, len(answer.body), SLICE_BYTES):
            transport.write(memoryview(answer.body)[start : start + SLICE_BYTES])
            if protocol._paused:
                await _taken(protocol, protocol.limits.write)
    if protocol._paused:
        await _taken(protocol, protocol.limits.write)
    return _Sent(keep_alive, answer.status)


async def _taken(protocol: Any, seconds: float) -> None:
    """Wait until the client has read what was sent; ConnectionError when it is gone or too slow, and cut off then."""
    try:
        async with asyncio.timeout(seconds or None):
            await protocol._drain_helper()
    except TimeoutError:
        if protocol.transport is not None:
            protocol.transport.abort()
        raise ConnectionAbortedError("the client does not read") from None


async def _send_stream(wire: web.BaseRequest, answer: Stream) -> _Sent:
    protocol: Any = wire._protocol
    transport = protocol.transport
    if transport is None:
        # Nobody will ever iterate over it: what it holds (a watch's place in its cache) is given back here.
        await _close(answer)
        return _Sent(False, answer.status)
    assert isinstance(wire, _Request)
    chunked = wire.version >= (1, 1)
    keep_alive = wire.keep_alive and chunked
    if wire.method == "HEAD" or answer.status in (204, 304):
        # A last chunk would be taken for the answer to the connection's next request (RFC 9112, 6.3).
        transport.write(_head(answer.status, answer.content_type, answer.headers, wire.keep_alive, ""))
        await _close(answer)
        return _Sent(wire.keep_alive, answer.status)
    framing = "Transfer-Encoding: chunked" if chunked else ""
    transport.write(_head(answer.status, answer.content_type, answer.headers, keep_alive, framing))
    wire.stream_task = asyncio.current_task()
    finished = False
    direct = getattr(answer.chunks, "write_to", None)
    if direct is not None:
        direct(StreamSink(protocol, chunked))
    try:
        async for chunk in answer.chunks:
            if not chunk:
                continue
            if protocol.transport is None:
                break
            transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            if protocol._paused:
                await _taken(protocol, answer.patience)
        else:
            finished = True
    except asyncio.CancelledError:
        # Only the loss of the connection is ours to swallow; a shutdown's cancellation goes on.
        if protocol.transport is not None:
            raise
    except (ConnectionError, EOFError):
        # The client has gone, or what the stream is made from broke off: without the last chunk the client sees a cut.
        log.debug("stream to %s was cut", protocol.remote)
    finally:
        wire.stream_task = None
        await _close(answer)
        if not finished and protocol.transport is not None:
            protocol.transport.close()
    if not finished:
        return _Sent(False, answer.status)
    if chunked:
        transport.write(b"0\r\n\r\n")
    return _Sent(keep_alive, answer.status)


async def _close(answer: Stream) -> None:
    close = getattr(answer.chunks, "aclose", None)
    if close is not None:
        await close()
    if answer.ended is not None:
        answer.ended()


async def _serve_websocket(wire: web.BaseRequest, answer: WebSocketUpgrade) -> Any:
    socket = web.WebSocketResponse(
        protocols=tuple(answer.subprotocols), max_msg_size=WEBSOCKET_MESSAGE_BYTES, compress=False, timeout=2.0
    )
    await socket.prepare(wire)
    try:
        await answer.serve(OpenWebSocket(socket))
    finally:
        if not socket.closed:
            await socket.close()
    return socket


async def _serve_raw(wire: web.BaseRequest, answer: RawUpgrade) -> _Sent:
    protocol: Any = wire._protocol
    if protocol.transport is None:
        return _Sent(False, 101)
    stream = RawStream(protocol)
    if answer.dead_after:
        notice_dead_peer(protocol.transport.get_extra_info("socket"), answer.dead_after)
    headers = [("Connection", "Upgrade"), ("Upgrade", answer.protocol), *answer.headers]
    protocol.keep_alive(False)
    # The parser must not see what follows; bytes that came with the request are handed over by set_parser.
    protocol._upgraded = True
    protocol.set_parser(stream)
    protocol.transport.write(_head(101, "", headers, True, ""))
    try:
        await answer.serve(stream)
    finally:
        await stream.close()
    return _Sent(False, 101)
