"""The DNS server over real sockets on loopback, with a resolver of the test's own upstream."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import dnslib
import pytest

from k1s.base.clock import VirtualClock
from k1s.net.dns import server, upstream, wire
from k1s.net.dns.cache import MOST_ANSWERS, Cache
from k1s.net.dns.forward import resolvers_in
from k1s.net.dns.hosts import HostTable

from .dns_world import World, data


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
    seen = set(data(cut))
    for _ in range(5):
        world.server._replies["1"].forget()
        seen |= set(data(await world.udp("db.shop.svc.cluster.local")))
    assert len(seen) > 76, "not the same part for everybody"
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


def edns(name: str, kind: str = "A", *, code: int = 0, option: bytes = b"", version: int = 0) -> bytes:
    asked = dnslib.DNSRecord.question(name, kind)
    asked.add_ar(dnslib.EDNS0(udp_len=1232, version=version, flags="do", opts=[dnslib.EDNSOption(code, option)] if code else []))
    return bytes(asked.pack())


async def test_edns(world: World) -> None:
    world.zone.add("web", clusterIP="10.43.0.7")
    for _ in range(2):
        read = dnslib.DNSRecord.parse(await world.say(edns("web.shop.svc.cluster.local")))
        assert data(read) == ["10.43.0.7"]
        assert [(r.rtype, r.edns_len, r.edns_do) for r in read.ar] == [(wire.OPT, 1232, 1)]
    kept = len(world.server._replies["1"])
    # A cookie is another one in every question: ignored, and not kept.
    for number in range(3):
        cookie = edns("web.shop.svc.cluster.local", code=10, option=bytes((number,)) * 8)
        assert data(dnslib.DNSRecord.parse(await world.say(cookie))) == ["10.43.0.7"]
    assert len(world.server._replies["1"]) == kept
    for name in ("web.shop.svc.cluster.local", "example.org"):
        read = dnslib.DNSRecord.parse(await world.say(edns(name, version=1)))
        assert (read.header.rcode, read.ar[0].edns_rcode, data(read)) == (0, 1, [])
    twice = bytearray(edns("web.shop.svc.cluster.local"))
    twice[11] = 2
    twice += twice[-11:]
    assert (await world.say(bytes(twice)))[3] & 0xF == wire.FORMERR


async def test_what_is_refused(world: World) -> None:
    world.zone.add("web", clusterIP="10.43.0.7")
    for name in ("cluster.local", "example.org"):
        for kind in ("AXFR", "IXFR"):
            assert (await world.udp(name, kind)).header.rcode == wire.REFUSED
    outside = await world.udp("example.org", "ANY")
    assert [(r.rtype, r.rdata.data) for r in outside.rr] == [(wire.HINFO, b"\x07RFC8482\0")]
    assert data(await world.udp("web.shop.svc.cluster.local", "ANY")) == ["10.43.0.7"]
    assert world.first.asked == []
    notify = bytearray(dnslib.DNSRecord.question("x.cluster.local").pack())
    notify[2] |= 0x20
    answer = await world.say(bytes(notify))
    assert (answer[2] & 0x78, answer[3] & 0xF) == (0x20, wire.NOTIMP)


async def test_spelling_comes_back_as_sent_also_from_the_cache(world: World) -> None:
    world.zone.add("web", clusterIP="10.43.0.7")
    for name in ("wEb.ShOp.svc.CLUSTER.local", "eXaMpLe.OrG", "example.ORG"):
        for _ in range(2):
            assert data(await world.udp(name)) in (["10.43.0.7"], ["192.0.2.53"])  # `udp` compares the names
    assert len(world.first.asked) == 1


async def test_changes_show_at_once(world: World) -> None:
    world.zone.add("db", clusterIP="None")
    for address in ("10.42.0.1", "10.42.0.2"):
        world.zone.pieces = [{"metadata": {}, "addressType": "IPv4", "endpoints": [{"addresses": [address]}]}]
        world.server.endpoints_changed(["shop/db"])
        for _ in range(2):
            assert data(await world.udp("db.shop.svc.cluster.local")) == [address]
    world.zone.add("db", clusterIP="10.43.0.9")
    world.server.changed()
    assert data(await world.udp("db.shop.svc.cluster.local")) == ["10.43.0.9"]
    assert len(await hosts(world, {})) == 0
    assert await hosts(world, {("db", "shop", "svc", "cluster", "local"): "10.0.0.1"}) == ["10.0.0.1"]
    assert await hosts(world, {("*", "svc", "cluster", "local"): "10.0.0.2"}) == ["10.0.0.2"]


async def hosts(world: World, table: dict[tuple[str, ...], str]) -> list[str]:
    world.server.resolver.overrides = HostTable([(address, [name]) for name, address in table.items()])
    world.zone.services.clear()
    world.server.changed()
    return data(await world.udp("db.shop.svc.cluster.local"))


async def test_rewritten_names_are_followed_in_and_out(world: World) -> None:
    world.zone.add("web", clusterIP="10.43.0.7")
    aliases = {("a", "example"): ("web", "shop", "svc", "cluster", "local"), ("b", "example"): ("example", "org")}
    world.server.resolver.overrides = HostTable((), aliases)
    world.server.resolver.nodes = HostTable([("192.168.1.4", [("node-1",)])])
    assert data(await world.udp("a.example")) == ["web.shop.svc.cluster.local.", "10.43.0.7"]
    assert data(await world.udp("b.example")) == ["example.org.", "192.0.2.53"]
    assert data(await world.udp("node-1")) == ["192.168.1.4"]
    assert data(await world.udp("4.1.168.192.in-addr.arpa", "PTR")) == ["node-1."]
    nothing = await world.udp("node-1", "AAAA")
    assert (nothing.header.rcode, nothing.rr) == (0, [])


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
