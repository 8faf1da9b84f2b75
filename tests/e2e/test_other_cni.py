"""--network-backend none: another CNI plugin (Debian's containernetworking-plugins) wires the pods of two hosts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import eventually
from .hosts import Host, Hosts, run
from .test_dual_stack import fetch, pod, service

PLUGINS = Path("/usr/lib/cni")


def conflist(host: Host, pods: str) -> dict:
    ipam = {
        "type": "host-local",
        "dataDir": str(host.home / "addresses"),
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": "other", "plugins": [bridge]}


def directories(host: Host) -> tuple[str, ...]:
    return f"--cni-conf-dir={host.home / 'cni'}", f"--cni-bin-dir={PLUGINS}"


@pytest.fixture(scope="module")
def other(tools: Path) -> Iterator[Hosts]:
    if not (PLUGINS / "bridge").exists():
        pytest.skip("needs the package containernetworking-plugins")
    made = Hosts(f"k1o{os.getpid() % 10000}", ("a", "b"))
    try:
        made.create_network()
        for host in made.hosts.values():
            (host.home / "cni").mkdir()
        made.server.start("--network-backend=none", *directories(made.server), wait=False)
        eventually(lambda: made.server.kubectl("get", "node", "a", check=False).returncode == 0, 30, "the server's own node")
        made["b"].join(made.url, made.token, *directories(made["b"]))
        yield made
    finally:
        made.remove()


def test_not_ready_until_the_plugin_is_there(other: Hosts) -> None:
    def told() -> bool:
        conditions = {c["type"]: c for c in other.get("node", "b")["status"].get("conditions", ())}
        return "cni plugin not initialized" in conditions.get("Ready", {}).get("message", "")

    eventually(told, 30, "the node says what is missing")
    nodes = {name: other.get("node", name)["spec"]["podCIDR"] for name in other.hosts}
    for name, host in other.hosts.items():
        (host.home / "cni" / "10-other.conflist").write_text(json.dumps(conflist(host, nodes[name])))
        for peer, pods in nodes.items():
            if peer != name:  # the plugin's business, where it is more than a bridge
                run("ip", "-n", host.netns, "route", "add", pods, "via", other[peer].address)
    other.wait_ready(seconds=40)
    assert "k1s0" not in run("ip", "-n", other["b"].netns, "link").stdout


def test_pods_services_and_names(other: Hosts) -> None:
    for node in ("a", "b"):
        wanted = pod(node)
        wanted["spec"]["containers"][0]["command"][2] = (
            f"mkdir /www; echo {node} > /www/index.html; exec httpd -f -p 8080 -h /www"
        )
        other.kubectl("apply", "-f", "-", input=json.dumps(wanted))
    other.kubectl("wait", "--for=condition=Ready", "pod/on-a", "pod/on-b", "--timeout=60s")
    address = other.get("pod", "on-b")["status"]["podIP"]
    assert fetch(other, address, 8080) == "b"
    other.kubectl("apply", "-f", "-", input=json.dumps(service("web")))
    eventually(lambda: fetch(other, "web") == "b", 10, "by name, from the other host")
    assert fetch(other, "web", pod="on-b") == "b", "from itself"


def test_back_to_the_own_network(other: Hosts) -> None:
    """Another backend at the next start: containerd takes its networks from elsewhere, new pods are ours."""
    for host in other.hosts.values():
        host.kill()
        run("ip", "-n", host.netns, "route", "flush", "root", "10.42.0.0/16")
        run("ip", "-n", host.netns, "link", "del", "cni0")
    other.server.start("--network-backend=vxlan")
    other["b"].join(other.url, other.token)
    other.wait_ready()
    other.kubectl("delete", "pod", "on-a", "on-b", "--grace-period=1")
    test_pods_services_and_names(other)
    for host in other.hosts.values():
        links = run("ip", "-n", host.netns, "link").stdout
        assert "k1s0" in links
        assert "k1s-vxlan" in links
