"""The VXLAN device against the kernel."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.net import link, netns
from k1s.net.overlay import apply, vxlan
from k1s.net.overlay.plan import Forward, Neighbour, Wanted
from k1s.net.overlay.vxlan import Device, PortTaken
from k1s.net.route import Route

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

DEVICE = Device("192.0.2.1", "06:6b:0a:2a:01:00", 1450, ("10.42.1.1/32",))
MAC = "06:6b:0a:2a:02:00"
WANTED = Wanted(
    frozenset({Route("10.42.2.0/24", "k1s-vxlan", "10.42.2.1", "10.42.1.1", onlink=True)}),
    frozenset({Neighbour("10.42.2.1", MAC)}),
    frozenset({Forward(MAC, "192.0.2.2")}),
)


@pytest.fixture(autouse=True)
def host() -> Iterator[None]:
    with netlab.namespace() as name, netns.entered(netlab.path_of(name)):
        link.ensure_link("up0", "bridge", addresses=["192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64"])
        yield


def ip(command: str) -> None:
    netlab.run("ip", *command.split())


def seen() -> Any:
    (found,) = json.loads(netlab.run("ip", "-j", "-d", "link", "show", "k1s-vxlan"))
    return found


def test_it_is_made_once_and_left_alone() -> None:
    assert vxlan.ensure(DEVICE) is True
    assert vxlan.ensure(DEVICE) is False
    found = seen()
    assert (found["address"], found["mtu"]) == (DEVICE.mac, 1450)
    data = found["linkinfo"]["info_data"]
    assert (data["id"], data["port"], data["local"], data["learning"]) == (1, 8472, "192.0.2.1", False)
    assert link.addresses("k1s-vxlan") == ["10.42.1.1/32"]


def test_another_local_address_keeps_device_and_entries() -> None:
    apply.apply(WANTED, DEVICE)
    number = seen()["ifindex"]
    touched, changes = apply.apply(WANTED, replace(DEVICE, local="192.0.2.9"))
    assert (touched, bool(changes)) == (True, False)
    assert seen()["linkinfo"]["info_data"]["local"] == "192.0.2.9"
    assert seen()["ifindex"] == number


@pytest.mark.parametrize(
    "before",
    [
        "type vxlan id 1 dstport 8472 nolearning local 2001:db8::1",
        "type vxlan id 2 dstport 8472 nolearning local 192.0.2.1",
        "type vxlan id 1 dstport 4789 nolearning local 192.0.2.1",
        "type vxlan id 1 dstport 8472 learning local 192.0.2.1",
        "type bridge",
    ],
)
def test_what_cannot_be_changed_is_made_anew(before: str) -> None:
    ip(f"link add k1s-vxlan {before}")
    number = seen()["ifindex"]
    assert vxlan.ensure(DEVICE) is True
    assert seen()["ifindex"] != number
    assert vxlan.ensure(DEVICE) is False


def test_entries_come_and_go() -> None:
    assert apply.observe() == Wanted()
    apply.apply(WANTED, DEVICE)
    assert apply.observe() == WANTED
    moved = replace(WANTED, forwards=frozenset({Forward(MAC, "192.0.2.77")}))
    apply.apply(moved, DEVICE)
    assert apply.observe() == moved
    # Somebody added a second target and a second neighbour of the same.
    netlab.run("bridge", "fdb", "append", MAC, "dev", "k1s-vxlan", "dst", "192.0.2.78")
    ip("neigh add 10.42.9.9 lladdr 02:00:00:00:00:09 dev k1s-vxlan nud permanent")
    apply.apply(moved, DEVICE)
    assert apply.observe() == moved
    apply.apply(Wanted(), DEVICE)
    assert apply.observe() == Wanted()
    apply.apply(moved, DEVICE)
    touched, _ = apply.apply(Wanted(), None)
    assert touched
    assert link.find("k1s-vxlan") is None


def test_one_that_is_refused_does_not_stop_the_others() -> None:
    # A gateway that is an address of this very host.
    bad = Route("10.42.7.0/24", "k1s-vxlan", "192.0.2.9", onlink=True)
    with pytest.raises(link.LinkError, match=r"route to 10\.42\.7\.0/24"):
        apply.apply(replace(WANTED, routes=WANTED.routes | {bad}), DEVICE)
    assert apply.observe() == WANTED


def test_a_tunnel_between_ipv6_addresses() -> None:
    device = replace(DEVICE, local="2001:db8::1", mtu=1430)
    wanted = replace(WANTED, forwards=frozenset({Forward(MAC, "2001:db8::2")}))
    apply.apply(wanted, device)
    assert apply.observe() == wanted
    assert seen()["linkinfo"]["info_data"]["local6"] == "2001:db8::1"


def test_a_number_that_another_device_has_is_told() -> None:
    ip("link add flannel.1 type vxlan id 1 dstport 8472 local 192.0.2.1")
    with pytest.raises(PortTaken, match=r"another VXLAN device \(flannel.1\)"):
        vxlan.ensure(DEVICE)


@pytest.mark.skipif(shutil.which("ethtool") is None, reason="needs ethtool")
@pytest.mark.parametrize("offload", [True, False])
def test_checksums_in_software_where_the_kernels_are_wrong(offload: bool) -> None:
    vxlan.ensure(replace(DEVICE, offload=offload))
    assert f"tx-checksumming: {'on' if offload else 'off'}" in netlab.run("ethtool", "-k", "k1s-vxlan")


def test_this_kernel_and_card_count_right() -> None:
    assert vxlan.checksums_work("up0")
    assert vxlan.checksums_work("")
