"""The ranges that a server is started with."""

from __future__ import annotations

import pytest

from k1s.base.config import ConfigError
from k1s.cli import ranges


@pytest.mark.parametrize(
    ("pods", "services", "backend"),
    [
        ("10.42.0.0/16", "10.43.0.0/16", "vxlan"),
        ("10.42.0.0/16,fd42::/56", "10.43.0.0/16,fd43::/112", "host-gw"),
        ("fd42::/56, 10.42.0.0/16", "10.43.0.0/16", "none"),
    ],
)
def test_good_ranges(pods: str, services: str, backend: str) -> None:
    ranges.check(pods, services, backend)


@pytest.mark.parametrize(
    ("text", "found"), [("", ""), ("192.0.2.1", "192.0.2.1"), (" 192.0.2.1, 2001:DB8::1", "192.0.2.1,2001:db8::1")]
)
def test_node_addresses(text: str, found: str) -> None:
    assert ranges.node_addresses(text) == found


@pytest.mark.parametrize("text", ["node-1", "192.0.2.1,192.0.2.2", "0.0.0.0", "192.0.2.1,", "192.0.2.0/24"])
def test_what_is_no_node_address(text: str) -> None:
    with pytest.raises(ConfigError, match="--node-ip"):
        ranges.node_addresses(text)


@pytest.mark.parametrize(
    ("pods", "services", "backend", "words"),
    [
        ("10.42.0.0/16", "10.42.7.0/24", "vxlan", "10.42.0.0/16 and --service-cidr 10.42.7.0/24 overlap"),
        ("10.42.0.0/16,fd42::/56", "10.43.0.0/16,fd42::/112", "vxlan", "fd42::/56 and --service-cidr fd42::/112 overlap"),
        ("10.42.0.0/16", "10.43.0.0/16,fd43::/112", "vxlan", "services need pods of their family"),
        ("fd42::/56", "fd43::/112", "vxlan", "IPv6 alone do not work yet"),
        ("10.42.0.0/16,10.44.0.0/16", "10.43.0.0/16", "vxlan", "one range of each family"),
        ("10.42.0.0/16,fd42::/80", "10.43.0.0/16", "vxlan", "fd42::/80 is too small: every node gets a /64"),
        ("10.42.0.1/16", "10.43.0.0/16", "vxlan", "--cluster-cidr: 10.42.0.1/16 has host bits set"),
        ("10.42.0.0/16", "10.43.0.0/16", "wireguard", "wireguard is not there yet: use vxlan, host-gw or none"),
        ("10.42.0.0/16", "10.43.0.0/16", "carrier-pigeon", "carrier-pigeon is not one of vxlan, host-gw, none"),
    ],
)
def test_bad_ranges(pods: str, services: str, backend: str, words: str) -> None:
    with pytest.raises(ConfigError) as fault:
        ranges.check(pods, services, backend)
    assert words in str(fault.value)
    assert "\n" not in str(fault.value)
