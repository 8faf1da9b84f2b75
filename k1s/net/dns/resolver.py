"""What happens to a question: what a person fixed, else the zone, else names of nodes, else a resolver outside.

Owns: that order, aliases on the way, and what is refused. Called by: dns.server. Never does: sockets.
Source: RFC 8482 (ANY), RFC 6891 (BADVERS).
"""

from __future__ import annotations

import logging
import math
import random
import time
from dataclasses import dataclass, field

from k1s.net.dns import message as messages
from k1s.net.dns import wire
from k1s.net.dns.answers import TTL, Answer, ClusterZone
from k1s.net.dns.forward import Forwarder, ForwardError
from k1s.net.dns.hosts import HostTable
from k1s.net.dns.message import MessageError
from k1s.net.dns.wire import Name, Question, Record

_MOST_ALIASES = 8
_CUT_SECONDS = 1.0
_log = logging.getLogger("k1s.net.dns")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. It may be repeated until the monotonic time `until`; `endpoints` as in Answer; `source` as in Tally."""

    message: bytes
    source: str = "zone"
    until: float = math.inf
    endpoints: tuple[str, ...] = ()


@dataclass(slots=True)
class _Walk:
    """Where aliases led. `outside`: the name that only others know, else `last` is the end."""

    records: list[Record] = field(default_factory=list)
    last: Answer = field(default_factory=Answer)
    outside: Name | None = None
    endpoints: tuple[str, ...] = ()


class Resolver:
    """`overrides` and `nodes` may be replaced at any time; whoever does it forgets answers made before."""

    def __init__(self, zone: ClusterZone, forwarder: Forwarder) -> None:
        self._zone, self._forwarder = zone, forwarder
        self.overrides = HostTable()
        self.nodes = HostTable()

    def answer(self, question: Question, limit: int) -> Reply | None:
        """The answer, if nobody has to be asked for it."""
        if question.edns_version:
            return _error(question, wire.BADVERS)
        if question.klass != wire.IN or question.type in (wire.AXFR, wire.IXFR):
            return _error(question, wire.REFUSED)
        walk = self._walk(question)
        if walk.outside is None:
            last = walk.last
            message = wire.encode(question, last.code, walk.records, last.authority, last.additional, limit=limit)
            if message[2] & (wire.TRUNCATED >> 8):
                message = wire.encode(question, last.code, _drawn(walk.records), limit=limit)
                return Reply(message, until=time.monotonic() + _CUT_SECONDS, endpoints=walk.endpoints)
            return Reply(message, endpoints=walk.endpoints)
        if question.type == wire.HINFO and self._forwarder.came_back(walk.outside):
            return Reply(_error(question, wire.REFUSED).message, "error", 0.0)
        if question.type == wire.ANY and not walk.records:
            text = b"\x07RFC8482\0"
            return Reply(wire.encode(question, 0, [Record(question.name, wire.HINFO, TTL, text)], authoritative=False), "error")
        return self._cached(question, walk, limit)

    async def answer_later(self, question: Question, limit: int) -> Reply:
        """After `answer` gave None: with the help of others. SERVFAIL if there is none."""
        walk = self._walk(question)
        try:
            if walk.outside is not None:
                message = await self._forwarder.ask(_inner(question, walk))
                return Reply(_joined(question, walk, message, limit), "forward", 0.0)
        except (ForwardError, MessageError) as error:
            _log.debug("%s: %s", ".".join(question.name), error)
        return Reply(wire.encode(question, wire.SERVFAIL, authoritative=False), "forward", 0.0)

    def _cached(self, question: Question, walk: _Walk, limit: int) -> Reply | None:
        found = self._forwarder.cached(_inner(question, walk))
        if found is None:
            return None
        message, until = found
        try:
            return Reply(_joined(question, walk, message, limit), "cache", until, walk.endpoints)
        except MessageError:
            return None  # good enough to be sent on, but not to be taken apart

    def _walk(self, question: Question) -> _Walk:
        """Aliases are followed for the client: few of them do it themselves."""
        walk, name = _Walk(), question.name
        for _ in range(_MOST_ALIASES):
            found = self._inside(name, question.type)
            if found is None:
                walk.outside = name
                return walk
            walk.records += found.records
            walk.endpoints += found.endpoints
            walk.last = found
            if not found.alias or question.type == wire.CNAME:
                return walk
            name = found.alias
        walk.last = Answer(wire.SERVFAIL)
        return walk

    def _inside(self, name: Name, kind: int) -> Answer | None:
        found = self.overrides.answer(name, kind)
        if found is None and self._zone.owns(name):
            return self._zone.answer(name, kind)
        return self.nodes.answer(name, kind) if found is None else found


def _drawn(records: list[Record]) -> list[Record]:
    """Aliases, then the rest in any order: of an answer that is cut everybody would get the same part for ever."""
    aliases = [record for record in records if record.type == wire.CNAME]
    rest = [record for record in records if record.type != wire.CNAME]
    random.shuffle(rest)
    return aliases + rest


def _error(question: Question, code: int) -> Reply:
    return Reply(wire.encode(question, code, authoritative=False), "error")


def _inner(question: Question, walk: _Walk) -> Question:
    """What is asked outside: the question itself, or the same for the name that our aliases led to."""
    if not walk.records or walk.outside is None:
        return question
    return wire.parse_question(wire.encode_query(walk.outside, question.type, 0))


def _joined(question: Question, walk: _Walk, message: bytes, limit: int) -> bytes:
    """An answer from outside as this client gets it, behind our own aliases where those led there. Raises MessageError."""
    if not walk.records:
        return messages.addressed(message, question, limit)
    return wire.encode(question, message[3] & 0xF, walk.records + messages.plain_records(message), limit=limit)
