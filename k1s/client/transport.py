"""How a request reaches the API server: over HTTPS, or as a call inside the same process.

Owns: the Transport protocol, HttpTransport (the adapter to aiohttp's client), LocalTransport (calls a base.http.Handler) and
Reply, an answer that can be read whole or chunk by chunk. Called by: client/rest.
Never does: know objects or verbs, retry (client/rest decides; but what could not be sent goes to the next server), follow
redirects, choose among servers (Servers does).
Every failure to reach the server is a TransportError, which is an ApiError 503: callers handle one kind of error.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from k1s.base.clock import Clock
from k1s.base.http import Handler, Headers, MemoryBody, Request, Response, Stream
from k1s.base.http_library import without_system_cas
from k1s.base.sockets import notice_dead_peer
from k1s.client.servers import OneServer, Servers, TransportError

Query = Sequence[tuple[str, str]]

MAX_CONNECTIONS = 256
CONNECT_TIMEOUT = 10.0
DEAD_SECONDS = 15
QUIET_SECONDS = 30
REQUEST_TIMEOUT = 60.0
_TOKEN_FILE_SECONDS = 60.0
_PATH_SAFE = "/:@!$&'()*+,;=-._~"


class Reply:
    """An answer: read it whole with `read`, or iterate `chunks` and then `close`."""

    __slots__ = ("_body", "_chunks", "_close", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        chunks: AsyncIterator[bytes] | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.status, self.headers = status, headers
        self._body, self._chunks, self._close = body, chunks, close

    async def read(self) -> bytes:
        """The rest of the body; the reply is closed afterwards."""
        if self._body is not None:
            return self._body
        try:
            self._body = b"".join([chunk async for chunk in self.chunks()])
        finally:
            await self.close()
        return self._body

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._body is not None:
            yield self._body
        elif self._chunks is not None:
            async for chunk in self._chunks:
                yield chunk

    async def close(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            await close()


class Transport(Protocol):
    """Carries one request. `stream` lifts the time limit for the whole answer (watches)."""

    async def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        cause: int = 0,
        stream: bool = False,
    ) -> Reply: ...

    async def close(self) -> None: ...

    async def pause(self, clock: Clock, seconds: float) -> None: ...


def client_tls(
    *, ca_file: str | Path = "", ca_data: str = "", cert_file: str | Path = "", key_file: str | Path = ""
) -> ssl.SSLContext:
    """A context that trusts only the given CA bundle (PEM) and shows the given client certificate, if any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=str(ca_file) or None, cadata=ca_data or None)
    if cert_file:
        context.load_cert_chain(str(cert_file), str(key_file) or None)
    return context


def _import_aiohttp() -> ModuleType:
    with without_system_cas():
        import aiohttp
    return aiohttp


def _keepalive_socket(address: Any) -> socket.socket:
    """A socket that notices a dead peer soon when it sends something, and within a minute when it only listens."""
    family, kind, proto = address[0], address[1], address[2]
    sock = socket.socket(family=family, type=kind, proto=proto)
    sock.setblocking(False)
    notice_dead_peer(sock, DEAD_SECONDS, quiet=QUIET_SECONDS)
    return sock


class HttpTransport:
    """HTTP/1.1 to one server, or to the one that `Servers` chooses: when it chooses another, connections to the one before are
    closed. Authenticates by the context's client certificate, a token, or a token file.

    A token file is read again at most once a minute, as client-go does, so a rotated token is picked up.
    """

    def __init__(
        self,
        url: str | Servers,
        ssl_context: ssl.SSLContext | None = None,
        *,
        ca_file: str | Path = "",
        cert_file: str | Path = "",
        key_file: str | Path = "",
        token: str = "",
        token_file: str | Path = "",
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        self._servers = OneServer(url.rstrip("/")) if isinstance(url, str) else url
        if ssl_context is None and isinstance(url, str) and url.startswith("https:"):
            ssl_context = client_tls(ca_file=ca_file, cert_file=cert_file, key_file=key_file)
        self._ssl = ssl_context
        self._token, self._token_file, self._token_read = token, Path(token_file) if token_file else None, 0.0
        self._timeout = timeout
        self._session: Any = None
        self._session_url = ""
        self._closing: set[asyncio.Future[None]] = set()
        # Answers that are being read: a session that is closed forgets to tell their readers.
        self._answers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._aiohttp: Any = None

    async def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        cause: int = 0,
        stream: bool = False,
    ) -> Reply:
        # `cause` is not sent: only callers inside the server's process are believed.
        fields = dict(headers)
        token = self._bearer()
        if token:
            fields["Authorization"] = f"Bearer {token}"
        url, response = await self._send(method, path, query, fields, body, stream)
        aiohttp = self._aiohttp
        self._answers.add(response)

        async def close() -> None:
            self._answers.discard(response)
            response.close()

        async def chunks() -> AsyncIterator[bytes]:
            try:
                async for chunk in response.content.iter_any():
                    yield chunk
                response.release()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if _timed_out(error):
                    self._servers.failed(url, _reason(error))
                raise TransportError(f"{method} {url}{path}: {_reason(error)}") from error

        return Reply(response.status, Headers(response.headers.items()), chunks=chunks(), close=close)

    async def _send(
        self, method: str, path: str, query: Query, fields: dict[str, str], body: bytes, stream: bool
    ) -> tuple[str, Any]:
        """The server that answered, and its answer. What could not even be sent goes to the next server."""
        while True:
            url = self._servers.choose()
            session, aiohttp = self._open(url), self._aiohttp
            limit = aiohttp.ClientTimeout(total=None if stream else self._timeout, sock_connect=CONNECT_TIMEOUT)
            try:
                response = await session.request(
                    method, self._target(url, path, query), headers=fields, data=body or None, timeout=limit,
                    allow_redirects=False, ssl=self._ssl if self._ssl is not None else True,
                )  # fmt: skip
            except (aiohttp.ClientConnectorError, aiohttp.ClientSSLError, aiohttp.ConnectionTimeoutError) as error:
                self._servers.failed(url, _reason(error))
                if self._servers.choose() == url:
                    raise TransportError(f"{method} {url}{path}: {_reason(error)}") from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if _timed_out(error):
                    self._servers.failed(url, _reason(error))
                self._servers.choose()  # says so if all are away by now
                raise TransportError(f"{method} {url}{path}: {_reason(error)}") from error
            else:
                self._servers.worked(url)
                return url, response

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        await asyncio.gather(*self._closing)

    def disconnect(self) -> None:
        """Drop all connections (this machine's address has changed, for one); requests make new ones."""
        if self._session is not None:
            given_up = self._aiohttp.ClientConnectionError("the connections to this server were given up")
            for answer in self._answers:
                if not answer.content.is_eof():
                    answer.content.set_exception(given_up)
            self._answers.clear()
            task = asyncio.ensure_future(self._session.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._session = None

    async def pause(self, clock: Clock, seconds: float) -> None:
        if isinstance(self._servers, OneServer):
            await clock.sleep(seconds)
        else:
            await self._servers.pause(seconds)

    def _open(self, url: str) -> Any:
        if self._session_url != url:
            # What still hangs on the server that was left, watches above all, moves along at once.
            self.disconnect()
        if self._session is None:
            self._session_url = url
            self._aiohttp = aiohttp = _import_aiohttp()
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=60, socket_factory=_keepalive_socket)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _target(self, url: str, path: str, query: Query) -> Any:
        from yarl import URL

        text = url + quote(path, safe=_PATH_SAFE)
        return URL(f"{text}?{urlencode(query)}" if query else text, encoded=True)

    def _bearer(self) -> str:
        if self._token_file is not None:
            now = time.monotonic()
            if not self._token or now - self._token_read > _TOKEN_FILE_SECONDS:
                try:
                    self._token = self._token_file.read_text().strip()
                except OSError as error:
                    raise TransportError(f"cannot read the token file {self._token_file}: {error.strerror}") from error
                self._token_read = now
        return self._token


def _reason(error: BaseException) -> str:
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return "timed out"
    # aiohttp's own text of a failed connection names the context object's address.
    return str(getattr(error, "os_error", None) or error) or type(error).__name__


def _timed_out(error: BaseException | None) -> bool:
    """Whether the server was silent for too long, and did not just close the connection."""
    while error is not None:
        if isinstance(error, TimeoutError) or getattr(error, "errno", None) in (errno.ETIMEDOUT, errno.EHOSTUNREACH):
            return True
        error = error.__cause__
    return False


class LocalTransport:
    """Calls a handler of the same process as `user`. Streams pass through unbuffered, so watches work.

    The user and the cause travel in Request.context, where nothing that comes off a socket can put anything.
    """

    def __init__(self, handler: Handler, user: Any) -> None:
        self._handler, self._user = handler, user

    async def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        cause: int = 0,
        stream: bool = False,
    ) -> Reply:
        context: dict[str, Any] = {"user": self._user}
        if cause:
            context["cause"] = cause
        raw = quote(path, safe=_PATH_SAFE)
        request = Request(
            method=method, path=path, query=list(query), headers=Headers(headers), body=MemoryBody(body),
            raw_path=f"{raw}?{urlencode(query)}" if query else raw, context=context,
        )  # fmt: skip
        answer = await self._handler(request)
        if isinstance(answer, Response):
            return Reply(answer.status, Headers(answer.headers), body=answer.body)
        if isinstance(answer, Stream):
            chunks = answer.chunks

            async def close() -> None:
                # What the HTTP adapter does when the client goes away. Not every iterator is a generator.
                aclose = getattr(chunks, "aclose", None)
                if aclose is not None:
                    await aclose()

            return Reply(answer.status, Headers(answer.headers), chunks=chunks, close=close)
        raise TransportError(f"{method} {path}: an upgraded connection cannot be had in process")

    async def close(self) -> None:
        return None

    async def pause(self, clock: Clock, seconds: float) -> None:
        await clock.sleep(seconds)
