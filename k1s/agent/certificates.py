"""The agent's certificates while it runs: live TLS contexts, renewed before they expire and when the machine's address changes.

Owns: AgentCertificates. Called by: agent/app. Never does: join (agent/join).
Renewal is asked for with the present certificate; new pairs are loaded into the contexts that are in use, nothing restarts.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from k1s.agent.config import AgentConfig
from k1s.agent.identity import JoinResult
from k1s.agent.join import renew
from k1s.agent.join_request import JoinError
from k1s.base import pki
from k1s.base.backoff import Backoff
from k1s.base.clock import Clock

log = logging.getLogger("k1s.agent.certificates")

# A clock may be set while we sleep: look again this often.
_LONGEST_SLEEP = 3600.0
_RETRY = Backoff(initial=1.0, maximum=300.0, jitter=0.2)


class AgentCertificates:
    """Contexts that stay valid for as long as `run` runs."""

    def __init__(self, config: AgentConfig, joined: JoinResult, clock: Clock) -> None:
        self._config, self._joined, self._clock = config, joined, clock
        self._clients: list[ssl.SSLContext] = []
        self._servers: list[ssl.SSLContext] = []
        self._addresses = joined.node_ip
        self._moved = joined.moved
        self._wake = asyncio.Event()

    def client_context(self) -> ssl.SSLContext:
        """For connections to the API server, as system:node:NAME."""
        context = ssl.create_default_context(cafile=str(self._joined.server_ca))
        context.load_cert_chain(self._joined.client_certificate, self._joined.client_key)
        self._clients.append(context)
        return context

    def server_context(self) -> ssl.SSLContext:
        """For the agent's own listener. Client certificates are optional but must be of the cluster's client CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cafile=str(self._joined.client_ca))
        context.load_cert_chain(self._joined.serving_certificate, self._joined.serving_key)
        self._servers.append(context)
        return context

    def moved_to(self, addresses: str) -> None:
        """The machine has other addresses now (comma-separated): certificates for them are asked for at once."""
        self._addresses, self._moved = addresses, True
        self._wake.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Sleep until a certificate is due, renew, repeat. A server that is away is asked again; there are months."""
        ready()
        failures = 0
        while True:
            wait = 0.0 if self._moved else self._due() - self._clock.now()
            if wait > 0:
                await self._sleep(min(wait, _LONGEST_SLEEP))
                continue
            fault = await self._try()
            if fault:
                failures += 1
                delay = _RETRY.delay(failures)
                log.warning("certificates are due but were not renewed: %s; trying again in %.0f s", fault, delay)
                await self._sleep(delay)
                continue
            failures = 0
            if self._due() <= self._clock.now():
                log.warning(
                    "the new certificates are due already by this machine's clock: set the clock (timedatectl set-ntp true)"
                )
                await self._sleep(_LONGEST_SLEEP)

    async def renew(self, addresses: str) -> None:
        """New certificates now, for these addresses (comma-separated). Raises JoinError, ConnectionError."""
        await renew(self._config, addresses, self._clock)
        joined = self._joined
        for context in self._clients:
            context.load_cert_chain(joined.client_certificate, joined.client_key)
        for context in self._servers:
            context.load_cert_chain(joined.serving_certificate, joined.serving_key)
        log.info("certificates renewed for %s", addresses)

    async def _try(self) -> str:
        """One renewal; what went wrong, "" if nothing."""
        addresses = self._addresses
        try:
            await self.renew(addresses)
        except (JoinError, ConnectionError) as error:
            return str(error)
        # Unless the machine has moved on meanwhile.
        self._moved = self._addresses != addresses
        return ""

    async def _sleep(self, seconds: float) -> None:
        """Until then, or until the machine moves."""
        tasks = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._wake.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        self._wake.clear()

    def _due(self) -> float:
        paths = (self._joined.client_certificate, self._joined.serving_certificate)
        return min(pki.validity(path.read_bytes()).renew_at for path in paths)
