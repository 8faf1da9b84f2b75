"""Pods of several hosts on a real kernel: VXLAN and host routes, healing, addresses that change."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab
from lan import Host, Lan, eventually, lan, ping

from k1s.net import netns

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

MEGABYTES = 20


@pytest.fixture
def pair() -> Iterator[Lan]:
    with lan(2) as made:
        yield made


@pytest.fixture
def servers() -> Iterator[netlab.Servers]:
    found = netlab.Servers()
    yield found
    found.stop()


def transfer(source: tuple[Host, str], target: tuple[Host, str], address: str) -> int:
    """How many of the bytes sent from one pod arrive in another, whole and in order."""
    sent = os.urandom(1 << 20) * MEGABYTES
    received = bytearray()

    def enter(host: Host, pod: str) -> str:
        return netlab.path_of(host.pods[pod][0] if pod else host.netns)

    with netns.entered(enter(*target)):
        listener = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    with listener:

        def take() -> None:
            connection, _ = listener.accept()
            with connection:
                while part := connection.recv(1 << 18):
                    received.extend(part)

        taker = threading.Thread(target=take)
        taker.start()
        with netns.entered(enter(*source)):
            client = socket.create_connection(listener.getsockname()[:2], 5)
        with client:
            client.sendall(sent)
        taker.join(30)
    return len(received) if received == sent else -1


def test_pods_of_two_hosts_meet_with_their_own_addresses(pair: Lan, servers: netlab.Servers) -> None:
    a, b = pair.hosts
    one, two = a.pod("one"), b.pod("two")
    assert (one, two) == ("10.142.1.2", "10.142.2.2")
    servers.start(b.pods["two"][0], "two")
    servers.start(b.netns, "host-b")
    assert netlab.ask(a.pods["one"][0], two, 8080) == ["two 10.142.1.2"]
    # A node's own packets to pods come from its bridge, so that answers find back through the tunnel.
    assert netlab.ask(a.netns, two, 8080) == ["two 10.142.1.1"]
    assert netlab.ask(a.pods["one"][0], "10.142.2.1", 8080) == ["host-b 10.142.1.2"]
    # Outside the pods' world the node speaks for them.
    assert netlab.ask(a.pods["one"][0], "192.0.2.2", 8080) == ["host-b 192.0.2.1"]


def test_what_the_node_sends_from_its_own_address_comes_back(pair: Lan, servers: netlab.Servers) -> None:
    a, b = pair.hosts
    two = b.pod("two")
    servers.start(b.pods["two"][0], "two")
    for host in (a, b):  # as some distributions have it
        host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter")
    with netns.entered(netlab.path_of(a.netns)):
        client = socket.create_connection((two, 8080), 2, source_address=("192.0.2.1", 0))
    with client:
        assert client.recv(100) == b"two 10.142.1.1"


def test_twenty_megabytes_each_way(pair: Lan) -> None:
    a, b = pair.hosts
    one, two = a.pod("one"), b.pod("two")
    assert transfer((a, "one"), (b, "two"), two) == MEGABYTES << 20
    assert transfer((b, "two"), (a, "one"), one) == MEGABYTES << 20
    assert transfer((a, ""), (b, "two"), two) == MEGABYTES << 20
    assert transfer((a, "one"), (b, ""), "192.0.2.2") == MEGABYTES << 20


def test_the_size_is_worked_out_and_follows(pair: Lan) -> None:
    a, b = pair.hosts
    a.pod("one")
    two = b.pod("two")
    sizes = {found["ifname"]: found["mtu"] for found in a.ip("link")}
    assert (sizes["eth0"], sizes["k1s0"], sizes["k1s-vxlan"]) == (1500, 1450, 1450)
    assert ping(a, "one", two, size=1450 - 28, seconds=2)
    assert not ping(a, "one", two, size=1450 - 27)
    netlab.run("ip", "-n", pair.switch, "link", "set", "h1", "mtu", "1400")
    a.run("ip", "link", "set", "eth0", "mtu", "1400")
    eventually(
        lambda: {f["mtu"] for f in a.ip("link") if f["ifname"].startswith("k1s") and f["ifname"] != "k1s-dns"} == {1350},
        "smaller",
    )
    assert '"mtu":1350' in a.inside("one", "ip", "-j", "link", "show", "eth0")
    assert ping(a, "one", two, size=1350 - 28, seconds=2)


def test_nothing_is_left(pair: Lan) -> None:
    a = pair.hosts[0]
    a.close()
    assert {found["ifname"] for found in a.ip("link")} == {"lo", "eth0"}
    assert a.run("ip", "route").split("\n")[0].startswith("default via 192.0.2.254")
    assert "10.14" not in a.run("ip", "route")
    assert a.run("nft", "list", "ruleset") == ""


def test_one_entry_a_peer_and_no_flooding() -> None:
    with lan(3) as made:
        a, b, c = made.hosts
        wanted = {("06:6b:0a:8e:02:00", "192.0.2.2"), ("06:6b:0a:8e:03:00", "192.0.2.3")}
        (device,) = a.ip("link", "show", "k1s-vxlan")
        assert device["address"] == "06:6b:0a:8e:01:00"
        data = device["linkinfo"]["info_data"]
        assert (data["id"], data["port"], data["local"], data["learning"]) == (1, 8472, "192.0.2.1", False)
        assert "group" not in data
        assert entries(a) == wanted
        assert {(n["dst"], n["lladdr"]) for n in a.ip("neigh", "show", "dev", "k1s-vxlan", "nud", "permanent")} == {
            ("10.142.2.1", "06:6b:0a:8e:02:00"),
            ("10.142.3.1", "06:6b:0a:8e:03:00"),
        }
        c.stop()
        made.remove(c)
        eventually(lambda: len(entries(a)) == len(entries(b)) == 1, "the deleted node is forgotten")
        assert "10.142.3.0" not in a.run("ip", "route")


def entries(host: Host) -> set[tuple[str, str]]:
    return {(e["mac"], e.get("dst", "")) for e in host.ip_bridge("fdb", "show", "dev", "k1s-vxlan")}


@pytest.mark.parametrize(
    "damage",
    [
        "ip link del k1s0",
        "ip link set k1s0 down",
        "ip addr flush dev k1s0",
        "ip link set k1s0 mtu 1300",
        "ip link del k1s-vxlan",
        "ip link set k1s-vxlan down",
        "ip addr flush dev k1s-vxlan",
        "ip link set k1s-vxlan address 02:00:00:00:00:01",
        "ip route del 10.142.2.0/24",
        "ip route replace 10.142.2.0/24 via 192.0.2.254",
        "bridge fdb del 06:6b:0a:8e:02:00 dev k1s-vxlan dst 192.0.2.2",
        "bridge fdb replace 06:6b:0a:8e:02:00 dev k1s-vxlan dst 192.0.2.77",
        "ip neigh del 10.142.2.1 dev k1s-vxlan",
        "ip neigh replace 10.142.2.1 lladdr 02:00:00:00:00:01 dev k1s-vxlan",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
        "ip link set $POD nomaster",
        "ip link set $POD down",
        "ip link del $POD",
    ],
)
def test_what_somebody_removes_comes_back(damaged: tuple[Lan, str], damage: str, caplog: pytest.LogCaptureFixture) -> None:
    made, two = damaged
    a, _ = made.hosts
    (pod,) = [found["ifname"] for found in a.ip("link") if found["ifname"].startswith("k1sv")]
    before = state(a)
    a.run("sh", "-c", damage.replace("$POD", pod))
    eventually(lambda: "put back" in caplog.text, "the damage is noticed", 3)
    eventually(lambda: ping(a, "one", two), "the pod is reachable again", 3)
    eventually(lambda: state(a) == before, f"all is as it was: {state(a)} {before}", 3)
    assert a.agent is not None
    assert a.agent.not_ready == {}


def state(host: Host) -> set[str]:
    """Everything there is, but for numbers that tell of time."""
    routes = host.run("ip", "route").replace("linkdown", "")
    links = {
        f"{f['ifname']} {f['mtu']} {f['address'] if 'k1sv' not in f['ifname'] else ''} {f.get('master')} {'UP' in f['flags']}"
        for f in host.ip("link")
    }
    held = {f"{f['ifname']} {a['local']}" for f in host.ip("addr") for a in f["addr_info"] if a["family"] == "inet"}
    return {*map(str.strip, routes.split("\n")), *links, *held, *map(str, entries(host))}


@pytest.fixture(scope="module")
def damaged() -> Iterator[tuple[Lan, str]]:
    with lan(2) as made:
        made.hosts[0].pod("one")
        yield made, made.hosts[1].pod("two")


def test_the_dns_link_comes_back(pair: Lan) -> None:
    a = pair.hosts[0]
    for damage in ("ip link del k1s-dns", "ip route del 10.143.0.0/16", "ip addr flush dev k1s-dns"):
        a.run("sh", "-c", damage)
        eventually(lambda: "10.143.0.0/16 dev k1s-dns" in a.run("ip", "route"), damage, 2)
        eventually(lambda: "10.143.0.10/32" in a.run("ip", "addr", "show", "k1s-dns"), damage, 2)


def test_a_nodes_new_address_is_followed(pair: Lan) -> None:
    a, b = pair.hosts
    one, two = a.pod("one"), b.pod("two")
    assert ping(a, "one", two, seconds=2)
    told: list[str] = []
    assert a.agent is not None
    a.agent.address_handlers.append(told.append)
    a.run("ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
    a.run("ip", "addr", "add", "192.0.2.101/24", "dev", "eth0")
    a.run("ip", "route", "replace", "default", "via", "192.0.2.254", "dev", "eth0")
    eventually(lambda: told == ["192.0.2.101"], "the new address is told")
    a.address = told[0]
    pair.put(a)  # what the server tells the others then
    eventually(lambda: ping(b, "two", one), "the pod is reachable through the new address")
    assert entries(b) == {("06:6b:0a:8e:01:00", "192.0.2.101")}
    assert a.ip("link", "show", "k1s-vxlan")[0]["linkinfo"]["info_data"]["local"] == "192.0.2.101"


def test_another_card_and_a_vpn_do_not_move_a_node(pair: Lan) -> None:
    a = pair.hosts[0]
    assert a.agent is not None
    told: list[str] = []
    a.agent.address_handlers.append(told.append)
    for command in (
        "link add up1 type bridge",
        "addr add 198.51.100.1/24 dev up1",
        "link set up1 up",
        "route del default",
        "route add default via 198.51.100.2 metric 1",
    ):
        a.run("ip", *command.split())
    a.run("ip", "route", "del", "10.142.2.0/24")  # once this is back, the rest has been seen too
    eventually(lambda: "10.142.2.0" in a.run("ip", "route"), "the route is back", 2)
    assert told == []


def test_a_fixed_address_is_kept() -> None:
    with lan(1, node_ip="192.0.2.1") as made:
        (a,) = made.hosts
        assert a.agent is not None
        told: list[str] = []
        a.agent.address_handlers.append(told.append)
        a.run("ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
        a.run("ip", "addr", "add", "192.0.2.101/24", "dev", "eth0")
        eventually(lambda: a.ip("link", "show", "k1s-vxlan"), "still there")
        assert told == []


def test_routes_without_a_tunnel(servers: netlab.Servers) -> None:
    with lan(3, network_backend="host-gw") as made:
        a, b, c = made.hosts
        two = b.pod("two")
        a.pod("one")
        servers.start(b.pods["two"][0], "two")
        assert netlab.ask(a.pods["one"][0], two, 8080) == ["two 10.142.1.2"]
        assert netlab.ask(a.netns, two, 8080) == ["two 10.142.1.1"]
        assert a.ip("link", "show", "k1s0")[0]["mtu"] == 1500
        assert ping(a, "one", two, size=1472)
        assert not [f for f in a.ip("link") if f["ifname"] == "k1s-vxlan"]
        a.run("ip", "route", "del", "10.142.2.0/24")
        eventually(lambda: "10.142.2.0/24 via 192.0.2.2" in a.run("ip", "route"), "the route is back", 2)
        for damage in ("ip link set eth0 down; ip link set eth0 up", "ip addr del $A dev eth0; ip addr add $A dev eth0"):
            a.run("sh", "-c", damage.replace("$A", "192.0.2.1/24"))
            eventually(lambda: "10.142.2.0/24 via 192.0.2.2" in a.run("ip", "route"), damage, 2)
        made.remove(c)
        eventually(lambda: "10.142.3.0" not in a.run("ip", "route"), "the deleted node's route is gone", 2)
        assert "10.142.2.0" in a.run("ip", "route")
        a.close()
        assert "10.14" not in a.run("ip", "route")


def test_another_backend_at_the_next_start_leaves_nothing_of_the_first() -> None:
    with lan(2) as made:
        a, b = made.hosts
        one, two = a.pod("one"), b.pod("two")
        for backend in ("host-gw", "vxlan"):
            for host in made.hosts:
                host.stop()
                host.restart_with(network_backend=backend)
            assert ping(a, "one", two, seconds=2)
            assert ping(b, "two", one, seconds=2)
            assert ("k1s-vxlan" in a.run("ip", "link")) == (backend == "vxlan")
            assert ("10.142.2.0/24 via 192.0.2.2" in a.run("ip", "route")) == (backend == "host-gw")
            assert a.ip("link", "show", "k1s0")[0]["mtu"] == (1450 if backend == "vxlan" else 1500)


def test_a_peer_that_is_not_on_the_lan_is_no_next_hop() -> None:
    with lan(2, network_backend="host-gw") as made:
        a, b = made.hosts
        made.put(b, status={"addresses": [{"type": "InternalIP", "address": "198.51.100.7"}]})
        eventually(lambda: "10.142.2.0" not in a.run("ip", "route"), "no route through a stranger")


def fault(host: Host) -> str:
    assert host.agent is not None
    return host.agent.not_ready.get("pod network", "")


def test_a_taken_port_is_told_and_taken_over_when_free() -> None:
    with lan(1, start=False) as made:
        (a,) = made.hosts
        with netns.entered(netlab.path_of(a.netns)):
            holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        holder.bind(("0.0.0.0", 8472))
        a.start()
        assert "UDP port 8472 is taken by another program" in fault(a)
        holder.close()
        eventually(lambda: not fault(a), "ready once the port is free", 10)


def test_another_vxlan_device_is_named_and_its_end_heard() -> None:
    with lan(1, start=False) as made:
        (a,) = made.hosts
        command = "link add flannel.1 type vxlan id 1 dstport 8472 local 192.0.2.1"
        netlab.run("ip", "-n", a.netns, *command.split())
        a.start()
        assert "another VXLAN device (flannel.1)" in fault(a)
        a.run("ip", "link", "del", "flannel.1")
        eventually(lambda: not fault(a), "ready once the other is gone", 3)


def test_a_small_mtu_is_told_with_the_numbers() -> None:
    with lan(1, mtu=1300) as made:
        (a,) = made.hosts
        assert "MTU of eth0 is 1300, which leaves 1250 for pods" in fault(a)
        assert "1330 or more" in fault(a)
        a.run("ip", "link", "set", "eth0", "mtu", "1400")
        eventually(lambda: not fault(a), "large enough", 3)


def test_a_node_address_that_is_nowhere_is_told() -> None:
    with lan(1, node_ip="192.0.2.1") as made:
        (a,) = made.hosts
        a.run("ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
        eventually(lambda: "the node's address 192.0.2.1 is on no link of this host (it has none)" in fault(a), "told", 3)
        a.run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
        eventually(lambda: not fault(a), "ready again", 3)


def test_a_host_inside_the_pods_range_is_told() -> None:
    with lan(1) as made:
        (a,) = made.hosts
        a.run("ip", "addr", "add", "10.142.77.5/24", "dev", "eth0")
        eventually(lambda: "10.142.77.5/24 on eth0 lies in the range of pods, 10.142.0.0/16" in fault(a), "told", 3)
        a.run("ip", "addr", "del", "10.142.77.5/24", "dev", "eth0")
        eventually(lambda: not fault(a), "ready again", 3)
