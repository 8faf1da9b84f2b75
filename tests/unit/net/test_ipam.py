"""Addresses: never twice, in rotation, across restarts and crashes."""

from __future__ import annotations

import ipaddress
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from k1s.net.ipam import Ipam, IpamError, PortMapping

SMALL = ipaddress.ip_network("10.42.7.0/29")


def test_first_last_and_full(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path, SMALL)
    given = [ipam.reserve(f"c{n}", "eth0", "/ns").address for n in range(5)]
    assert [str(gateway) for gateway in ipam.gateways] == ["10.42.7.1"]
    assert given == ["10.42.7.2", "10.42.7.3", "10.42.7.4", "10.42.7.5", "10.42.7.6"]
    with pytest.raises(IpamError, match=r"no free pod address in 10.42.7.0/29: all 5 are in use"):
        ipam.reserve("c5", "eth0", "/ns")


def test_rotation_uses_a_freed_address_last(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path, SMALL)
    for n in range(2):
        ipam.reserve(f"c{n}", "eth0", "/ns")
    ipam.release("c0", "eth0")
    assert [ipam.reserve(f"d{n}", "eth0", "/ns").address[-1] for n in range(4)] == ["4", "5", "6", "2"]


def test_same_sandbox_same_address_and_release_is_idempotent(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path, SMALL)
    ports = [PortMapping(80, 8080, "tcp")]
    first = ipam.reserve("c0", "eth0", "/ns", pod="a/b", ports=ports)
    assert ipam.reserve("c0", "eth0", "/ns") is first
    assert ipam.reserve("c0", "eth1", "/ns").address != first.address
    ipam.release("c0", "eth0")
    ipam.release("c0", "eth0")
    assert ipam.find("c0", "eth0") is None


def test_restart_remembers_everything_and_goes_on_in_rotation(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path, SMALL)
    held = ipam.reserve("c0", "eth0", "/ns", pod="a/b", ports=[PortMapping(80, 8080, "udp", "192.0.2.1")])
    ipam.reserve("c1", "eth0", "/ns")
    ipam.reserve("c2", "eth0", "/ns")
    ipam.release("c1", "eth0")
    again = Ipam(tmp_path, SMALL)
    assert again.find("c0", "eth0") == held
    assert again.reserve("c3", "eth0", "/ns").address == "10.42.7.5"
    assert {a.container_id for a in again.dead({"c0"})} == {"c2", "c3"}
    assert all((path.stat().st_mode & 0o777) == 0o600 for path in tmp_path.iterdir())


def test_torn_record_is_free_and_a_foreign_range_is_kept_for_its_del(tmp_path: Path) -> None:
    Ipam(tmp_path, ipaddress.ip_network("10.42.9.0/24")).reserve("old", "eth0", "/ns")
    (tmp_path / "10.42.7.2.json").write_text('{"address": "10.42')
    ipam = Ipam(tmp_path, SMALL)
    assert ipam.find("old", "eth0") is not None
    assert ipam.reserve("c0", "eth0", "/ns").address == "10.42.7.2"


def test_an_address_whose_file_exists_already_is_an_error_not_a_double(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path, SMALL)
    (tmp_path / "10.42.7.2.json").write_text("{}")
    with pytest.raises(FileExistsError):
        ipam.reserve("c0", "eth0", "/ns")
    assert ipam.attachments() == []


def test_threads_never_share_an_address(tmp_path: Path) -> None:
    ipam = Ipam(tmp_path, ipaddress.ip_network("10.42.8.0/24"))
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda n: ipam.reserve(f"c{n}", "eth0", "/ns").address, range(200)))
    assert len(set(given)) == 200
