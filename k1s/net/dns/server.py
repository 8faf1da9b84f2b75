"""The cluster's DNS server: UDP and TCP on one address.

Owns: the sockets, and what happens to a question: zone, else cache, else forward. Called by: agent.network.app.
Never does: know a Service (answers).

Bounds: 1,024 questions wait for upstream resolvers, further ones are dropped unanswered (a client asks again); 128 TCP
connections, each closed after 10 s without a question. Questions of the zone never wait.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Coroutine, Sequence
from typing import Any

from k1s.net.dns import wire
from k1s.net.dns.answers import Answer, ClusterZone, Zone
from k1s.net.dns.forward import Forwarder, ForwardError
from k1s.net.dns.wire import FormatError, Name, Question, Record
from k1s.net.family import Network

MOST_WAITING, MOST_CONNECTIONS = 1024, 128
_IDLE_SECONDS = 10.0
# Questions taken per turn of the loop, so that a flood leaves time for everything else.
_BATCH = 64
_MOST_ALIASES = 8
_RECEIVE_BUFFER = 1 << 20
_log = logging.getLogger("k1s.net.dns")


class DnsServer:
    """Answers between `start` and `stop`. `answered` and `forwarded` count."""

    def __init__(
        self,
        zone: Zone,
        forwarder: Forwarder,
        *,
        domain: str,
        address: str,
        reverse: Sequence[Network] = (),
        port: int = 53,
    ) -> None:
        self._zone = ClusterZone(zone, domain, address, reverse)
        self._forwarder = forwarder
        self._address, self._port = address, port
        self._udp: socket.socket | None = None
        self._tcp: asyncio.Server | None = None
        self._waiting: set[asyncio.Task[None]] = set()
        self._connections = 0
        self.answered = 0
        self.forwarded = 0

    async def start(self) -> int:
        """Bind and return the port. The address must be on a link of this host.

        Where a resolver of the host's has taken the port on every address (dnsmasq, Pi-hole), another port is used; the
        caller has to lead questions there.
        """
        try:
            await self._bind(self._port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _log.info("port %d of %s is taken by a listener on all addresses, using another", self._port, self._address)
            self._close()
            await self._bind(0)
        return self._port

    async def _bind(self, port: int) -> None:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        self._tcp = await asyncio.start_server(self._connection, self._address, port)
        self._port = self._tcp.sockets[0].getsockname()[1]
        self._udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._udp.bind((self._address, self._port))
        asyncio.get_running_loop().add_reader(self._udp, self._readable, self._udp)

    def _close(self) -> None:
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp)
            self._udp.close()
            self._udp = None
        if self._tcp is not None:
            self._tcp.close()
            self._tcp = None

    async def stop(self) -> None:
        self._close()
        for task in list(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        await self._forwarder.close()

    def _readable(self, udp: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                message, client = udp.recvfrom(4096)
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # an earlier client has gone; Linux says so on the next call
            answer = self.answer(message, udp=True)
            if isinstance(answer, bytes):
                _send(udp, answer, client)
            elif answer is not None and len(self._waiting) < MOST_WAITING:
                self._spawn(self._answer_later(udp, answer, client))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _answer_later(self, udp: socket.socket, question: Question, client: Any) -> None:
        _send(udp, _fitting(await self._ask(question), question), client)

    def answer(self, message: bytes, *, udp: bool) -> bytes | Question | None:
        """The answer; or the question, if somebody upstream has to be asked; or None for what deserves no answer."""
        try:
            question = wire.parse_question(message)
        except FormatError as error:
            return wire.encode_error(error.identifier, wire.FORMERR) if error.identifier is not None else None
        self.answered += 1
        if question.opcode != 0 or question.klass not in (wire.IN, wire.ANY):
            return wire.encode(question, wire.NOTIMP if question.opcode else wire.REFUSED, authoritative=False)
        if question.edns_version:
            return wire.encode(question, wire.BADVERS, authoritative=False)
        limit = question.size if udp else 65535
        if not self._zone.owns(question.name):
            cached = self._forwarder.cached(question)
            return question if cached is None else (_fitting(cached, question) if udp else cached)
        found = self._zone.answer(question.name, question.type)
        if found.alias and question.type != wire.CNAME:
            return self._follow_inside(question, found, limit)
        return wire.encode(question, found.code, found.records, found.authority, found.additional, limit=limit)

    def _follow_inside(self, question: Question, found: Answer, limit: int) -> bytes | Question:
        """Aliases are followed for the client: few of them do it themselves."""
        records, alias = list(found.records), found.alias
        for _ in range(_MOST_ALIASES):
            if not self._zone.owns(alias):
                return question
            found = self._zone.answer(alias, question.type)
            records += found.records
            if not found.alias:
                return wire.encode(question, found.code, records, found.authority, found.additional, limit=limit)
            alias = found.alias
        return wire.encode(question, wire.SERVFAIL, records, limit=limit)

    async def _ask(self, question: Question) -> bytes:
        """Upstream's answer, put behind our own aliases where those led there; SERVFAIL if there is none."""
        self.forwarded += 1
        try:
            if not self._zone.owns(question.name):
                return await self._forwarder.ask(question)
            return await self._follow_outside(question)
        except ForwardError as error:
            _log.debug("%s: %s", ".".join(question.name), error)
            return wire.encode(question, wire.SERVFAIL, authoritative=False)

    async def _follow_outside(self, question: Question) -> bytes:
        records: list[Record] = []
        alias: Name = question.name
        while self._zone.owns(alias):
            found = self._zone.answer(alias, question.type)
            records += found.records
            if not found.alias or len(records) > _MOST_ALIASES:
                return wire.encode(question, found.code, records, found.authority)
            alias = found.alias
        inner = wire.parse_question(wire.encode_query(alias, question.type, 0))
        message = self._forwarder.cached(inner) or await self._forwarder.ask(inner)
        return wire.encode(question, message[3] & 0xF, records + _plain_records(message))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            while self._connections <= MOST_CONNECTIONS:
                async with asyncio.timeout(_IDLE_SECONDS):
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                    message = await reader.readexactly(length)
                answer = self.answer(message, udp=False)
                if isinstance(answer, Question):
                    answer = await self._ask(answer)
                if answer is None:
                    return
                writer.write(struct.pack(">H", len(answer)) + answer)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return  # the client has gone, or has nothing more to ask
        finally:
            self._connections -= 1
            writer.close()


def _send(udp: socket.socket, answer: bytes, client: Any) -> None:
    try:
        udp.sendto(answer, client)
    except OSError as error:
        # Full buffers or a client that cannot be reached: UDP, it asks again.
        _log.debug("answer to %s not sent: %s", client, error)


def _fitting(message: bytes, question: Question) -> bytes:
    """An upstream answer too long for this client's UDP becomes "ask over TCP"."""
    if len(message) <= question.size:
        return message
    return wire.truncated(question, int.from_bytes(message[2:4]))


def _plain_records(message: bytes) -> list[Record]:
    """Addresses and aliases of an upstream answer, with names in full so that they can stand in another message."""
    found = []
    for owner, kind, ttl, offset, length in wire.records(message):
        if kind in (wire.A, wire.AAAA, wire.TXT):
            found.append(Record(owner, kind, ttl, message[offset : offset + length]))
        elif kind in (wire.CNAME, wire.PTR, wire.NS):
            found.append(Record(owner, kind, ttl, wire.pack_name(wire.read_name(message, offset))))
    return found
