"""What the kernel should hold for other nodes' pods: pure."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any

import pytest

from k1s.net import underlay
from k1s.net.link import Link
from k1s.net.overlay import plan
from k1s.net.overlay.plan import Forward, Neighbour, Peer, Wanted
from k1s.net.route import Route
from k1s.net.underlay import Underlay

GOLDEN = Path(__file__).parents[2] / "golden" / "net"


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("K1S_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def peer(number: int, *, addresses: tuple[str, ...] = (), ranges: tuple[str, ...] = ()) -> Peer:
    ranges = ranges or (f"10.42.{number}.0/24", f"fd42:0:0:{number}::/64")
    return Peer(f"n{number}", addresses or (f"192.0.2.{number}",), tuple(map(ipaddress.ip_network, ranges)))


def lines(wanted: Wanted) -> str:
    entries = [*map(str, wanted.routes), *map(str, wanted.neighbours), *map(str, wanted.forwards)]
    return "\n".join([*sorted(entries), *(f"skipped {n}: {why}" for n, why in sorted(wanted.skipped.items()))]) + "\n"


def test_vxlan() -> None:
    others = [peer(2), peer(3, addresses=("2001:db8::3",)), peer(4, ranges=("10.42.4.0/24",))]
    check_golden("overlay-vxlan.txt", lines(plan.vxlan("192.0.2.1", peer(1), others)))


def test_vxlan_between_ipv6_addresses() -> None:
    others = [peer(2), peer(3, addresses=("192.0.2.3", "2001:db8::3"))]
    check_golden("overlay-vxlan6.txt", lines(plan.vxlan("2001:db8::1", peer(1), others)))


def test_host_gw() -> None:
    links = [(ipaddress.ip_network(text), name) for text, name in (("192.0.2.0/24", "eth0"), ("192.0.2.4/30", "eth1"))]
    others = [peer(2), peer(5), peer(7, addresses=("198.51.100.7",)), peer(8, ranges=("fd42:0:0:8::/64",))]
    check_golden("overlay-host-gw.txt", lines(plan.host_gw(peer(1), others, links)))


def node(name: str, address: str, *ranges: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": ranges[0], "podCIDRs": list(ranges)} if ranges else {},
        "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]},
    }


def test_peers_of_nodes() -> None:
    found = plan.peer_of(node("n2", "192.0.2.2", "10.42.2.0/24", "fd42:0:0:2::/64"))
    assert found == peer(2)
    assert plan.peer_of(node("n3", "192.0.2.3")) is None
    assert plan.peer_of(node("n3", "nowhere", "10.42.3.0/24")) is None
    assert plan.peer_of({"metadata": {"name": "n3"}, "spec": {"podCIDR": "10.42.3.0/24"}}) is None
    assert plan.peer_of({**node("n2", "192.0.2.2"), "spec": {"podCIDR": "10.42.2.0/24"}}) == peer(2, ranges=("10.42.2.0/24",))


def test_no_peer_is_ourselves_or_takes_what_is_taken() -> None:
    twin = peer(5, addresses=("192.0.2.1",))  # an agent without containers on this very host
    thief = peer(6, ranges=("10.42.0.0/20",))
    later = peer(9, ranges=("10.42.2.128/25",))
    assert plan.peers([later, peer(2), peer(1), twin, thief], peer(1)) == [peer(2)]


@pytest.mark.parametrize(
    ("text", "mac"), [("10.42.3.0/24", "06:6b:0a:2a:03:00"), ("10.42.255.0/24", "06:6b:0a:2a:ff:00"), ("fd42:0:0:3::/64", None)]
)
def test_hardware_addresses(text: str, mac: str | None) -> None:
    found = plan.device_mac([ipaddress.ip_network(text)])
    assert found == mac or (mac is None and found.startswith("06:6c:"))


def test_the_difference_is_the_least() -> None:
    wanted = plan.vxlan("192.0.2.1", peer(1), [peer(2), peer(3)])
    assert not plan.difference(wanted, wanted)
    moved = plan.vxlan("192.0.2.1", peer(1), [peer(2), peer(3, addresses=("192.0.2.33",))])
    mac = plan.device_mac(peer(3).ranges)
    changes = plan.difference(moved, wanted)
    assert changes.add == Wanted(forwards=frozenset({Forward(mac, "192.0.2.33")}))
    assert changes.remove == Wanted(forwards=frozenset({Forward(mac, "192.0.2.3")}))
    gone = plan.difference(plan.vxlan("192.0.2.1", peer(1), [peer(2)]), wanted)
    assert gone.add == Wanted()
    assert (len(gone.remove.routes), len(gone.remove.neighbours), len(gone.remove.forwards)) == (2, 2, 1)


def test_what_is_replaced_in_place_is_not_removed_first() -> None:
    wanted = Wanted(
        frozenset({Route("10.42.2.0/24", "eth0", "192.0.2.2")}), frozenset({Neighbour("10.42.2.1", "06:00:00:00:00:01")})
    )
    found = Wanted(
        frozenset({Route("10.42.2.0/24", "eth1", "192.0.2.9")}), frozenset({Neighbour("10.42.2.1", "06:00:00:00:00:02")})
    )
    changes = plan.difference(wanted, found)
    assert changes.remove == Wanted()
    assert changes.add == wanted


PODS, SERVICES = [ipaddress.ip_network("10.42.0.0/16")], [ipaddress.ip_network("10.43.0.0/16")]


def host(address: str, mtu: int = 1500) -> Underlay:
    return Underlay(Link(2, "eth0", "", mtu, "", True), ((ipaddress.ip_interface(address), "eth0"),))


@pytest.mark.parametrize(
    ("under", "backend", "words"),
    [
        (host("192.0.2.1/24"), "vxlan", ()),
        (host("10.0.0.7/8"), "vxlan", ()),
        (host("10.42.0.7/24"), "vxlan", ("10.42.0.7/24 on eth0 lies in the range of pods, 10.42.0.0/16", "--cluster-cidr")),
        (host("10.43.9.7/24"), "none", ("lies in the range of services", "--service-cidr")),
        (host("192.0.2.1/24", 1329), "vxlan", ("MTU of eth0 is 1329, which leaves 1279 for pods", "1330 or more")),
        (host("192.0.2.1/24", 1330), "vxlan", ()),
        (host("192.0.2.1/24", 1280), "host-gw", ()),
        (Underlay(None, ()), "vxlan", ()),
    ],
)
def test_what_makes_a_host_unfit(under: Underlay, backend: str, words: tuple[str, ...]) -> None:
    own = str(under.networks[0][0].ip) if under.networks else "127.0.0.1"
    faults = underlay.faults(under, backend, own, PODS, SERVICES)
    assert bool(faults) == bool(words)
    assert all(word in faults[0] for word in words)


def test_a_node_address_of_another_host() -> None:
    (fault,) = underlay.faults(host("192.0.2.1/24"), "vxlan", "192.0.2.9", PODS, SERVICES)
    assert "192.0.2.9 is on no link of this host (it has 192.0.2.1)" in fault


def test_sizes() -> None:
    assert underlay.pod_mtu(host("192.0.2.1/24"), "vxlan", "192.0.2.1") == 1450
    assert underlay.pod_mtu(host("192.0.2.1/24"), "vxlan", "2001:db8::1") == 1430
    assert underlay.pod_mtu(host("192.0.2.1/24", 9000), "host-gw", "192.0.2.1") == 9000


def test_a_wider_network_is_worth_a_line() -> None:
    assert underlay.covering(host("10.0.0.7/8"), PODS) == [
        "10.0.0.7/8 on eth0 contains 10.42.0.0/16: hosts there with addresses of that range cannot be reached"
    ]
    assert underlay.covering(host("192.0.2.1/24"), PODS) == []
