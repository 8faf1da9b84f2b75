"""Which server an agent talks to: in virtual time, with servers that answer as they are told."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import orjson
import pytest

from k1s.agent import load_balancer
from k1s.agent.load_balancer import MAX_SERVERS, LoadBalancer, addresses, known_servers, split_urls
from k1s.base.clock import VirtualClock
from k1s.client.servers import ServerAway

A, B, C = "https://a:6443", "https://b:6443", "https://c:6443"


class Net:
    """Servers that are up, and how often each was looked at."""

    def __init__(self, *up: str) -> None:
        self.up = set(up)
        self.probes: list[str] = []

    async def probe(self, url: str) -> bool:
        self.probes.append(url)
        return url in self.up


def balancer(net: Net, *given: str, file: Path | None = None) -> tuple[LoadBalancer, VirtualClock]:
    clock = VirtualClock()
    return LoadBalancer(given or (A, B, C), clock, net.probe, file), clock


async def test_one_server_is_used_while_it_works() -> None:
    chosen, clock = balancer(Net(A, B, C))
    for _ in range(3):
        chosen.worked(chosen.choose())
        await clock.advance(100)
    assert chosen.choose() == A


async def test_one_that_fails_is_left_for_the_next_and_not_taken_back() -> None:
    chosen, clock = balancer(Net(B, C))
    chosen.failed(A, "connection refused")
    assert chosen.choose() == B and not chosen.away
    chosen.failed(A, "connection refused")  # somebody else's try, which began before
    assert chosen.choose() == B
    await clock.advance(3600)
    assert chosen.choose() == B


async def test_a_server_that_failed_lately_comes_last() -> None:
    chosen, clock = balancer(Net(B))
    chosen.failed(A, "refused")
    chosen.failed(B, "refused")
    assert chosen.choose() == C
    chosen.failed(C, "refused")
    assert chosen.away
    await chosen.close()
    chosen, clock = balancer(Net(B))
    chosen.failed(A, "refused")
    await clock.advance(5)  # A's fault is forgiven by now
    chosen.failed(B, "refused")
    chosen.failed(C, "refused")
    assert chosen.choose() == A


async def test_when_none_answers_all_are_told_at_once_and_one_task_looks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    net = Net()
    chosen, clock = balancer(net, A)
    backs: list[bool] = []
    chosen.on_back.append(lambda: backs.append(chosen.away))
    chosen.failed(A, "connection refused")
    for _ in range(100):
        with pytest.raises(ServerAway, match="connection refused"):
            chosen.choose()
    await clock.advance(30)
    assert 15 <= len(net.probes) <= 60
    net.up.add(A)
    await clock.advance(2)
    assert chosen.choose() == A and not chosen.away and backs == [False]
    seen = len(net.probes)
    await clock.advance(60)
    assert len(net.probes) == seen, "nobody looks at servers that work"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2 and "no server can be reached" in messages[0] and "is back after" in messages[1]


async def test_a_long_outage_is_looked_at_less_often() -> None:
    net = Net()
    chosen, clock = balancer(net, A)
    chosen.failed(A, "refused")
    await clock.advance(400)
    net.probes.clear()
    await clock.advance(60)
    assert 8 <= len(net.probes) <= 20
    await chosen.close()


async def test_sleepers_wake_when_a_server_is_back() -> None:
    net = Net()
    chosen, clock = balancer(net, A, B)
    chosen.failed(A, "refused")
    chosen.failed(B, "refused")
    woken: list[float] = []

    async def sleeper() -> None:
        await chosen.pause(1000)
        woken.append(clock.monotonic())

    tasks = [asyncio.create_task(sleeper()) for _ in range(20)]
    await clock.advance(20)
    assert not woken
    net.up.add(B)
    await clock.advance(4)
    assert len(woken) == 20 and max(woken) - min(woken) > 0.05, "not all at the same moment"
    assert chosen.choose() == B
    await asyncio.gather(*tasks)


async def test_a_pause_while_servers_work_is_a_sleep() -> None:
    chosen, clock = balancer(Net(A), A)
    task = asyncio.create_task(chosen.pause(5))
    await clock.advance(4.9)
    assert not task.done()
    await clock.advance(0.2)
    assert task.done()


async def test_what_is_learned_is_kept_and_what_was_given_stays(tmp_path: Path) -> None:
    file = tmp_path / "agent" / "servers.json"
    chosen, _ = balancer(Net(), A, file=file)
    changes: list[list[str]] = []
    chosen.on_change.append(lambda: changes.append(chosen.urls))
    chosen.learn([C, B, B])
    chosen.learn([B, C])
    assert changes == [[A, B, C]] and os.stat(file).st_mode & 0o777 == 0o600
    chosen.learn([])
    assert chosen.urls == [A, B, C], "silence is no news"
    again, _ = balancer(Net(), A, file=file)
    assert again.urls == [A, B, C] and known_servers([A], file) == f"{A},{B},{C}"
    chosen.failed(A, "refused")
    assert chosen.choose() == B
    chosen.learn([C])
    assert chosen.urls == [A, C] and chosen.choose() == A, "a server that left the cluster is left"


async def test_a_damaged_file_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "servers.json"
    for content in (b"{", b"[]", b'{"servers": 5}', orjson.dumps({"servers": ["http://plain:1", 7, C]})):
        file.write_bytes(content)
        chosen, _ = balancer(Net(), A, file=file)
        assert chosen.urls in ([A], [A, C])
    assert chosen.urls == [A, C]


async def test_the_list_has_a_limit() -> None:
    chosen, _ = balancer(Net(), A)
    chosen.learn([f"https://s{number}:6443" for number in range(100)])
    assert len(chosen.urls) == MAX_SERVERS and chosen.urls[0] == A


def test_servers_in_endpoint_slices() -> None:
    piece = {
        "metadata": {"namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "ports": [{"name": "https", "port": 6443}, {"name": "other", "port": 1}],
        "endpoints": [
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["fd00::1"], "conditions": {"ready": True}},
            {"addresses": ["10.0.0.9"], "conditions": {"ready": False}},
        ],
    }
    assert addresses(piece) == ["https://10.0.0.1:6443", "https://[fd00::1]:6443"]
    assert addresses({"metadata": {}, "endpoints": None, "ports": None}) == []
    assert split_urls(" https://a:6443/ ,https://b:6443,") == [A, B]


async def test_close_ends_the_search() -> None:
    net = Net()
    chosen, clock = balancer(net, A)
    chosen.failed(A, "refused")
    await chosen.close()
    await clock.advance(60)
    assert not net.probes and load_balancer.PROBE_SECONDS < 10


async def test_a_full_disk_is_no_reason_not_to_know_the_servers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "servers.json").mkdir()
    (tmp_path / "servers.json" / "x").mkdir()
    chosen, _ = balancer(Net(A, B), A)
    chosen._file = tmp_path / "servers.json"  # cannot be replaced
    heard: list[list[str]] = []
    chosen.on_change.append(lambda: heard.append(chosen.urls))
    chosen.learn([B])
    assert heard == [[A, B]]
    assert "cannot be written" in caplog.text
