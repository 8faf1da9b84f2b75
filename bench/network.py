"""Figures of the pod network: `python bench/network.py` as root, with gcc. One line a figure.

CNI ADD and DEL through the compiled plugin (wall time of the exec, as containerd sees it), one and twenty at once; the proxy's
full load and one-Service update at 200, 1,000 and 5,000 Services of 3 endpoints; DNS answers/s from the zone and from the
cache. Everything happens in network namespaces of its own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dnslib
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "node"))
import netlab

from k1s.base.clock import REAL_CLOCK
from k1s.net import setup, teardown
from k1s.net.cni import install
from k1s.net.cni.service import CniService
from k1s.net.dns.forward import Forwarder
from k1s.net.dns.server import DnsServer
from k1s.net.nft import Nft
from k1s.net.proxy.apply import ServiceProxy
from k1s.net.proxy.endpoints import Place
from k1s.net.proxy.table import Ranges

PODS, CLUSTER = ipaddress.ip_network("10.142.3.0/24"), ipaddress.ip_network("10.142.0.0/16")
SERVICES = ipaddress.ip_network("10.143.0.0/16")
PIPELINE, DNS_SECONDS = 32, 3.0


def show(name: str, seconds: list[float]) -> None:
    ms = sorted(s * 1e3 for s in seconds)
    print(f"{name}: median {statistics.median(ms):.2f} ms, worst {ms[-1]:.2f} ms ({len(ms)} times)")


async def cni(directory: Path, nft: Nft) -> None:
    network = await setup.open_network(directory / "network", PODS, [CLUSTER], nft)
    service = CniService(network)
    await service.start(directory / "cni.sock")
    plugin = netlab.build_shim(directory)
    listed = json.loads(install.conflist(directory / "cni.sock"))
    config = {"cniVersion": listed["cniVersion"], "name": listed["name"], **listed["plugins"][0]}
    adds, deletes = [], []

    async def call(command: str, container: str, netns: str, into: list[float]) -> None:
        begin = time.perf_counter()
        code, answer = await netlab.cni(plugin, command, config, container=container, netns=netlab.path_of(netns))
        into.append(time.perf_counter() - begin)
        assert code == 0, answer

    with netlab.namespace() as netns:
        for number in range(20):
            await call("ADD", f"c{number}", netns, adds)
            await call("DEL", f"c{number}", netns, deletes)
    show("CNI ADD", adds)
    show("CNI DEL", deletes)
    spaces = [netlab.namespace() for _ in range(20)]
    entered = [space.__enter__() for space in spaces]
    for command in ("ADD", "DEL"):
        begin = time.perf_counter()
        await asyncio.gather(*(call(command, f"d{n}", name, []) for n, name in enumerate(entered)))
        print(f"20 CNI {command} at once: {(time.perf_counter() - begin) * 1e3:.0f} ms")
    for space in spaces:
        space.__exit__(None, None, None)
    await service.stop()


def objects(count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    services, slices = {}, {}
    for number in range(count):
        key = f"default/s{number}"
        services[key] = {"spec": {"clusterIP": str(SERVICES.network_address + 256 + number), "ports": [{"port": 80}]}}
        endpoints = [{"addresses": [f"10.142.3.{10 + (number + k) % 200}"], "conditions": {}} for k in range(3)]
        slices[key] = [{"addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints}]
    return services, slices


async def proxy(nft: Nft) -> None:
    for count in (200, 1000, 5000):
        services, slices = objects(count)
        ranges = Ranges((PODS,), (CLUSTER,), (SERVICES,))
        found = ServiceProxy(
            nft, lambda key, s=services, e=slices: (s.get(key), e.get(key, [])), place=Place("node-a"), ranges=ranges
        )
        begin = time.perf_counter()
        await found.load(services)
        print(f"proxy, {count} services: full load {(time.perf_counter() - begin) * 1e3:.0f} ms")
        took = []
        for turn in range(40):
            slices["default/s7"][0]["endpoints"][1] = {"addresses": [f"10.142.3.{220 + turn % 2}"]}
            begin = time.perf_counter()
            await found.update(["default/s7"])
            took.append(time.perf_counter() - begin)
        show(f"proxy, {count} services: one endpoint changed", took)


class Zone:
    def __init__(self, services: dict[str, Any]) -> None:
        self._services = services
        for key, value in services.items():
            value["metadata"] = dict(zip(("namespace", "name"), key.split("/"), strict=True))

    def service(self, namespace: str, name: str) -> Any:
        return self._services.get(f"{namespace}/{name}")

    def slices(self, namespace: str, name: str) -> list[Any]:
        return []

    def has_services(self, namespace: str) -> bool:
        return namespace == "default"

    def services_at(self, address: str) -> list[Any]:
        return []

    def slices_at(self, address: str) -> list[Any]:
        return []


def dns_client(port: int, names: list[str], answers: Any) -> None:
    """Keeps PIPELINE questions under way on one socket, for DNS_SECONDS."""
    questions = [bytes(dnslib.DNSRecord.question(name).pack()) for name in names]
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect(("127.0.0.1", port))
    client.settimeout(2)
    for number in range(PIPELINE):
        client.send(questions[number % len(questions)])
    count, end = 0, time.monotonic() + DNS_SECONDS
    while time.monotonic() < end:
        client.recv(2048)
        count += 1
        client.send(questions[count % len(questions)])
    answers.put(count)


async def dns(directory: Path) -> None:
    (directory / "resolv.conf").write_text("nameserver 127.0.0.2\n")
    forwarder = Forwarder(str(directory / "resolv.conf"), own_addresses=["127.0.0.1"], clock=REAL_CLOCK, port=5353)
    server = DnsServer(Zone(objects(1000)[0]), forwarder, domain="cluster.local", addresses=["127.0.0.1"], port=5353)
    await server.start()
    upstream, _ = await asyncio.get_running_loop().create_datagram_endpoint(Upstream, local_addr=("127.0.0.2", 5353))
    cases = {
        "zone": [f"s{n}.default.svc.cluster.local" for n in range(100)],
        "zone, search path misses": [f"s{n}.default.svc.cluster.local.default.svc.cluster.local" for n in range(100)],
        "forwarded, cached": [f"n{n}.example.org" for n in range(100)],
    }
    for name, questions in cases.items():
        answers: Any = multiprocessing.Queue()
        client = multiprocessing.Process(target=dns_client, args=(5353, questions, answers))
        before = time.process_time()
        client.start()
        count = await asyncio.to_thread(answers.get)
        used = time.process_time() - before
        client.join()
        print(f"DNS, {name}: {count / DNS_SECONDS:.0f}/s with one client, {used / count * 1e6:.0f} us of CPU each")
    upstream.close()
    await server.stop()


class Upstream(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        reply = dnslib.DNSRecord.parse(data).reply()
        reply.add_answer(dnslib.RR(reply.q.qname, rdata=dnslib.A("192.0.2.1"), ttl=300))
        self._transport.sendto(bytes(reply.pack()), addr)


async def main(directory: Path) -> None:
    nft = Nft()
    try:
        await cni(directory, nft)
        await proxy(nft)
        await dns(directory)
    finally:
        await nft.close()
        await asyncio.to_thread(teardown.remove_all, directory / "network")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="k1sb", dir="/tmp") as temporary, netlab.host():
        uvloop.run(main(Path(temporary)))
