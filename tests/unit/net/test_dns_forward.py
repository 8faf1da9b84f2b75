"""Resolvers that are dead, slow, wrong, old, or that lead back to us; and domains with resolvers of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import dnslib
import pytest

from k1s.net.dns import forward, upstream, wire
from k1s.net.dns.cache import Cache
from k1s.net.dns.upstream import parse_upstream

from .dns_world import World, data


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(upstream, "TIMEOUT", 0.15)
    found = World(tmp_path)
    await found.first.start()
    await found.second.start()
    await found.server.start()
    yield found
    await found.server.stop()
    found.first.stop()
    found.second.stop()


async def until(check: Callable[[], bool], what: str) -> None:
    for _ in range(200):
        if check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never: {what}")


async def test_each_question_has_a_port_of_its_own(world: World) -> None:
    for number in range(8):
        await world.udp(f"n{number}.example")
    assert len(world.first.sources) >= 8


async def test_nobody_waits_again_for_a_dead_resolver_and_it_comes_back_by_itself(world: World) -> None:
    await until(lambda: world.first.probes == 1, "looked at when the server starts")
    world.first.mode = "silent"
    world.clock.ahead += forward.PROBE_SECONDS
    assert data(await world.udp("a.example")) == ["192.0.2.53"]
    await until(lambda: world.first.probes == 2, "silence may be a loop")
    await asyncio.sleep(0.2)
    world.clock.ahead += forward.SHUNNED_SECONDS + 1
    asked = len(world.first.asked)
    assert data(await world.udp("b.example")) == ["192.0.2.53"]
    assert len(world.first.asked) == asked, "its time is over, but it has not answered yet"
    await until(lambda: world.first.probes == 3, "our own question goes first")
    await asyncio.sleep(0.2)
    world.first.mode = "answer"
    world.clock.ahead += 2 * forward.SHUNNED_SECONDS
    await world.udp("c.example")
    await until(lambda: world.first.probes == 4, "and again")
    await asyncio.sleep(0.05)
    await world.udp("d.example")
    assert world.first.asked[-1] == ("udp", "d.example.")


async def test_a_failure_is_remembered_for_a_moment(world: World) -> None:
    world.first.mode = world.second.mode = "silent"
    assert (await world.udp("a.example")).header.rcode == wire.SERVFAIL
    asked = len(world.first.asked)
    assert (await world.udp("a.example")).header.rcode == wire.SERVFAIL
    assert len(world.first.asked) == asked
    world.first.mode = world.second.mode = "answer"
    world.clock.ahead += forward.FAILURE_SECONDS + 0.1
    assert data(await world.udp("a.example")) == ["192.0.2.53"]


async def test_silence_is_told_once_a_minute(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def told() -> int:
        return sum(r.message.startswith("no resolver answers") for r in caplog.records)

    world.first.mode = world.second.mode = "silent"
    for name, seconds, wanted in (("a.example", 0, 1), ("b.example", 11, 1), ("c.example", 50, 2)):
        world.clock.ahead += seconds
        await world.udp(name)
        assert told() == wanted


async def test_a_slow_resolver_answers_everybody_who_asked_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "TIMEOUT", 2.0)
    world.first.mode = "slow"
    answers = await asyncio.gather(*(world.udp("slow.example") for _ in range(10)))
    assert all(data(a) == ["192.0.2.53"] for a in answers)
    assert len(world.first.asked) == 1


async def test_a_resolver_that_knows_no_edns(world: World) -> None:
    await until(lambda: world.first.probes == 1, "looked at when the server starts")
    world.first.mode = "old"
    assert data(await world.udp("a.example", size=4096)) == ["192.0.2.53"]
    assert len(world.first.asked) == 2
    assert data(await world.udp("b.example")) == ["192.0.2.53"]
    assert len(world.first.asked) == 3, "asked without EDNS from then on"


async def test_records_that_make_no_sense_are_no_answer(world: World) -> None:
    world.first.mode = "odd"
    assert data(await world.udp("a.example")) == ["192.0.2.53"]
    assert world.second.asked


async def test_a_loop_is_found_said_once_and_forgotten_when_it_ends(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.first.mode = world.second.mode = "loop"
    world.file.write_text(world.file.read_text() + "# changed\n")
    with caplog.at_level(logging.INFO, "k1s.net.dns"):
        await world.udp("start.example")
        await until(lambda: len(loops(caplog)) == 2, "both say it")
        asked = len(world.first.asked)
        for number in range(20):
            assert (await world.udp(f"n{number}.example")).header.rcode == wire.SERVFAIL
        assert len(world.first.asked) == asked, "nothing is sent into a loop"
        assert len(loops(caplog)) == 2
        assert world.first.probes < 4
        world.first.mode = "answer"
        world.clock.ahead += forward.LOOP_SECONDS + 1
        assert (await world.udp("x.example")).header.rcode == wire.SERVFAIL
        await asyncio.sleep(0.1)
        assert data(await world.udp("y.example")) == ["192.0.2.53"]
    assert any("not send questions back any more" in r.message for r in caplog.records)


def loops(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if r.message.startswith("DNS loop")]


async def test_a_loop_that_begins_later_is_found_by_its_silence(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert data(await world.udp("a.example")) == ["192.0.2.53"]
    world.first.mode = "loop"
    world.clock.ahead += forward.PROBE_SECONDS
    assert data(await world.udp("b.example")) == ["192.0.2.53"]
    await until(lambda: len(loops(caplog)) == 1, "found")


async def test_only_the_clusters_own_address_is_no_resolver(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.file.write_text("nameserver 127.0.0.1\n")
    for name in ("a.example", "b.example"):
        assert (await world.udp(name)).header.rcode == wire.SERVFAIL
    world.file.unlink()
    assert (await world.udp("c.example")).header.rcode == wire.SERVFAIL
    assert data(await world.udp("web.shop.svc.cluster.local")) == []


async def test_stub_domains_and_upstreams(world: World) -> None:
    first = parse_upstream(f"127.0.0.2:{world.port}")
    second = parse_upstream(f"127.0.0.3:{world.port}")
    assert first is not None and second is not None
    world.forwarder.configure({("corp", "example"): [second], ("inner", "corp", "example"): [first]}, [])
    for name in ("corp.example", "a.corp.example", "a.inner.corp.example", "xcorp.example"):
        assert data(await world.udp(name)) == ["192.0.2.53"]
    assert [name for _, name in world.second.asked] == ["corp.example.", "a.corp.example."]
    assert [name for _, name in world.first.asked] == ["a.inner.corp.example.", "xcorp.example."]
    world.forwarder.configure({}, [second])
    await world.udp("xcorp.example")
    assert world.second.asked[-1] == ("udp", "xcorp.example.")
    # A domain's own resolvers are the only ones that know it.
    world.second.mode = "silent"
    world.forwarder.configure({("corp", "example"): [second]}, [first])
    assert (await world.udp("b.corp.example")).header.rcode == wire.SERVFAIL


async def test_what_is_cached_counts_down_for_each_client(world: World) -> None:
    for seconds in (0, 4, 8):
        world.clock.ahead = seconds
        (record,) = (await world.udp("a.example")).rr
        assert record.ttl in (300 - seconds, 299 - seconds)
        world.server.changed()  # the answers by bytes go by the loop's clock
    assert len(world.first.asked) == 1
    world.clock.ahead = 31
    world.server.changed()
    await world.udp("a.example")
    assert len(world.first.asked) == 2


async def test_metrics_of_resolvers(world: World) -> None:
    world.first.mode = "silent"
    await world.udp("a.example")
    await world.udp("a.example")
    from k1s.base.metrics import Registry

    registry = Registry()
    world.server.metrics.register(registry)
    world.forwarder._metrics.register(forwarded := Registry())
    text, other = registry.exposition().decode(), forwarded.exposition().decode()
    assert 'coredns_cache_misses_total{server="dns://:53",zones=".",view=""} 1' in text
    assert 'coredns_cache_hits_total{server="dns://:53",type="success",zones=".",view=""} 1' in text
    assert 'plugin="forward"} 1' in text
    assert 'coredns_cache_entries{server="dns://:53",type="success",zones=".",view=""} 1' in text
    assert "# TYPE coredns_cache_entries gauge" in text
    assert f'coredns_forward_requests_total{{to="127.0.0.3:{world.port}"}} 1' in other
    assert f'coredns_proxy_healthcheck_failures_total{{to="127.0.0.2:{world.port}"}}' in other


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10.0.0.53", "10.0.0.53:53"),
        ("10.0.0.53:5353", "10.0.0.53:5353"),
        ("fd00::53", "[fd00::53]:53"),
        ("[fd00::53]:5353", "[fd00::53]:5353"),
        ("fe80::1%eth0", "[fe80::1%eth0]:53"),
        ("dns.example", None),
        ("10.0.0.53:0", None),
        ("10.0.0.53:99999", None),
        ("[fd00::53]x", None),
        ("10.0.0.53:٣", None),
        ("", None),
    ],
)
def test_addresses_of_resolvers(text: str, wanted: str | None) -> None:
    found = parse_upstream(text)
    assert (str(found) if found is not None else None) == wanted


def test_negative_answers_live_as_long_as_the_soa_says() -> None:
    cache = Cache()
    message = dnslib.DNSRecord(dnslib.DNSHeader(qr=1, rcode=wire.NXDOMAIN), q=dnslib.DNSQuestion("a.example"))
    soa = dnslib.SOA("ns.example", "h.example", (1, 2, 3, 4, 7))
    message.add_auth(dnslib.RR("example", dnslib.QTYPE.SOA, rdata=soa, ttl=3600))
    key = (("a", "example"), wire.A, wire.IN, 0)
    cache.put(key, bytes(message.pack()), 0.0)
    assert cache.get(key, 6.9) is not None
    assert cache.get(key, 7.0) is None
    # Without an SOA nobody said how long.
    message.auth.clear()
    cache.put(key, bytes(message.pack()), 0.0)
    assert cache.get(key, 0.0) is None
