"""Which of the cluster's servers this agent talks to.

Owns: LoadBalancer: the list of servers, which of them work, {agent_dir}/servers.json. Called by: agent/app (makes it; a part that
learns), client/transport (asks for each request), agent/tunnel, agent/join through `known_servers`. Never does: carry requests.

The list is what was given (--server, several separated by commas; always in it) and what the EndpointSlices of default/kubernetes
say, which is remembered. One server is used while it works. One that refuses or times out is left for the next at once, and is
not taken again before FAULT's backoff is over, unless no other is left. When none answers, all who ask are told at once
(ServerAway) and one task looks for the first that does; whoever sleeps in `pause` is woken then, spread over SPREAD_SECONDS.
Bounds: MAX_SERVERS in the list; one line in the log when the servers are lost, one when they are back.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from k1s.agent.context import AgentContext
from k1s.api.catalog import builtin
from k1s.base.backoff import Backoff
from k1s.base.clock import Clock
from k1s.base.files import read_if_exists, write_atomic
from k1s.client.servers import ServerAway

log = logging.getLogger("k1s.agent.servers")

MAX_SERVERS = 16
FAULT = Backoff(2.0, 60.0)
# While no server answers: it is usually one that restarts.
LOOK = Backoff(0.3, 1.2, factor=1.5, jitter=0.4)
LOOK_LATER = Backoff(4.0, 4.0, jitter=0.5)
_LATER = 300.0
PROBE_SECONDS = 3.0
SPREAD_SECONDS = 1.0

Object = dict[str, Any]
Probe = Callable[[str], Awaitable[bool]]


@dataclass(slots=True)
class _Fault:
    count: int
    until: float
    why: str


class LoadBalancer:
    """`given` in order of preference. `probe` tells whether a server answers; `file` is where learned ones are kept."""

    def __init__(self, given: Iterable[str], clock: Clock, probe: Probe, file: Path | None = None) -> None:
        self._given = _unique(given)[:MAX_SERVERS]
        self._clock, self._probe, self._file = clock, probe, file
        self._learned = _read(file) if file is not None else []
        self._current = self._given[0]
        self._left = ""
        self._faults: dict[str, _Fault] = {}
        self._back: asyncio.Event | None = None
        self._search: asyncio.Task[None] | None = None
        # Called when the list has changed, and when a server is back after all were away.
        self.on_change: list[Callable[[], None]] = []
        self.on_back: list[Callable[[], None]] = []

    @property
    def urls(self) -> list[str]:
        return _unique([*self._given, *self._learned])[:MAX_SERVERS]

    @property
    def away(self) -> bool:
        """No server answers."""
        return self._back is not None

    def choose(self) -> str:
        """The server to use now. Raises ServerAway."""
        if self._back is not None:
            fault = self._faults.get(self._current)
            raise ServerAway(f"no server can be reached ({self._current}: {fault.why if fault else 'no answer'})")
        return self._current

    def worked(self, url: str) -> None:
        if self._back is not None:
            return
        self._faults.pop(url, None)
        if self._left and url == self._current:
            # Said only now: a server that is down usually is so under all its names.
            log.warning("%s: going on with %s", self._left, url)
            self._left = ""

    def failed(self, url: str, why: str) -> None:
        """`url` refused or timed out."""
        now = self._clock.monotonic()
        before = self._faults.get(url)
        count = before.count + 1 if before is not None else 1
        self._faults[url] = _Fault(count, now + FAULT.delay(count), why)
        if url != self._current or self._back is not None:
            return
        following = [u for u in self._after(url) if u not in self._faults or self._faults[u].until <= now]
        if following:
            self._current = following[0]
            self._left = self._left or f"server {url} fails ({why})"
        else:
            self._left = ""
            log.warning("no server can be reached (%s: %s); trying until one answers", url, why)
            self._back = asyncio.Event()
            self._search = asyncio.create_task(self._look(), name="servers")

    async def pause(self, seconds: float) -> None:
        """Wait before another try: so long, or until servers that were away are back."""
        back = self._back
        if back is None:
            await self._clock.sleep(seconds)
            return
        waiting, sleeping = asyncio.ensure_future(back.wait()), asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({waiting, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            sleeping.cancel()
        if back.is_set():
            await self._clock.sleep(random.random() * min(seconds, SPREAD_SECONDS))

    def learn(self, urls: Iterable[str]) -> None:
        """These are the cluster's servers now. None at all is no news: somebody has to have said so."""
        learned = sorted(_unique(urls))[:MAX_SERVERS]
        if not learned or learned == self._learned:
            return
        self._learned = learned
        kept = self.urls
        self._faults = {url: fault for url, fault in self._faults.items() if url in kept}
        if self._current not in kept:
            self._current = kept[0]
        log.info("servers: %s", ", ".join(kept))
        if self._file is not None:
            try:
                write_atomic(self._file, orjson.dumps({"servers": learned}, option=orjson.OPT_INDENT_2))
            except OSError as error:  # a full disk, most likely: they are learned again after a restart
                log.warning("the list of servers cannot be written: %s", error)
        for handler in self.on_change:
            handler()

    async def close(self) -> None:
        if self._search is not None:
            self._search.cancel()
            await asyncio.gather(self._search, return_exceptions=True)

    def _after(self, url: str) -> list[str]:
        """The other servers, the ones behind `url` first."""
        urls = self.urls
        at = urls.index(url) if url in urls else -1
        return [u for u in (*urls[at + 1 :], *urls[: max(at, 0)]) if u != url]

    async def _look(self) -> None:
        began, failures = self._clock.monotonic(), 0
        while True:
            failures += 1
            away = self._clock.monotonic() - began
            await self._clock.sleep((LOOK if away < _LATER else LOOK_LATER).delay(failures))
            urls = self.urls
            answers = await asyncio.gather(*(self._probe(url) for url in urls))
            found = next((url for url, answer in zip(urls, answers, strict=True) if answer), None)
            if found is not None and self._back is not None:
                log.info("server %s is back after %.0f s", found, self._clock.monotonic() - began)
                self._current = found
                self._faults.pop(found, None)
                back, self._back = self._back, None
                back.set()
                for handler in self.on_back:
                    handler()
                return


async def probe(url: str, tls: ssl.SSLContext) -> bool:
    """Whether the server at `url` serves requests; one that is still starting says 503."""
    parts = urlsplit(url)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=tls)
            writer.write(f"GET /version HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            status = (await reader.readline()).split(b" ", 2)
            return len(status) > 1 and status[1].isdigit() and int(status[1]) < 500
    except (OSError, asyncio.IncompleteReadError, ValueError):
        return False
    finally:
        if writer is not None:
            writer.close()


def split_urls(text: str) -> list[str]:
    """The servers of `--server`, without what makes two spellings of one."""
    return [part.strip().rstrip("/") for part in text.split(",") if part.strip()]


def known_servers(given: Iterable[str], file: Path) -> str:
    """What was given and what was learned in earlier runs, comma separated."""
    return ",".join(_unique([*given, *_read(file)])[:MAX_SERVERS])


def servers_file(agent_dir: Path) -> Path:
    return agent_dir / "servers.json"


async def run(agent: AgentContext, ready: Callable[[], None]) -> None:
    """The part that learns: follows the EndpointSlices of default/kubernetes, which the agent's watch has anyway."""
    ready()
    balancer = agent.balancer
    if balancer is not None:
        slices = agent.informers.informer(builtin("EndpointSlice"))

        def changed(old: Object | None, new: Object | None) -> None:
            piece = new or old
            if piece is not None and piece["metadata"].get("namespace") == "default" and _service(piece) == "kubernetes":
                balancer.learn(
                    url for found in slices.list("default") if _service(found) == "kubernetes" for url in addresses(found)
                )

        slices.add_handler(changed)
    await asyncio.get_running_loop().create_future()


def addresses(piece: Object) -> list[str]:
    """The servers that an EndpointSlice of default/kubernetes names."""
    ports = [port["port"] for port in piece.get("ports") or () if port.get("port") and port.get("name") in (None, "", "https")]
    return [
        f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"
        for endpoint in piece.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint.get("addresses") or ()
        for port in ports
    ]


def _service(piece: Object) -> str:
    return str((piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name") or "")


def _read(file: Path) -> list[str]:
    content = read_if_exists(file)
    if content is None:
        return []
    try:
        found = orjson.loads(content)["servers"]
        return [url for url in found if isinstance(url, str) and urlsplit(url).scheme == "https"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        log.warning("%s cannot be read: the servers will be learned again", file)
        return []


def _unique(urls: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(urls))
