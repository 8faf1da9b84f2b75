"""The monitor of k1s's links, routes and neighbours against a real kernel."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.net import link, names, netns, route
from k1s.net.route import Route
from k1s.net.route_monitor import RouteMonitor

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

RANGES = [ipaddress.ip_network("10.42.0.0/16"), ipaddress.ip_network("fd42::/56")]
POD = names.veth("c1", "eth0")


@pytest.fixture
def host() -> Iterator[str]:
    with netlab.namespace() as name, netns.entered(netlab.path_of(name)):
        # Else the kernel goes on telling of its own IPv6 addresses for seconds.
        Path("/proc/sys/net/ipv6/conf/default/dad_transmits").write_text("0")
        link.ensure_link("k1s0", "bridge", mac="02:6b:0a:2a:01:01", addresses=["10.42.1.1/24"])
        link.ensure_link("up0", "bridge", addresses=["192.0.2.1/24"])
        for command in (
            "link add k1s-vxlan type vxlan id 1 dstport 8472 nolearning local 192.0.2.1",
            "link set k1s-vxlan up",
            "neigh add 10.42.2.1 lladdr 02:00:00:00:00:02 dev k1s-vxlan nud permanent",
        ):
            netlab.run("ip", *command.split())
        route.ensure(Route("10.42.2.0/24", "k1s-vxlan", "10.42.2.1", onlink=True))
        yield name


@pytest.fixture
async def monitor(host: str) -> AsyncIterator[RouteMonitor]:
    with RouteMonitor(RANGES, lambda name: name == POD) as found:
        up = link.find("up0")
        assert up is not None
        found.follow_uplink(up.index)
        while await heard(found):  # what still comes of the set-up
            pass
        yield found


async def settled(monitor: RouteMonitor) -> None:
    """The kernel tells of the state of links once a second, for all namespaces together."""
    while await heard(monitor, 1.2):
        pass


async def heard(monitor: RouteMonitor, seconds: float = 0.25) -> bool:
    try:
        await asyncio.wait_for(monitor.wait(), seconds)
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "command",
    [
        "link del k1s0",
        "link set k1s0 down",
        "link del k1s-vxlan",
        "addr del 10.42.1.1/24 dev k1s0",
        "route del 10.42.2.0/24",
        "route replace 10.42.2.0/24 via 192.0.2.9",
        "neigh del 10.42.2.1 dev k1s-vxlan",
        "neigh replace 10.42.2.1 lladdr 02:00:00:00:00:99 dev k1s-vxlan",
        "link set up0 mtu 1400",
        "link set up0 down",
        "addr add 192.0.2.7/24 dev up0",
        "addr add 10.42.7.7/24 dev up0",
    ],
)
async def test_changes_of_ours_are_heard(monitor: RouteMonitor, command: str) -> None:
    netlab.run("ip", *command.split())
    assert await heard(monitor)


async def test_forwarding_that_is_turned_off_is_heard(monitor: RouteMonitor) -> None:
    await settled(monitor)
    setting = Path("/proc/sys/net/ipv4/ip_forward")
    setting.write_text("1")
    assert not await heard(monitor)
    setting.write_text("0")
    assert await heard(monitor)


async def test_forwarding_entries_are_heard(monitor: RouteMonitor) -> None:
    netlab.run("bridge", "fdb", "add", "02:00:00:00:00:02", "dev", "k1s-vxlan", "dst", "192.0.2.2")
    assert await heard(monitor)


async def test_what_traffic_and_other_programs_do_wakes_nobody(monitor: RouteMonitor) -> None:
    await settled(monitor)
    with netlab.namespace() as other:
        for command in (
            "neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev up0",
            "neigh del 192.0.2.77 dev up0",
            "neigh replace 10.42.1.9 lladdr 02:00:00:00:00:09 dev k1s0 nud reachable",
            "route add 198.51.100.0/24 via 192.0.2.9",
            "route del 198.51.100.0/24",
            f"link add docker7 type veth peer name eth0 netns {other}",
            "link set docker7 up",
            "link del docker7",
        ):
            netlab.run("ip", *command.split())
    assert not await heard(monitor)


async def test_pods_that_come_and_go_wake_nobody_and_lost_links_do(monitor: RouteMonitor) -> None:
    with netlab.namespace() as pod:
        netlab.run("ip", *f"link add k1sv0000000000 type veth peer name eth0 netns {pod}".split())
        netlab.run("ip", "link", "set", "k1sv0000000000", "master", "k1s0", "up")
        netlab.run("ip", "link", "del", "k1sv0000000000")
        await heard(monitor)  # the first time the bridge is not known yet
        for name in (names.veth("c2", "eth0"), POD):
            netlab.run("ip", *f"link add {name} type veth peer name eth0 netns {pod}".split())
            netlab.run("ip", "link", "set", name, "master", "k1s0", "up")
            assert await heard(monitor) == (name == POD)
            netlab.run("ip", "link", "del", name)
            assert await heard(monitor) == (name == POD)


async def test_a_tunnel_made_anew_is_known_by_its_new_number(monitor: RouteMonitor) -> None:
    netlab.run("ip", "link", "del", "k1s-vxlan")
    command = "link add k1s-vxlan type vxlan id 1 dstport 8472 nolearning local 192.0.2.1"
    netlab.run("ip", *command.split())
    assert await heard(monitor)
    monitor.refresh()
    netlab.run("bridge", "fdb", "add", "02:00:00:00:00:02", "dev", "k1s-vxlan", "dst", "192.0.2.2")
    assert await heard(monitor)


async def test_lost_messages_are_a_reason_to_look(monitor: RouteMonitor) -> None:
    monitor._socket.setsockopt(1, 33, 2304)  # SO_RCVBUFFORCE, the least there is
    for number in range(100):  # in this thread, so that the event loop cannot read meanwhile
        route.ensure(Route(f"198.18.{number}.0/24", "up0"))
    assert await heard(monitor)
