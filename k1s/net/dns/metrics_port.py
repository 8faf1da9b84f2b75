"""Port 9153, where those who know CoreDNS look for its metrics: a tiny HTTP listener.

Owns: that listener. Called by: agent.network.dns. Never does: count (metrics); TLS, authentication: as CoreDNS has neither.
Bounds: a request has 5 s and 8 KiB; 16 connections, further ones are closed; one answer each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from k1s.base.metrics import CONTENT_TYPE

PORT = 9153
_SECONDS, _MOST_BYTES, _MOST_CONNECTIONS = 5.0, 8192, 16


class MetricsPort:
    """Serves `GET /metrics` from `open` on; may be opened on several addresses."""

    def __init__(self, exposition: Callable[[], bytes]) -> None:
        self._exposition = exposition
        self._servers: list[asyncio.Server] = []
        self._connections = 0

    async def open(self, address: str) -> None:
        """Raises OSError."""
        self._servers.append(await asyncio.start_server(self._connection, address, PORT, limit=_MOST_BYTES))

    def close(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= _MOST_CONNECTIONS:
                async with asyncio.timeout(_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head.split(b" ")[:2]))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # not a client that waits for an answer
        finally:
            self._connections -= 1
            writer.close()

    def _answer(self, request: list[bytes]) -> bytes:
        path = request[1].partition(b"?")[0] if len(request) == 2 else b""
        if path != b"/metrics":
            status, kind, body = "404 Not Found", "text/plain; charset=utf-8", b"404 page not found\n"
        elif request[0] not in (b"GET", b"HEAD"):
            status, kind, body = "405 Method Not Allowed", "text/plain; charset=utf-8", b"405 method not allowed\n"
        else:
            status, kind, body = "200 OK", CONTENT_TYPE, self._exposition()
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + (b"" if request[0] == b"HEAD" else body)
