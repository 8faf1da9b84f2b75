"""Joins two asyncio transports, so that what one receives the other sends.

Owns: Relay, `joined` and `streams_over`: reader and writer, with TLS if wanted, over a transport that is no socket.
Called by: agent/tunnel (a stream and a socket), apiserver/dial (a stream and the API server). Never does: choose where to.

Backpressure goes through: a side that cannot send pauses the other's reading. The end of one direction is passed on alone;
the second end, or a fault, ends both.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Any, cast

from k1s.base.sockets import Streams, let_go


class Relay(asyncio.Protocol):
    """One of the two sides. `final`: when its input ends it is gone, and so is the other side."""

    def __init__(self, *, final: bool = False) -> None:
        self.transport: Any = None
        self.other: Relay = self
        self._ended, self._final = False, final

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        self._ended = True
        if self.other._ended or self._final:
            self.other.transport.close()
            return False
        if not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        other = self.other.transport
        if other is not None:
            if error is None:
                other.close()
            else:
                other.abort()


def joined(*, final: bool = False) -> tuple[Relay, Relay]:
    """Two sides that know each other, the first one `final`. Both must have their transport before either receives."""
    one, two = Relay(final=final), Relay()
    one.other, two.other = two, one
    return one, two


async def streams_over(
    transport: Any, tls: ssl.SSLContext | None = None, server_name: str = "", *, limit: int = 64 * 1024
) -> Streams:
    """Reader and writer over a transport that has `start(protocol)`. Raises OSError (ssl.SSLError is one).

    TLS over anything but a socket is not to be had from uvloop, so with TLS a socket pair stands between: two file
    descriptors for as long as the connection lives.
    """
    if tls is None:
        reader = asyncio.StreamReader(limit=limit)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport.start(protocol)
        return reader, asyncio.StreamWriter(cast(asyncio.WriteTransport, transport), protocol, reader, asyncio.get_running_loop())
    opening = asyncio.create_task(_over_tls(transport, tls, server_name, limit), name="tls over a stream")
    try:
        # Shielded as in sockets.streams_of.
        return await asyncio.shield(opening)
    except BaseException:
        # This ends the handshake, too.
        transport.abort()
        opening.add_done_callback(let_go)
        raise


async def _over_tls(transport: Any, tls: ssl.SSLContext, server_name: str, limit: int) -> Streams:
    ours, theirs = socket.socketpair()
    # TLS knows no end of one direction, and of a pair of sockets only an end is seen when its other side is closed.
    one, two = joined(final=True)
    await asyncio.get_running_loop().create_unix_connection(lambda: one, sock=theirs)
    if transport.is_closing():
        one.transport.abort()
        ours.close()
        raise ConnectionAbortedError(errno.ECONNABORTED, "given up")
    transport.start(two)
    return await asyncio.open_unix_connection(sock=ours, ssl=tls, server_hostname=server_name, limit=limit)
