"""The tunnels that nodes' agents open to this server, so that they need no inbound port.

GET /v1-k1s/connect     with `Upgrade: k1s-tunnel`, by a node's client certificate; then base/mux over the connection

Owns: Tunnels: who may open one, which node has one, streams through it. Called by: server/app (the route), apiserver/dial.
Never does: decide what is reached through a tunnel (apiserver/dial), or what an agent connects (agent/tunnel).

A tunnel belongs to the node that its certificate names; a newer one replaces the older, and the Node's deletion ends it. A peer
that vanished is noticed by the kernel after DEAD_SECONDS. Bounds: one tunnel per Node; streams as base/mux bounds them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError, bad_request, method_not_allowed, service_unavailable, unauthorized
from k1s.base.http import Answer, ByteStream, RawUpgrade, Request, Response
from k1s.base.metrics import Registry
from k1s.base.mux import Mux, pump
from k1s.base.mux_frames import MuxError
from k1s.base.mux_stream import MuxStream
from k1s.base.tunnel import CONNECTED_HEADER, DEAD_SECONDS, PROTOCOL, SERVER_HEADER
from k1s.client.interface import InformerFactory, Object
from k1s.server.apiserver.attributes import UserInfo

log = logging.getLogger("k1s.server.tunnel")

_USER_PREFIX = "system:node:"
_GROUP = "system:nodes"


@dataclass(slots=True, eq=False)
class _Tunnel:
    mux: Mux
    wire: ByteStream


class Tunnels:
    """One for the server. `attach` gives it the informers, which are made after it.

    `authenticate` says who asks, and refuses nodes that were removed. Raises ApiError.
    """

    def __init__(self, authenticate: Callable[[Request], Awaitable[UserInfo]]) -> None:
        self._authenticate = authenticate
        self._tunnels: dict[str, _Tunnel] = {}
        self._awaited: dict[str, list[asyncio.Future[None]]] = {}
        self._closed = False
        self._closing: set[asyncio.Future[None]] = set()
        self.instance = secrets.token_hex(8)

    def attach(self, informers: InformerFactory, metrics: Registry) -> None:
        """A Node that goes takes its tunnel along."""
        informers.informer(builtin("Node")).add_handler(self._node_changed)
        metrics.gauge("k1s_tunnels", "Nodes that have a tunnel to this server.", (), read=lambda: float(len(self._tunnels)))
        metrics.gauge(
            "k1s_tunnel_streams", "Open streams in all tunnels.", (),
            read=lambda: float(sum(len(tunnel.mux) for tunnel in self._tunnels.values())),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._tunnels)

    def nodes(self) -> list[str]:
        """The nodes that have a tunnel."""
        return list(self._tunnels)

    def has(self, node: str) -> bool:
        return node in self._tunnels

    async def appeared(self, node: str) -> None:
        """Return once the node has a tunnel."""
        if node in self._tunnels:
            return
        future = asyncio.get_running_loop().create_future()
        waiting = self._awaited.setdefault(node, [])
        waiting.append(future)
        try:
            await future
        finally:
            waiting.remove(future)
            if not waiting and self._awaited.get(node) is waiting:
                del self._awaited[node]

    async def stream(self, node: str, host: str, port: int) -> MuxStream:
        """A stream that the node's agent has connected to the target. Raises OSError, as connecting to it would."""
        tunnel = self._tunnels.get(node)
        if tunnel is None:
            raise ConnectionError(f"node {node} has no tunnel to this server")
        stream = tunnel.mux.open(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        try:
            await stream.opened
        except asyncio.CancelledError:
            stream.abort()
            raise
        return stream

    async def handle(self, request: Request) -> Answer:
        """Serves base/tunnel.PATH. Never raises for a bad request: an ApiError becomes its Status."""
        try:
            node = await self._admitted(request)
        except ApiError as error:
            return Response(error.code, orjson.dumps(error.status()))

        async def serve(wire: ByteStream) -> None:
            await self._serve(node, wire)

        return RawUpgrade(PROTOCOL, serve, [(SERVER_HEADER, self.instance)], dead_after=DEAD_SECONDS)

    async def _admitted(self, request: Request) -> str:
        """The node's name. Raises ApiError."""
        if request.method != "GET":
            raise method_not_allowed()
        if request.peer is None:
            raise unauthorized()
        if self._closed:
            raise service_unavailable("the server is shutting down")
        user = await self._authenticate(request)
        node = user.name.removeprefix(_USER_PREFIX)
        # A certificate, not a token that came with it.
        if user.name != request.peer.common_name or node in ("", user.name) or _GROUP not in user.groups:
            raise ApiError(403, "Forbidden", "only a node's own certificate opens a tunnel")
        if request.headers.get("Upgrade", "").lower() != PROTOCOL:
            raise bad_request(f"Upgrade: {PROTOCOL} expected")
        if node in self._tunnels and self.instance in request.headers.get(CONNECTED_HEADER, "").split(","):
            raise ApiError(409, "AlreadyExists", f'node "{node}" has a tunnel to this server')
        return node

    async def _serve(self, node: str, wire: ByteStream) -> None:
        woken = asyncio.Event()
        tunnel = _Tunnel(Mux(woken.set), wire)
        before = self._tunnels.get(node)
        self._tunnels[node] = tunnel
        if before is not None:
            await before.wire.close()
        for future in self._awaited.get(node, ()):
            if not future.done():
                future.set_result(None)
        log.info("node %s: tunnel open", node)
        try:
            await pump(tunnel.mux, wire, woken)
        except MuxError as error:
            log.warning("node %s: tunnel closed: %s", node, error)
        finally:
            if self._tunnels.get(node) is tunnel:
                del self._tunnels[node]
                log.info("node %s: tunnel lost", node)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            self._end(old["metadata"]["name"])

    def close(self) -> None:
        """End all of them, and open no more."""
        self._closed = True
        for node in self.nodes():
            self._end(node)

    def _end(self, node: str) -> None:
        tunnel = self._tunnels.pop(node, None)
        if tunnel is not None:
            tunnel.mux.close()
            task = asyncio.ensure_future(tunnel.wire.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
