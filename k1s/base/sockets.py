"""Socket options that several parts want.

Owns: noticing a peer that vanished without a word; `streams_of`, a connected socket as reader and writer.
Called by: http_server, client/transport, apiserver/dial, agent/tunnel, agent/serving. Never does: open sockets.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def streams_of(connected: socket.socket) -> Streams:
    """Takes the socket over, whatever happens.

    Shielded: a loop that is given a socket and cancelled in the middle closes a descriptor which the socket's object closes
    again later, when it may be another's.
    """
    opening = asyncio.create_task(asyncio.open_connection(sock=connected), name="streams of a socket")
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(let_go)
        raise


def let_go(opening: asyncio.Task[Streams]) -> None:
    """Whatever came of it, nobody wants it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[1].close()


def notice_dead_peer(raw: Any, seconds: int, *, quiet: int = 0, stalled_is_dead: bool = True) -> None:
    """The kernel ends the connection about so long after the peer was last heard of; nothing ticks here.

    `raw` is a TCP socket or what a transport gives as one. `quiet`: a connection on which nothing happens is probed only after so
    long (many watches would otherwise keep a small machine's network busy); default half of `seconds`. `stalled_is_dead`: also
    where data waits, so that a peer which lives but does not read for so long counts as dead; without it data that nobody
    acknowledges is sent for many minutes.
    Source: tcp(7), TCP_USER_TIMEOUT, which decides over the probes' count.
    """
    interval = max(seconds // 5, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, quiet or max(seconds // 2, 1))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, max(seconds // (2 * interval), 1))
    if stalled_is_dead:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
