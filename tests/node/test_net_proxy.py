"""The service proxy against a real kernel: sockets in pods, host and peer, through real rules."""

from __future__ import annotations

import asyncio
import collections
import ipaddress
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.net import link, names, setup, teardown
from k1s.net.cni import add
from k1s.net.cni.call import Call
from k1s.net.family import IPV4
from k1s.net.nft import Nft
from k1s.net.proxy.apply import ServiceProxy
from k1s.net.proxy.endpoints import Place
from k1s.net.proxy.table import Ranges

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PODS = ipaddress.ip_network("10.142.3.0/24")
CLUSTER = ipaddress.ip_network("10.142.0.0/16")
SERVICES = ipaddress.ip_network("10.143.0.0/16")
IP = "10.143.0.7"


class World:
    """A node with pods, and the Services and slices its proxy sees."""

    def __init__(self, network: Any, peer: str) -> None:
        self.network, self.peer = network, peer
        self.services: dict[str, dict] = {}
        self.slices: dict[str, list[dict]] = {}
        self.servers = netlab.Servers()
        self.pods: dict[str, tuple[str, str]] = {}
        ranges = Ranges((PODS,), (CLUSTER,), (SERVICES,))
        place = Place("node-a")
        self.proxy = ServiceProxy(network.nft, self.lookup, place=place, ranges=ranges, own_addresses=["10.143.0.10"])

    def lookup(self, key: str) -> tuple[dict | None, list[dict]]:
        return self.services.get(key), self.slices.get(key, [])

    async def pod(self, name: str) -> str:
        """A wired pod; returns its address."""
        space = netlab.namespace()
        netns = space.__enter__()
        call = Call("ADD", name, "eth0", netlab.path_of(netns), {}, {"cniVersion": "1.0.0"})
        answer = await add.add(self.network, call)
        address = answer["ips"][0]["address"].partition("/")[0]
        self.pods[name] = (netns, address)
        self._spaces = [*getattr(self, "_spaces", []), space]
        return address

    def netns(self, name: str) -> str:
        return self.pods[name][0]

    async def set(
        self, name: str, targets: list[tuple[str, str]], *, port: int = 8080, protocol: str = "TCP", **spec: Any
    ) -> None:
        """Service default/<name> on IP:80 with (address, node) targets."""
        key = f"default/{name}"
        nodeport = {"nodePort": spec.pop("nodePort")} if "nodePort" in spec else {}
        status = spec.pop("status", {})
        conditions = spec.pop("conditions", {})
        self.services[key] = {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": IP,
                "clusterIPs": [IP],
                "ports": [{"port": 80, "protocol": protocol, **nodeport}],
                **spec,
            },
            "status": status,
        }
        endpoints = [
            {"addresses": [a], "nodeName": node, "conditions": conditions.get(a, {"ready": True})} for a, node in targets
        ]
        self.slices[key] = [{"addressType": "IPv4", "ports": [{"port": port, "protocol": protocol}], "endpoints": endpoints}]
        await self.proxy.update({key})

    async def remove(self, name: str) -> None:
        self.services.pop(f"default/{name}")
        self.slices.pop(f"default/{name}")
        await self.proxy.update({f"default/{name}"})

    def close(self) -> None:
        self.servers.stop()
        for space in getattr(self, "_spaces", []):
            space.__exit__(None, None, None)


@pytest.fixture
def peer() -> Iterator[str]:
    with netlab.host() as name:
        netlab.run("ip", "-n", name, "route", "add", "10.143.0.0/16", "via", "192.0.2.1")
        netlab.run("ip", "-n", name, "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
        yield name


@pytest.fixture
async def world(tmp_path: Path, peer: str, caplog: pytest.LogCaptureFixture) -> AsyncIterator[World]:
    nft = Nft()
    network = await setup.open_network(tmp_path, PODS, [CLUSTER], nft)
    routes = setup.service_routes([SERVICES], {gateway.version: str(gateway) for gateway in network.ipam.gateways})
    await network.in_thread(lambda: setup.ensure_service_link(routes, setup.held_addresses(["10.143.0.10"])))
    found = World(network, peer)
    await found.proxy.load([])
    try:
        yield found
    finally:
        found.close()
        await nft.close()
        await asyncio.to_thread(teardown.remove_all, tmp_path)
    if not getattr(found, "flushed", False):
        assert "writing it anew" not in caplog.text, "an update was refused and hidden by a full load"


def names_of(answers: list[str]) -> collections.Counter[str]:
    return collections.Counter(answer.partition(" ")[0] for answer in answers)


def callers_of(answers: list[str]) -> set[str]:
    return {answer.partition(" ")[2] for answer in answers}


async def serving(world: World, *pods: str, **kind: Any) -> list[tuple[str, str]]:
    found = []
    for name in pods:
        address = await world.pod(name)
        world.servers.start(world.netns(name), name, **kind)
        found.append((address, "node-a"))
    return found


@pytest.mark.parametrize("bridge_filter", [0, 1])
async def test_cluster_ip_from_pod_host_and_itself(world: World, bridge_filter: int) -> None:
    """Also where br_netfilter is loaded (docker does that), which takes bridged packets through the rules once more."""
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if switch.exists():
        switch.write_text(str(bridge_filter))
    targets = await serving(world, "one", "two", "three")
    client = await world.pod("client")
    await world.set("web", targets)
    answers = netlab.ask(world.netns("client"), IP, 80, times=120)
    counts = names_of(answers)
    assert set(counts) == {"one", "two", "three"}
    assert min(counts.values()) > 15, counts
    # A pod keeps its address; the host is seen as the bridge.
    assert callers_of(answers) == {client}
    assert callers_of(netlab.ask("", IP, 80, times=10)) == {"10.142.3.1"}
    # Hairpin: a pod that is itself the only target.
    await world.set("web", targets[:1])
    assert netlab.ask(world.netns("one"), IP, 80) == ["one 10.142.3.1"]


async def test_endpoints_come_and_go(world: World) -> None:
    targets = await serving(world, "one", "two", "three")
    await world.set("web", targets[:1])
    assert set(names_of(netlab.ask("", IP, 80, times=12))) == {"one"}
    await world.set("web", targets)
    assert set(names_of(netlab.ask("", IP, 80, times=60))) == {"one", "two", "three"}
    await world.set("web", targets[1:])
    assert set(names_of(netlab.ask("", IP, 80, times=40))) == {"two", "three"}
    await world.remove("web")
    assert netlab.ask("", IP, 80, timeout=0.3)[0] in ("TimeoutError", "OSError")


async def test_no_endpoints_is_refused_at_once(world: World) -> None:
    await world.pod("client")
    await world.set("web", [], type="NodePort", nodePort=30080)
    await world.set("dns", [], protocol="UDP", clusterIP="10.143.0.8", clusterIPs=["10.143.0.8"])
    assert netlab.ask(world.netns("client"), IP, 80) == ["ConnectionRefusedError"]
    assert netlab.ask("", IP, 80) == ["ConnectionRefusedError"]
    assert netlab.ask(world.peer, "192.0.2.1", 30080) == ["ConnectionRefusedError"]
    assert netlab.ask(world.netns("client"), "10.143.0.8", 80, kind="udp") == ["ConnectionRefusedError"]
    # A port that no Service has, on an address that one has.
    assert netlab.ask(world.netns("client"), IP, 81) == ["ConnectionRefusedError"]


async def test_host_process_behind_a_cluster_ip(world: World) -> None:
    """The API server: a process of the host, reached by pods and host through `kubernetes`."""
    client = await world.pod("client")
    world.servers.start("", "apiserver", address="192.0.2.1", port=6443)
    await world.set("kubernetes", [("192.0.2.1", "")], port=6443)
    assert netlab.ask(world.netns("client"), IP, 80) == [f"apiserver {client}"]
    assert names_of(netlab.ask("", IP, 80)) == {"apiserver": 1}
    # Also on a host without a default route.
    netlab.run("ip", "route", "del", "default")
    assert names_of(netlab.ask("", IP, 80)) == {"apiserver": 1}


async def test_node_port_keeps_the_client_for_local_pods(world: World) -> None:
    targets = await serving(world, "one")
    await world.pod("client")
    await world.set("web", targets, type="NodePort", nodePort=30080)
    assert netlab.ask(world.peer, "192.0.2.1", 30080) == ["one 192.0.2.2"]
    assert names_of(netlab.ask("", "192.0.2.1", 30080)) == {"one": 1}
    assert names_of(netlab.ask(world.netns("client"), "192.0.2.1", 30080)) == {"one": 1}
    assert netlab.ask(world.netns("one"), "192.0.2.1", 30080) == ["one 10.142.3.1"]


async def test_far_endpoint_sees_the_node(world: World) -> None:
    """What leaves again towards another node is masqueraded, else the answer would not come back here."""
    world.servers.start(world.peer, "far", port=8080)
    await world.set("web", [("192.0.2.2", "node-b")], type="NodePort", nodePort=30080, externalIPs=["198.51.100.9"])
    assert netlab.ask(world.peer, "192.0.2.1", 30080) == ["far 192.0.2.1"]
    assert netlab.ask(world.peer, "198.51.100.9", 80) == ["far 192.0.2.1"]
    assert netlab.ask(world.peer, IP, 80) == ["far 192.0.2.1"]
    assert netlab.ask("", IP, 80) == ["far 192.0.2.1"]


async def test_external_and_balancer_addresses(world: World) -> None:
    targets = await serving(world, "one")
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    await world.set("web", targets, type="LoadBalancer", nodePort=30080, externalIPs=["198.51.100.9"], status=status)
    assert netlab.ask(world.peer, "198.51.100.9", 80) == ["one 192.0.2.2"]
    assert netlab.ask(world.peer, "192.0.2.1", 80) == ["one 192.0.2.2"]
    assert names_of(netlab.ask("", "192.0.2.1", 80)) == {"one": 1}
    ranges = {"loadBalancerSourceRanges": ["203.0.113.0/24"]}
    await world.set("web", targets, type="LoadBalancer", nodePort=30080, status=status, **ranges)
    assert netlab.ask(world.peer, "192.0.2.1", 80, timeout=0.5) == ["TimeoutError"]
    ranges = {"loadBalancerSourceRanges": ["203.0.113.0/24", "192.0.2.2/32"]}
    await world.set("web", targets, type="LoadBalancer", nodePort=30080, status=status, **ranges)
    assert netlab.ask(world.peer, "192.0.2.1", 80) == ["one 192.0.2.2"]


async def test_external_policy_local(world: World) -> None:
    targets = await serving(world, "here")
    world.servers.start(world.peer, "far", port=8080)
    far = ("192.0.2.2", "node-b")
    local = {"type": "NodePort", "nodePort": 30080, "externalTrafficPolicy": "Local"}
    await world.set("web", [*targets, far], **local)
    assert set(netlab.ask(world.peer, "192.0.2.1", 30080, times=20)) == {"here 192.0.2.2"}
    # The node itself may go anywhere.
    assert set(names_of(netlab.ask("", "192.0.2.1", 30080, times=40))) == {"here", "far"}
    await world.set("web", [far], **local)
    assert netlab.ask(world.peer, "192.0.2.1", 30080, timeout=0.5) == ["TimeoutError"]
    assert names_of(netlab.ask("", "192.0.2.1", 30080)) == {"far": 1}


async def test_internal_policy_local(world: World) -> None:
    targets = await serving(world, "here")
    world.servers.start(world.peer, "far", port=8080)
    far = ("192.0.2.2", "node-b")
    await world.pod("client")
    await world.set("web", [*targets, far], internalTrafficPolicy="Local")
    assert set(names_of(netlab.ask(world.netns("client"), IP, 80, times=20))) == {"here"}
    await world.set("web", [far], internalTrafficPolicy="Local")
    assert netlab.ask(world.netns("client"), IP, 80, timeout=0.5) == ["TimeoutError"]


async def test_affinity_holds_follows_a_dead_target_and_ends(world: World) -> None:
    targets = await serving(world, "one", "two", "three")
    await world.pod("client")
    sticky = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 2}}}
    nodeport = {"type": "NodePort", "nodePort": 30080}
    await world.set("web", targets, **sticky, **nodeport)
    inside = world.netns("client")
    first = set(netlab.ask(inside, IP, 80, times=30))
    assert len(first) == 1
    assert len(set(netlab.ask(world.peer, "192.0.2.1", 30080, times=30))) == 1
    # A restarted agent writes the table anew and forgets nobody.
    for _ in range(3):
        await world.proxy.load(world.services)
        assert set(netlab.ask(inside, IP, 80, times=10)) == first
    gone = next(iter(first)).partition(" ")[0]
    await world.set("web", [t for t in targets if t[0] != world.pods[gone][1]], **sticky, **nodeport)
    second = set(names_of(netlab.ask(inside, IP, 80, times=20)))
    assert len(second) == 1
    assert second != {gone}
    seen = set(second)
    for _ in range(12):
        await asyncio.sleep(2.2)
        seen |= set(names_of(netlab.ask(inside, IP, 80)))
        if len(seen) > 1:
            break
    assert len(seen) > 1, "affinity never ended"


async def test_terminating_endpoints_serve_only_when_nobody_else_does(world: World) -> None:
    targets = await serving(world, "old", "new")
    ending = {"ready": False, "serving": True, "terminating": True}
    old = world.pods["old"][1]
    await world.set("web", targets, conditions={old: ending})
    assert set(names_of(netlab.ask("", IP, 80, times=20))) == {"new"}
    await world.set("web", targets[:1], conditions={old: ending})
    assert names_of(netlab.ask("", IP, 80)) == {"old": 1}
    await world.set("web", targets[:1], conditions={old: {"ready": False, "serving": False, "terminating": True}})
    assert netlab.ask("", IP, 80) == ["ConnectionRefusedError"]


async def test_udp_flow_of_one_client_port_leaves_a_dead_target(world: World) -> None:
    targets = await serving(world, "one", "two", kind="udp")
    await world.set("dns", targets[:1], protocol="UDP")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect((IP, 80))

        def say() -> bytes:
            client.send(b"x")
            return client.recv(100).split()[0]

        assert say() == b"one"
        await world.set("dns", targets[1:], protocol="UDP")
        assert say() == b"two"
        # A target that stays keeps its flows, also when another one joins.
        await world.set("dns", targets, protocol="UDP")
        assert {say() for _ in range(10)} == {b"two"}


async def test_two_services_claim_one_address_and_the_second_takes_over(world: World) -> None:
    targets = await serving(world, "one", "two")
    outside = {"externalIPs": ["198.51.100.9"]}
    await world.set("a", targets[:1], **outside)
    await world.set("b", targets[1:], **outside, clusterIP="10.143.0.8", clusterIPs=["10.143.0.8"])
    assert set(names_of(netlab.ask(world.peer, "198.51.100.9", 80, times=8))) == {"one"}
    await world.remove("a")
    assert set(names_of(netlab.ask(world.peer, "198.51.100.9", 80, times=8))) == {"two"}
    await world.remove("b")
    listing = netlab.run("nft", "list", "table", "ip", names.PROXY_TABLE)
    assert "10.143.0." not in listing.replace("10.143.0.0/16", "")
    assert "198.51.100.9" not in listing


async def test_foreign_flush_is_repaired_by_the_next_update(world: World) -> None:
    targets = await serving(world, "one")
    await world.set("web", targets)
    world.flushed = True  # type: ignore[attr-defined]
    netlab.run("nft", "flush", "ruleset")
    await world.set("other", targets, clusterIP="10.143.0.8", clusterIPs=["10.143.0.8"])
    assert names_of(netlab.ask("", IP, 80)) == {"one": 1}
    assert names_of(netlab.ask("", "10.143.0.8", 80)) == {"one": 1}


async def test_thousand_services(world: World) -> None:
    for number in range(1000):
        ip = f"10.143.{1 + number // 250}.{1 + number % 250}"
        key = f"default/s{number}"
        world.services[key] = {"spec": {"clusterIP": ip, "ports": [{"port": 80}]}}
        endpoints = [{"addresses": [f"10.142.3.{10 + (number + k) % 200}"], "conditions": {}} for k in range(3)]
        world.slices[key] = [{"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints}]
    begin = time.perf_counter()
    await world.proxy.load(world.services)
    full = time.perf_counter() - begin
    targets = await serving(world, "one")
    took = []
    for _ in range(5):
        for changed in ([], targets, targets * 2):
            begin = time.perf_counter()
            await world.set("web", changed)
            took.append((time.perf_counter() - begin) * 1e3)
    single = min(took)
    print(f"1000 services: full {full * 1e3:.0f} ms, one {', '.join(f'{ms:.1f}' for ms in took)} ms")
    await world.set("web", targets)
    assert names_of(netlab.ask("", IP, 80)) == {"one": 1}
    assert single < 20
    assert IPV4.owns(IP)
    assert await asyncio.to_thread(link.find, names.BRIDGE)
