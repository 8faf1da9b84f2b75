"""The one way from the server to nodes, pods and Services: by a node's tunnel, or directly.

Owns: Dialer: which way is taken, and what happens when it does not work. Called by: forward, outgoing (all that goes out).
Never does: speak HTTP; know how a tunnel works (server/tunnel).

A target has one way or two; the second is started when the first fails or has not answered within its stagger (as RFC 8305
does), and the first connection wins:
- a node's agent: the tunnel, then directly. The node beside this server: directly, then the tunnel.
- another address that a node says it has: directly, then its tunnel. It may name an address that is somebody else's: so what it
  says there is not final, and neither does a Service's address count.
- a pod of another node: directly if this server's host is a node, too (the pod network reaches it), then the node's tunnel; on a
  host that is no node the tunnel first. Where the direct way was too slow or failed the tunnel goes first for REMEMBER seconds.
- a Service's address: directly on a node; else through any tunnel, whose node knows the Service.
- everything else: directly.
A node without a tunnel just now (the server was restarted) is given TUNNEL_SECONDS to open one while the direct way is tried.
What a target says through its node (refused, a certificate that does not hold) is final. Bound: one remembered moment per Node.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Protocol

from k1s.api.catalog import builtin
from k1s.base.clock import REAL_CLOCK, Clock
from k1s.base.relay import streams_over
from k1s.base.sockets import Streams, notice_dead_peer
from k1s.client.interface import InformerFactory
from k1s.server.apiserver.forward import MAX_HEAD_BYTES, Target

Object = Mapping[str, Any]
Way = Callable[[], Awaitable[Streams]]

TUNNEL_SECONDS = 3.0
# A pod on the pod network answers within milliseconds; a tunnel or a node across a slow link is given more.
POD_STAGGER = 0.3
STAGGER = 2.0
REMEMBER = 60.0
# A target that vanished without a word: logs and watches may be silent for hours.
DEAD_SECONDS = 60


class TunnelSource(Protocol):
    """server/tunnel.Tunnels."""

    def nodes(self) -> list[str]: ...
    def has(self, node: str) -> bool: ...
    async def appeared(self, node: str) -> None: ...
    async def stream(self, node: str, host: str, port: int) -> Any: ...
    def close(self) -> None: ...


class _Told(Exception):
    """What the target itself said, through its node: no other way will do better. The cause is the error."""


class Dialer:
    """`local_node`: the node on this host, "" if there is none. Without `tunnels` every way is the direct one."""

    def __init__(
        self,
        informers: InformerFactory,
        tunnels: TunnelSource | None = None,
        *,
        local_node: str = "",
        service_cidr: str = "",
        clock: Clock = REAL_CLOCK,
    ) -> None:
        self._nodes = informers.informer(builtin("Node"))
        self._tunnels, self._local, self._clock = tunnels, local_node, clock
        self._services = service_cidr
        self._slow: dict[str, float] = {}

    async def connect(self, target: Target) -> Streams:
        """Raises OSError, as connecting directly would. The time limit is the caller's."""
        ways, stagger = self._ways(target)
        return await _first(ways, stagger)

    def close(self) -> None:
        """End the tunnels."""
        if self._tunnels is not None:
            self._tunnels.close()

    def _ways(self, target: Target) -> tuple[list[Way], float]:
        async def straight() -> Streams:
            return await direct(target)

        if self._tunnels is None:
            return [straight], STAGGER
        node, is_pod = (target.node, False) if target.node else self._owner(target.host)
        claimed = not target.node and not is_pod
        if not node:
            via = self._any_tunnel(target.host)
            return [self._through(via, target)] if via else [straight], STAGGER
        through = self._through(node, target)
        if node == self._local:
            second = _unbelieved(through) if claimed else through
            return [straight, second] if self._tunnels.has(node) else [straight], STAGGER
        if not self._tunnels.has(node):
            return [straight, _unbelieved(through) if claimed else through], 0.0
        if is_pod and self._local and self._clock.monotonic() >= self._slow.get(node, 0.0):
            return [straight, self._noted(node, through)], POD_STAGGER
        return ([straight, _unbelieved(through)] if claimed else [through, straight]), STAGGER

    def _through(self, node: str, target: Target) -> Way:
        async def way() -> Streams:
            assert self._tunnels is not None
            if not self._tunnels.has(node):
                async with asyncio.timeout(TUNNEL_SECONDS):
                    await self._tunnels.appeared(node)
            try:
                stream = await self._tunnels.stream(node, target.host, target.port)
                return await streams_over(stream, target.tls, target.server_name or target.host, limit=MAX_HEAD_BYTES)
            except (ConnectionRefusedError, ssl.SSLError) as error:
                raise _Told from error

        return way

    def _noted(self, node: str, through: Way) -> Way:
        """The tunnel as the second way; that it was needed and worked is remembered."""

        async def way() -> Streams:
            streams = await through()
            if len(self._slow) > 2 * len(list(self._nodes.list())):
                self._slow.clear()
            self._slow[node] = self._clock.monotonic() + REMEMBER
            return streams

        return way

    def _any_tunnel(self, host: str) -> str:
        """A node that knows the way to a Service's address, if this host does not."""
        assert self._tunnels is not None
        if self._local or not _within(host, self._services.split(",")):
            return ""
        return next(iter(self._tunnels.nodes()), "")

    def _owner(self, host: str) -> tuple[str, bool]:
        """The node that has this address, and whether it is one of its pods'; "" if none.

        Ranges are the server's word, addresses the nodes' own: what two of them claim belongs to neither.
        """
        claims: list[str] = []
        service = _within(host, self._services.split(","))
        for node in self._nodes.list():
            spec = node.get("spec", {})
            if _within(host, spec.get("podCIDRs") or (spec.get("podCIDR") or "",)):
                return node["metadata"]["name"], True
            if not service and any(entry.get("address") == host for entry in node.get("status", {}).get("addresses") or ()):
                claims.append(node["metadata"]["name"])
        return (claims[0] if len(claims) == 1 else ""), False


def _unbelieved(through: Way) -> Way:
    """The tunnel of a node to an address that is its own by nothing but its word: the direct way may still do better."""

    async def way() -> Streams:
        try:
            return await through()
        except _Told as error:
            raise error.__cause__ or error from None

    return way


async def direct(target: Target) -> Streams:
    """Over the network as this host has it. Raises OSError."""
    reader, writer = await asyncio.open_connection(
        target.host,
        target.port,
        ssl=target.tls,
        server_hostname=(target.server_name or target.host) if target.tls else None,
        limit=MAX_HEAD_BYTES,
    )
    # A process may well leave its stdin unread for hours.
    notice_dead_peer(writer.get_extra_info("socket"), DEAD_SECONDS, stalled_is_dead=False)
    return reader, writer


async def _first(ways: list[Way], stagger: float) -> Streams:
    """The first way that gets through; the next begins after a failure or `stagger`. Raises what the preferred way raised."""
    waiting = deque(ways)
    running: dict[asyncio.Task[Streams], int] = {}
    failed: dict[int, BaseException] = {}
    try:
        while running or waiting:
            if waiting:
                running[asyncio.create_task(_run(waiting.popleft()), name="dial")] = len(running) + len(failed)
            done, _ = await asyncio.wait(running, timeout=stagger if waiting else None, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=running.__getitem__):
                error = task.exception()
                number = running.pop(task)
                if error is None:
                    return task.result()
                if isinstance(error, _Told):
                    raise error.__cause__ or error
                if not isinstance(error, OSError | asyncio.IncompleteReadError):
                    raise error
                failed[number] = error
        raise failed[min(failed)]
    finally:
        await _abandon(running)


async def _run(way: Way) -> Streams:
    return await way()


async def _abandon(tasks: Iterable[asyncio.Task[Streams]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, tuple):
            result[1].close()


def _within(host: str, ranges: Iterable[str]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(text.strip() and address in _network(text.strip()) for text in ranges)


@lru_cache(maxsize=1024)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)
