"""The node's DNS on real sockets under uvloop, asked from another host, with resolvers there that are slow, dead, long or lead
back; and its ConfigMaps."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.agent.config import AgentConfig
from k1s.agent.network.dns import DnsPart
from k1s.agent.service_watch import ServiceWatch
from k1s.base.clock import REAL_CLOCK
from k1s.base.metrics import Registry
from k1s.client.store import ObjectStore
from k1s.net.proxy.table import Ranges

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

DNS, DNS6, HERE, PEER = "10.143.0.10", "fd00:143::a", "192.0.2.1", "192.0.2.2"

# argv: address, mode. `back` asks the cluster's DNS what it is asked.
UPSTREAM = r"""
import dnslib, socket, struct, sys, threading, time
address, mode = sys.argv[1:3]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((address, 53))
tcp = socket.create_server((address, 53))
def answer(data, count):
    q = dnslib.DNSRecord.parse(data)
    r = q.reply()
    for n in range(count):
        r.add_answer(dnslib.RR(q.q.qname, rdata=dnslib.A(f"203.0.113.{n}"), ttl=9))
    return r
def serve_tcp():
    while True:
        c, _ = tcp.accept()
        f = c.makefile("rb")
        data = f.read(struct.unpack(">H", f.read(2))[0])
        out = answer(data, 150).pack()
        c.sendall(struct.pack(">H", len(out)) + out)
        c.close()
def back(data, peer):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.sendto(data, ("10.143.0.10", 53))
    udp.sendto(s.recv(4096), peer)
threading.Thread(target=serve_tcp, daemon=True).start()
print("ready", flush=True)
while True:
    data, peer = udp.recvfrom(4096)
    if mode == "back":
        threading.Thread(target=back, args=(data, peer), daemon=True).start()
        continue
    if mode == "slow":
        time.sleep(0.5)
    r = answer(data, 0 if mode == "long" else 1)
    r.header.tc = mode == "long"
    udp.sendto(r.pack(), peer)
"""

ASK = r"""
import dnslib, sys
for name in sys.argv[3:]:
    q = dnslib.DNSRecord.question(name)
    a = dnslib.DNSRecord.parse(q.send(sys.argv[1], 53, tcp=sys.argv[2] == "tcp", timeout=9, ipv6=":" in sys.argv[1]))
    print(a.header.rcode, a.header.tc, *[r.rdata for r in a.rr])
"""


class Store(ObjectStore):
    async def synced(self) -> None:
        return None


class Informers:
    def __init__(self) -> None:
        self.stores: dict[str, Store] = {}

    def informer(self, resource: Any, *, namespace: str = "", field_selector: str = "") -> Store:
        return self.stores.setdefault(resource.kind + field_selector, Store())

    def config_map(self, name: str, version: int, data: dict[str, str]) -> None:
        meta = {"name": name, "namespace": "kube-system", "resourceVersion": str(version)}
        self.stores[f"ConfigMapmetadata.name={name}"].put({"kind": "ConfigMap", "metadata": meta, "data": data})

    def node(self, name: str, *addresses: str) -> None:
        listed = [{"type": "InternalIP", "address": address} for address in addresses]
        self.stores["Node"].put({"metadata": {"name": name, "resourceVersion": "1"}, "status": {"addresses": listed}})


class Rig:
    def __init__(self, directory: Path, peer: str) -> None:
        self.peer = peer
        self.events: list[tuple[str, str]] = []
        self.resolv = directory / "resolv.conf"
        self.resolv.write_text(f"nameserver {PEER}\n")
        config = AgentConfig(
            cluster_cidr="10.142.0.0/16", service_cidr="10.143.0.0/16", cluster_dns=f"{DNS},{DNS6}", resolv_conf=str(self.resolv)
        )
        self.informers = Informers()
        recorder = SimpleNamespace(event=self.event)
        agent: Any = SimpleNamespace(
            config=config, clock=REAL_CLOCK, metrics=Registry(), informers=self.informers, events=recorder
        )
        networks = tuple(ipaddress.ip_network(n) for n in ("10.143.0.0/16", "fd00:143::/112"))
        self.services = ServiceWatch(self.informers)  # type: ignore[arg-type]
        network: Any = SimpleNamespace(agent=agent, services=self.services, ranges=Ranges((), (), networks))
        self.part = DnsPart(network)

    def event(self, obj: dict[str, Any], kind: str, reason: str, message: str) -> None:
        self.events.append((obj["metadata"]["name"], message))

    async def ask(self, *names: str, where: str | None = None, at: str = DNS, how: str = "udp") -> list[str]:
        place = self.peer if where is None else where
        inside = ["ip", "netns", "exec", place] if place else []
        out = await asyncio.to_thread(netlab.run, *inside, sys.executable, "-c", ASK, at, how, *names)
        return out.splitlines()

    @contextmanager
    def upstream(self, mode: str, address: str = PEER) -> Iterator[None]:
        command = ["ip", "netns", "exec", self.peer, sys.executable, "-c", UPSTREAM, address, mode]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def scenario(directory: Path, work: Callable[[Rig], Awaitable[None]]) -> None:
    with netlab.host() as peer:
        netlab.run("ip", "link", "add", "k1s-dns", "type", "bridge")
        netlab.run("ip", "link", "set", "k1s-dns", "up")
        netlab.run("ip", "addr", "add", f"{DNS}/32", "dev", "k1s-dns")
        netlab.run("ip", "addr", "add", f"{DNS6}/128", "dev", "k1s-dns", "nodad")
        netlab.run("ip", "-n", peer, "route", "add", "10.143.0.0/16", "via", HERE)

        async def main() -> None:
            rig = Rig(directory, peer)
            await rig.services.start()
            await rig.part.start()
            try:
                await work(rig)
            finally:
                await rig.part.close()

        uvloop.run(main())


def test_a_dead_resolver_costs_one_question_its_time(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        rig.resolv.write_text(f"nameserver 192.0.2.77\nnameserver {PEER}\n")
        with rig.upstream("answer"):
            assert await rig.ask("a.example") == ["0 0 203.0.113.0"]
            began = time.monotonic()
            assert await rig.ask("b.example", "c.example", "a.example") == ["0 0 203.0.113.0"] * 3
            assert time.monotonic() - began < 1.9, "nobody waits for the dead one again"
        # Everything is dead now, and what was asked before is still known.
        assert await rig.ask("a.example") == ["0 0 203.0.113.0"]
        assert await rig.ask("d.example") == ["2 0"]

    scenario(tmp_path, work)


def test_long_answers_come_over_tcp_at_both_ends(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        with rig.upstream("long"):
            (cut,) = await rig.ask("long.example")
            (whole,) = await rig.ask("long.example", how="tcp")
        assert cut.startswith("0 1 203.0.113.0 ")
        assert 20 < len(cut.split()) < 40
        assert len(whole.split()) == 152

    scenario(tmp_path, work)


def test_a_slow_resolver_holds_nobody_else_up(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        with rig.upstream("slow"):
            slow = asyncio.ensure_future(rig.ask("slow.example"))
            assert await rig.ask("kube.cluster.local", "cluster.local", where="") == ["3 0", "0 0"]
            assert not slow.done()
            assert await slow == ["0 0 203.0.113.0"]

    scenario(tmp_path, work)


def test_a_resolver_that_asks_us_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(rig: Rig) -> None:
        with rig.upstream("back"), caplog.at_level(logging.INFO, "k1s.net.dns"):
            assert await rig.ask("a.example") == ["2 0"]
            began = time.process_time()
            assert await rig.ask("b.example", "c.example", "a.example") == ["2 0"] * 3
            assert time.process_time() - began < 0.5
        said = [r.message for r in caplog.records if r.message.startswith("DNS loop")]
        assert len(said) == 1 and PEER in said[0]
        with rig.upstream("answer", "192.0.2.2"):
            rig.resolv.write_text(f"nameserver {PEER}\noptions timeout:1\n")
            await rig.ask("other.example")
            await asyncio.sleep(0.3)
            assert await rig.ask("d.example") == ["0 0 203.0.113.0"]

    scenario(tmp_path, work)


def test_config_maps_and_nodes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(rig: Rig) -> None:
        rig.resolv.write_text("nameserver 192.0.2.77\n")
        rig.informers.node("node-b", "192.0.2.9", "fd00::9")
        rig.informers.config_map("k1s-dns", 1, {"stub-domains": f"corp.example: {PEER}", "hosts": "192.168.1.20 nas"})
        with rig.upstream("answer"):
            assert await rig.ask("x.corp.example", "nas", "node-b") == ["0 0 203.0.113.0", "0 0 192.168.1.20", "0 0 192.0.2.9"]
            rig.informers.config_map("k1s-dns", 2, {"hosts": "nas 192.168.1.20"})
            assert await rig.ask("nas") == ["0 0 192.168.1.20"], "what was set before stays"
            fault = "hosts, line 1: 'nas' is not an IP address; what was set before stays"
            assert rig.events == [("k1s-dns", fault)]
            assert fault in caplog.text
            rig.informers.config_map("kube-dns", 1, {"upstreamNameservers": f'["{PEER}"]'})
            assert await rig.ask("y.example") == ["0 0 203.0.113.0"]
            custom = "lab.example:53 {\n forward . 192.0.2.2\n}\n"
            rig.informers.config_map(
                "coredns-custom", 1, {"lab.server": custom, "x.override": "hosts {\n192.168.1.99 nas scanner\n}"}
            )
            assert await rig.ask("nas", "scanner") == ["0 0 192.168.1.20", "0 0 192.168.1.99"]
            rig.informers.config_map("k1s-dns", 3, {"hosts": "192.168.1.21 nas"})
            assert await rig.ask("nas") == ["0 0 192.168.1.21"]
            rig.informers.stores["ConfigMapmetadata.name=k1s-dns"].remove("kube-system", "k1s-dns")
            assert await rig.ask("nas") == ["0 0 192.168.1.99"]

    scenario(tmp_path, work)


def test_both_addresses_both_ways_and_their_metrics(tmp_path: Path) -> None:
    async def work(rig: Rig) -> None:
        meta = {"name": "web", "namespace": "shop", "resourceVersion": "1"}
        spec = {"clusterIP": "10.143.0.7", "clusterIPs": ["10.143.0.7", "fd00:143::7"], "ports": []}
        rig.informers.stores["Service"].put({"metadata": meta, "spec": spec})
        for at in (DNS, DNS6):
            for how in ("udp", "tcp"):
                assert await rig.ask("web.shop.svc.cluster.local", where="", at=at, how=how) == ["0 0 10.143.0.7"]
        name = "7.0.0.0" + ".0" * 20 + ".3.4.1.0.0.0.d.f.ip6.arpa"
        assert await rig.ask(name, where="") == ["0 0"]
        fetch = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
        with pytest.raises(AssertionError, match="404"):
            await asyncio.to_thread(netlab.run, sys.executable, "-c", fetch, f"http://{DNS}:9153/")
        for host in (DNS, f"[{DNS6}]"):
            text = await asyncio.to_thread(netlab.run, sys.executable, "-c", fetch, f"http://{host}:9153/metrics")
            for proto in ("udp", "tcp"):
                for family in ("1", "2"):
                    assert f'view="",proto="{proto}",family="{family}",type="A"}} ' in text

    scenario(tmp_path, work)
