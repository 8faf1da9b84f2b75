"""--network-backend none: another plugin wires the pods, Services are k1s's all the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import netlab
from lan import eventually, lan

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def servers() -> Iterator[netlab.Servers]:
    found = netlab.Servers()
    yield found
    found.stop()


def test_another_cni_plugin_has_the_pods_and_services_are_ours(servers: netlab.Servers) -> None:
    with lan(1, network_backend="none") as made, netlab.namespace() as one, netlab.namespace() as two:
        (a,) = made.hosts
        links = {found["ifname"] for found in a.ip("link")}
        assert "k1s-dns" in links
        assert not links & {"k1s0", "k1s-vxlan"}
        assert "src 192.0.2.1" in a.run("ip", "route", "show", "10.143.0.0/16")
        # Another plugin's bridge and pods.
        netlab.run("ip", "-n", a.netns, "link", "add", "cni0", "type", "bridge")
        netlab.run("ip", "-n", a.netns, "addr", "add", "10.142.1.1/24", "dev", "cni0")
        netlab.run("ip", "-n", a.netns, "link", "set", "cni0", "up")
        for number, pod in ((5, one), (6, two)):
            add = f"link add v{number} type veth peer name eth0 netns {pod}"
            netlab.run("ip", "-n", a.netns, *add.split())
            netlab.run("ip", "-n", a.netns, "link", "set", f"v{number}", "master", "cni0", "up")
            netlab.run("ip", "-n", a.netns, "link", "set", f"v{number}", "type", "bridge_slave", "hairpin", "on")
            netlab.run("ip", "-n", pod, "addr", "add", f"10.142.1.{number}/32", "dev", "eth0")
            netlab.run("ip", "-n", pod, "link", "set", "eth0", "up")
            netlab.run("ip", "-n", pod, "route", "add", "10.142.1.1", "dev", "eth0")
            netlab.run("ip", "-n", pod, "route", "add", "default", "via", "10.142.1.1")
        servers.start(two, "two")
        a.put("Service", {"metadata": {"name": "web", "namespace": "d", "resourceVersion": "1"}, "spec": SERVICE})
        a.put("EndpointSlice", SLICE)
        eventually(lambda: netlab.ask(one, "10.143.0.7", 80, timeout=0.5) == ["two 10.142.1.5"], "by Service, from itself")
        assert netlab.ask(two, "10.143.0.7", 80) == ["two 10.142.1.1"]
        assert netlab.ask(a.netns, "10.143.0.7", 80)[0].startswith("two ")
        a.run("ip", "link", "del", "k1s-dns")
        eventually(lambda: "10.143.0.0/16 dev k1s-dns" in a.run("ip", "route"), "the link is back", 2)


SERVICE = {"clusterIP": "10.143.0.7", "ports": [{"port": 80}]}
SLICE = {
    "metadata": {
        "name": "web-x",
        "namespace": "d",
        "labels": {"kubernetes.io/service-name": "web"},
        "resourceVersion": "1",
    },
    "addressType": "IPv4",
    "ports": [{"port": 8080}],
    "endpoints": [{"addresses": ["10.142.1.6"], "nodeName": "node-1"}],
}
