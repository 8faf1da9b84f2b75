"""Who may hold a connection: accepting, counting strangers, and ending the oldest when there are too many.

Owns: Limits, Door, Guest, Acceptor. Called by: base/http_server. Never does: HTTP.

A stranger is a connection that has not proved who it is: in its TLS handshake, before its first request, or anonymous. They are
counted by address before TLS costs anything; who is known is bounded only by the number of descriptors. When a bound is reached
the oldest stranger goes: of the same address, or of the address that holds most.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger("k1s.http")

# Descriptors that are kept for everything that is no connection of a client.
_KEPT_DESCRIPTORS = 512
_BUSY = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# Connections taken from the kernel before anything else gets a turn, as asyncio does.
_ACCEPTS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and counts; `connections` 0: what the limit of descriptors allows.

    `first_request`: for a connection's first head (upstream's ReadHeaderTimeout); `keepalive`: quiet between two requests;
    `body`: a whole request body that is read into memory; `write`: until a client has taken a slice of its answer.
    """

    handshake: float = 10.0
    first_request: float = 32.0
    keepalive: float = 180.0
    body: float = 60.0
    write: float = 60.0
    strangers: int = 2048
    strangers_per_address: int = 1024
    connections: int = 0


class Guest:
    """One connection's place; `leave` gives it back, `know` makes it one of ours."""

    __slots__ = ("_door", "address", "drop", "here", "known")

    def __init__(self, door: Door, address: str) -> None:
        self._door, self.address = door, address
        self.known, self.here = False, True
        # Ends the connection in whatever state it is.
        self.drop: Callable[[], None] = _nothing

    def know(self) -> None:
        if not self.known:
            self.known = True
            if self.here:
                self._door.forget(self)

    def leave(self) -> None:
        if self.here:
            self.here = False
            self._door.left(self)


class Door:
    """Counts. `dropped`, `refused` and `failed` (handshakes) are for metrics."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = limits.connections or max(soft - _KEPT_DESCRIPTORS, soft // 2)
        self.connections = self.strangers = self.dropped = self.refused = self.failed = 0
        self._by_address: dict[str, dict[Guest, None]] = {}

    def admit(self, address: str) -> Guest | None:
        """A place for a new connection; None if there is none even after the oldest stranger has gone."""
        mine = self._by_address.get(address)
        if mine is not None and len(mine) >= self.limits.strangers_per_address:
            self._drop(mine)
        if (self.strangers >= self.limits.strangers or self.connections >= self.most) and self._by_address:
            self._drop(max(self._by_address.values(), key=len))
        if self.connections >= self.most:
            self.refused += 1
            return None
        guest = Guest(self, address)
        self.connections += 1
        self.strangers += 1
        self._by_address.setdefault(address, {})[guest] = None
        return guest

    def _drop(self, guests: dict[Guest, None]) -> None:
        oldest = next(iter(guests))
        self.dropped += 1
        oldest.leave()
        oldest.drop()

    def forget(self, guest: Guest) -> None:
        """It is no stranger any more."""
        self.strangers -= 1
        guests = self._by_address[guest.address]
        del guests[guest]
        if not guests:
            del self._by_address[guest.address]

    def left(self, guest: Guest) -> None:
        self.connections -= 1
        if not guest.known:
            self.forget(guest)


class Acceptor:
    """Takes connections from a listening socket and hands those that the door lets in to `protocol`."""

    def __init__(self, door: Door, protocol: Callable[[Guest], asyncio.Protocol], tls: ssl.SSLContext | None) -> None:
        self.door, self._protocol, self._tls = door, protocol, tls
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, host: str, port: int, backlog: int) -> int:
        """The port. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=backlog)
        listening.setblocking(False)
        self._socket = listening
        self._loop.add_reader(listening.fileno(), self._accept)
        number: int = listening.getsockname()[1]
        return number

    def close(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        listening = self._socket
        if listening is None:
            return
        for _ in range(_ACCEPTS):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _BUSY:
                    raise
                # Nothing can be taken until something else is given back.
                log.error("cannot accept connections: %s", error)
                self._loop.remove_reader(listening.fileno())
                self._loop.call_later(1.0, self._resume)
                return
            guest = self.door.admit(str(address[0]))
            if guest is None:
                accepted.close()
                continue
            accepted.setblocking(False)
            task = self._loop.create_task(self._begin(accepted, guest), name="accept")
            guest.drop = _ending(task)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _resume(self) -> None:
        if self._socket is not None:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    async def _begin(self, accepted: socket.socket, guest: Guest) -> None:
        limit = self.door.limits.handshake if self._tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(guest), accepted, ssl=self._tls, ssl_handshake_timeout=limit
            )
        except (OSError, asyncio.CancelledError) as error:
            guest.leave()
            accepted.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            self.door.failed += 1
            log.debug("no connection with %s: %s", guest.address, error)


def _ending(task: asyncio.Task[None]) -> Callable[[], None]:
    def end() -> None:
        task.cancel()

    return end


def _nothing() -> None:
    return
