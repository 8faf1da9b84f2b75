"""Questions that are not the cluster's, asked of the host's resolvers.

Owns: the list of resolvers, the sockets, retries, and joining equal questions. Called by: dns.server.
Never does: answer from the zone.

Bounds: 512 different questions under way, further ones fail at once (SERVFAIL, the client asks again); an equal question
joins the one under way, which is also why a resolver that sends us our own question back cannot make a storm: it waits for
itself and times out. Each resolver gets 2 s, two rounds, one that failed is asked last for 10 s.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import struct
from collections.abc import Collection
from contextlib import suppress

from k1s.base.clock import Clock
from k1s.net.dns import wire
from k1s.net.dns.cache import Cache, Key
from k1s.net.dns.wire import Question
from k1s.net.family import parse_address

MOST_UNDER_WAY = 512
TIMEOUT, ROUNDS, SHUNNED_SECONDS = 2.0, 2, 10.0
_MOST_RESOLVERS = 3
_log = logging.getLogger("k1s.net.dns")


class ForwardError(Exception):
    """No resolver gave an answer; the client is told SERVFAIL."""


class Forwarder:
    """The host's resolvers. The file that names them is looked at again when it has changed, on use only."""

    def __init__(self, resolv_conf: str, *, own_addresses: Collection[str], clock: Clock, port: int = 53) -> None:
        self._file, self._own, self._clock, self._port = resolv_conf, frozenset(own_addresses), clock, port
        self._cache = Cache()
        self._under_way: dict[Key, asyncio.Task[bytes]] = {}
        self._resolvers: list[str] = []
        self._seen: tuple[int, int] | None = None
        self._shunned: dict[str, float] = {}

    def cached(self, question: Question) -> bytes | None:
        """An answer that needs no waiting."""
        message = self._cache.get(_key(question), self._clock.monotonic())
        return _addressed(message, question) if message is not None else None

    async def ask(self, question: Question) -> bytes:
        """The answer message, addressed to this question. Raises ForwardError."""
        key = _key(question)
        task = self._under_way.get(key)
        if task is None:
            if len(self._under_way) >= MOST_UNDER_WAY:
                raise ForwardError(f"{MOST_UNDER_WAY} questions are under way")
            task = asyncio.ensure_future(self._resolve(question, key))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        # Shielded: one client that gives up must not take the answer from the others.
        return _addressed(await asyncio.shield(task), question)

    def _finished(self, key: Key, done: asyncio.Task[bytes]) -> None:
        self._under_way.pop(key, None)
        # Everybody who asked may have given up; the failure is theirs to report, not the event loop's.
        if not done.cancelled():
            done.exception()

    async def close(self) -> None:
        for task in list(self._under_way.values()):
            task.cancel()
            with suppress(asyncio.CancelledError, ForwardError):
                await task

    async def _resolve(self, question: Question, key: Key) -> bytes:
        resolvers = self._order()
        if not resolvers:
            raise ForwardError(f"{self._file} names no resolver that could be asked")
        fault = ""
        for _ in range(ROUNDS):
            for resolver in resolvers:
                try:
                    async with asyncio.timeout(TIMEOUT):
                        message = await self._exchange(resolver, question)
                except (OSError, TimeoutError, asyncio.IncompleteReadError, struct.error, IndexError) as error:
                    fault = f"{resolver}: {error or 'no answer in time'}"
                    self._shunned[resolver] = self._clock.monotonic() + SHUNNED_SECONDS
                    continue
                if message[3] & 0xF in (wire.SERVFAIL, wire.REFUSED, wire.NOTIMP) and resolver != resolvers[-1]:
                    fault = f"{resolver}: answered with code {message[3] & 0xF}"
                    continue
                self._shunned.pop(resolver, None)
                self._cache.put(key, message, self._clock.monotonic())
                return message
        raise ForwardError(fault)

    def _order(self) -> list[str]:
        now = self._clock.monotonic()
        return sorted(self._read(), key=lambda resolver: self._shunned.get(resolver, 0.0) > now)

    def _read(self) -> list[str]:
        """The resolvers of the file; without those that lead back to us."""
        try:
            stat = os.stat(self._file)
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen != self._seen:
                with open(self._file, encoding="utf-8", errors="replace") as file:
                    self._resolvers = resolvers_in(file.read(), self._own)
                self._seen = seen
                self._shunned.clear()
        except OSError as error:
            raise ForwardError(f"{self._file}: {error.strerror}") from error
        return self._resolvers

    async def _exchange(self, resolver: str, question: Question) -> bytes:
        query = _upstream_query(question)
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
        # A socket of its own, so that a forged answer would have to guess port and identifier.
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as udp:
            udp.connect((resolver, self._port))
            udp.send(query)
            while True:
                message = await loop.sock_recv(udp, 65535)
                if _is_answer_to(message, query):
                    break
        if message[2] & 0x02:
            message = await self._exchange_tcp(resolver, query)
        return message

    async def _exchange_tcp(self, resolver: str, query: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(resolver, self._port)
        try:
            writer.write(struct.pack(">H", len(query)) + query)
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            message = await reader.readexactly(length)
        finally:
            writer.close()
        if not _is_answer_to(message, query):
            raise OSError("answered another question over TCP")
        return message


def resolvers_in(text: str, own: Collection[str]) -> list[str]:
    """The nameserver lines of a resolv.conf; our own addresses are no resolvers."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and parse_address(words[1].partition("%")[0]) is not None:
            if words[1] not in own and words[1] not in found:
                found.append(words[1])
    return found[:_MOST_RESOLVERS]


def _key(question: Question) -> Key:
    flags = (question.flags & 0x30) | (1 if question.edns else 0) | (2 if question.dnssec else 0)
    return (question.name, question.type, question.klass, flags)


def _upstream_query(question: Question) -> bytes:
    """The same question in lower case, recursion desired, with our own size in EDNS if the client speaks it."""
    body = wire.pack_name(question.name) + question.raw[-4:]
    option = b""
    if question.edns:
        option = b"\0" + struct.pack(">HHIH", wire.OPT, wire.EDNS_SIZE, 0x8000 if question.dnssec else 0, 0)
    flags = 0x0100 | (question.flags & 0x30)
    return struct.pack(">HHHHHH", secrets.randbits(16), flags, 1, 0, 0, 1 if option else 0) + body + option


def _is_answer_to(message: bytes, query: bytes) -> bool:
    """Same identifier, an answer, and the same question (which stands uncompressed at the same place)."""
    if len(message) < 12 or message[:2] != query[:2] or not message[2] & 0x80:
        return False
    if message[4:6] != b"\0\1":
        return False
    end = wire.skip_name(query, 12) + 4
    return message[12:end].lower() == query[12:end].lower()


def _addressed(message: bytes, question: Question) -> bytes:
    """With the client's identifier and its spelling of the name (some check that upper and lower case come back)."""
    end = 12 + len(question.raw)
    # Not authoritative, whatever the resolver said: we are not.
    flags = bytes((message[2] & 0xFB | (question.flags >> 8) & 0x01, message[3] | 0x80))
    return question.identifier.to_bytes(2) + flags + message[4:12] + question.raw + message[end:]
