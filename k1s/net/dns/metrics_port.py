"""Port 9153, where those who know CoreDNS look for its metrics.

Owns: what is answered there. Called by: agent.network.dns. Never does: count (metrics).
No TLS, no authentication: CoreDNS has neither.
Bounds: 16 connections and those of plain_http.
"""

from __future__ import annotations

from collections.abc import Callable

from k1s.base.metrics import CONTENT_TYPE
from k1s.net.plain_http import PlainHttp

PORT = 9153
_MOST_CONNECTIONS = 16


class MetricsPort:
    """Serves `GET /metrics` from `open` on; may be opened on several addresses."""

    def __init__(self, exposition: Callable[[], bytes]) -> None:
        self._exposition = exposition
        self._listener = PlainHttp(lambda head: self._answer(head.split(b" ")[:2]), connections=_MOST_CONNECTIONS)

    async def open(self, address: str) -> None:
        """Raises OSError."""
        await self._listener.open(address, PORT)

    def close(self) -> None:
        self._listener.close()

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
