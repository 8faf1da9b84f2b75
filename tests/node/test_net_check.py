"""check-config's questions about the network, asked of a real kernel."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab

from k1s.net import check, netns

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(autouse=True)
def host() -> Iterator[None]:
    with netlab.namespace() as name, netns.entered(netlab.path_of(name)):
        yield


def test_a_good_host_has_none_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.2\n")
    assert check.problems(str(tmp_path / "resolv.conf")) == []
    assert netlab.run("nft", "list", "tables") == ""


def test_a_dropping_forward_chain_is_told(tmp_path: Path) -> None:
    netlab.run("nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
    (found,) = [line for line in check.problems() if "FORWARD" in line]
    assert "nft insert rule ip filter FORWARD iifname k1s0 accept" in found


def test_no_resolver_is_told(tmp_path: Path) -> None:
    assert any("not-there" in line for line in check.problems(str(tmp_path / "not-there")))
    (tmp_path / "resolv.conf").write_text("search x\n")
    assert any("names no resolver" in line for line in check.problems(str(tmp_path / "resolv.conf")))


def test_a_dropping_input_chain_is_told_with_the_tunnels_port() -> None:
    netlab.run("nft", "add table inet fw; add chain inet fw INPUT { type filter hook input priority 0; policy drop; }")
    (found,) = [line for line in check.problems() if "INPUT" in line]
    assert "nft insert rule inet fw INPUT udp dport 8472 accept" in found
    (found,) = [line for line in check.problems(backend="host-gw") if "INPUT" in line]
    assert "8472" not in found
    assert "nft insert rule inet fw INPUT iifname k1s0 accept" in found


def test_a_host_inside_the_clusters_ranges_is_told() -> None:
    netlab.run("ip", "link", "add", "up0", "type", "bridge")
    netlab.run("ip", "addr", "add", "10.42.3.7/24", "dev", "up0")
    found = check.problems(pods=[ipaddress.ip_network("10.42.0.0/16")], node_ip="10.42.3.7")
    assert any("10.42.3.7/24 on up0 lies in the range of pods" in line for line in found)
