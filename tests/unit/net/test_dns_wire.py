"""DNS bytes, checked against dnslib as an independent reader and writer."""

from __future__ import annotations

import socket

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k1s.net.dns import wire
from k1s.net.dns.message import plain_records
from k1s.net.dns.wire import FormatError, Record

ZONE = ("cluster", "local")
NAME = ("web", "shop", "svc", *ZONE)


def query(name: str = "Web.Shop.svc.cluster.local", kind: str = "A", *, size: int = 0, do: bool = False) -> bytes:
    message = dnslib.DNSRecord.question(name, kind)
    if size:
        message.add_ar(dnslib.EDNS0(udp_len=size, flags="do" if do else ""))
    return bytes(message.pack())


def test_question_is_read_in_lower_case_and_echoed_as_sent() -> None:
    message = query()
    question = wire.parse_question(message)
    assert question.name == NAME
    assert (question.type, question.klass, question.edns, question.size) == (wire.A, wire.IN, False, 512)
    answer = wire.encode(question, wire.NOERROR, [Record(NAME, wire.A, 5, socket.inet_aton("10.43.0.7"))])
    read = dnslib.DNSRecord.parse(answer)
    assert read.header.id == question.identifier
    assert (read.header.qr, read.header.aa, read.header.rd, read.header.ra, read.header.rcode) == (1, 1, 1, 1, 0)
    assert str(read.q.qname) == "Web.Shop.svc.cluster.local."
    assert [(str(r.rname).lower(), r.ttl, str(r.rdata)) for r in read.rr] == [("web.shop.svc.cluster.local.", 5, "10.43.0.7")]


@pytest.mark.parametrize(("sent", "used"), [(100, 512), (512, 512), (1000, 1000), (4096, 1232)])
def test_edns_size_and_flags(sent: int, used: int) -> None:
    question = wire.parse_question(query(size=sent, do=True))
    assert (question.edns, question.size, question.dnssec) == (True, used, True)
    read = dnslib.DNSRecord.parse(wire.encode(question, wire.BADVERS))
    assert [(r.rtype, r.edns_len, r.edns_ver) for r in read.ar] == [(wire.OPT, 1232, 0)]
    assert read.ar[0].edns_rcode == 1
    assert read.header.rcode == 0


def test_soa_owner_points_into_the_question() -> None:
    question = wire.parse_question(query())
    soa = wire.pack_name(("ns", *ZONE)) + wire.pack_name(("h", *ZONE)) + bytes(20)
    read = dnslib.DNSRecord.parse(wire.encode(question, wire.NXDOMAIN, authority=[Record(ZONE, wire.SOA, 5, soa)]))
    assert read.header.rcode == wire.NXDOMAIN
    assert [str(r.rname) for r in read.auth] == ["cluster.local."]


def test_too_long_becomes_truncated() -> None:
    question = wire.parse_question(query(size=600))
    records = [Record(NAME, wire.A, 5, bytes((10, 42, 0, n))) for n in range(60)]
    whole = dnslib.DNSRecord.parse(wire.encode(question, wire.NOERROR, records))
    assert (len(whole.rr), whole.header.tc) == (60, 0)
    cut = wire.encode(question, wire.NOERROR, records, limit=question.size)
    read = dnslib.DNSRecord.parse(cut)
    # As many as fit, for clients that do not ask again over TCP.
    assert (read.header.tc, len(read.ar)) == (1, 1)
    assert 584 < len(cut) <= 600
    assert len(read.rr) == (len(cut) - 12 - len(question.raw) - 11) // 16


@pytest.mark.parametrize(
    "message",
    [b"", b"\0" * 11, query()[:20], query(size=1232)[:-3], query()[:4] + b"\0\2" + query()[6:], query()[:-1]],
    # Names of their own: a question has another number each time.
    ids=["nothing", "no-head", "half-a-name", "half-an-option", "two-questions", "half-a-class"],
)
def test_garbage_is_refused(message: bytes) -> None:
    with pytest.raises(FormatError):
        wire.parse_question(message)


def test_an_answer_is_no_question() -> None:
    with pytest.raises(FormatError, match="not a query"):
        wire.parse_question(wire.encode(wire.parse_question(query()), wire.NOERROR))


@given(st.binary(max_size=80))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    for message in (data, query()[:12] + data):
        try:
            wire.parse_question(message)
        except FormatError:
            pass


@given(st.binary(max_size=120), st.integers(0, 119))
def test_names_in_any_bytes_end(data: bytes, offset: int) -> None:
    try:
        assert len(wire.read_name(data, offset)) < 128
    except IndexError:
        pass


def test_records_of_a_compressed_answer() -> None:
    built = dnslib.DNSRecord(dnslib.DNSHeader(qr=1), q=dnslib.DNSQuestion("a.example.org"))
    built.add_answer(dnslib.RR("a.example.org", dnslib.QTYPE.CNAME, rdata=dnslib.CNAME("b.example.org"), ttl=60))
    built.add_answer(dnslib.RR("b.example.org", dnslib.QTYPE.A, rdata=dnslib.A("192.0.2.9"), ttl=61))
    message = bytes(built.pack())
    found = plain_records(message)
    assert [(".".join(r.name), r.type, r.ttl) for r in found] == [
        ("a.example.org", wire.CNAME, 60),
        ("b.example.org", wire.A, 61),
    ]
    assert wire.read_name(found[0].data, 0) == ("b", "example", "org")
