"""The server's host gets another address (DHCP): its certificate and the endpoints of default/kubernetes say so at once.

Owns: following the host's address while the server runs. Called by: server/app, unless --advertise-address is given.
Never does: restart anything; believe that a host has no address (a cable that is out comes back with the same one, mostly).
Bounds: a write that fails is tried again after 0.5 s doubling to 30 s, or as soon as the address changes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff
from k1s.base.clock import Clock
from k1s.client.interface import Client, InformerFactory
from k1s.net import underlay
from k1s.net.address_watch import AddressWatch
from k1s.server.bootstrap import ensure_endpoints
from k1s.server.certificates import ServerCertificates

log = logging.getLogger("k1s.server.addresses")
_RETRY = Backoff(initial=0.5, maximum=30.0, jitter=0.2)


class AddressFollower:
    """`names` are what the host is called by beside its address; `address` is the one that everything was started with."""

    def __init__(
        self,
        certificates: ServerCertificates,
        client: Client,
        informers: InformerFactory,
        clock: Clock,
        *,
        names: Sequence[str],
        address: str,
        port: int,
    ) -> None:
        self._certificates, self._client, self._informers, self._clock = certificates, client, informers, clock
        self._names, self._address, self._port = tuple(names), address, port

    async def run(self, ready: Callable[[], None]) -> None:
        """Until cancelled."""
        failures = 0
        with AddressWatch() as watch:
            ready()
            while True:
                try:
                    await self.look()
                    failures = 0
                    await watch.wait()
                except (ApiError, OSError) as error:
                    failures += 1
                    log.warning("the new address is not known to all yet: %s", error)
                    await self._wait(watch, _RETRY.delay(failures))

    async def look(self) -> None:
        """Tell of the host's address if it is another than the one told. Raises ApiError, OSError."""
        # As the agent beside us finds it: an address that is still there stays, whatever else comes.
        found = await asyncio.to_thread(underlay.node_addresses, (self._address,), (4,))
        if not found or found[0] == self._address:
            return
        address = found[0]
        self._certificates.set_addresses((*self._names, address))
        await ensure_endpoints(self._client, self._informers, address, self._port)
        log.info("this host has another address: %s (before: %s)", address, self._address)
        self._address = address

    async def _wait(self, watch: AddressWatch, seconds: float) -> None:
        tasks = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(watch.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
