"""The service proxy's IPv6 side against a real kernel: a node, a pod network of plain links, a client outside.

Pods are namespaces on a bridge that is called as the agent's is, so that the proxy's rules see what they see on a node.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.net import names, sysctl
from k1s.net.family import IPV4, IPV6
from k1s.net.nft import Nft
from k1s.net.proxy import limits
from k1s.net.proxy.apply import ServiceProxy
from k1s.net.proxy.endpoints import Place
from k1s.net.proxy.table import Ranges

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

NODE, OUTSIDE, POD_NETWORK, CLUSTER, SERVICES = "fd00:1::1", "fd00:1::2", "fd00:42:3::/64", "fd00:42::/32", "fd00:43::/112"
IP, EXTERNAL = "fd00:43::7", "fd00:99::9"
SERVER = """
import socket, sys, threading
kind, port, name = sys.argv[1:4]
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", int(port)))
if kind == "tcp":
    s.listen(64)
print("ready", flush=True)
while True:
    if kind == "tcp":
        c, peer = s.accept()
        c.sendall(f"{name} {peer[0]}".encode())
        c.close()
    else:
        d, peer = s.recvfrom(100)
        s.sendto(f"{name} {peer[0]}".encode(), peer)
"""
CLIENT = """
import socket, sys
kind, address, port, times = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for _ in range(times):
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    s.settimeout(0.7)
    try:
        s.connect((address, port))
        if kind == "udp":
            s.send(b"x")
        print(s.recv(100).decode())
    except OSError as error:
        print(type(error).__name__)
    s.close()
"""


class World:
    """A node `host` whose namespace the test is in, with pods and an outside machine."""

    def __init__(self, nft: Nft, stack: ExitStack, outside: str) -> None:
        self.nft, self.outside, self._stack = nft, outside, stack
        self.pods: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        self._numbers = itertools.count(2)
        self.services: dict[str, dict] = {}
        self.slices: dict[str, list[dict]] = {}
        networks = [(ipaddress.ip_network(text),) for text in (POD_NETWORK, CLUSTER, SERVICES)]
        self.proxy = ServiceProxy(
            nft, self.lookup, place=Place("node-a", "zone-1"), ranges=Ranges(*networks), families=(IPV4, IPV6)
        )

    def lookup(self, key: str) -> tuple[dict | None, list[dict]]:
        return self.services.get(key), self.slices.get(key, [])

    def pod(self, name: str, *, serve: str = "") -> str:
        number = next(self._numbers)
        address, space = f"fd00:42:3::{number:x}", self._stack.enter_context(netlab.namespace())
        self.pods[name], self.addresses[name] = space, address
        # A router that sends a packet back where it came from tells the sender of the shorter way, past the translation.
        quiet = "cd /proc/sys/net/ipv6/conf && for what in all default; do echo 0 > $what/accept_redirects; done"
        netlab.run("ip", "netns", "exec", space, "sh", "-c", f"{quiet}; echo 0 > default/accept_dad")
        netlab.run("ip", "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
        netlab.run("ip", "link", "set", f"p{number}", "master", names.BRIDGE, "up")
        netlab.run("ip", "-n", space, "addr", "add", f"{address}/128", "dev", "eth0", "nodad")
        netlab.run("ip", "-n", space, "link", "set", "eth0", "up")
        netlab.run("ip", "-n", space, "route", "add", "fd00:42:3::1", "dev", "eth0")
        netlab.run("ip", "-n", space, "route", "add", "default", "via", "fd00:42:3::1")
        if serve:
            self.serve(space, name, serve)
        return address

    def serve(self, space: str, name: str, kind: str = "tcp", port: int = 8080) -> None:
        inside = ["ip", "netns", "exec", space] if space else []
        python = shutil.which("python3") or "python3"
        process = subprocess.Popen([*inside, python, "-ISc", SERVER, kind, str(port), name], stdout=subprocess.PIPE, text=True)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"

    def start(self, name: str, script: str, *words: str) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", self.pods[name], sys.executable, "-ISc", script, *words]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, space: str, address: str, port: int, times: int = 1, kind: str = "tcp") -> list[str]:
        inside = ["ip", "netns", "exec", space] if space else []
        return netlab.run(*inside, "python3", "-ISc", CLIENT, kind, address, str(port), str(times), timeout=60).splitlines()

    async def set(self, name: str, targets: list[tuple[str, str]], **spec: Any) -> None:
        hints, protocol = spec.pop("hints", {}), spec.pop("protocol", "TCP")
        port = {"port": 80, "protocol": protocol, **({"nodePort": spec.pop("nodePort")} if "nodePort" in spec else {})}
        base = {"clusterIP": IP, "clusterIPs": [IP], "ipFamilies": ["IPv6"], "ports": [port]}
        key = f"default/{name}"
        self.services[key] = {"metadata": {}, "status": spec.pop("status", {}), "spec": {**base, **spec}}
        endpoints = [{"addresses": [a], "nodeName": n, "conditions": {}, "hints": hints.get(a, {})} for a, n in targets]
        ports = [{"port": 8080, "protocol": protocol}]
        self.slices[key] = [{"metadata": {}, "addressType": "IPv6", "ports": ports, "endpoints": endpoints}]
        await self.proxy.update({key})


@pytest.fixture
def node() -> Iterator[tuple[ExitStack, str]]:
    with ExitStack() as stack:
        outside = stack.enter_context(netlab.host())
        conf = Path("/proc/sys/net/ipv6/conf")
        (conf / "all" / "forwarding").write_text("1")
        (conf / "default" / "accept_dad").write_text("0")
        netlab.run("ip", "addr", "add", f"{NODE}/64", "dev", "up0", "nodad")
        netlab.run("ip", "-n", outside, "addr", "add", f"{OUTSIDE}/64", "dev", "eth0", "nodad")
        netlab.run("ip", "-n", outside, "route", "add", "default", "via", NODE)
        netlab.run("ip", "route", "add", "default", "via", OUTSIDE)
        netlab.run("ip", "link", "add", names.BRIDGE, "type", "bridge")
        netlab.run("ip", "addr", "add", "fd00:42:3::1/64", "dev", names.BRIDGE, "nodad")
        netlab.run("ip", "link", "set", names.BRIDGE, "up")
        for inside in ([], ["ip", "netns", "exec", outside]):
            while netlab.run(*inside, "ip", "-6", "addr", "show", "tentative"):
                time.sleep(0.1)
        yield stack, outside


@pytest.fixture
async def world(node: tuple[ExitStack, str], caplog: pytest.LogCaptureFixture) -> AsyncIterator[World]:
    nft = Nft()
    stack, outside = node
    found = World(nft, stack, outside)
    await found.proxy.load([])
    yield found
    await nft.close()
    assert "writing it anew" not in caplog.text, "an update was refused and hidden by a full load"


def callers(answers: list[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for answer in answers:
        name, _, caller = answer.partition(" ")
        found.setdefault(name, set()).add(caller)
    return found


async def test_cluster_ip_node_port_and_external_address(world: World) -> None:
    targets = [(world.pod(name, serve="tcp"), "node-a") for name in ("one", "two")]
    client = world.pod("client")
    await world.set("web", targets, type="NodePort", nodePort=30080, externalIPs=[EXTERNAL])
    assert callers(world.ask(world.pods["client"], IP, 80, 30)) == {"one": {client}, "two": {client}}
    assert callers(world.ask("", IP, 80, 30)).keys() == {"one", "two"}
    for address, port in ((NODE, 30080), ("fd00:42:3::1", 30080), (EXTERNAL, 80)):
        assert callers(world.ask(world.outside, address, port, 30)) == {"one": {OUTSIDE}, "two": {OUTSIDE}}
    assert callers(world.ask(world.pods["client"], NODE, 30080, 30)).keys() == {"one", "two"}
    await world.set("web", [], type="NodePort", nodePort=30080, externalIPs=[EXTERNAL])
    for space, address, port in (("", IP, 80), (world.outside, NODE, 30080), (world.pods["client"], EXTERNAL, 80)):
        assert world.ask(space, address, port) == ["ConnectionRefusedError"]


async def test_a_far_endpoint_sees_the_node_only_where_it_must(world: World) -> None:
    """The pod's own address stays (network policies look at it), the outside's is replaced: its answer has to come back here."""
    world.serve(world.outside, "far")
    client = world.pod("client")
    await world.set("web", [(OUTSIDE, "node-b")], type="NodePort", nodePort=30080)
    assert world.ask(world.pods["client"], IP, 80) == [f"far {client}"]
    assert world.ask(world.outside, NODE, 30080) == [f"far {NODE}"]
    assert world.ask("", IP, 80) == [f"far {NODE}"]


async def test_external_policy_local_and_source_ranges(world: World) -> None:
    near = world.pod("near", serve="tcp")
    world.serve(world.outside, "far")
    local = {"type": "LoadBalancer", "nodePort": 30080, "externalTrafficPolicy": "Local"}
    local["status"] = {"loadBalancer": {"ingress": [{"ip": EXTERNAL, "ipMode": "VIP"}]}}
    both = [(near, "node-a"), (OUTSIDE, "node-b")]
    await world.set("web", both, **local)
    assert callers(world.ask(world.outside, EXTERNAL, 80, 20)) == {"near": {OUTSIDE}}
    await world.set("web", both[1:], **local)
    assert world.ask(world.outside, EXTERNAL, 80) == ["TimeoutError"]
    await world.set("web", both, **local, loadBalancerSourceRanges=["fd00:7::/32", "10.0.0.0/8"])
    assert world.ask(world.outside, EXTERNAL, 80) == ["TimeoutError"]
    assert world.ask("", EXTERNAL, 80) == ["TimeoutError"], "the node's own traffic is judged too"
    assert callers(world.ask(world.outside, NODE, 30080)).keys() == {"near"}, "ranges concern the balancer's address"
    await world.set("web", both, **local, loadBalancerSourceRanges=["fd00:1::/64"])
    assert callers(world.ask(world.outside, EXTERNAL, 80)).keys() == {"near"}
    assert callers(world.ask("", EXTERNAL, 80, 20)).keys() == {"near", "far"}


async def test_affinity_holds_is_carried_over_and_ends(world: World) -> None:
    targets = [(world.pod(name, serve="tcp"), "node-a") for name in ("one", "two", "three")]
    for name in ("client", "other"):
        world.pod(name)
    space, other = world.pods["client"], world.pods["other"]
    sticky = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 2}}}
    kind = {"type": "NodePort", "nodePort": 30080}
    await world.set("web", targets, **sticky, **kind)
    assert len(callers(world.ask(world.outside, NODE, 30080, 20))) == 1
    first = callers(world.ask(space, IP, 80, 20)).keys()
    assert len(first) == 1
    assert len(callers(world.ask(other, IP, 80, 20))) == 1
    listing = netlab.run("nft", "list", "map", "ip6", names.PROXY_TABLE, "affinity")
    assert listing.count(" : fd00:42:3::") == 3
    assert "stick-tcp-2" in netlab.run("nft", "list", "table", "ip6", names.PROXY_TABLE), "still readable by nft itself"
    await world.proxy.load(world.services)
    assert callers(world.ask(space, IP, 80, 10)).keys() == first
    kept = [target for target in targets if target[0] != world.addresses[next(iter(first))]]
    await world.set("web", kept, **sticky, **kind)
    second = callers(world.ask(space, IP, 80, 20)).keys()
    assert len(second) == 1
    assert second != first
    seen = set(second)
    for _ in range(12):
        await asyncio.sleep(2.2)
        seen |= callers(world.ask(space, IP, 80)).keys()
        if len(seen) > 1:
            break
    assert len(seen) > 1, "affinity never ended"


async def test_affinity_does_not_outlive_a_policy(world: World) -> None:
    """A client that was with a far target under Cluster must not stay there under Local."""
    near = world.pod("near", serve="tcp")
    world.serve(world.outside, "far")
    kind = {"type": "NodePort", "nodePort": 30080, "sessionAffinity": "ClientIP"}
    world.pod("client")
    inside, far = world.pods["client"], [(OUTSIDE, "node-b")]
    await world.set("web", far, **kind)
    assert callers(world.ask(world.outside, NODE, 30080)).keys() == {"far"}
    assert callers(world.ask(inside, IP, 80)).keys() == {"far"}
    await world.set("web", [(near, "node-a"), *far], **kind)
    assert callers(world.ask(world.outside, NODE, 30080, 8)).keys() == {"far"}
    local = {"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}
    await world.set("web", [(near, "node-a"), *far], **kind, **local)
    assert callers(world.ask(world.outside, NODE, 30080, 8)) == {"near": {OUTSIDE}}
    assert callers(world.ask(inside, IP, 80, 8)).keys() == {"near"}


async def test_affinity_of_udp(world: World) -> None:
    targets = [(world.pod(name, serve="udp"), "node-a") for name in ("one", "two", "three")]
    client = world.pod("client")
    await world.set("dns", targets, protocol="UDP", sessionAffinity="ClientIP")
    assert len(set(world.ask(world.pods["client"], IP, 80, 20, kind="udp"))) == 1
    assert client


async def test_udp_flows_leave_a_dead_target_and_a_port_nobody_served(world: World) -> None:
    targets = [(world.pod(name, serve="udp"), "node-a") for name in ("one", "two")]
    await world.set("dns", targets[:1], protocol="UDP", type="NodePort", nodePort=30053)
    for address, port in ((IP, 80), (NODE, 30053)):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.connect((address, port))
            await world.set("dns", targets[:1], protocol="UDP", type="NodePort", nodePort=30053)
            client.send(b"x")
            assert client.recv(100).startswith(b"one")
            await world.set("dns", targets[1:], protocol="UDP", type="NodePort", nodePort=30053)
            client.send(b"x")
            assert client.recv(100).startswith(b"two")


async def test_hints_follow_the_node_into_another_zone(world: World) -> None:
    targets = [(world.pod(name, serve="tcp"), "node-b") for name in ("one", "two", "three")]
    zones = {address: {"forZones": [{"name": f"zone-{n}"}]} for n, (address, _) in enumerate(targets, 1)}
    await world.set("web", targets, hints=zones)
    assert callers(world.ask("", IP, 80, 10)).keys() == {"one"}
    await world.proxy.move(Place("node-a", "zone-2"))
    assert callers(world.ask("", IP, 80, 10)).keys() == {"two"}
    await world.proxy.move(Place("node-a"))
    assert callers(world.ask("", IP, 80, 60)).keys() == {"one", "two", "three"}


ODD = """
import socket, struct, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP)
s.setsockopt(socket.IPPROTO_IPV6, 7, 16)
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(2000)
    port, _, number, acknowledged, _, flags = struct.unpack_from(">HHIIBB", data)
    if flags == 0x10:
        break
sys.stdin.readline()
# Far outside the window, but with the number that the client's reset would be believed for.
far = (acknowledged + 0x10000000) % 2**32
s.sendto(struct.pack(">HHIIBBHHH", 8080, port, far, number, 5 << 4, 0x10, 100, 0, 0), (peer[0], 0))
"""
TALKER = """
import socket, sys
s = socket.create_connection((sys.argv[1], 80), 3)
print(s.getsockname()[1], flush=True)
sys.stdin.readline()
s.sendall(b"hello")
print(s.recv(100).decode(), flush=True)
"""
LISTENER = """
import socket
s = socket.socket(socket.AF_INET6)
s.bind(("::", 8080))
s.listen()
print("ready", flush=True)
c, _ = s.accept()
c.sendall(c.recv(100).upper())
"""


async def test_a_packet_out_of_the_blue_does_not_reset_the_connection(world: World) -> None:
    """The suite's "should drop INVALID conntrack entries": such a packet is not translated back, so it must not arrive."""
    server = world.pod("server")
    world.pod("client")
    await world.set("web", [(server, "node-a")])

    listener, odd = world.start("server", LISTENER), world.start("server", ODD)
    for process in (listener, odd):
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    talker = world.start("client", TALKER, IP)
    assert talker.stdout
    assert talker.stdout.readline()
    odd.communicate("go\n", timeout=5)
    assert odd.returncode == 0
    await asyncio.sleep(0.3)
    said, _ = talker.communicate("go\n", timeout=5)
    assert said.strip() == "HELLO"
    listener.communicate(timeout=5)


ASSOCIATE = """
import socket, struct, sys
def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 7, 65535, 1, 1, 1)
head = struct.pack(">HHI", int(sys.argv[3]), int(sys.argv[2]), 0)
packet = head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 132)
s.sendto(packet, (sys.argv[1], 0))
"""
ACCEPT = """
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 132)
s.settimeout(10)
print("ready", flush=True)
data, peer = s.recvfrom(1000)
print(peer[0], *struct.unpack_from(">HH", data), flush=True)
"""


async def test_sctp_by_the_packets_it_begins_with(world: World) -> None:
    """Whether this kernel speaks SCTP itself does not matter: the first packet must arrive at a target, translated."""
    server, client = world.pod("server"), world.pod("client")
    await world.set("web", [(server, "node-a")], protocol="SCTP", type="NodePort", nodePort=30080)
    for number, (address, port) in enumerate(((IP, 80), (NODE, 30080))):
        listener = world.start("server", ACCEPT)
        assert listener.stdout
        assert listener.stdout.readline() == "ready\n"
        inside = ["ip", "netns", "exec", world.pods["client"], sys.executable, "-ISc", ASSOCIATE]
        netlab.run(*inside, address, str(port), str(5000 + number))
        said, _ = listener.communicate(timeout=15)
        assert said.split() == [client, str(5000 + number), "8080"]


def test_limits_of_the_connection_tracker(node: tuple[ExitStack, str], tmp_path: Path) -> None:
    closing = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait")
    before = closing.read_text()
    limits.apply(tmp_path / "sysctl.json")
    limits.apply(tmp_path / "sysctl.json")
    assert closing.read_text().strip() == "3600"
    sysctl.restore(tmp_path / "sysctl.json")
    assert closing.read_text() == before
