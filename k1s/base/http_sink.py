"""The connection of a stream as its chunks may write to it.

Owns: StreamSink (base.http.Sink) over aiohttp's connection. Called by: base/http_server. Never does: wait.
"""

from __future__ import annotations

import asyncio
from typing import Any


class StreamSink:
    """Valid as long as the stream is being served."""

    __slots__ = ("_chunked", "_protocol", "_transport")

    def __init__(self, protocol: Any, chunked: bool) -> None:
        self._protocol, self._chunked = protocol, chunked
        self._transport: asyncio.Transport = protocol.transport

    def ready(self) -> bool:
        protocol = self._protocol
        return protocol.transport is not None and not protocol._paused and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def abort(self) -> None:
        if self._protocol.transport is not None:
            self._transport.abort()
