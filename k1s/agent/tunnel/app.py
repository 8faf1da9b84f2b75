"""The tunnels of this node: one to each server, opened by the agent, so that the node needs no inbound port.

Owns: keeping them open. Called by: agent/app as a part. Never does: choose what is connected (targets.py).

A server that is known by two addresses (127.0.0.1 and its own) says so, and the second loop waits until the first tunnel ends.
A tunnel that breaks is opened again after RETRY's backoff, or as soon as the servers, which were all away, are back.
Bounds: one connection per server in the balancer's list; streams as base/mux bounds them, a task each while it connects.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from k1s.agent.context import AgentContext
from k1s.agent.load_balancer import LoadBalancer
from k1s.agent.tunnel.targets import Targets
from k1s.agent.tunnel.wire import ServerUnreachable, TunnelRefused, Wire, open_wire
from k1s.base.backoff import Backoff
from k1s.base.mux import Mux, pump
from k1s.base.mux_frames import MuxError
from k1s.base.mux_stream import MuxStream

log = logging.getLogger("k1s.agent.tunnel")

RETRY = Backoff(0.5, 15.0, jitter=0.3)
# What lasted so long was a working tunnel: the delays begin anew.
_HEALTHY_SECONDS = 5.0
# When to ask again a server that says we have a tunnel to it, if none of ours ends before.
_KNOWN_SECONDS = 60.0


async def run(agent: AgentContext, ready: Callable[[], None]) -> None:
    ready()
    if agent.balancer is None or agent.client_tls is None:
        await asyncio.get_running_loop().create_future()
    else:
        await Tunnels(agent, agent.balancer, agent.client_tls).run()


class Tunnels:
    def __init__(self, agent: AgentContext, balancer: LoadBalancer, tls: ssl.SSLContext) -> None:
        self._agent, self._balancer, self._tls = agent, balancer, tls
        self._targets = Targets(agent)
        # server -> how many tunnels it has of ours (one, but for a moment)
        self._open: dict[str, int] = {}
        self._ended = asyncio.Event()
        self._wires: set[Wire] = set()

    async def run(self) -> None:
        """One loop per server; follows the balancer's list."""
        loops: dict[str, asyncio.Task[None]] = {}
        changed = asyncio.Event()
        self._balancer.on_change.append(changed.set)
        self._agent.address_handlers.append(self._moved)
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    changed.clear()
                    wanted = set(self._balancer.urls)
                    for url in loops.keys() - wanted:
                        loops.pop(url).cancel()
                    for url in wanted - loops.keys():
                        loops[url] = tasks.create_task(self._keep(url), name=f"tunnel {url}")
                    await changed.wait()
        finally:
            self._balancer.on_change.remove(changed.set)
            self._agent.address_handlers.remove(self._moved)

    async def _keep(self, url: str) -> None:
        failures = 0
        while True:
            began = self._agent.clock.monotonic()
            try:
                wire = await self._open_wire(url)
                await self._serve(wire)
            except TunnelRefused as error:
                if error.known:
                    await self._wait_for_an_end()
                    continue
                log.log(logging.WARNING if failures == 0 else logging.DEBUG, "%s refuses a tunnel: %s", url, error)
            except MuxError as error:
                log.warning("%s: tunnel closed: %s", url, error)
            except OSError as error:
                # That servers are away is the balancer's to say.
                log.debug("%s: no tunnel: %s", url, error)
            if self._agent.clock.monotonic() - began >= _HEALTHY_SECONDS:
                failures = 0
            failures += 1
            await self._balancer.pause(RETRY.delay(failures))

    async def _open_wire(self, url: str) -> Wire:
        try:
            return await open_wire(url, self._tls, self._open)
        except ServerUnreachable as error:
            self._balancer.failed(url, str(error))
            raise

    async def _serve(self, wire: Wire) -> None:
        connecting: set[asyncio.Task[None]] = set()

        def accept(stream: MuxStream) -> None:
            task = asyncio.create_task(self._targets.serve(stream), name=f"tunnel to {stream.target}")
            connecting.add(task)
            task.add_done_callback(connecting.discard)

        woken = asyncio.Event()
        self._open[wire.server] = self._open.get(wire.server, 0) + 1
        self._wires.add(wire)
        log.debug("tunnel to server %s is open", wire.server)
        try:
            await pump(Mux(woken.set, accept), wire, woken)
        finally:
            await wire.close()
            self._wires.discard(wire)
            for task in list(connecting):
                task.cancel()
            self._open[wire.server] -= 1
            if not self._open[wire.server]:
                del self._open[wire.server]
            ended, self._ended = self._ended, asyncio.Event()
            ended.set()

    def _moved(self, address: str) -> None:
        """The machine has another address: a connection from the old one would be dead without a word."""
        for wire in list(self._wires):
            wire.abort()

    async def _wait_for_an_end(self) -> None:
        waiting = asyncio.ensure_future(self._ended.wait())
        sleeping = asyncio.ensure_future(self._agent.clock.sleep(_KNOWN_SECONDS))
        try:
            await asyncio.wait({waiting, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            sleeping.cancel()
