"""Figures of the cluster's DNS: `python bench/dns.py` as root, with dnsperf. One line a figure.

A server process as the agent runs it (uvloop, ServiceWatch over informers, 1,000 Services of 3 endpoints) in a network
namespace of its own, asked by dnsperf: as much as it takes, then 10,000 questions/s for the latency; from the zone, from the
cache of forwarded answers, and while EndpointSlices change. CPU is the server process's own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import multiprocessing
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "node"))
import netlab

from k1s.agent.service_watch import ServiceWatch, service_of
from k1s.api.catalog import builtin
from k1s.base.clock import REAL_CLOCK
from k1s.client.store import ObjectStore
from k1s.net.dns.forward import Forwarder
from k1s.net.dns.server import DnsServer

SERVICES, NAMES, SECONDS, RATE = 1000, 200, 5, 10_000
DOMAIN = "cluster.local"
CASES: dict[str, Callable[[int], str]] = {
    "Services": lambda n: f"s{n}.default.svc.{DOMAIN} {'A' if n % 2 else 'AAAA'}",
    "headless, 3 addresses": lambda n: f"h{n}.default.svc.{DOMAIN} A",
    "search path misses": lambda n: f"n{n}.example.org.default.svc.{DOMAIN} A",
    "forwarded, from the cache": lambda n: f"n{n}.example.org A",
    "never the same name": lambda n: f"x{n}.default.svc.{DOMAIN} A",
    "never the same name, forwarded": lambda n: f"x{n}.example.org A",
}


class Informers:
    def __init__(self) -> None:
        self.stores: dict[str, Store] = {}

    def informer(self, resource: Any, **_: str) -> Any:
        return self.stores.setdefault(resource.kind, Store())


class Store(ObjectStore):
    async def synced(self) -> None:
        return None


def put(informers: Informers, number: int, version: int = 1) -> None:
    for name, ip in ((f"s{number}", str(ipaddress.ip_address("10.143.1.0") + number)), (f"h{number}", "None")):
        meta = {"name": name, "namespace": "default", "resourceVersion": "1", "uid": name}
        ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
        if version == 1:
            informers.informer(builtin("Service")).put(
                {"metadata": meta, "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": ports}}
            )
        endpoints = [{"addresses": [f"10.142.{k}.{number % 250 + 1}"], "conditions": {"ready": True}} for k in range(3)]
        meta = {**meta, "labels": {"kubernetes.io/service-name": name}, "resourceVersion": str(version)}
        informers.informer(builtin("EndpointSlice")).put(
            {"metadata": meta, "addressType": "IPv4", "ports": ports, "endpoints": endpoints}
        )


class Upstream(asyncio.DatagramProtocol):
    """Answers every question with one address."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        end = data.index(0, 12) + 5
        record = b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4\xc0\0\2\1"
        self._transport.sendto(data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:end] + record, addr)


def serve(directory: str, channel: Any) -> None:
    """The server process. It answers messages on the channel: `usage`, `change`, `idle`, `stop`."""

    async def main() -> None:
        (Path(directory) / "resolv.conf").write_text("nameserver 127.0.0.2\n")
        informers = Informers()
        watch = ServiceWatch(informers)  # type: ignore[arg-type]
        await watch.start()
        for number in range(SERVICES):
            put(informers, number)
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(Upstream, local_addr=("127.0.0.2", 53))
        before = rss()
        forwarder = Forwarder(f"{directory}/resolv.conf", own_addresses=["127.0.0.1"], clock=REAL_CLOCK)
        server = DnsServer(watch, forwarder, domain=DOMAIN, addresses=["127.0.0.1"])
        informers.informer(builtin("Service")).add_handler(lambda old, new: server.changed())
        slices = informers.informer(builtin("EndpointSlice"))
        slices.add_handler(lambda old, new: server.endpoints_changed(service_of(old or {}) + service_of(new or {})))
        await server.start()
        channel.send("up")
        version, stop = 1, asyncio.Event()

        def change() -> None:
            nonlocal version
            version += 1
            put(informers, version % NAMES, version)
            if changing:
                loop.call_later(0.02, change)

        changing = False

        def command() -> None:
            nonlocal changing
            match channel.recv():
                case "usage":
                    used = resource.getrusage(resource.RUSAGE_SELF)
                    channel.send((used.ru_utime + used.ru_stime, server.metrics.answered, rss() - before))
                case "change":
                    changing = not changing
                    change()
                case "stop":
                    stop.set()

        loop.add_reader(channel.fileno(), command)
        await stop.wait()
        await server.stop()

    uvloop.run(main())


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def dnsperf(questions: Path, *options: str) -> str:
    command = ["dnsperf", "-s", "127.0.0.1", "-d", str(questions), "-l", str(SECONDS), "-c", "4", "-b", "2048", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def latencies(text: str) -> list[float]:
    return sorted(float(found) * 1e3 for found in re.findall(r"^> \w+ \S+ \S+ ([0-9.]+)", text, re.MULTILINE))


def question_file(directory: Path, name: Callable[[int], str], count: int) -> Path:
    path = directory / "questions"
    path.write_text("".join(f"{name(n)}\n" for n in range(count)))
    return path


def measure(title: str, path: Path, channel: Any) -> None:
    def usage() -> tuple[float, int, int]:
        channel.send("usage")
        return channel.recv()  # type: ignore[no-any-return]

    before = usage()
    text = dnsperf(path, "-q", "100")
    after = usage()
    rate = float(re.search(r"Queries per second:\s+([0-9.]+)", text).group(1))  # type: ignore[union-attr]
    lost = int(re.search(r"Queries lost:\s+(\d+)", text).group(1))  # type: ignore[union-attr]
    each = (after[0] - before[0]) / max(after[1] - before[1], 1) * 1e6
    print(f"{title}: {rate:,.0f}/s, {each:.1f} us of CPU each, {lost} lost", flush=True)
    before, began = usage(), time.monotonic()
    found = latencies(dnsperf(path, "-q", "1000", "-Q", str(RATE), "-v"))
    after = usage()
    cpu = (after[0] - before[0]) / (time.monotonic() - began) * 100
    p99 = found[int(len(found) * 0.99)]
    print(
        f"{title}, {RATE:,}/s asked: {len(found) / SECONDS:,.0f}/s answered, p50 {statistics.median(found):.2f} ms, "
        f"p99 {p99:.2f} ms, CPU {cpu:.0f} % of one core, RSS +{after[2] / 2**20:.1f} MiB since start",
        flush=True,
    )


def measures(directory: Path, channel: Any) -> Iterator[None]:
    for title, name in CASES.items():
        path = question_file(directory, name, 2_000_000 if title.startswith("never") else NAMES)
        measure(title, path, channel)
        yield
    channel.send("change")
    measure("headless, 50 changes of endpoints/s", question_file(directory, CASES["headless, 3 addresses"], NAMES), channel)
    channel.send("change")


def main(directory: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=serve, args=(str(directory), theirs))
    server.start()
    assert ours.recv() == "up"
    try:
        ours.send("usage")
        idle = ours.recv()
        time.sleep(5)
        ours.send("usage")
        print(f"idle: {(ours.recv()[0] - idle[0]) * 1e3 / 5:.2f} ms of CPU/s")
        for _ in measures(directory, ours):
            pass
    finally:
        ours.send("stop")
        server.join()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="k1sb", dir="/tmp") as temporary, netlab.host():
        main(Path(temporary))
