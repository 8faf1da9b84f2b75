"""Pool addresses of LoadBalancer Services, announced by this node where it is the one.

Owns: what this node may hold (Services, nodes' labels, endpoints here), the key, and telling users. Called by: network.app.
Never does: decide among nodes or touch the kernel (net.announce). Without pool addresses nothing is watched but Services.

A node that lost its server goes on with what it knew: which of the nodes holds an address is decided among themselves.
Only the network's own readiness counts: a container runtime that restarts must not move addresses.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from typing import Any

from k1s.agent.network.state import NodeNetwork
from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.base.tasks import Supervisor
from k1s.client.interface import Informer
from k1s.net.announce import eligible, holder
from k1s.net.announce.announcer import Announcer
from k1s.net.announce.election import rank
from k1s.net.announce.key import FIELD, NAME, NAMESPACE
from k1s.net.announce.thread import AnnouncerThread

Object = dict[str, Any]
_BY_ADDRESS, _POOLED = "k1s.io/pool-address", "k1s.io/pooled"
_log = logging.getLogger("k1s.agent.network")


class AnnouncePart:
    """The loop from changed Services, nodes and endpoints to what the announcer may hold."""

    tables: Sequence[str] = ()

    def __init__(self, network: NodeNetwork) -> None:
        self._agent, self._watch = network.agent, network.services
        self._services = self._agent.informers.informer(builtin("Service"))
        announcer = Announcer(self._agent.node_name, self._agent.clock, self._soon(self._taken), self._soon(self._homeless))
        self._announcer = AnnouncerThread(announcer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stale = asyncio.Event()
        self._nodes: list[str] = []

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._services.add_index(_BY_ADDRESS, eligible.pool_addresses)
        self._services.add_index(_POOLED, lambda service: ["yes"] if eligible.pool_addresses(service) else [])
        self._services.add_handler(self._service_changed)
        self._agent.readiness_handlers.append(self._stale.set)
        self._agent.metrics.gauge(
            "k1s_pool_addresses_held", "LoadBalancer addresses that this node announces", read=lambda: len(self._announcer.held)
        )

    async def follow(self) -> None:
        if not self._pooled():
            # What an agent before this one may have left.
            await asyncio.to_thread(holder.drop_all)
        while not self._pooled():
            await self._wait()
        nodes, secrets = self._follow_more()
        await nodes.synced()
        await secrets.synced()
        async with Supervisor() as tasks:
            # What the kernel has from before a restart is kept where it is offered again: hence this first.
            self._look(nodes, secrets)
            await tasks.start("announcer", self._announcer.run)
            while True:
                await self._wait()
                self._look(nodes, secrets)

    def _look(self, nodes: Informer, secrets: Informer) -> None:
        self._announcer.set_key(_key(secrets))
        known = list(nodes.list())
        self._nodes = [meta.name(node) for node in known]
        every = {address for service in self._pooled() for address in eligible.pool_addresses(service)}
        self._announcer.offer(self._offered(known), every, self._nodes)

    async def repair(self) -> None:
        """There are no rules; addresses that somebody takes away come back by themselves."""

    async def close(self) -> None:
        handlers = self._agent.readiness_handlers
        handlers[:] = [handler for handler in handlers if handler != self._stale.set]

    async def _wait(self) -> None:
        await self._stale.wait()
        self._stale.clear()

    def _follow_more(self) -> tuple[Informer, Informer]:
        """What matters once there is a pool address."""
        informers = self._agent.informers
        nodes = informers.informer(builtin("Node"))
        nodes.add_handler(self._node_changed)
        secrets = informers.informer(builtin("Secret"), namespace=NAMESPACE, field_selector=f"metadata.name={NAME}")
        secrets.add_handler(lambda old, new: self._stale.set())
        informers.informer(builtin("EndpointSlice")).add_handler(self._slice_changed)
        return nodes, secrets

    def _pooled(self) -> list[Object]:
        return list(self._services.by_index(_POOLED, "yes"))

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        if any(service is not None and eligible.pool_addresses(service) for service in (old, new)):
            self._stale.set()

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or _relevant(old) != _relevant(new):
            self._stale.set()

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        piece = new or old or {}
        service = self._watch.service(meta.namespace(piece), meta.labels(piece).get("kubernetes.io/service-name") or "")
        if service is not None and eligible.is_local(service) and eligible.pool_addresses(service):
            self._stale.set()

    def _offered(self, nodes: list[Object]) -> set[str]:
        """What this node may hold."""
        if "network" in self._agent.not_ready:
            return set()
        found: set[str] = set()
        for service in self._pooled():
            names = {meta.name(node) for node in eligible.candidates(service, nodes)}
            if eligible.is_local(service):
                names &= eligible.nodes_with_endpoints(self._watch.slices(meta.namespace(service), meta.name(service)))
            if self._agent.node_name in names:
                found.update(eligible.pool_addresses(service))
        return found

    def _soon(self, tell: Callable[..., None]) -> Callable[..., None]:
        """`tell`, callable from the announcer's thread."""

        def pass_on(*words: str) -> None:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(tell, *words)

        return pass_on

    def _taken(self, address: str, link: str) -> None:
        for service in self._services.by_index(_BY_ADDRESS, address):
            text = f"node {self._agent.node_name} announces {address} on {link}"
            self._agent.events.event(service, "Normal", "AnnouncingAddress", text)

    def _homeless(self, address: str) -> None:
        """Told once, by one node: mostly none of them has such a link, because the pool is not of their network."""
        _log.warning("no link of this node is in the network of %s", address)
        if self._agent.node_name != max(self._nodes, key=lambda node: rank(address, node), default=""):
            return
        for service in self._services.by_index(_BY_ADDRESS, address):
            text = f"node {self._agent.node_name} has no link in the network of {address}, so it cannot announce it there"
            self._agent.events.event(service, "Warning", "AddressOfNoLink", text)


def _relevant(node: Object) -> object:
    taints = [taint.get("key") for taint in (node.get("spec") or {}).get("taints") or ()]
    return meta.labels(node), taints, meta.is_deleting(node)


def _key(secrets: Informer) -> bytes:
    """Empty while there is none that can be used."""
    secret = secrets.get(NAME, NAMESPACE)
    text = ((secret or {}).get("data") or {}).get(FIELD) or ""
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if secret is not None and len(key) < 16:
        _log.error("Secret %s/%s has no key of at least 16 bytes in %s: no address is announced", NAMESPACE, NAME, FIELD)
        return b""
    return key
