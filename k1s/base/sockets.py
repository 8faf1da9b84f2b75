"""Socket options that several parts want.

Owns: noticing a peer that vanished without a word. Called by: http_upgrade, client/transport, apiserver, agent/tunnel.
Never does: open sockets.
"""

from __future__ import annotations

import socket
from typing import Any


def notice_dead_peer(raw: Any, seconds: int, *, stalled_is_dead: bool = True) -> None:
    """The kernel ends the connection about so long after the peer was last heard of; nothing ticks here.

    `raw` is a TCP socket or what a transport gives as one. `stalled_is_dead`: also where data waits, so that a peer which lives
    but does not read for so long counts as dead; without it data that nobody acknowledges is sent for many minutes.
    Source: tcp(7), TCP_USER_TIMEOUT, which decides over the probes' count.
    """
    interval = max(seconds // 5, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(seconds // 2, 1))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, max(seconds // (2 * interval), 1))
    if stalled_is_dead:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
