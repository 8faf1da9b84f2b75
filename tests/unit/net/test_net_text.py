"""Texts and small pure parts: masquerading, host ports, CNI framing, stale flows, names."""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path

import pytest

from k1s.net import hostport, masquerade, names
from k1s.net.cni import call, install, shim
from k1s.net.cni.call import CniError
from k1s.net.conntrack import Flow, is_stale
from k1s.net.family import IPV4, IPV6, parse_address
from k1s.net.ipam import Attachment, PortMapping

GOLDEN = Path(__file__).parents[2] / "golden" / "net"


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("K1S_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_masquerade_table() -> None:
    pods = [ipaddress.ip_network("10.42.0.0/29"), ipaddress.ip_network("fd00:42::/125")]
    cluster = [ipaddress.ip_network("10.42.0.0/16"), ipaddress.ip_network("fd00:42::/56")]
    check_golden("masquerade.txt", masquerade.plan(pods, cluster))


def test_hostport_table_and_changes() -> None:
    ports = (
        PortMapping(80, 8080, "tcp"),
        PortMapping(53, 53, "udp", "0.0.0.0"),
        PortMapping(81, 81, "tcp", "192.0.2.1"),
        PortMapping(82, 82, "tcp", "fd00::1"),
    )
    one = Attachment("10.42.0.2", "c1", "eth0", "/ns", ports=ports)
    none = Attachment("10.42.0.3", "c2", "eth0", "/ns")
    text = hostport.plan([one, none]) + hostport.plan_add(one) + hostport.plan_delete(one) + hostport.plan_add(none)
    check_golden("hostport.txt", text)
    assert hostport.plan_add(none) == ""
    assert "ip6" not in hostport.plan_add(one, [IPV6])


def test_port_mappings_of_a_call() -> None:
    given = {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "TCP"}, {"containerPort": 1}]}
    assert hostport.mappings(given) == (PortMapping(80, 8080, "tcp"),)
    as_containerd = {"portMappings": [{"HostPort": 80, "ContainerPort": 8080, "Protocol": "udp", "HostIP": "192.0.2.1"}]}
    assert hostport.mappings(as_containerd) == (PortMapping(80, 8080, "udp", "192.0.2.1"),)
    assert hostport.mappings(None) == ()
    assert hostport.mappings({"portMappings": [{"hostPort": 1, "containerPort": 2, "protocol": "icmp"}]}) == ()


def test_call_is_decoded() -> None:
    head = b"CNI_COMMAND=ADD\0CNI_CONTAINERID=c1\0CNI_IFNAME=eth0\0CNI_NETNS=/ns\0CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=p;"
    head += b"K8S_POD_NAMESPACE=n"
    found = call.decode(head + b"\0\0" + b'{"cniVersion": "1.0.0"}')
    assert (found.command, found.container_id, found.interface, found.netns) == ("ADD", "c1", "eth0", "/ns")
    assert found.pod == "n/p"
    found.require("container_id", "netns")
    with pytest.raises(CniError, match="CNI_NETNS"):
        call.decode(b"CNI_COMMAND=ADD\0\0").require("netns")
    for bad in (b"", b"CNI_COMMAND=ADD", b"A=1\0\0[]", b"A=1\0\0{"):
        with pytest.raises(CniError) as fault:
            call.decode(bad)
        assert fault.value.code == call.DECODING_FAILED


def test_results_follow_the_asked_version() -> None:
    ip = {"address": "10.42.0.2/32", "gateway": "10.42.0.1", "interface": 0}
    assert call.result("0.3.1", [], [ip], [])["ips"] == [{"version": "4", **ip}]
    assert call.result("1.0.0", [], [ip], [])["ips"] == [ip]
    assert call.version_of({}) == "0.3.1"
    code, _, body = call.encode_error(CniError(11, "busy"), "0.4.0").partition(b"\n")
    assert (code, json.loads(body)) == (b"1", {"cniVersion": "0.4.0", "code": 11, "msg": "busy", "details": ""})
    assert call.encode(None) == b"0\n"


def test_conflist_and_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf, bins, built = tmp_path / "conf", tmp_path / "bin", tmp_path / "built"
    install.install(conf, bins, Path("/run/k1s/cni.sock"))
    listed = json.loads((conf / "10-k1s.conflist").read_text())
    assert listed["plugins"] == [{"type": "k1s-cni", "socket": "/run/k1s/cni.sock", "capabilities": {"portMappings": True}}]
    assert (bins / "k1s-cni").read_text().startswith("#!")
    assert os.readlink(bins / "loopback") == "k1s-cni"
    written = (conf / "10-k1s.conflist").stat().st_mtime_ns
    built.mkdir()
    (built / "k1s-cni").write_bytes(b"binary")
    monkeypatch.setenv("K1S_BIN_DIR", str(built))
    install.install(conf, bins, Path("/run/k1s/cni.sock"))
    assert (bins / "k1s-cni").read_bytes() == b"binary"
    assert os.access(bins / "k1s-cni", os.X_OK)
    assert (conf / "10-k1s.conflist").stat().st_mtime_ns == written
    install.remove(conf, bins, tmp_path / "no.sock")
    install.remove(conf, bins, tmp_path / "no.sock")
    assert list(conf.iterdir()) + list(bins.iterdir()) == []
    with pytest.raises(install.InstallError, match="107 bytes"):
        install.install(conf, bins, tmp_path / ("x" * 108))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"socket":"/run/a.sock"}', b"/run/a.sock"),
        (b'{ "socket" :\n "/run/a.sock" , "x": 1}', b"/run/a.sock"),
        (b'{"args":"\\"socket\\": \\"/evil\\"", "socket": "/run/a.sock"}', b"/run/a.sock"),
        (b'{"socket": 5}', b""),
        (b"{}", b""),
    ],
)
def test_shim_finds_its_socket(text: bytes, value: bytes) -> None:
    assert shim._value(text, b"socket") == value


FRONTENDS = {"10.43.0.7 . udp . 53": frozenset({"10.42.0.2 . 53"}), "udp . 30053": frozenset({"10.42.0.2 . 53"})}


@pytest.mark.parametrize(
    ("flow", "stale"),
    [
        (Flow("10.43.0.7", 53, "10.42.0.2", 53, b""), False),
        (Flow("10.43.0.7", 53, "10.42.0.9", 53, b""), True),
        # Sent before the Service had anybody: untranslated, would stay so.
        (Flow("10.43.0.7", 53, "10.43.0.7", 53, b""), True),
        (Flow("10.43.0.7", 54, "10.42.0.9", 53, b""), False),
        (Flow("192.0.2.1", 30053, "10.42.0.9", 53, b""), True),
        (Flow("192.0.2.1", 30053, "10.42.0.2", 53, b""), False),
        # Nobody served the node port when the flow began.
        (Flow("192.0.2.1", 30053, "192.0.2.1", 30053, b""), True),
        # Somebody else's traffic that only passes through.
        (Flow("8.8.8.8", 30053, "8.8.8.8", 30053, b""), False),
        (Flow("8.8.8.8", 53, "8.8.8.8", 53, b""), False),
    ],
)
def test_stale_flows(flow: Flow, stale: bool) -> None:
    assert is_stale(flow, FRONTENDS, lambda address: address == "192.0.2.1") is stale


def test_names_and_families() -> None:
    veth = names.veth("c" * 64, "eth0")
    assert len(veth) <= 15
    assert names.is_veth(veth)
    assert not names.is_veth("k1svpn0")
    assert veth != names.veth("c" * 64, "eth1")
    assert (IPV4.owns("10.0.0.1"), IPV4.owns("fd00::1"), IPV4.owns("None"), IPV6.owns("fd00::1")) == (True, False, False, True)
    assert parse_address("") is None
