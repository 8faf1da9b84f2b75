"""CNI from the plugin's exec to packets: real bridge, veths and rules in namespaces of the test's own."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.net import link, names, setup, teardown
from k1s.net.cni import delete, install
from k1s.net.cni.node import PodNetwork
from k1s.net.cni.service import CniService
from k1s.net.ipam import Ipam
from k1s.net.nft import Nft

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PODS = ipaddress.ip_network("10.142.3.0/24")
CLUSTER = [ipaddress.ip_network("10.142.0.0/16"), ipaddress.ip_network("10.143.0.0/16")]


@pytest.fixture
def peer() -> Iterator[str]:
    with netlab.host() as name:
        yield name


def names_of(answers: list[str]) -> list[str]:
    return [answer.partition(" ")[0] for answer in answers]


@pytest.fixture
def servers() -> Iterator[netlab.Servers]:
    found = netlab.Servers()
    yield found
    found.stop()


@dataclass
class Node:
    network: PodNetwork
    plugin: Path
    config: dict
    state: Path
    peer: str

    async def add(self, container: str, netns: str, ports: list[dict] | None = None) -> dict:
        config = {**self.config, "runtimeConfig": {"portMappings": ports}} if ports else self.config
        code, answer = await netlab.cni(self.plugin, "ADD", config, container=container, netns=netlab.path_of(netns))
        assert code == 0, answer
        return answer

    async def delete(self, container: str, netns: str) -> None:
        code, answer = await netlab.cni(self.plugin, "DEL", self.config, container=container, netns=netlab.path_of(netns))
        assert code == 0, answer


@pytest.fixture
async def node(tmp_path: Path, peer: str) -> AsyncIterator[Node]:
    nft = Nft()
    state, bin_dir = tmp_path / "network", tmp_path / "built"
    bin_dir.mkdir()
    plugin = netlab.build_shim(bin_dir)
    with tempfile.TemporaryDirectory(prefix="k1st", dir="/tmp") as run:
        socket = Path(run) / "cni.sock"
        config = json.loads(install.conflist(socket))
        plugin_config = {"cniVersion": config["cniVersion"], "name": config["name"], **config["plugins"][0]}
        network = await setup.open_network(state, PODS, CLUSTER, nft)
        service = CniService(network)
        try:
            await service.start(socket)
            yield Node(network, plugin, plugin_config, state, peer)
        finally:
            await service.stop()
            await nft.close()
            await asyncio.to_thread(teardown.remove_all, state)


async def test_add_wires_two_pods_that_reach_each_other_host_and_outside(node: Node, servers: netlab.Servers) -> None:
    with netlab.namespace() as one, netlab.namespace() as two:
        first, second = await node.add("c1", one), await node.add("c2", two)
        assert first["ips"] == [{"address": "10.142.3.2/32", "gateway": "10.142.3.1", "interface": 2}]
        assert second["ips"][0]["address"] == "10.142.3.3/32"
        assert first["interfaces"][2]["sandbox"] == netlab.path_of(one)
        servers.start(two, "two")
        servers.start("", "host")
        servers.start(node.peer, "peer")
        assert netlab.ask(one, "10.142.3.3", 8080) == ["two 10.142.3.2"]
        assert netlab.ask(one, "10.142.3.1", 8080) == ["host 10.142.3.2"]
        # Outside sees the node, not the pod.
        assert netlab.ask(one, "192.0.2.2", 8080) == ["peer 192.0.2.1"]
        assert netlab.ask("", "10.142.3.3", 8080) == ["two 10.142.3.1"]
        netlab.run("ip", "netns", "exec", one, "busybox", "ping", "-c1", "-W2", "10.142.3.3")
        assert "127.0.0.1" in netlab.run("ip", "-n", one, "addr", "show", "lo", "up")


async def test_delete_frees_link_and_address_and_may_be_repeated(node: Node) -> None:
    with netlab.namespace() as one:
        await node.add("c1", one)
        assert [x.name for x in await asyncio.to_thread(link.links) if names.is_veth(x.name)] == [names.veth("c1", "eth0")]
        await node.delete("c1", one)
        await node.delete("c1", one)
        await node.delete("never-added", one)
        assert [x.name for x in await asyncio.to_thread(link.links) if names.is_veth(x.name)] == []
        assert node.network.ipam.attachments() == []
        # Rotation: the address that was just freed is not the next one.
        assert (await node.add("c2", one))["ips"][0]["address"] == "10.142.3.3/32"


async def test_repeated_add_keeps_the_address(node: Node) -> None:
    with netlab.namespace() as one:
        ports = [{"hostPort": 18081, "containerPort": 8080, "protocol": "tcp"}]
        first = await node.add("c1", one, ports)
        assert (await node.add("c1", one, ports))["ips"] == first["ips"]
        assert len(node.network.ipam.attachments()) == 1


async def test_host_port_leads_to_the_pod_from_outside_host_other_pod_and_itself(node: Node, servers: netlab.Servers) -> None:
    with netlab.namespace() as one, netlab.namespace() as two:
        ports = [
            {"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"},
            {"hostPort": 18053, "containerPort": 8053, "protocol": "udp"},
            {"hostPort": 18090, "containerPort": 8080, "protocol": "tcp", "hostIP": "192.0.2.1"},
        ]
        await node.add("c1", one, ports)
        await node.add("c2", two)
        servers.start(one, "one")
        servers.start(one, "one", kind="udp", port=8053)
        assert netlab.ask(node.peer, "192.0.2.1", 18080) == ["one 192.0.2.2"]
        assert netlab.ask(node.peer, "192.0.2.1", 18053, kind="udp") == ["one 192.0.2.2"]
        assert netlab.ask(node.peer, "192.0.2.1", 18090) == ["one 192.0.2.2"]
        assert netlab.ask("", "192.0.2.1", 18080)[0].startswith("one ")
        assert netlab.ask(two, "192.0.2.1", 18080) == ["one 10.142.3.3"]
        assert netlab.ask(one, "192.0.2.1", 18080) == ["one 10.142.3.1"]
        # Bound to one address: the others do not lead there.
        assert netlab.ask(two, "10.142.3.1", 18090) == ["ConnectionRefusedError"]
        assert netlab.ask("", "127.0.0.1", 18080) == ["one 10.142.3.1"]
        await node.delete("c1", one)
        assert netlab.ask(node.peer, "192.0.2.1", 18080) == ["ConnectionRefusedError"]


async def test_one_host_port_on_two_addresses(node: Node, servers: netlab.Servers) -> None:
    """Upstream's conformance test: the same port, bound to 127.0.0.1 by one pod and to the node's address by another."""
    with netlab.namespace() as one, netlab.namespace() as two:
        port = {"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}
        await node.add("c1", one, [{**port, "hostIP": "127.0.0.1"}])
        await node.add("c2", two, [{**port, "hostIP": "192.0.2.1"}])
        servers.start(one, "one")
        servers.start(two, "two")
        assert names_of(netlab.ask("", "127.0.0.1", 18080)) == ["one"]
        assert names_of(netlab.ask("", "192.0.2.1", 18080)) == ["two"]
        assert netlab.ask(node.peer, "192.0.2.1", 18080) == ["two 192.0.2.2"]


async def test_pods_do_not_reach_the_loopback_of_the_host(node: Node, servers: netlab.Servers) -> None:
    with netlab.namespace() as one:
        await node.add("c1", one)
        servers.start("", "secret", address="127.0.0.1", kind="udp", port=7777)
        # The pod's own loopback out of the way, packets to 127.0.0.1 leave through the gateway as an attacker would send them.
        netlab.run("ip", "-n", one, "addr", "flush", "dev", "lo")
        netlab.run("ip", "-n", one, "route", "flush", "table", "local", "127.0.0.0/8", check=False)
        netlab.run("ip", "-n", one, "route", "add", "127.0.0.1", "via", "10.142.3.1")
        netlab.run("ip", "netns", "exec", one, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet")
        assert netlab.ask(one, "127.0.0.1", 7777, kind="udp", timeout=0.5) == ["TimeoutError"]
        netlab.run("nft", "flush", "chain", "ip", "k1s-hostport", "shield")
        assert netlab.ask(one, "127.0.0.1", 7777, kind="udp", timeout=0.5)[0].startswith("secret "), "the test proves nothing"


async def test_host_port_of_two_pods_fails_the_second_and_leaves_nothing(node: Node) -> None:
    ports = [{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}]
    with netlab.namespace() as one, netlab.namespace() as two:
        await node.add("c1", one, ports)
        config = {**node.config, "runtimeConfig": {"portMappings": ports}}
        code, answer = await netlab.cni(node.plugin, "ADD", config, container="c2", netns=netlab.path_of(two))
        assert (code, answer["code"]) == (1, 100)
        assert "File exists" in answer["msg"]
        assert [a.container_id for a in node.network.ipam.attachments()] == ["c1"]
        assert await asyncio.to_thread(link.find, names.veth("c2", "eth0")) is None


async def test_add_into_a_missing_namespace_says_so_and_leaves_nothing(node: Node) -> None:
    code, answer = await netlab.cni(node.plugin, "ADD", node.config, container="c1", netns="/var/run/netns/k1st-not-there")
    assert (code, answer["code"]) == (1, 100)
    assert "k1st-not-there: No such file" in answer["msg"]
    assert node.network.ipam.attachments() == []


async def test_check_sees_a_missing_address(node: Node) -> None:
    with netlab.namespace() as one:
        await node.add("c1", one)
        where = {"container": "c1", "netns": netlab.path_of(one)}
        assert (await netlab.cni(node.plugin, "CHECK", node.config, **where))[0] == 0
        netlab.run("ip", "-n", one, "addr", "flush", "dev", "eth0")
        code, answer = await netlab.cni(node.plugin, "CHECK", node.config, **where)
        assert code == 1
        assert "does not have the address 10.142.3.2" in answer["msg"]


async def test_restart_takes_over_and_releases_the_dead(node: Node, servers: netlab.Servers) -> None:
    with netlab.namespace() as one, netlab.namespace() as two:
        await node.add("c1", one, [{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}])
        await node.add("c2", two)
        servers.start(one, "one")
        # A second agent over the same state: what kill -9 and a start leave behind.
        again = await setup.open_network(node.state, PODS, CLUSTER, node.network.nft)
        assert netlab.ask(node.peer, "192.0.2.1", 18080) == ["one 192.0.2.2"]
        dead = await delete.release_dead(again, {"c1"})
        assert [a.container_id for a in dead] == ["c2"]
        assert await asyncio.to_thread(link.find, names.veth("c2", "eth0")) is None
        assert [a.address for a in Ipam(node.state / "addresses", PODS).attachments()] == ["10.142.3.2"]


async def test_flushed_rules_are_written_again(node: Node, servers: netlab.Servers) -> None:
    with netlab.namespace() as one:
        await node.add("c1", one, [{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}])
        servers.start(one, "one")
        netlab.run("nft", "flush", "ruleset")
        assert netlab.ask(node.peer, "192.0.2.1", 18080) == ["ConnectionRefusedError"]
        await setup.write_rules(node.network, CLUSTER)
        assert netlab.ask(node.peer, "192.0.2.1", 18080) == ["one 192.0.2.2"]


@pytest.mark.parametrize("kind", ["c", "python"])
async def test_plugin_alone(node: Node, tmp_path: Path, kind: str) -> None:
    plugin = node.plugin
    if kind == "python":
        install.install(tmp_path / "conf", tmp_path / "bin", Path(node.config["socket"]))
        plugin = tmp_path / "bin" / "k1s-cni"
    code, answer = await netlab.cni(plugin, "VERSION", {"cniVersion": "1.0.0"})
    assert (code, answer["supportedVersions"][-1]) == (0, "1.1.0")
    code, answer = await netlab.cni(plugin, "ADD", {**node.config, "socket": "/tmp/k1s-nobody.sock"}, container="x", netns="/x")
    assert (code, answer["code"], answer["cniVersion"]) == (1, 11, "1.0.0")
    code, answer = await netlab.cni(plugin, "ADD", {"cniVersion": "0.4.0", "name": "x"}, container="x", netns="/x")
    assert (code, answer["code"], answer["cniVersion"]) == (1, 7, "0.4.0")
    code, answer = await netlab.cni(plugin, "ADD", {**node.config, "cniVersion": "7.0.0"}, container="x", netns="/x")
    assert (code, answer["code"]) == (1, 1)
    loopback = plugin.parent / "loopback"
    if not loopback.is_symlink():
        loopback.symlink_to(plugin.name)
    config = {"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"}
    code, answer = await netlab.cni(loopback, "ADD", config, container="x", netns="/x", interface="lo")
    assert (code, answer["interfaces"]) == (0, [{"name": "lo", "sandbox": "/x"}])
    with netlab.namespace() as one:
        where = {"container": "c9", "netns": netlab.path_of(one)}
        begin = time.perf_counter()
        code, answer = await netlab.cni(plugin, "ADD", node.config, **where)
        print(f"{kind} ADD {(time.perf_counter() - begin) * 1e3:.1f} ms")
        assert (code, answer["ips"][0]["address"]) == (0, "10.142.3.2/32")
        begin = time.perf_counter()
        assert (await netlab.cni(plugin, "DEL", node.config, **where))[0] == 0
        print(f"{kind} DEL {(time.perf_counter() - begin) * 1e3:.1f} ms")


async def test_twenty_pods_at_once(node: Node) -> None:
    spaces = [netlab.namespace() for _ in range(20)]
    entered = [space.__enter__() for space in spaces]
    try:
        begin = time.perf_counter()
        answers = await asyncio.gather(*(node.add(f"c{i}", name) for i, name in enumerate(entered)))
        print(f"20 ADDs {(time.perf_counter() - begin) * 1e3:.0f} ms")
        assert len({a["ips"][0]["address"] for a in answers}) == 20
        await asyncio.gather(*(node.delete(f"c{i}", name) for i, name in enumerate(entered)))
        assert node.network.ipam.attachments() == []
    finally:
        for space in spaces:
            space.__exit__(None, None, None)


async def test_teardown_removes_only_what_is_ours(node: Node) -> None:
    netlab.run("nft", "add", "table", "ip", "other")
    netlab.run("ip", "link", "add", "k1something", "type", "bridge")
    with netlab.namespace() as one:
        await node.add("c1", one)
        removed = await asyncio.to_thread(teardown.remove_all, node.state)
        assert f"link {names.veth('c1', 'eth0')}" in removed
        assert "table ip other" in netlab.run("nft", "list", "tables")
        assert "k1s-" not in netlab.run("nft", "list", "tables")
        left = {x.name for x in await asyncio.to_thread(link.links)}
        assert left == {"lo", "up0", "k1something"}
        assert await asyncio.to_thread(teardown.remove_all, node.state) == []


async def test_teardown_unpins_namespaces_of_recorded_sandboxes_only(node: Node, tmp_path: Path) -> None:
    pins = tmp_path / "netns"
    pins.mkdir()
    ours, other = pins / "cni-0a1b", pins / "cni-ffff"
    for pin in (ours, other):
        pin.touch()
        with netlab.namespace() as space:
            netlab.run("mount", "--bind", netlab.path_of(space), str(pin))
    try:
        code, answer = await netlab.cni(node.plugin, "ADD", node.config, container="c1", netns=str(ours))
        assert code == 0, answer
        removed = await asyncio.to_thread(teardown.remove_all, node.state)
        assert f"network namespace {ours}" in removed
        assert [pin.name for pin in pins.iterdir()] == ["cni-ffff"]
        assert str(ours) not in Path("/proc/mounts").read_text()
    finally:
        for pin in (ours, other):
            netlab.run("umount", str(pin), check=False)
