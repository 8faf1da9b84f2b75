"""The DNS server over real sockets on loopback, with a resolver of the test's own upstream."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import dnslib
import pytest

from k1s.base.clock import RealClock, VirtualClock
from k1s.net.dns import server, upstream, wire
from k1s.net.dns.cache import MOST_ANSWERS, Cache
from k1s.net.dns.forward import Forwarder, resolvers_in
from k1s.net.dns.server import DnsServer


class OneZone:
    def __init__(self) -> None:
        self.services: dict[tuple[str, str], dict] = {}
        self.pieces: list[dict] = []

    def add(self, name: str, **spec: object) -> None:
        self.services[("shop", name)] = {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}

    def service(self, namespace: str, name: str) -> dict | None:
        return self.services.get((namespace, name))

    def slices(self, namespace: str, name: str) -> list[dict]:
        return self.pieces

    def has_services(self, namespace: str) -> bool:
        return True

    def services_at(self, address: str) -> list[dict]:
        return []

    def slices_at(self, address: str) -> list[dict]:
        return []


class Upstream:
    """A resolver on 127.0.0.x: answers A with 192.0.2.53, counts what it was asked."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        self.asked: list[tuple[str, str]] = []
        self.mode = "answer"
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        upstream = self

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                answer = upstream.answer(data, "udp")
                if answer is not None and upstream._transport is not None:
                    upstream._transport.sendto(answer, addr)

        self._transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=(self.address, self.port))
        self._tcp = await asyncio.start_server(self._connection, self.address, self.port)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(length), "tcp") or b""
        writer.write(struct.pack(">H", len(answer)) + answer)
        writer.close()

    def answer(self, data: bytes, how: str) -> bytes | None:
        question = dnslib.DNSRecord.parse(data)
        if question.q.qtype != wire.HINFO:  # the server's own question, to see whether we send it back
            self.asked.append((how, str(question.q.qname)))
        if self.mode == "silent":
            return None
        reply = question.reply()
        if self.mode == "refuse":
            reply.header.rcode = wire.REFUSED
        elif self.mode == "forge":
            # Another identifier, then another name: both are to be ignored; the right one comes last.
            reply.header.id ^= 1
        elif self.mode == "long" and how == "udp":
            reply.header.tc = 1
        elif self.mode == "long":
            for number in range(100):
                reply.add_answer(dnslib.RR(question.q.qname, rdata=dnslib.A(f"192.0.2.{number}"), ttl=60))
        elif self.mode == "missing":
            reply.header.rcode = wire.NXDOMAIN
            soa = dnslib.SOA("ns.example", "h.example", (1, 2, 3, 4, 20))
            reply.add_auth(dnslib.RR("example", dnslib.QTYPE.SOA, rdata=soa, ttl=3600))
        else:
            reply.add_answer(dnslib.RR(question.q.qname, rdata=dnslib.A("192.0.2.53"), ttl=300))
        return bytes(reply.pack())

    def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._tcp.close()


class World:
    """A server on 127.0.0.1 with two resolvers, .2 and .3, all on one port."""

    def __init__(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.zone = OneZone()
        self.first, self.second = Upstream("127.0.0.2", self.port), Upstream("127.0.0.3", self.port)
        self.file = tmp_path / "resolv.conf"
        self.file.write_text("# comment\nnameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\noptions ndots:1\n")
        self.forwarder = Forwarder(str(self.file), own_addresses=["127.0.0.1"], clock=RealClock(), port=self.port)
        self.server = DnsServer(self.zone, self.forwarder, domain="cluster.local", addresses=["127.0.0.1"], port=self.port)

    async def udp(self, name: str, kind: str = "A", size: int = 0) -> dnslib.DNSRecord:
        message = dnslib.DNSRecord.question(name, kind)
        if size:
            message.add_ar(dnslib.EDNS0(udp_len=size))
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.connect(("127.0.0.1", self.port))
            client.send(message.pack())
            answer = dnslib.DNSRecord.parse(await asyncio.wait_for(loop.sock_recv(client, 65535), 10))
        assert answer.header.id == message.header.id
        assert str(answer.q.qname) == name + "."
        return answer

    async def tcp(self, *names: str) -> list[dnslib.DNSRecord]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answers = []
        for name in names:
            message = bytes(dnslib.DNSRecord.question(name).pack())
            writer.write(struct.pack(">H", len(message)) + message)
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            answers.append(dnslib.DNSRecord.parse(await reader.readexactly(length)))
        writer.close()
        return answers


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    await found.first.start()
    await found.second.start()
    await found.server.start()
    yield found
    await found.server.stop()
    found.first.stop()
    found.second.stop()


def data(answer: dnslib.DNSRecord) -> list[str]:
    return [str(r.rdata) for r in answer.rr]


async def test_zone_by_udp_and_tcp(world: World) -> None:
    world.zone.add("web", clusterIP="10.43.0.7")
    assert data(await world.udp("Web.shop.SVC.cluster.local")) == ["10.43.0.7"]
    answers = await world.tcp("web.shop.svc.cluster.local", "nobody.shop.svc.cluster.local")
    assert [data(a) for a in answers] == [["10.43.0.7"], []]
    assert answers[1].header.rcode == wire.NXDOMAIN
    assert world.first.asked == []


async def test_large_headless_answer_is_truncated_then_whole_over_tcp(world: World) -> None:
    world.zone.add("db", clusterIP="None")
    endpoints = [{"addresses": [f"10.42.0.{n}"]} for n in range(1, 101)]
    world.zone.pieces = [{"metadata": {}, "addressType": "IPv4", "ports": None, "endpoints": endpoints}]
    cut = await world.udp("db.shop.svc.cluster.local", size=1232)
    assert cut.header.tc == 1
    assert 70 < len(cut.rr) < 76
    (whole,) = await world.tcp("db.shop.svc.cluster.local")
    assert len(whole.rr) == 100


async def test_outside_names_are_forwarded_once_and_cached(world: World) -> None:
    assert data(await world.udp("Example.ORG")) == ["192.0.2.53"]
    again = await world.udp("example.org")
    assert data(again) == ["192.0.2.53"]
    assert (again.header.aa, again.header.ra) == (0, 1)
    assert world.first.asked == [("udp", "example.org.")]
    assert world.second.asked == []


async def test_equal_questions_share_one_upstream_question(world: World) -> None:
    answers = await asyncio.gather(*(world.udp("example.org") for _ in range(20)))
    assert all(data(a) == ["192.0.2.53"] for a in answers)
    assert len(world.first.asked) == 1


async def test_missing_name_is_passed_on_and_cached(world: World) -> None:
    world.first.mode = "missing"
    assert (await world.udp("nope.example")).header.rcode == wire.NXDOMAIN
    assert (await world.udp("nope.example")).header.rcode == wire.NXDOMAIN
    assert len(world.first.asked) == 1


async def test_silent_or_refusing_resolver_is_passed_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "TIMEOUT", 0.1)
    world.first.mode = "silent"
    assert data(await world.udp("a.example")) == ["192.0.2.53"]
    # Shunned now: the other one is asked first.
    asked = len(world.first.asked)
    assert data(await world.udp("b.example")) == ["192.0.2.53"]
    assert len(world.first.asked) == asked
    world.file.write_text("nameserver 127.0.0.2\nnameserver 127.0.0.3\n")
    os.utime(world.file, (1, 1))
    world.first.mode = "refuse"
    assert data(await world.udp("c.example")) == ["192.0.2.53"]


async def test_nobody_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "TIMEOUT", 0.05)
    world.first.mode = world.second.mode = "silent"
    assert (await world.udp("a.example")).header.rcode == wire.SERVFAIL
    # A forged identifier is as good as no answer.
    world.first.mode = world.second.mode = "forge"
    assert (await world.udp("b.example")).header.rcode == wire.SERVFAIL
    world.first.stop()
    world.second.stop()
    assert (await world.udp("c.example")).header.rcode == wire.SERVFAIL
    world.file.write_text("nameserver 127.0.0.1\n")
    assert (await world.udp("d.example")).header.rcode == wire.SERVFAIL


async def test_truncated_upstream_answer_is_fetched_over_tcp(world: World) -> None:
    world.first.mode = "long"
    cut = await world.udp("long.example")
    assert cut.header.tc == 1
    assert 20 < len(cut.rr) < 31
    assert [how for how, _ in world.first.asked] == ["udp", "tcp"]
    (whole,) = await world.tcp("long.example")
    assert len(whole.rr) == 100
    # The TCP question carried the same flags as the first one, so the cache had it.
    assert len(world.first.asked) == 2


async def test_external_name_is_followed(world: World) -> None:
    world.zone.add("web", clusterIP="10.43.0.7")
    world.zone.add("inward", type="ExternalName", externalName="web.shop.svc.cluster.local")
    world.zone.add("out", type="ExternalName", externalName="example.org")
    world.zone.add("loop", type="ExternalName", externalName="loop.shop.svc.cluster.local")
    assert data(await world.udp("inward.shop.svc.cluster.local")) == ["web.shop.svc.cluster.local.", "10.43.0.7"]
    for _ in range(2):
        out = await world.udp("out.shop.svc.cluster.local")
        assert data(out) == ["example.org.", "192.0.2.53"]
        assert [str(r.rname) for r in out.rr] == ["out.shop.svc.cluster.local.", "example.org."]
    assert len(world.first.asked) == 1
    assert data(await world.udp("out.shop.svc.cluster.local", "CNAME")) == ["example.org."]
    assert (await world.udp("loop.shop.svc.cluster.local")).header.rcode == wire.SERVFAIL


async def test_bad_questions(world: World) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
        client.connect(("127.0.0.1", world.port))

        async def say(message: bytes) -> bytes:
            client.send(message)
            return await asyncio.wait_for(loop.sock_recv(client, 65535), 2)

        client.send(b"garbage")
        assert (await say(b"\xab\xcd" + bytes(10)))[3] & 0xF == wire.FORMERR
        update = bytearray(dnslib.DNSRecord.question("x.cluster.local").pack())
        update[2] |= 0x28
        assert (await say(bytes(update)))[3] & 0xF == wire.NOTIMP
        chaos = dnslib.DNSRecord(q=dnslib.DNSQuestion("version.bind", dnslib.QTYPE.TXT, dnslib.CLASS.CH))
        assert (await say(bytes(chaos.pack())))[3] & 0xF == wire.REFUSED


async def test_waiting_questions_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_WAITING", 5)
    world.first.mode = world.second.mode = "silent"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for number in range(20):
            client.sendto(bytes(dnslib.DNSRecord.question(f"n{number}.example").pack()), ("127.0.0.1", world.port))
        await asyncio.sleep(0.3)
    assert len(world.server._waiting) == 5
    world.zone.add("web", clusterIP="10.43.0.7")
    assert data(await world.udp("web.shop.svc.cluster.local")) == ["10.43.0.7"]


def test_resolv_conf_lines() -> None:
    text = "search a b\nnameserver 10.43.0.10\nnameserver fe80::1%eth0\nnameserver x\nnameserver 8.8.8.8\nnameserver 8.8.8.8\n"
    assert resolvers_in(text, {"10.43.0.10"}) == ["fe80::1%eth0", "8.8.8.8"]


def entry(name: str, ttl: int = 100, rcode: int = 0) -> tuple[tuple[tuple[str, ...], int, int, int], bytes]:
    message = dnslib.DNSRecord(dnslib.DNSHeader(qr=1, rcode=rcode), q=dnslib.DNSQuestion(name))
    message.add_answer(dnslib.RR(name, rdata=dnslib.A("192.0.2.1"), ttl=ttl))
    return (tuple(name.split(".")), wire.A, wire.IN, 0), bytes(message.pack())


def test_cache_counts_down_and_ends() -> None:
    cache, clock = Cache(), VirtualClock()
    key, message = entry("a.example", ttl=10)
    cache.put(key, message, clock.monotonic())
    found = cache.get(key, clock.monotonic() + 4)
    assert found is not None
    message, until = found
    assert (dnslib.DNSRecord.parse(message).rr[0].ttl, until) == (6, 5.0)
    assert cache.get(key, clock.monotonic() + 10) is None
    assert len(cache) == 0


def test_cache_keeps_nothing_long_or_wrong_and_is_bounded() -> None:
    cache = Cache()
    key, message = entry("a.example", ttl=86400)
    cache.put(key, message, 0.0)
    assert cache.get(key, 29.0) is not None
    assert cache.get(key, 31.0) is None
    for bad in (entry("b.example", rcode=wire.SERVFAIL), entry("c.example", ttl=0)):
        cache.put(*bad, 0.0)
    assert len(cache) == 0
    first = entry("n0.example")
    cache.put(*first, 0.0)
    for number in range(1, MOST_ANSWERS + 1):
        cache.put(*entry(f"n{number}.example"), 0.0)
    assert len(cache) == MOST_ANSWERS
    assert cache.get(first[0], 0.0) is None
