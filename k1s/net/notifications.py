"""Hearing what the kernel tells of its own accord: of links, addresses and routes (rtnetlink(7)), or of nftables.

Owns: the subscribed socket and its reader in the event loop. Called by: address_watch, route_monitor, monitor, announce.uplinks.
Never does: decide what matters. Standard library only; costs nothing while nothing changes.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

ROUTE, NETFILTER = 0, 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_MESSAGE = 1 << 17


class Notifications:
    """As a context manager. It hears of the network namespace that the thread was in when it was made.

    `tell` gets each message's kind and what follows its header; `lost` is called when the kernel had to drop some.
    """

    def __init__(
        self, groups: Iterable[int], tell: Callable[[int, bytes], None], lost: Callable[[], None], *, family: int = ROUTE
    ) -> None:
        self._tell, self._lost = tell, lost
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self.socket = socket.socket(socket.AF_NETLINK, kind, family)
        self.socket.bind((0, 0))
        self.join(groups)

    def join(self, groups: Iterable[int]) -> None:
        for group in groups:
            self.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def __enter__(self) -> Notifications:
        asyncio.get_running_loop().add_reader(self.socket, self._readable)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.get_running_loop().remove_reader(self.socket)
        self.socket.close()

    def _readable(self) -> None:
        while True:
            try:
                data = self.socket.recv(_MESSAGE)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost()
                continue
            for kind, body in messages(data):
                self._tell(kind, body)


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, what follows the header) of each message of a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        size, kind = struct.unpack_from("=IH", data, offset)
        yield kind, data[offset + 16 : offset + size]
        offset += (max(size, 16) + 3) & ~3
