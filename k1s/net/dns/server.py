"""The cluster's DNS server: UDP and TCP on each of its addresses.

Owns: the sockets, and how many questions may wait. Called by: agent.network.dns. Never does: know an answer (resolver).

Bounds: 64 datagrams per turn of the loop, or 5 ms of those that are new, so that a flood leaves time for everything else;
1,024 questions wait for others' resolvers, further ones are dropped (UDP: a client asks again) or refused (TCP); TCP as in
stream.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from k1s.net.dns import wire
from k1s.net.dns.answers import ClusterZone, Zone
from k1s.net.dns.forward import Forwarder
from k1s.net.dns.metrics import DnsMetrics, Tally
from k1s.net.dns.replies import TCP, Entry, ReplyTable, drawn
from k1s.net.dns.resolver import Reply, Resolver
from k1s.net.dns.stream import Connections
from k1s.net.dns.wire import FormatError, Question
from k1s.net.family import Network

MOST_WAITING = 1024
_BATCH, _BATCH_SECONDS = 64, 0.005
_RECEIVE_BUFFER = 1 << 20
_SO_RCVBUFFORCE = 33
_LONGEST_QUESTION = 2048
_log = logging.getLogger("k1s.net.dns")


class DnsServer:
    """Answers between `start` and `stop`. Who changes what it answers from calls `changed`."""

    def __init__(
        self,
        zone: Zone,
        forwarder: Forwarder,
        *,
        domain: str,
        addresses: Sequence[str],
        reverse: Sequence[Network] = (),
        port: int = 53,
        metrics: DnsMetrics | None = None,
    ) -> None:
        self.resolver = Resolver(ClusterZone(zone, domain, addresses, reverse), forwarder)
        self._forwarder = forwarder
        self._addresses, self._port = tuple(addresses), port
        self.metrics = metrics or DnsMetrics()
        # One for each family, "1" and "2" as CoreDNS labels them.
        self._replies = {_family(address): ReplyTable() for address in self._addresses}
        self.metrics.entries = forwarder.cache.counts
        self._udp: list[socket.socket] = []
        self._tcp = Connections(self._answer_tcp)
        self._waiting: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Bind and return the port. The addresses must be on a link of this host.

        Where a resolver of the host's has taken the port on every address (dnsmasq, Pi-hole), another port is used; the
        caller has to lead questions there.
        """
        try:
            await self._bind(self._port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            taken = f"port {self._port} of {', '.join(self._addresses)}"
            _log.info("%s is taken by a listener on all addresses, using another", taken)
            self._close()
            await self._bind(0)
        self._forwarder.start()
        return self._port

    async def _bind(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._port = port
        for address in self._addresses:
            self._port = await self._tcp.listen(address, self._port)
            udp = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._udp.append(udp)
            _make_room(udp)
            udp.bind((address, self._port))
            loop.add_reader(udp, self._readable, udp, _family(address))

    def _close(self) -> None:
        for udp in self._udp:
            asyncio.get_running_loop().remove_reader(udp)
            udp.close()
        self._udp.clear()
        self._tcp.close()

    async def stop(self) -> None:
        self._close()
        for task in list(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        await self._forwarder.close()

    def changed(self) -> None:
        """Services or settings are not what they were."""
        for table in self._replies.values():
            table.forget()

    def endpoints_changed(self, services: Iterable[str]) -> None:
        """EndpointSlices of these (namespace/name) are not what they were."""
        changed = list(services)
        for table in self._replies.values():
            table.forget_endpoints(changed)

    def _readable(self, udp: socket.socket, family: str) -> None:
        began = time.monotonic()
        get, receive, send = self._replies[family].get, udp.recvfrom, udp.sendto
        answered, late = 0, False
        for _ in range(_BATCH):
            try:
                message, client = receive(_LONGEST_QUESTION)
            except BlockingIOError:
                break
            except ConnectionError:
                continue  # an earlier client has gone; Linux says so on the next call
            entry = get(message[2:])
            if entry is None or entry[1] <= began:
                answer = self._answer_udp(udp, message, client, family)
                late = time.monotonic() > began + _BATCH_SECONDS
                if answer is None:
                    if late:
                        break
                    continue
            else:
                entry[2].count += 1
                answer = drawn(message[:2], entry) if entry[5] else message[:2] + entry[0]
            answered += 1
            try:
                send(answer, client)
            except OSError as error:
                _log.debug("answer to %s not sent: %s", client, error)  # full buffers, or nobody there: UDP, it asks again
            if late:
                break
        if answered:
            self.metrics.took((time.monotonic() - began) / answered, answered)

    def _answer_udp(self, udp: socket.socket, message: bytes, client: Any, family: str) -> bytes | None:
        """What the table does not have. None if there is nothing to be sent (now)."""
        try:
            question = wire.parse_question(message)
        except FormatError as error:
            return self._unreadable(error, "udp", family)
        reply = self.resolver.answer(question, question.size)
        if reply is None:

            def send(answer: bytes) -> None:
                if udp.fileno() >= 0:
                    _send(udp, answer, client)

            self._later(question, question.size, "udp", family, send)
            return None
        tally = self._tally(question, reply, "udp", family)
        return drawn(message[:2], self._keep(family, message[2:], question, reply, tally))

    def _keep(self, family: str, key: bytes, question: Question, reply: Reply, tally: Tally) -> Entry:
        tally.count += 1
        if not question.plain:
            reply = Reply(reply.message, until=0.0)
        return self._replies[family].put(key, reply, tally)

    def _answer_tcp(self, message: bytes, family: str, send: Callable[[bytes], None]) -> bool:
        """Answer, at once or later; False for what deserves no answer."""
        entry = self._replies[family].get(TCP + message[2:])
        if entry is not None and entry[1] > time.monotonic():
            entry[2].count += 1
            send(drawn(message[:2], entry))
            return True
        try:
            question = wire.parse_question(message)
        except FormatError as error:
            answer = self._unreadable(error, "tcp", family)
            if answer is not None:
                send(answer)
            return answer is not None
        began = time.monotonic()
        reply = self.resolver.answer(question, 65535)
        if reply is not None:
            tally = self._tally(question, reply, "tcp", family)
            send(drawn(message[:2], self._keep(family, TCP + message[2:], question, reply, tally)))
            self.metrics.took(time.monotonic() - began)
        elif not self._later(question, 65535, "tcp", family, send):
            send(wire.encode(question, wire.SERVFAIL, authoritative=False))
        return True

    def _unreadable(self, error: FormatError, proto: str, family: str) -> bytes | None:
        if error.answer is not None:
            self.metrics.tally(proto, family, 0, error.answer[3] & 0xF, "error").count += 1
        return error.answer

    def _later(self, question: Question, limit: int, proto: str, family: str, send: Callable[[bytes], None]) -> bool:
        if len(self._waiting) >= MOST_WAITING:
            self.metrics.rejected.add()
            return False
        self._spawn(self._answer_later(question, limit, proto, family, send))
        return True

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _answer_later(self, question: Question, limit: int, proto: str, family: str, send: Callable[[bytes], None]) -> None:
        began = time.monotonic()
        reply = await self.resolver.answer_later(question, limit)
        self._tally(question, reply, proto, family).count += 1
        self.metrics.took(time.monotonic() - began)
        send(reply.message)

    def _tally(self, question: Question, reply: Reply, proto: str, family: str) -> Tally:
        return self.metrics.tally(proto, family, question.type, reply.message[3] & 0xF, reply.source)


def _make_room(udp: socket.socket) -> None:
    """For a burst of about 1,500 questions; what net.core.rmem_max allows by default takes 300."""
    try:
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


def _family(address: str) -> str:
    return "2" if ":" in address else "1"


def _send(udp: socket.socket, answer: bytes, client: Any) -> None:
    try:
        udp.sendto(answer, client)
    except OSError as error:
        _log.debug("answer to %s not sent: %s", client, error)
