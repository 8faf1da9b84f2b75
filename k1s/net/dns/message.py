"""Answers of other servers: checked, cut to size, and sent on under the client's own question.

Owns: walking the records of a message that somebody else wrote. Called by: dns.upstream, cache, resolver; pure.
Never does: trust it: every function raises MessageError, and only that, for bytes that make no sense.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from k1s.net.dns import wire
from k1s.net.dns.wire import FIXED, HEADER, Question, Record

# A pointer for a name, then the fixed part and an address: records of which any order may stand in an answer.
_A_LENGTH, _AAAA_LENGTH = 2 + 10 + 4, 2 + 10 + 16


class MessageError(Exception):
    """Not a message that could be sent on."""


class Place(NamedTuple):
    """Where a record is in its message. `section`: 0 answer, 1 authority, 2 additional."""

    section: int
    type: int
    ttl: int
    start: int
    fixed: int
    end: int

    @property
    def data(self) -> int:
        return self.fixed + 10


def places(message: bytes) -> list[Place]:
    """Every record, in order. Raises MessageError."""
    return list(_walk(message))


def _walk(message: bytes) -> Iterator[Place]:
    try:
        _, _, questions, *counts = HEADER.unpack_from(message)
        if questions != 1:
            raise MessageError(f"{questions} questions in an answer")
        offset = wire.skip_name(message, 12) + 4
        for section, count in enumerate(counts):
            for _ in range(count):
                fixed = wire.skip_name(message, offset)
                kind, _, ttl, length = FIXED.unpack_from(message, fixed)
                end = fixed + 10 + length
                if end > len(message):
                    raise MessageError("a record reaches past the message")
                yield Place(section, kind, ttl, offset, fixed, end)
                offset = end
    except (IndexError, struct.error) as error:
        raise MessageError(str(error)) from error


def _question_end(message: bytes) -> int:
    try:
        return wire.skip_name(message, 12) + 4
    except IndexError as error:
        raise MessageError(str(error)) from error


def without_option(message: bytes) -> bytes:
    """The message without its OPT record, and without what stands behind that; OPT belongs to one hop only.

    Raises MessageError, also for an extended error code.
    """
    end, counts = _question_end(message), [0, 0, 0]
    for place in _walk(message):
        if place.type == wire.OPT:
            if place.ttl >> 24:
                raise MessageError(f"extended error {place.ttl >> 24}")
            break
        counts[place.section] += 1
        end = place.end
    return message[:6] + struct.pack(">HHH", *counts) + message[12:end]


def addressed(message: bytes, question: Question, limit: int) -> bytes:
    """With the client's identifier, its spelling of the name (some check that upper and lower case come back), its EDNS,
    and cut to `limit`. `message` answers this question and has no OPT.
    """
    opt = wire.option(question)
    end, counts = len(message), list(struct.unpack_from(">HHH", message, 6))
    # Not authoritative, whatever the resolver said: we are not.
    high, low = message[2] & 0xFB & 0xFE | (question.flags >> 8) & 0x01, message[3] | 0x80
    if end + len(opt) > limit:
        end, counts, whole = _fitting(message, limit - len(opt))
        high |= 0 if whole else wire.TRUNCATED >> 8
    if opt:
        counts[2] += 1
    head = struct.pack(">HBBHHHH", question.identifier, high, low, 1, *counts)
    return head + question.raw + message[12 + len(question.raw) : end] + opt


def _fitting(message: bytes, limit: int) -> tuple[int, list[int], bool]:
    """Where to cut, what is left in each section, and whether the answer section is whole."""
    end, counts, whole = _question_end(message), [0, 0, 0], True
    for place in _walk(message):
        if place.end > limit:
            whole = place.section > 0
            break
        end = place.end
        counts[place.section] += 1
    return end, counts, whole


def ttl_places(message: bytes) -> list[tuple[int, int]]:
    """(offset, ttl) of every record. An SOA beside the answer also bounds by its minimum (RFC 2308)."""
    found = []
    for place in _walk(message):
        ttl = place.ttl if place.ttl < 1 << 31 else 0  # RFC 2181, 8
        if place.type == wire.SOA and place.section == 1 and place.end - place.data >= 20:
            (minimum,) = struct.unpack_from(">I", message, place.end - 4)
            ttl = min(ttl, minimum)
        found.append((place.fixed + 4, ttl))
    return found


def plain_records(message: bytes) -> list[Record]:
    """Addresses and aliases of the answer section, with names in full so that they can stand in another message."""
    found = []
    try:
        for place in _walk(message):
            if place.section:
                break
            owner = wire.read_name(message, place.start)
            if place.type in (wire.A, wire.AAAA, wire.TXT):
                found.append(Record(owner, place.type, place.ttl, message[place.data : place.end]))
            elif place.type in (wire.CNAME, wire.PTR, wire.NS):
                data = wire.pack_name(wire.read_name(message, place.data))
                found.append(Record(owner, place.type, place.ttl, data))
    except IndexError as error:
        raise MessageError(str(error)) from error
    return found


def movable(message: bytes) -> tuple[int, int, int]:
    """(start, end, length of each) of the address records that end the answer section, where they may stand in any order.

    (0, 0, 0) where there are less than two, or names in them that others may point to.
    """
    start = end = length = 0
    kind = -1
    for place in _walk(message):
        if place.section:
            break
        size = place.end - place.start
        fits = (place.type, size) in ((wire.A, _A_LENGTH), (wire.AAAA, _AAAA_LENGTH)) and message[place.start] >= 0xC0
        if not fits:
            kind = -1
        elif kind == place.type and message[place.start : place.fixed] == message[start : start + 2]:
            end = place.end
            continue
        else:
            kind = place.type
        start, end, length = place.start, place.end, size
    return (start, end, length) if kind >= 0 and end - start > length else (0, 0, 0)
