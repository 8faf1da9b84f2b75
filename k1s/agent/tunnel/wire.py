"""Opening the connection of a tunnel: TLS with the node's certificate, then the HTTP upgrade.

Owns: `open_wire`, TunnelRefused. Called by: app. Never does: try again, know what passes afterwards.
Source of the upgrade: RFC 9110, 7.8. The server's side is server/tunnel.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from urllib.parse import urlsplit

import orjson

from k1s.base.sockets import notice_dead_peer
from k1s.base.tunnel import CONNECTED_HEADER, DEAD_SECONDS, PATH, PROTOCOL, SERVER_HEADER

CONNECT_SECONDS = 10.0
_READ = 256 * 1024
_LONGEST_ANSWER = 64 * 1024


class TunnelRefused(Exception):
    """The server answered, but opens no tunnel. `known`: it says that this node has one to it already."""

    def __init__(self, message: str, *, known: bool = False) -> None:
        super().__init__(message)
        self.known = known


class ServerUnreachable(ConnectionError):
    """There was no connection, or it was not verified."""


class Wire:
    """base.http.ByteStream over the upgraded connection. `server` is which server answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: str) -> None:
        self._reader, self._writer, self.server = reader, writer, server

    async def read(self) -> bytes:
        return await self._reader.read(_READ)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


async def open_wire(url: str, tls: ssl.SSLContext, connected: Iterable[str]) -> Wire:
    """`connected`: the servers to which this node has tunnels. Raises OSError (ServerUnreachable is one), TunnelRefused."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=tls, limit=_READ)
    except OSError as error:
        raise ServerUnreachable(str(error) or "timed out") from error
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            notice_dead_peer(writer.get_extra_info("socket"), DEAD_SECONDS)
            lines = (
                f"GET {PATH} HTTP/1.1",
                f"Host: {parts.netloc}",
                "Connection: Upgrade",
                f"Upgrade: {PROTOCOL}",
                f"{CONNECTED_HEADER}: {','.join(connected)}",
            )
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
            status, headers = await _head(reader)
            if status == 101:
                return Wire(reader, writer, headers.get(SERVER_HEADER.lower(), ""))
            length = min(int(headers.get("content-length") or 0), _LONGEST_ANSWER)
            message = _message(await reader.readexactly(length)) or f"status {status}"
            if status == 503:
                raise ConnectionError(message)  # it starts or stops: later
            raise TunnelRefused(message, known=status == 409)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        writer.close()
        raise TunnelRefused("the answer is not what a k1s server says (a proxy in between has to pass upgrades on)") from error
    except BaseException:
        writer.close()
        raise


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1."):
        raise ValueError(first[:60])
    pairs = (line.partition(":") for line in lines if line)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _message(body: bytes) -> str:
    try:
        return str(orjson.loads(body).get("message") or "")
    except (orjson.JSONDecodeError, AttributeError):
        return ""
