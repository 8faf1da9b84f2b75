"""k1s.net.link, route and veth against the kernel, looked at with iproute2. Each test lives in a namespace of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from k1s.net import link, netns, route, veth
from k1s.net.route import Route
from tests.node import netlab


@pytest.fixture
def here() -> Iterator[str]:
    with netlab.namespace() as name, netns.entered(netlab.path_of(name)):
        yield name


def ip(*words: str) -> Any:
    return json.loads(netlab.run("ip", "-j", "-d", *words) or "[]")


def test_a_link_is_made_once_and_described(here: str) -> None:
    index = link.ensure_link("k1s0", "bridge", mtu=1400, mac="02:00:00:00:00:07", addresses=["10.1.0.1/24", "fd00::1/64"])
    assert link.ensure_link("k1s0", "bridge", mtu=1400, addresses=["10.1.0.1/24"]) == index
    found = link.find("k1s0")
    assert found == link.Link(index, "k1s0", "bridge", 1400, "02:00:00:00:00:07", True)
    assert found in link.links()
    (seen,) = ip("link", "show", "k1s0")
    assert (seen["ifindex"], seen["mtu"], seen["address"]) == (index, 1400, "02:00:00:00:00:07")
    assert {"10.1.0.1/24", "fd00::1/64"} <= set(link.addresses("k1s0")) <= set(link.addresses())


def test_what_is_not_there(here: str) -> None:
    assert link.find("nothing") is None
    assert link.addresses("nothing") == []
    assert link.delete("nothing") is False
    assert route.uplink() is None
    with pytest.raises(link.LinkError, match="no link nothing"):
        route.ensure(Route("10.9.0.0/16", "nothing"))


def test_the_kernels_reason_is_in_the_error(here: str) -> None:
    with pytest.raises(link.LinkError, match=r"link x0: Operation not supported \(Unknown device type"):
        link.ensure_link("x0", "no-such-kind")


def test_only_kept_addresses_stay(here: str) -> None:
    link.ensure_link("k1s0", "bridge", addresses=["10.1.0.1/24", "10.2.0.1/24", "10.3.0.1/32"])
    link.remove_addresses("k1s0", ["10.2.0.1/24"])
    assert [a for a in link.addresses("k1s0") if ":" not in a] == ["10.2.0.1/24"]


def test_the_uplink_is_the_default_route_with_the_best_metric(here: str) -> None:
    for number in (1, 2):
        link.ensure_link(f"up{number}", "bridge", addresses=[f"192.0.{number}.2/24"])
    netlab.run("ip", "route", "add", "default", "via", "192.0.1.1", "metric", "200")
    netlab.run("ip", "route", "add", "default", "via", "192.0.2.1", "metric", "100")
    netlab.run("ip", "route", "add", "default", "via", "192.0.1.1", "metric", "1", "table", "77")
    found = route.uplink()
    assert found is not None and found.name == "up2"


def test_a_route_is_replaced(here: str) -> None:
    link.ensure_link("k1s0", "bridge", addresses=["10.1.0.1/24", "10.1.0.2/24"])
    for source in ("10.1.0.1", "10.1.0.2"):
        route.ensure(Route("10.43.0.0/16", "k1s0", source=source))
    (seen,) = ip("route", "show", "10.43.0.0/16")
    assert (seen["dev"], seen["prefsrc"], seen["scope"], seen["protocol"]) == ("k1s0", "10.1.0.2", "link", "107")
    ours = Route("10.43.0.0/16", "k1s0", source="10.1.0.2")
    assert route.own() == [ours]
    route.remove(ours)
    route.remove(ours)
    assert route.own() == []


@pytest.mark.parametrize(("address", "gateway"), [("10.1.0.9", "10.1.0.1"), ("fd00::9", "fd00::1")])
def test_a_pods_pair(here: str, address: str, gateway: str) -> None:
    bridge = link.ensure_link("k1s0", "bridge")
    pod = veth.PodInterface("eth0", (address,), (gateway,), 1400)
    with netlab.namespace() as other, open(netlab.path_of(other)) as descriptor:
        veth.add("veth0", pod, bridge, descriptor.fileno())
        (ours,) = ip("link", "show", "veth0")
        assert (ours["master"], ours["mtu"], ours["linkinfo"]["info_slave_data"]["hairpin"]) == ("k1s0", 1400, True)
        with netns.entered(netlab.path_of(other)):
            mac = veth.configure_pod(pod)
            assert veth.configure_pod(pod) == mac  # may be repeated
            (inside,) = ip("link", "show", "eth0")
            assert (inside["address"], inside["operstate"], inside["mtu"]) == (mac, "UP", 1400)
            family = "-6" if ":" in address else "-4"
            (default,) = ip(family, "route", "show", "default")
            assert (default["gateway"], default["dev"]) == (gateway, "eth0")
            assert f"{address}/{'128' if ':' in address else '32'}" in link.addresses("eth0")
        with pytest.raises(link.LinkError, match="veth veth0: File exists"):
            veth.add("veth0", pod, bridge, descriptor.fileno())
        assert link.delete("veth0") is True
        assert link.find("veth0") is None


def test_a_full_node_is_listed_whole(here: str) -> None:
    """More links than one buffer of the kernel's answer holds."""
    for number in range(100):
        link.ensure_link(f"b{number}", "bridge", addresses=[f"10.0.{number}.1/24"])
    assert {f"b{number}" for number in range(100)} <= {found.name for found in link.links()}
    assert {f"10.0.{number}.1/24" for number in range(100)} <= set(link.addresses())
