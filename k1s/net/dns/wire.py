"""DNS messages: bytes to questions, records to bytes.

Owns: reading a question and writing an answer, as far as a cluster's DNS needs it. Called by: everything in dns; pure.
Never does: decide an answer. What is done to whole messages of others stands in message.
Source: RFC 1035, 2782 (SRV), 6891 (EDNS), 3225 (DO is echoed), 7873 (a cookie we do not know is ignored).

Written for speed: a question is read and an answer put together without an object per record on the way.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, NS, CNAME, SOA, PTR, HINFO, TXT, AAAA, SRV, OPT = 1, 2, 5, 6, 12, 13, 16, 28, 33, 41
IXFR, AXFR, ANY = 251, 252, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

# What fits into one packet on every sane path (the value of the 2020 DNS flag day).
EDNS_SIZE = 1232
PLAIN_SIZE = 512
TRUNCATED = 0x0200
HEADER = struct.Struct(">HHHHHH")
FIXED = struct.Struct(">HHIH")
_TWO = struct.Struct(">HH")
_DO = 0x8000

Name = tuple[str, ...]


class FormatError(Exception):
    """Bytes that are no question. `answer` is set where one can still be sent."""

    def __init__(self, message: str, answer: bytes | None = None) -> None:
        super().__init__(message)
        self.answer = answer


@dataclass(slots=True)
class Question:
    """A query. `name` is in lower case; `raw` the question section as sent, to be echoed; `size` what a UDP answer may have.

    `plain`: nothing in it that is different in every question (a cookie), so that the same bytes may come again.
    """

    identifier: int
    flags: int
    name: Name
    type: int
    klass: int
    raw: bytes
    edns: bool = False
    size: int = PLAIN_SIZE
    edns_version: int = 0
    dnssec: bool = False
    plain: bool = True


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
    identifier, flags, questions, answers, authorities, additional = HEADER.unpack_from(message)
    if flags & 0x8000:
        raise FormatError("not a query")
    if flags & 0x7800:
        raise FormatError("not the opcode of a query", _refusal(identifier, flags, NOTIMP))
    if questions != 1 or answers or authorities:
        raise FormatError("not exactly one question", _refusal(identifier, flags, FORMERR))
    try:
        labels, offset = _labels(message, 12)
        kind, klass = _TWO.unpack_from(message, offset)
        end = offset + 4
        question = Question(identifier, flags, labels, kind, klass, message[12:end])
        for _ in range(additional):
            end = _read_additional(message, end, question)
    except (IndexError, struct.error) as error:
        raise FormatError(str(error), _refusal(identifier, flags, FORMERR)) from error
    question.plain = question.plain and end == len(message)
    return question


def _refusal(identifier: int, flags: int, code: int) -> bytes:
    """An answer to what could not be read, without a question in it."""
    return HEADER.pack(identifier, 0x8000 | (flags & 0x7900) | code, 0, 0, 0, 0)


def _read_additional(message: bytes, offset: int, question: Question) -> int:
    owner = message[offset]
    offset = skip_name(message, offset)
    kind, size, ttl, length = FIXED.unpack_from(message, offset)
    if kind == OPT:
        if question.edns or owner:
            raise IndexError("two OPT records, or one with a name")
        question.edns = True
        question.size = min(max(size, PLAIN_SIZE), EDNS_SIZE)
        question.edns_version = (ttl >> 16) & 0xFF
        question.dnssec = bool(ttl & _DO)
        question.plain = not length
    else:
        question.plain = False
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
        if length > 63:
            raise IndexError("an extended label")
        labels.append(message[offset + 1 : offset + 1 + length].lower().decode("latin-1"))
        offset += 1 + length
    return tuple(labels)


def pack_name(name: Sequence[str]) -> bytes:
    return b"".join([bytes((len(label),)) + label.encode("latin-1") for label in name]) + b"\0"


def option(question: Question, code: int = 0) -> bytes:
    """The OPT record of an answer; nothing for a client that sent none. `code` may be an extended one."""
    if not question.edns:
        return b""
    return b"\0" + FIXED.pack(OPT, EDNS_SIZE, (code >> 4) << 24 | (_DO if question.dnssec else 0), 0)


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
    """The answer message. What does not fit into `limit` is left out: first what stands beside the answer, then records of
    the answer itself, which sets TC. As many as fit stay, because musl before 1.2.4 takes those and asks no further.
    """
    # QR, the query's RD, RA because forwarding is offered.
    flags = 0x8080 | (question.flags & 0x0100) | (code & 0xF) | (0x400 if authoritative else 0)
    opt = option(question, code)
    room = limit - 12 - len(question.raw) - len(opt)
    found = [_packed(record, question) for record in answers]
    beside = [_packed(record, question) for record in authority]
    more = [_packed(record, question) for record in additional]
    room -= _length(found) + _length(beside) + _length(more)
    if room < 0:
        room += _length(more)
        more = []
    if room < 0:
        room += _length(beside)
        beside = []
    if room < 0:
        flags |= TRUNCATED
        while room < 0 and found:
            room += len(found.pop())
    head = HEADER.pack(question.identifier, flags, 1, len(found), len(beside), len(more) + (1 if opt else 0))
    return b"".join([head, question.raw, *found, *beside, *more, opt])


def _length(parts: Sequence[bytes]) -> int:
    return sum(map(len, parts))


def _packed(record: Record, question: Question) -> bytes:
    owner = b"\xc0\x0c" if record.name == question.name else _pack_owner(record.name, question)
    return owner + FIXED.pack(record.type, IN, record.ttl, len(record.data)) + record.data


def _pack_owner(name: Name, question: Question) -> bytes:
    """The labels that the question's name does not end in, then a pointer into it."""
    asked = question.name
    shared = 0
    while shared < min(len(name), len(asked)) and name[-1 - shared] == asked[-1 - shared]:
        shared += 1
    if not shared:
        return pack_name(name)
    offset = 12 + sum(len(label) + 1 for label in asked[: len(asked) - shared])
    return pack_name(name[: len(name) - shared])[:-1] + struct.pack(">H", 0xC000 | offset)


def encode_query(
    name: Name, kind: int, identifier: int, *, flags: int = 0x0100, edns: bool = True, dnssec: bool = False
) -> bytes:
    """A question; recursive and with EDNS unless said otherwise."""
    opt = b"\0" + FIXED.pack(OPT, EDNS_SIZE, _DO if dnssec else 0, 0) if edns else b""
    return HEADER.pack(identifier, flags, 1, 0, 0, 1 if edns else 0) + pack_name(name) + _TWO.pack(kind, IN) + opt
