"""DNS messages: bytes to questions, records to bytes.

Owns: the wire format as far as a cluster's DNS needs it. Called by: dns.server, forward, cache; pure.
Never does: decide an answer. Source: RFC 1035, 2782 (SRV), 6891 (EDNS).

Written for speed: a question is read and an answer put together without an object per record on the way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, OPT, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

# What fits into one packet on every sane path (the value of the 2020 DNS flag day).
EDNS_SIZE = 1232
_PLAIN_SIZE = 512
_HEADER = struct.Struct(">HHHHHH")
_FIXED = struct.Struct(">HHIH")
_TWO = struct.Struct(">HH")

Name = tuple[str, ...]


class FormatError(Exception):
    """Bytes that are no DNS message. `identifier` is set where an answer can still be sent."""

    def __init__(self, message: str, identifier: int | None = None) -> None:
        super().__init__(message)
        self.identifier = identifier


@dataclass(slots=True)
class Question:
    """A query. `name` is in lower case; `raw` the question section as sent, to be echoed; `size` what a UDP answer may have."""

    identifier: int
    flags: int
    name: Name
    type: int
    klass: int
    raw: bytes
    edns: bool
    size: int
    edns_version: int = 0
    dnssec: bool = False

    @property
    def opcode(self) -> int:
        return (self.flags >> 11) & 0xF


@dataclass(frozen=True, slots=True)
class Record:
    """A record whose owner is `name`, with rdata in wire format, names in it uncompressed."""

    name: Name
    type: int
    ttl: int
    data: bytes


def parse_question(message: bytes) -> Question:
    """Read a query. Raises FormatError."""
    if len(message) < 12:
        raise FormatError("shorter than a header")
    identifier, flags, questions, answers, authorities, additional = _HEADER.unpack_from(message)
    if flags & 0x8000:
        raise FormatError("not a query")
    if questions != 1 or answers or authorities:
        raise FormatError("not exactly one question", identifier)
    try:
        labels, offset = _labels(message, 12)
        kind, klass = _TWO.unpack_from(message, offset)
        end = offset + 4
        question = Question(identifier, flags, labels, kind, klass, message[12:end], False, _PLAIN_SIZE)
        for _ in range(additional):
            end = _read_additional(message, end, question)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise FormatError(str(error), identifier) from error
    return question


def _read_additional(message: bytes, offset: int, question: Question) -> int:
    offset = skip_name(message, offset)
    kind, size, ttl, length = _FIXED.unpack_from(message, offset)
    if kind == OPT:
        question.edns = True
        question.size = min(max(size, _PLAIN_SIZE), EDNS_SIZE)
        question.edns_version = (ttl >> 16) & 0xFF
        question.dnssec = bool(ttl & 0x8000)
    end = offset + 10 + length
    if end > len(message):
        raise IndexError("a record reaches past the message")
    return int(end)


def _labels(message: bytes, offset: int) -> tuple[Name, int]:
    """A question's name, lower case; compression makes no sense there and is refused."""
    labels = []
    start = offset
    while length := message[offset]:
        if length > 63:
            raise IndexError("a compressed or extended label in a question")
        end = offset + 1 + length
        # latin-1 keeps every byte apart, and comparing with names of Services stays exact.
        labels.append(message[offset + 1 : end].lower().decode("latin-1"))
        offset = end
    if offset - start > 254 or offset >= len(message):
        raise IndexError("a name longer than 255 bytes")
    return tuple(labels), offset + 1


def skip_name(message: bytes, offset: int) -> int:
    """The offset after a name, compressed or not."""
    while length := message[offset]:
        if length >= 0xC0:
            return offset + 2
        offset += 1 + length
    return offset + 1


def read_name(message: bytes, offset: int) -> Name:
    """A name with compression followed; pointers may only lead back, so that it ends."""
    labels: list[str] = []
    limit = len(message)
    while length := message[offset]:
        if length >= 0xC0:
            target = ((length & 0x3F) << 8) | message[offset + 1]
            if target >= limit:
                raise IndexError("a compression pointer that does not lead back")
            limit = offset = target
            continue
        labels.append(message[offset + 1 : offset + 1 + length].lower().decode("latin-1"))
        offset += 1 + length
    return tuple(labels)


def pack_name(name: Sequence[str]) -> bytes:
    return b"".join([bytes((len(label),)) + label.encode("latin-1") for label in name]) + b"\0"


def records(message: bytes) -> Iterator[tuple[Name, int, int, int, int]]:
    """(owner, type, ttl, offset of rdata, its length) of each answer record."""
    _, _, questions, answers, _, _ = _HEADER.unpack_from(message)
    offset = 12
    for _ in range(questions):
        offset = skip_name(message, offset) + 4
    for _ in range(answers):
        owner = read_name(message, offset)
        offset = skip_name(message, offset)
        kind, _, ttl, length = _FIXED.unpack_from(message, offset)
        yield owner, kind, ttl, offset + 10, length
        offset += 10 + length


def encode(
    question: Question,
    code: int,
    answers: Sequence[Record] = (),
    authority: Sequence[Record] = (),
    additional: Sequence[Record] = (),
    *,
    authoritative: bool = True,
    limit: int = 65535,
) -> bytes:
    """The answer message. One that would be longer than `limit` is cut to its question, with TC set: ask again over TCP."""
    # QR, the query's opcode and RD, RA because forwarding is offered.
    flags = 0x8080 | (question.flags & 0x7900) | (code & 0xF) | (0x400 if authoritative else 0)
    option = _FIXED.pack(OPT, EDNS_SIZE, (code >> 4) << 24, 0) if question.edns else b""
    parts = [question.raw]
    for record in (*answers, *authority, *additional):
        owner = b"\xc0\x0c" if record.name == question.name else _pack_owner(record.name, question)
        parts.append(owner + _FIXED.pack(record.type, IN, record.ttl, len(record.data)) + record.data)
    if option:
        parts.append(b"\0" + option)
    body = b"".join(parts)
    if len(body) + 12 > limit:
        return truncated(question, flags)
    extra = len(additional) + (1 if option else 0)
    return _HEADER.pack(question.identifier, flags, 1, len(answers), len(authority), extra) + body


def truncated(question: Question, flags: int) -> bytes:
    """Nothing but the question and TC: the answer did not fit."""
    option = b"\0" + _FIXED.pack(OPT, EDNS_SIZE, 0, 0) if question.edns else b""
    return _HEADER.pack(question.identifier, flags | 0x200, 1, 0, 0, 1 if option else 0) + question.raw + option


def _pack_owner(name: Name, question: Question) -> bytes:
    """An owner that ends the question's name (a zone) is a pointer into it."""
    skipped = len(question.name) - len(name)
    if skipped > 0 and name and question.name[skipped:] == name:
        offset = 12 + sum(len(label) + 1 for label in question.name[:skipped])
        return struct.pack(">H", 0xC000 | offset)
    return pack_name(name)


def encode_query(name: Name, kind: int, identifier: int) -> bytes:
    """A recursive question with EDNS."""
    question = pack_name(name) + _TWO.pack(kind, IN)
    return _HEADER.pack(identifier, 0x0100, 1, 0, 0, 1) + question + b"\0" + _FIXED.pack(OPT, EDNS_SIZE, 0, 0)


def encode_error(identifier: int, code: int) -> bytes:
    """An answer to what could not be read."""
    return _HEADER.pack(identifier, 0x8000 | code, 0, 0, 0, 0)
