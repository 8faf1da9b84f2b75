"""Questions that are not the cluster's, asked of other resolvers: the host's, or a domain's own.

Owns: who is asked for a name, in which order, retries, joining equal questions, and finding loops. Called by: dns.resolver.
Never does: answer from the zone; the exchange itself (upstream).

The host's resolvers are those of resolv.conf, which is looked at again on use (a stat of what its name leads to, so that a
link that is changed counts too). A resolver that failed is asked last, and nobody waits for it again before it has answered
a question of our own. The same question finds loops, as CoreDNS's plugin of that name does: a name that nobody else knows is
sent to a resolver, and when it arrives at our own server, that resolver is not asked any more; after 30 s it is tried again.

Bounds: 512 different questions under way, further ones fail at once (SERVFAIL, the client asks again); an equal question
joins the one under way. A resolver gets 2 s, a question 5 s. Failures are remembered for 2 s (RFC 9520), 1,024 of them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from k1s.base.clock import Clock
from k1s.net.dns import wire
from k1s.net.dns.cache import Cache, Key
from k1s.net.dns.message import MessageError
from k1s.net.dns.metrics import DnsMetrics
from k1s.net.dns.upstream import Upstream, UpstreamError, parse_upstream
from k1s.net.dns.wire import Name, Question

MOST_UNDER_WAY = 512
QUESTION_SECONDS, ROUNDS, FAILURE_SECONDS = 5.0, 2, 2.0
# How often our own question goes to a resolver at most: after a failure, to one that failed before, to one that loops.
PROBE_SECONDS, SHUNNED_SECONDS, LOOP_SECONDS = 2.0, 10.0, 30.0
SAY_AGAIN_SECONDS, SAY_MORE_SECONDS = 60.0, 10.0
_MOST_RESOLVERS, _MOST_FAILURES, _MOST_PROBES = 3, 1024, 64
_log = logging.getLogger("k1s.net.dns")


class ForwardError(Exception):
    """No resolver gave an answer; the client is told SERVFAIL."""


class Forwarder:
    """Between `start` and `close`. `own_addresses` are the cluster's DNS: no resolver may be there."""

    def __init__(
        self, resolv_conf: str, *, own_addresses: Collection[str], clock: Clock, metrics: DnsMetrics | None = None, port: int = 53
    ) -> None:
        self._file, self._own, self._clock, self._port = resolv_conf, frozenset(own_addresses), clock, port
        self._metrics = metrics or DnsMetrics()
        self.cache = Cache()
        self._under_way: dict[Key, asyncio.Task[bytes]] = {}
        self._failures: dict[Key, float] = {}
        self._host: list[Upstream] = []
        self._seen: tuple[int, int] | None = None
        self._fixed: list[Upstream] = []
        self._stubs: dict[Name, list[Upstream]] = {}
        self._probes: dict[Name, Upstream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._said, self._said_at = "", -math.inf

    def start(self) -> None:
        """Look at the host's resolvers, so that a loop shows before anybody asks."""
        try:
            self._default()
        except ForwardError as error:
            self._say(f"names outside the cluster cannot be resolved: {error}")

    def configure(self, stubs: Mapping[Name, Sequence[Upstream]], upstreams: Sequence[Upstream]) -> None:
        """`upstreams` instead of the host's resolvers, if there are any; `stubs` for single domains."""
        self._stubs = {domain: list(found) for domain, found in stubs.items()}
        self._fixed = list(upstreams)
        self.cache.clear()
        self._failures.clear()
        self._said_at = -math.inf
        for upstream in [*self._fixed, *(u for group in self._stubs.values() for u in group)][:_MOST_PROBES]:
            self._probe(upstream)

    def cached(self, question: Question) -> tuple[bytes, float] | None:
        """A message that needs no waiting, and until when it may be repeated (see Cache)."""
        return self.cache.get(_key(question), self._clock.monotonic())

    async def ask(self, question: Question) -> bytes:
        """The answer message, without OPT and under an identifier of ours. Raises ForwardError."""
        key = _key(question)
        task = self._under_way.get(key)
        if task is None:
            if self._failures.get(key, 0.0) > self._clock.monotonic():
                raise ForwardError("failed a moment ago")
            if len(self._under_way) >= MOST_UNDER_WAY:
                self._metrics.rejected.add()
                raise ForwardError(f"{MOST_UNDER_WAY} questions are under way")
            task = asyncio.ensure_future(self._resolve(question, key))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        # Shielded: one client that gives up must not take the answer from the others.
        return await asyncio.shield(task)

    def came_back(self, name: Name) -> bool:
        """Is this question, which has just arrived here, one that we sent to a resolver to see whether it does?"""
        upstream = self._probes.get(name)
        if upstream is None:
            return False
        if not upstream.looping:
            _log.error(
                "DNS loop: %s sends questions back to the cluster's DNS and is not asked any more. Give it resolvers of its own, "
                "or k1s others (--resolv-conf, or 'upstreams' in the ConfigMap kube-system/k1s-dns)",
                upstream,
            )
        upstream.looping = upstream.returned = True
        upstream.failed_at = self._clock.monotonic()
        return True

    def _finished(self, key: Key, done: asyncio.Task[bytes]) -> None:
        self._under_way.pop(key, None)
        # Everybody who asked may have given up; the failure is theirs to report, not the event loop's.
        if not done.cancelled() and done.exception() is not None:
            if len(self._failures) >= _MOST_FAILURES:
                self._failures.clear()
            self._failures[key] = self._clock.monotonic() + FAILURE_SECONDS

    async def close(self) -> None:
        for task in [*self._under_way.values(), *self._tasks]:
            task.cancel()
            with suppress(asyncio.CancelledError, ForwardError):
                await task

    async def _resolve(self, question: Question, key: Key) -> bytes:
        upstreams = self._order(question.name)
        try:
            async with asyncio.timeout(QUESTION_SECONDS):
                message = await self._try(upstreams, question)
            self.cache.put(key, message, self._clock.monotonic())
        except TimeoutError as error:
            raise ForwardError(f"no answer within {QUESTION_SECONDS:g} s") from error
        except MessageError as error:
            raise ForwardError(str(error)) from error
        return message

    async def _try(self, upstreams: Sequence[Upstream], question: Question) -> bytes:
        """The first good answer; else a resolver's own "no"; else what went wrong last."""
        poor, fault = b"", ""
        for _ in range(ROUNDS):
            for upstream in upstreams:
                began = self._clock.monotonic()
                try:
                    message = await upstream.ask(question)
                except UpstreamError as error:
                    fault = str(error)
                    self._failed(upstream)
                    continue
                upstream.failed_at = None
                self._metrics.exchanged(str(upstream), message[3] & 0xF, self._clock.monotonic() - began)
                if message[3] & 0xF in (wire.NOERROR, wire.NXDOMAIN):
                    return message
                poor = poor or message
            if poor:
                return poor
        self._say(f"no resolver answers: {fault}")
        raise ForwardError(fault)

    def _failed(self, upstream: Upstream) -> None:
        self._metrics.failures.add(str(upstream))
        # A loop looks like silence from here: our own server waits for the answer too.
        self._probe(upstream, PROBE_SECONDS)
        upstream.failed_at = self._clock.monotonic()

    def _order(self, name: Name) -> list[Upstream]:
        """Those to ask, the best first. Raises ForwardError."""
        group = (
            next((self._stubs[name[at:]] for at in range(len(name)) if name[at:] in self._stubs), None) if self._stubs else None
        )
        if group is None:
            group = self._fixed or self._default()
        for upstream in group:
            if upstream.failed_at is not None:
                self._probe(upstream, LOOP_SECONDS if upstream.looping else SHUNNED_SECONDS)
        found = sorted((u for u in group if not u.looping), key=lambda upstream: upstream.failed_at is not None)
        if not found:
            fault = "every resolver sends questions back to the cluster's DNS"
            raise ForwardError(fault)
        return found

    def _default(self) -> list[Upstream]:
        """The resolvers of the file; without those that lead back to us."""
        try:
            stat = os.stat(self._file)
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen != self._seen:
                with open(self._file, encoding="utf-8", errors="replace") as file:
                    found = [parse_upstream(address, self._port) for address in resolvers_in(file.read(), self._own)]
                known = {str(upstream): upstream for upstream in self._host}
                self._host = [known.get(str(upstream), upstream) for upstream in found if upstream is not None]
                self._seen = seen
                for upstream in self._host:
                    self._probe(upstream)
        except OSError as error:
            raise ForwardError(f"{self._file}: {error.strerror}") from error
        if not self._host:
            raise ForwardError(f"{self._file} names no resolver but the cluster's own")
        return self._host

    def _probe(self, upstream: Upstream, seconds: float = 0.0) -> None:
        """Ask it for a name that only we know, once at a time and not more often than that; see `came_back`."""
        now = self._clock.monotonic()
        if upstream.probing or now < upstream.probed_at + seconds or len(self._probes) >= _MOST_PROBES:
            return
        upstream.probing, upstream.probed_at = True, now
        name = (secrets.token_hex(8), secrets.token_hex(8))
        self._probes[name] = upstream
        task = asyncio.ensure_future(self._await_probe(upstream, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _await_probe(self, upstream: Upstream, name: Name) -> None:
        upstream.returned = False
        try:
            await upstream.ask(wire.parse_question(wire.encode_query(name, wire.HINFO, 0)))
            if upstream.returned:
                return
            if upstream.looping:
                _log.info("%s does not send questions back any more", upstream)
            upstream.looping, upstream.failed_at = False, None
        except UpstreamError:
            upstream.failed_at = self._clock.monotonic()
        finally:
            upstream.probing = False
            del self._probes[name]

    def _say(self, text: str) -> None:
        """Once a minute, and something else every ten seconds at most: it may be wrong for every question."""
        rest = SAY_AGAIN_SECONDS if text == self._said else SAY_MORE_SECONDS
        now = self._clock.monotonic()
        if now >= self._said_at + rest:
            _log.warning("%s", text)
            self._said, self._said_at = text, now


def resolvers_in(text: str, own: Collection[str]) -> list[str]:
    """The nameserver lines of a resolv.conf; our own addresses are no resolvers."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and parse_upstream(words[1]) is not None:
            if words[1] not in own and words[1] not in found:
                found.append(words[1])
    return found[:_MOST_RESOLVERS]


def _key(question: Question) -> Key:
    return (question.name, question.type, question.klass, (question.flags & 0x30) | (1 if question.dnssec else 0))
