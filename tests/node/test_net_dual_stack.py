"""Pods with an address of each family, on two hosts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab
from lan import Lan, eventually, lan, ping
from test_net_overlay import MEGABYTES, transfer

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

OPTIONS = {
    "cluster_cidr": "10.142.0.0/16,fd42::/56",
    "service_cidr": "10.143.0.0/16,fd43::/112",
    "cluster_dns": "10.143.0.10,fd43::a",
}


@pytest.fixture
def pair() -> Iterator[Lan]:
    with lan(2, **OPTIONS) as made:
        yield made


def test_pods_have_both_and_meet_by_both(pair: Lan) -> None:
    a, b = pair.hosts
    a.pod("one")
    b.pod("two")
    assert a.pods["one"][1] == ["10.142.1.2", "fd42:0:0:1::2"]
    four, six = b.pods["two"][1]
    for address in (four, six):
        assert ping(a, "one", address, seconds=2)
        assert ping(a, "", address, seconds=2)
        assert ping(a, "one", address, size=1450 - (48 if ":" in address else 28))
    assert transfer((a, "one"), (b, "two"), six) == MEGABYTES << 20
    assert transfer((b, "two"), (a, "one"), "fd42:0:0:1::2") == MEGABYTES << 20


def test_the_tunnel_has_nothing_to_say_of_its_own(pair: Lan) -> None:
    assert "fe80" not in pair.hosts[0].run("ip", "-6", "addr", "show", "k1s-vxlan")


def test_pods_of_one_host_and_the_host_itself(pair: Lan) -> None:
    a = pair.hosts[0]
    for name in ("one", "three"):
        a.pod(name)
    assert ping(a, "one", "fd42:0:0:1::3", seconds=2)
    assert ping(a, "", "fd42:0:0:1::3", seconds=2)
    assert ping(a, "one", "fd42:0:0:1::1", seconds=2)
    # Through the host, whose rules hold; no pod is told of a shorter way.
    assert "fd42:0:0:1::3" not in a.inside("one", "ip", "-6", "neigh")


def test_host_ports_by_both(pair: Lan) -> None:
    a, b = pair.hosts
    for host in pair.hosts:
        host.run("ip", "addr", "add", f"2001:db8::{host.number}/64", "dev", "eth0", "nodad")
    a.pod("one", [{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}])
    servers = netlab.Servers()
    try:
        servers.start(a.pods["one"][0], "four", address="10.142.1.2")
        servers.start(a.pods["one"][0], "six", address="fd42:0:0:1::2")
        assert netlab.ask(b.netns, "192.0.2.1", 18080) == ["four 192.0.2.2"]
        assert netlab.ask(b.netns, "2001:db8::1", 18080) == ["six 2001:db8::2"]
    finally:
        servers.stop()


def test_where_ipv6_is_turned_off_for_new_links() -> None:
    with lan(2, start=False, **OPTIONS) as made:
        a, b = made.hosts
        a.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
        a.start()
        b.start()
        a.pod("one")
        b.pod("two")
        assert ping(a, "one", b.pods["two"][1][1], seconds=2)


def test_no_pod_speaks_for_others(pair: Lan) -> None:
    a, b = pair.hosts
    a.pod("one")
    b.pod("two")
    six = b.pods["two"][1][1]
    for command in (
        "ip -6 addr add fd42:0:0:9::9/128 dev eth0 nodad",
        "ip -6 route add default via fd42:0:0:1::1 src fd42:0:0:9::9 metric 1",
    ):
        a.inside("one", *command.split())
    before = a.run("cat", "/sys/class/net/k1s-vxlan/statistics/tx_packets")
    assert not ping(a, "one", six)
    assert a.run("cat", "/sys/class/net/k1s-vxlan/statistics/tx_packets") == before
    a.inside("one", "ip", "-6", "route", "del", "default", "metric", "1")
    assert ping(a, "one", six, seconds=2)


def test_outside_sees_the_node(pair: Lan) -> None:
    a, b = pair.hosts
    for host in pair.hosts:
        host.run("ip", "addr", "add", f"2001:db8::{host.number}/64", "dev", "eth0", "nodad")
    a.pod("one")
    # The other host has no route to this pod's range outside the tunnel: only what is masqueraded comes back.
    b.run("ip", "-6", "route", "add", "prohibit", "fd42:0:0:1::/64", "metric", "1")
    assert ping(a, "one", "2001:db8::2", seconds=2)
    rules = a.run("nft", "list", "table", "ip6", "k1s-masq")
    assert "ip6 saddr fd42:0:0:1::/64" in rules


def test_both_addresses_of_a_node_are_told(pair: Lan) -> None:
    a = pair.hosts[0]
    assert a.agent is not None
    agent = a.agent
    assert agent.node_ips == ("192.0.2.1",)
    a.run("ip", "addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad")
    eventually(lambda: agent.node_ips == ("192.0.2.1", "2001:db8::1"), "the new address")
    a.run("ip", "addr", "del", "2001:db8::1/64", "dev", "eth0")
    eventually(lambda: agent.node_ips == ("192.0.2.1",), "it has gone")


def test_removed_things_of_ipv6_come_back(pair: Lan) -> None:
    a, b = pair.hosts
    a.pod("one")
    b.pod("two")
    six = b.pods["two"][1][1]
    for damage in (
        "ip -6 route del fd42:0:0:2::/64",
        "ip -6 neigh del fd42:0:0:2::1 dev k1s-vxlan",
        "ip link del k1s0",
        "ip -6 addr flush dev k1s0 scope global",
        "nft delete table ip6 k1s-masq",
    ):
        a.run("sh", "-c", damage)
        eventually(lambda: ping(a, "one", six), damage, 3)
    eventually(lambda: "ip6 k1s-masq" in a.run("nft", "list", "tables"), "the table is back", 3)
    eventually(lambda: "fd43::/112 dev k1s-dns" in a.run("ip", "-6", "route"), "services", 1)


def test_hosts_that_live_by_router_advertisements_keep_doing_so() -> None:
    with lan(1, start=False, **OPTIONS) as made:
        (a,) = made.hosts
        setting = "/proc/sys/net/ipv6/conf/eth0/accept_ra"
        assert a.run("cat", setting).strip() == "1"
        a.start()
        assert a.run("cat", setting).strip() == "2"
        assert a.run("cat", "/proc/sys/net/ipv6/conf/all/forwarding").strip() == "1"
        a.close()
        assert a.run("cat", setting).strip() == "1"
        assert a.run("cat", "/proc/sys/net/ipv6/conf/all/forwarding").strip() == "0"
        left = {found["ifname"] for found in a.ip("link")}
        assert left == {"lo", "eth0"}
        assert netlab.run("ip", "netns", "exec", a.netns, "nft", "list", "ruleset") == ""
