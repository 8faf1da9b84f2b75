"""Answers of other servers, checked with dnslib; and any bytes at all."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k1s.net.dns import message, wire
from k1s.net.dns.answers import ClusterZone
from k1s.net.dns.cache import Cache
from k1s.net.dns.message import MessageError
from k1s.net.dns.metrics import DnsMetrics
from k1s.net.dns.replies import MOST_REPLIES, ReplyTable, drawn
from k1s.net.dns.resolver import Reply, Resolver

from .dns_world import OneZone


def answer(name: str = "a.example.org", count: int = 3, *, kind: str = "A", edns: bool = True, extra: bool = False) -> bytes:
    built = dnslib.DNSRecord(dnslib.DNSHeader(id=7, qr=1, aa=1, ra=0), q=dnslib.DNSQuestion(name))
    for number in range(count):
        data = dnslib.A(f"192.0.2.{number}") if kind == "A" else dnslib.AAAA(f"2001:db8::{number}")
        built.add_answer(dnslib.RR(name, getattr(dnslib.QTYPE, kind), rdata=data, ttl=60))
    built.add_auth(dnslib.RR("example.org", dnslib.QTYPE.NS, rdata=dnslib.NS("ns.example.org"), ttl=61))
    if edns:
        built.add_ar(dnslib.EDNS0(udp_len=4096))
    if extra:
        built.add_ar(dnslib.RR("ns.example.org", dnslib.QTYPE.A, rdata=dnslib.A("192.0.2.99"), ttl=62))
    return bytes(built.pack())


def question(name: str = "A.Example.ORG", *, size: int = 0, kind: str = "A") -> wire.Question:
    asked = dnslib.DNSRecord.question(name, kind)
    if size:
        asked.add_ar(dnslib.EDNS0(udp_len=size))
    return wire.parse_question(bytes(asked.pack()))


def test_the_option_record_is_cut_off_with_what_is_behind_it() -> None:
    for extra in (False, True):
        read = dnslib.DNSRecord.parse(message.without_option(answer(extra=extra)))
        assert (len(read.rr), len(read.auth), len(read.ar)) == (3, 1, 0)
    plain = answer(edns=False, extra=True)
    assert message.without_option(plain) == plain


def test_an_extended_error_is_no_answer() -> None:
    built = dnslib.DNSRecord(dnslib.DNSHeader(qr=1), q=dnslib.DNSQuestion("a.example"))
    built.add_ar(dnslib.EDNS0(ext_rcode=1))
    with pytest.raises(MessageError, match="extended error 1"):
        message.without_option(bytes(built.pack()))


@pytest.mark.parametrize(("size", "count", "whole"), [(0, 3, True), (512, 60, False), (1232, 60, True), (1232, 200, False)])
def test_addressed_to_a_client(size: int, count: int, whole: bool) -> None:
    asked = question(size=size)
    sent = message.addressed(message.without_option(answer(count=count)), asked, asked.size)
    read = dnslib.DNSRecord.parse(sent)
    assert len(sent) <= asked.size
    assert (read.header.id, read.header.rd, read.header.ra, read.header.aa) == (asked.identifier, 1, 1, 0)
    assert read.header.tc == (0 if whole else 1)
    assert str(read.q.qname) == "A.Example.ORG."
    assert len(read.ar) == (1 if size else 0)
    assert (len(read.rr) == count) is whole
    assert len(sent) + 16 > asked.size or whole, "as many as fit"


def test_what_stands_beside_goes_before_the_answer_is_cut() -> None:
    asked = question()
    whole = message.without_option(answer(count=29, edns=False, extra=True))
    assert len(whole) > 512
    read = dnslib.DNSRecord.parse(message.addressed(whole, asked, 512))
    assert (read.header.tc, len(read.rr), len(read.auth), len(read.ar)) == (0, 29, 1, 0)


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_addresses_are_sent_in_any_order_and_nothing_else_changes(kind: str) -> None:
    table, asked = ReplyTable(), question(kind=kind)
    sent = message.addressed(message.without_option(answer(kind=kind, extra=True)), asked, 1232)
    entry = table.put(sent, Reply(sent), DnsMetrics().tally("udp", "1", 1, 0, "zone"))
    orders = set()
    for _ in range(200):
        read = dnslib.DNSRecord.parse(drawn(b"\xab\xcd", entry))
        assert read.header.id == 0xABCD
        assert str(read.auth[0].rdata).lower() == "ns.example.org."
        orders.add(tuple(str(r.rdata) for r in read.rr))
    assert {order[0] for order in orders} == {str(r.rdata) for r in dnslib.DNSRecord.parse(sent).rr}
    assert all(len(set(order)) == 3 for order in orders)


def test_aliases_stay_in_front() -> None:
    built = dnslib.DNSRecord(dnslib.DNSHeader(qr=1), q=dnslib.DNSQuestion("a.example"))
    built.add_answer(dnslib.RR("a.example", dnslib.QTYPE.CNAME, rdata=dnslib.CNAME("b.example"), ttl=60))
    for number in range(2):
        built.add_answer(dnslib.RR("b.example", rdata=dnslib.A(f"192.0.2.{number}"), ttl=60))
    sent = bytes(built.pack())
    table = ReplyTable()
    entry = table.put(sent, Reply(sent), DnsMetrics().tally("udp", "1", 1, 0, "zone"))
    for _ in range(30):
        read = dnslib.DNSRecord.parse(drawn(b"\0\1", entry))
        assert [r.rtype for r in read.rr] == [5, 1, 1]
        assert str(read.rr[0].rdata) == "b.example."


def test_the_table_of_replies_is_bounded_and_forgets_what_changed() -> None:
    table, tally = ReplyTable(), DnsMetrics().tally("udp", "1", 1, 0, "zone")
    sent = answer(edns=False)
    table.put(b"one", Reply(sent, endpoints=("shop/db",)), tally)
    table.put(b"two", Reply(sent, endpoints=("shop/web",)), tally)
    table.put(b"pointer", Reply(sent, endpoints=("",)), tally)
    table.put(b"plain", Reply(sent), tally)
    table.put(b"once", Reply(sent, until=0.0), tally)
    assert len(table) == 4
    table.forget_endpoints(["shop/db"])
    assert [table.get(key) is not None for key in (b"one", b"two", b"pointer", b"plain")] == [False, True, False, True]
    for number in range(MOST_REPLIES + 10):
        table.put(b"%d" % number, Reply(sent), tally)
    assert len(table) <= MOST_REPLIES


@given(st.binary(max_size=200))
def test_any_bytes_of_another_server_are_read_or_refused(data: bytes) -> None:
    for whole in (data, answer()[:12] + data, answer()[: 12 + len(data)] + data):
        for read in (message.places, message.without_option, message.ttl_places, message.plain_records, message.movable):
            try:
                read(whole)
            except MessageError:
                pass


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_answer_is_sent_on_whole_or_not_at_all(data: st.DataObject) -> None:
    damaged = bytearray(answer(count=40, extra=True))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(12 + 19, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    asked = question()
    try:
        plain = message.without_option(bytes(damaged))
        Cache().put((asked.name, 1, 1, 0), plain, 0.0)
        sent = message.addressed(plain, asked, 512)
    except MessageError:
        return
    assert len(sent) <= 512
    assert struct.unpack_from(">H", sent)[0] == asked.identifier


class NoForwarder:
    def cached(self, question: wire.Question) -> None:
        return None

    def came_back(self, name: Any) -> bool:
        return False


def resolver() -> Resolver:
    zone = OneZone()
    zone.add("web", clusterIP="10.43.0.7", ports=[{"name": "http", "port": 80}])
    reverse = [ipaddress.ip_network("10.43.0.0/16")]
    forwarder: Any = NoForwarder()
    return Resolver(ClusterZone(zone, "cluster.local", ["10.43.0.10"], reverse), forwarder)


@given(st.binary(max_size=120), st.booleans())
@settings(max_examples=500)
def test_any_question_is_answered_forwarded_or_dropped(data: bytes, head: bool) -> None:
    whole = (bytes(dnslib.DNSRecord.question("x").pack())[:12] if head else b"") + data
    try:
        asked = wire.parse_question(whole)
    except wire.FormatError as error:
        assert error.answer is None or len(error.answer) == 12
        return
    reply = resolver().answer(asked, asked.size)
    assert reply is None or reply.message[:2] == whole[:2]


LABELS = st.sampled_from(["web", "shop", "svc", "pod", "cluster", "local", "dns", "ns", "_http", "_tcp", "10-42-0-1", "in-addr",
                          "arpa", "ip6", "7", "0", "43", "10", "A", "dns-version", "f", "nodes", "*"])  # fmt: skip


@given(
    st.lists(LABELS, max_size=8),
    st.sampled_from([1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 65, 251, 252, 255, 65535]),
    st.booleans(),
)
@settings(max_examples=500)
def test_any_name_of_the_zone(labels: list[str], kind: int, suffix: bool) -> None:
    name = (*labels, *(("svc", "cluster", "local") if suffix else ()))
    asked = wire.parse_question(wire.encode_query(name, kind, 9))
    reply = resolver().answer(asked, 512)
    if reply is not None:
        read = dnslib.DNSRecord.parse(reply.message)
        assert read.header.id == 9
        assert not (read.header.rcode == wire.NXDOMAIN and read.rr)
        if reply.source == "zone" and not read.rr and read.header.rcode in (0, 3):
            assert [r.rtype for r in read.auth] == [wire.SOA]
    assert reply is not None or name[-2:] != ("cluster", "local")
