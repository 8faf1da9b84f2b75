"""A tiny HTTP listener for ports that give everybody one short answer: health checks, metrics.

Owns: the connection and its bounds. Called by: proxy.health, dns.metrics_port. Never does: TLS, authentication, more than one
request a connection; know what is asked.
Bounds: a request has 5 s and 8 KiB; `connections` at once, further ones are closed unanswered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

_SECONDS, _MOST_BYTES = 5.0, 8192


class PlainHttp:
    """`answer` gets the request's head and gives the whole response, head included."""

    def __init__(self, answer: Callable[[bytes], bytes], *, connections: int) -> None:
        self._answer, self._most = answer, connections
        self._connections = 0
        self._servers: list[asyncio.Server] = []

    async def open(self, addresses: str | Sequence[str], port: int) -> None:
        """May be called for several addresses. Raises OSError."""
        self._servers.append(await asyncio.start_server(self._connection, addresses, port, limit=_MOST_BYTES))

    def close(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= self._most:
                async with asyncio.timeout(_SECONDS):
                    writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # not a client that waits for an answer
        finally:
            self._connections -= 1
            writer.close()
