"""HTTP as k1s's handlers see it: free of any framework.

Owns: Headers, Request, the four kinds of answer (Response, Stream, WebSocketUpgrade, RawUpgrade) and Sink.
Called by: apiserver, agent.serving, client.transport (its in-process twin). Never does: I/O of its own;
base/http_server is the adapter that puts these on sockets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class BodyTooLarge(Exception):
    """The request body is longer than the limit; the adapter has stopped reading it."""


class BodyLost(Exception):
    """The request body did not arrive whole: it is malformed, its client has gone, or (`slow`) it took too long."""

    def __init__(self, message: str, *, slow: bool = False) -> None:
        super().__init__(message)
        self.slow = slow


class ConnectionClosed(Exception):
    """The other side of an upgraded connection has gone."""


class Headers(Mapping[str, str]):
    """Header fields, names case-insensitive; a repeated field is joined by commas (RFC 9110, 5.3).

    Where a comma may be part of a value (Impersonate-Group) `each` gives the fields as they were sent.
    """

    __slots__ = ("_fields", "_repeated")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, str] = {}
        self._repeated: dict[str, list[str]] | None = None
        for name, value in pairs:
            key = name.lower()
            if key in self._fields:
                if self._repeated is None:
                    self._repeated = {}
                self._repeated.setdefault(key, [self._fields[key]]).append(value)
                value = f"{self._fields[key]},{value}"
            self._fields[key] = value

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Any:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def each(self, name: str) -> tuple[str, ...]:
        """The values of every field of that name, in order."""
        key = name.lower()
        if self._repeated is not None and key in self._repeated:
            return tuple(self._repeated[key])
        return (self._fields[key],) if key in self._fields else ()

    def first(self, name: str) -> str:
        """The first field's value, "" if there is none."""
        return next(iter(self.each(name)), "")

    def without(self, *names: str) -> Headers:
        """A copy that lacks some fields."""
        gone = {name.lower() for name in names}
        return Headers((key, value) for key in self._fields if key not in gone for value in self.each(key))


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The verified client certificate: subject CN, subject O values, and the SHA-256 of its DER and of its key in hex.

    `uids`: what its subject says under Kubernetes' own attribute; more than one is for the authenticator to refuse.
    `issuer`: common name of the CA that signed it.
    """

    common_name: str
    organizations: tuple[str, ...]
    fingerprint: str = ""
    key_fingerprint: str = ""
    uids: tuple[str, ...] = ()
    issuer: str = ""


class BodyReader(Protocol):
    """The request's body, read once. `read` raises BodyTooLarge past `limit` bytes, BodyLost if there is no whole one."""

    async def read(self, limit: int) -> bytes: ...
    def chunks(self) -> AsyncIterator[bytes]: ...


class MemoryBody:
    """A body that is already in memory (in-process calls, tests)."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    async def read(self, limit: int) -> bytes:
        if len(self._data) > limit:
            raise BodyTooLarge(limit)
        return self._data

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._data:
            yield self._data


@dataclass(slots=True)
class Request:
    """One request. `path` is percent-decoded, `raw_path` as sent with the query; `query` keeps order and repeats.

    `context` is where filters leave what later ones need (see apiserver/app.py for its keys). "known": true tells the listener
    that the client has proved who it is.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    headers: Headers = field(default_factory=Headers)
    body: BodyReader = field(default_factory=MemoryBody)
    raw_path: str = ""
    remote: str = ""
    peer: PeerCertificate | None = None
    context: dict[str, Any] = field(default_factory=dict)

    def param(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        for key, value in self.query:
            if key == name:
                return value
        return default

    def params(self, name: str) -> list[str]:
        """All values of a query parameter."""
        return [value for key, value in self.query if key == name]


@dataclass(slots=True)
class Response:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)


class Sink(Protocol):
    """The connection of a stream, for chunks with a `write_to(sink)`: they may write there while they are being waited for.

    `ready`: it takes data at once; `abort` cuts it.
    """

    def ready(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def abort(self) -> None: ...


@dataclass(slots=True)
class Stream:
    """An answer in chunks (watches, logs, proxies). The adapter closes the iterator when the client goes away.

    Each chunk is sent at once; closing calls the iterator's aclose(), then `ended`. `patience`: seconds that the client may take
    to accept a chunk before its connection is cut; 0 is for ever.
    """

    chunks: AsyncIterator[bytes]
    status: int = 200
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)
    patience: float = 0.0
    ended: Callable[[], None] | None = None


class WebSocket(Protocol):
    """An open WebSocket. `receive` returns str for text frames, bytes for binary ones.

    `receive` raises ConnectionClosed at the end, `send` when the other side has gone.
    """

    @property
    def subprotocol(self) -> str: ...
    async def receive(self) -> str | bytes: ...
    async def send(self, data: str | bytes) -> None: ...
    async def close(self, code: int = 1000, reason: str = "") -> None: ...


class ByteStream(Protocol):
    """An upgraded raw connection. `read` returns b"" at the end; `write` waits while the peer is slow."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...
    async def close(self) -> None: ...


@dataclass(slots=True)
class WebSocketUpgrade:
    """Answer 101 with the first of `subprotocols` that the client offered (it must offer one, unless empty)."""

    subprotocols: Sequence[str]
    serve: Callable[[WebSocket], Awaitable[None]]


@dataclass(slots=True)
class RawUpgrade:
    """Answer 101 with `Upgrade: protocol` and hand the bytes of the connection to `serve` (SPDY/3.1, proxies).

    `dead_after`: seconds after which the kernel ends the connection of a peer that vanished; 0 leaves it as it is.
    """

    protocol: str
    serve: Callable[[ByteStream], Awaitable[None]]
    headers: list[tuple[str, str]] = field(default_factory=list)
    dead_after: int = 0


Answer = Response | Stream | WebSocketUpgrade | RawUpgrade
Handler = Callable[[Request], Awaitable[Answer]]
