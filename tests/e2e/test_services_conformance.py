"""What the conformance suite asks of Services, on two hosts with addresses of both families, and from a machine outside.

Servers are Python processes in the networks of pods: they say who they are and which address they see.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import eventually, run
from .hosts import CLIENT, Hosts, cluster_of
from .small_pods import create, pod, process_in, ready

NAMESPACE = "services-conformance"
FLAGS = ("--cluster-cidr", "10.42.0.0/16,fd00:42::/56", "--service-cidr", "10.43.0.0/16,fd00:43::/112")
OUTSIDE6 = "fd00:1::c8"
Object = dict[str, Any]

SERVER = """
import socket, sys, threading
def tcp(s):
    while True:
        c, peer = s.accept()
        c.sendall(f"{sys.argv[1]} {peer[0].removeprefix('::ffff:')}".encode())
        c.close()
def udp(s):
    while True:
        d, peer = s.recvfrom(100)
        s.sendto(f"{sys.argv[1]} {peer[0].removeprefix('::ffff:')}".encode(), peer)
for port in (8080, 8081):
    for kind, work in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
        s = socket.socket(socket.AF_INET6, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            s.listen(64)
        threading.Thread(target=work, args=(s,)).start()
print("up", flush=True)
"""
ASK = """
import socket, sys
kind, address, port, times, source = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
for _ in range(times):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    s.settimeout(1)
    if source:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", source))
    try:
        s.connect((address, port))
        if kind == "udp":
            s.send(b"x")
        print(s.recv(100).decode())
    except OSError as error:
        print(type(error).__name__, "-")
    s.close()
"""


class Net:
    """The cluster, its pods' networks, and questions from everywhere."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts, self.pids, self.servers = hosts, dict[str, int](), list[subprocess.Popen[str]]()

    def where(self, source: str) -> list[str]:
        """Into the network of a pod, a host (its letter) or the machine outside."""
        if source == "outside":
            return ["ip", "netns", "exec", self.hosts.client]
        if source in self.hosts.hosts:
            return self.hosts[source].inside()
        if source not in self.pids:
            self.pids[source] = process_in(self.hosts.server, NAMESPACE, source)
        return ["nsenter", f"--net=/proc/{self.pids[source]}/ns/net"]

    def serve(self, name: str) -> None:
        process = subprocess.Popen([*self.where(name), sys.executable, "-ISc", SERVER, name], stdout=subprocess.PIPE, text=True)
        self.servers.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"

    def ask(
        self, source: str, address: str, port: int = 80, times: int = 1, kind: str = "tcp", own_port: int = 0
    ) -> dict[str, set[str]]:
        """Who answered -> the addresses he saw."""
        words = [kind, address, str(port), str(times), str(own_port)]
        found: dict[str, set[str]] = {}
        for line in run(*self.where(source), sys.executable, "-ISc", ASK, *words).stdout.splitlines():
            name, seen = line.split()
            found.setdefault(name, set()).add(seen)
        return found

    def answers(self, names: set[str], *question: Any, seconds: float = 10, **options: Any) -> None:
        eventually(lambda: set(self.ask(*question, **options)) == names, seconds, f"{question} answered by {names}")

    def apply(self, name: str, **spec: Any) -> Object:
        """A Service of that spec; what the server made of it."""
        body = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
        meta = {"name": name, "annotations": spec.pop("annotations", {})}
        body.pop("annotations", None)
        text = json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": body})
        self.hosts.kubectl("apply", "-n", NAMESPACE, "-f", "-", input=text)
        return self.spec(name)

    def patch(self, name: str, kind: str = "svc", sub: str = "", **spec: Any) -> Object:
        more = [f"--subresource={sub}"] if sub else []
        change = json.dumps({sub: spec} if sub else {"spec": spec})
        self.hosts.kubectl("patch", kind, name, "-n", NAMESPACE, "--type=merge", "-p", change, *more)
        return self.spec(name)

    def spec(self, name: str) -> Object:
        found: Object = self.hosts.get("svc", name, "-n", NAMESPACE)["spec"]
        return found

    def slices(self, name: str) -> list[Object]:
        found: list[Object] = self.hosts.get("endpointslices", "-n", NAMESPACE, "-l", f"kubernetes.io/service-name={name}")[
            "items"
        ]
        return found

    def address(self, name: str, version: int = 4) -> str:
        status = self.hosts.get("pod", name, "-n", NAMESPACE)["status"]
        return next(entry["ip"] for entry in status["podIPs"] if (":" in entry["ip"]) == (version == 6))


def both_families(hosts: Hosts) -> None:
    run("ip", "-n", hosts.lan, "addr", "add", "fd00:1::1/64", "dev", "lan0", "nodad")
    run("ip", "-n", hosts.client, "addr", "add", f"{OUTSIDE6}/64", "dev", "eth0", "nodad")
    for number, host in enumerate(hosts.hosts.values(), 0xB):
        run("ip", "-n", host.netns, "addr", "add", f"fd00:1::{number:x}/64", "dev", "eth0", "nodad")
        run("ip", "-n", host.netns, "-6", "route", "add", "default", "via", "fd00:1::1")


def web(name: str, node: str, **labels: str) -> Object:
    return pod(name, "sleep 100000", nodeName=node, meta={"labels": {"app": "web", **labels}})


@pytest.fixture(scope="module")
def net(tools: object) -> Iterator[Net]:
    with cluster_of(f"k1v{os.getpid() % 100000}", ("a", "b"), *FLAGS, before=both_families) as hosts:
        found = Net(hosts)
        hosts.kubectl("create", "namespace", NAMESPACE)
        eventually(lambda: hosts.get("sa", "default", "-n", NAMESPACE), 10)
        clients = [pod(f"client-{node}", "sleep 100000", nodeName=node) for node in ("a", "b")]
        create(hosts.server, NAMESPACE, web("web-a", "a"), web("web-b", "b"), *clients)
        ready(hosts.server, NAMESPACE, "web-a", "web-b", "client-a", "client-b")
        try:
            for name in ("web-a", "web-b"):
                found.serve(name)
            yield found
        finally:
            for process in found.servers:
                process.kill()
                process.communicate()


BOTH = {"web-a", "web-b"}
NODES = ("192.0.2.11", "192.0.2.12", "fd00:1::b", "fd00:1::c")


def test_every_way_to_a_service_of_two_families(net: Net) -> None:
    ports = [{"name": p.lower(), "port": 80, "targetPort": 8080, "protocol": p} for p in ("TCP", "UDP")]
    spec = net.apply("web", type="NodePort", ipFamilyPolicy="RequireDualStack", ports=ports)
    number = spec["ports"][0]["nodePort"]
    assert number == spec["ports"][1]["nodePort"]
    assert [":" in ip for ip in spec["clusterIPs"]] == [False, True]
    net.answers(BOTH, "client-b", spec["clusterIPs"][1], 80, 12)
    for kind in ("tcp", "udp"):
        for address in spec["clusterIPs"]:
            version = 6 if ":" in address else 4
            for client in ("client-a", "client-b"):
                # Network policies look at the address that arrives: it must be the pod's own, also on the other host.
                own = net.address(client, version)
                assert net.ask(client, address, 80, 12, kind) == {name: {own} for name in BOTH}
            for host in ("a", "b"):
                assert set(net.ask(host, address, 80, 12, kind)) == BOTH
        for address in NODES:
            for source in ("client-a", "client-b", "a", "b", "outside"):
                assert set(net.ask(source, address, number, 12, kind)) == BOTH, (source, address, kind)
    # A pod that reaches itself.
    assert set(net.ask("web-a", spec["clusterIPs"][0], 80, 12)) == BOTH
    assert set(net.ask("web-a", spec["clusterIPs"][1], 80, 12)) == BOTH


def test_local_policies(net: Net) -> None:
    net.hosts.kubectl("label", "pod", "web-a", "-n", NAMESPACE, "only=a")
    spec = net.apply(
        "local", type="LoadBalancer", loadBalancerClass="example.com/none", selector={"only": "a"},
        externalTrafficPolicy="Local", internalTrafficPolicy="Local", ipFamilyPolicy="RequireDualStack",
    )  # fmt: skip
    number, health = spec["ports"][0]["nodePort"], spec["healthCheckNodePort"]
    net.answers({"web-a"}, "client-a", spec["clusterIP"])
    assert net.ask("outside", "192.0.2.11", number, 6) == {"web-a": {CLIENT}}
    assert net.ask("outside", "fd00:1::b", number, 6) == {"web-a": {OUTSIDE6}}
    assert set(net.ask("outside", "192.0.2.12", number)) == {"TimeoutError"}
    # Pods and the node itself may use every target by the outside's way, and by the inside's only those of their node.
    assert set(net.ask("client-b", "192.0.2.12", number)) == {"web-a"}
    assert set(net.ask("b", "192.0.2.12", number)) == {"web-a"}
    assert set(net.ask("client-b", spec["clusterIP"])) == {"TimeoutError"}
    for address, code, count in (("192.0.2.11", 200, 1), ("192.0.2.12", 503, 0), ("[fd00:1::b]", 200, 1)):
        got = run(*net.where("outside"), "curl", "-sg", "-w", "\n%{http_code}", f"http://{address}:{health}/").stdout
        body, _, status = got.rpartition("\n")
        assert (int(status), json.loads(body)["localEndpoints"]) == (code, count)
    assert json.loads(body)["service"] == {"namespace": NAMESPACE, "name": "local"}
    net.hosts.kubectl("label", "pod", "web-a", "-n", NAMESPACE, "only-")
    net.hosts.kubectl("delete", "svc", "local", "-n", NAMESPACE)


def test_traffic_distribution_follows_labels_of_nodes(net: Net) -> None:
    spec = net.apply("near", trafficDistribution="PreferSameNode", ipFamilyPolicy="RequireDualStack")
    for address in spec["clusterIPs"]:
        net.answers({"web-a"}, "client-a", address, 80, 8)
        net.answers({"web-b"}, "client-b", address, 80, 8)
    net.patch("near", trafficDistribution="PreferClose")
    net.answers(BOTH, "client-a", spec["clusterIP"], 80, 12)
    for node, zone in (("a", "west"), ("b", "east")):
        net.hosts.kubectl("label", "node", node, f"topology.kubernetes.io/zone={zone}")
    net.answers({"web-a"}, "client-a", spec["clusterIP"], 80, 8)
    net.answers({"web-b"}, "client-b", spec["clusterIP"], 80, 8)
    net.hosts.kubectl("label", "node", "b", "topology.kubernetes.io/zone=west", "--overwrite")
    net.answers(BOTH, "client-b", spec["clusterIP"], 80, 12)
    for node in ("a", "b"):
        net.hosts.kubectl("label", "node", node, "topology.kubernetes.io/zone-")
    net.answers(BOTH, "client-a", spec["clusterIP"], 80, 12)


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_affinity_switches_and_ends(net: Net, family: str) -> None:
    spec = net.apply(f"sticky-{family.lower()}", type="NodePort", sessionAffinity="ClientIP", ipFamilies=[family])
    address, node = spec["clusterIP"], "192.0.2.11" if family == "IPv4" else "fd00:1::b"
    for source, target, port in (("client-b", address, 80), ("outside", node, spec["ports"][0]["nodePort"])):
        eventually(lambda s=source, t=target, p=port: len(net.ask(s, t, p, 12)) == 1 and not net.ask(s, t, p).get("TimeoutError"))  # type: ignore[misc]
        net.patch(f"sticky-{family.lower()}", sessionAffinity="None")
        net.answers(BOTH, source, target, port, 16)
        net.patch(f"sticky-{family.lower()}", sessionAffinity="ClientIP")
        eventually(lambda s=source, t=target, p=port: len(net.ask(s, t, p, 12)) == 1)  # type: ignore[misc]
    net.patch(f"sticky-{family.lower()}", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 1}})
    seen: set[str] = set()
    for _ in range(15):
        time.sleep(1.2)
        seen |= set(net.ask("client-b", address))
    assert seen == BOTH


def test_a_range_of_its_own(net: Net) -> None:
    """[Conformance] Service CIDRs should create Services and serve on different Service CIDRs."""
    cidr = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"}}
    net.hosts.kubectl("create", "-f", "-", input=json.dumps({**cidr, "spec": {"cidrs": ["10.196.196.0/24"]}}))
    net.hosts.kubectl("wait", "--for=condition=Ready", "servicecidr/more", "--timeout=10s")
    assert net.apply("elsewhere", clusterIP="10.196.196.77")["clusterIP"] == "10.196.196.77"
    for source in ("client-a", "client-b", "a", "b"):
        net.answers(BOTH, source, "10.196.196.77", 80, 12)
    assert net.hosts.get("ipaddress", "10.196.196.77")["spec"]["parentRef"]["name"] == "elsewhere"
    net.hosts.kubectl("delete", "servicecidr", "more", "--wait=false")
    conditions = eventually(lambda: [c for c in net.hosts.get("servicecidr", "more")["status"]["conditions"] if c["reason"]], 5)
    assert (conditions[0]["status"], conditions[0]["reason"]) == ("False", "Terminating")
    net.hosts.kubectl("delete", "svc", "elsewhere", "-n", NAMESPACE)
    net.hosts.kubectl("wait", "--for=delete", "servicecidr/more", "--timeout=10s")
    assert net.hosts.kubectl("get", "ipaddress", "10.196.196.77", check=False).returncode != 0


def test_slices_by_hand(net: Net) -> None:
    """Two slices, one of each family, of somebody else's controller, and none that the Service's own makes."""
    spec = net.apply("manual", selector=None, ipFamilyPolicy="RequireDualStack", ports=[{"name": "x", "port": 80}])
    for name, kind, version in (("web-a", "IPv4", 4), ("web-b", "IPv4", 4), ("web-b", "IPv6", 6)):
        labels = {"kubernetes.io/service-name": "manual", "endpointslice.kubernetes.io/managed-by": "someone.example.com"}
        piece = {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind,
            "metadata": {"name": f"manual-{name}-{version}", "labels": labels}, "ports": [{"name": "x", "port": 8081}],
            "endpoints": [{"addresses": [net.address(name, version)]}],
        }  # fmt: skip
        net.hosts.kubectl("create", "-n", NAMESPACE, "-f", "-", input=json.dumps(piece))
    net.answers(BOTH, "client-a", spec["clusterIPs"][0], 80, 12)
    net.answers({"web-b"}, "client-a", spec["clusterIPs"][1], 80, 6)
    net.hosts.kubectl("delete", "endpointslice", "manual-web-a-4", "-n", NAMESPACE)
    net.answers({"web-b"}, "client-a", spec["clusterIPs"][0], 80, 6)
    assert len(net.slices("manual")) == 2


def test_udp_leaves_an_endpoint_that_ends(net: Net) -> None:
    """[Conformance-like] Conntrack should be able to preserve UDP traffic when server pod cycles, by ClusterIP and NodePort."""
    port = {"port": 80, "targetPort": 8080, "protocol": "UDP"}
    net.hosts.kubectl("label", "pod", "web-a", "-n", NAMESPACE, "cycle=yes")
    spec = net.apply("cycle", type="NodePort", selector={"cycle": "yes"}, ports=[port])
    ways = [("client-b", spec["clusterIP"], 80), ("outside", "192.0.2.12", spec["ports"][0]["nodePort"])]
    for number, (source, address, target) in enumerate(ways):
        net.answers({"web-a"}, source, address, target, kind="udp", own_port=40000 + number)
    net.hosts.kubectl("label", "pod", "web-b", "-n", NAMESPACE, "cycle=yes")
    net.hosts.kubectl("label", "pod", "web-a", "-n", NAMESPACE, "cycle-")
    for number, (source, address, target) in enumerate(ways):
        net.answers({"web-b"}, source, address, target, kind="udp", own_port=40000 + number)
    net.hosts.kubectl("label", "pod", "web-b", "-n", NAMESPACE, "cycle-")
    net.hosts.kubectl("delete", "svc", "cycle", "-n", NAMESPACE)


def test_terminating_endpoints(net: Net) -> None:
    """A pod that ends serves on for who has nobody else (KEP-1669), and unready ones only where they are published."""
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    slow = pod(
        "slow", "touch /tmp/ready; trap '' TERM; sleep 100000 & wait; wait", nodeName="b", main={"readinessProbe": probe},
        meta={"labels": {"app": "slow"}}, terminationGracePeriodSeconds=20,
    )  # fmt: skip
    create(net.hosts.server, NAMESPACE, slow)
    ready(net.hosts.server, NAMESPACE, "slow")
    net.serve("slow")
    local = net.apply("slow", selector={"app": "slow"}, type="NodePort", externalTrafficPolicy="Local")
    number = local["ports"][0]["nodePort"]
    net.answers({"slow"}, "client-a", local["clusterIP"])
    net.hosts.kubectl("exec", "-n", NAMESPACE, "slow", "--", "rm", "/tmp/ready")
    net.answers({"ConnectionRefusedError"}, "client-a", local["clusterIP"], seconds=15)
    net.patch("slow", publishNotReadyAddresses=True)
    net.answers({"slow"}, "client-a", local["clusterIP"])
    net.patch("slow", publishNotReadyAddresses=False)
    net.hosts.kubectl("exec", "-n", NAMESPACE, "slow", "--", "touch", "/tmp/ready")
    net.answers({"slow"}, "client-a", local["clusterIP"], seconds=15)
    net.hosts.kubectl("delete", "pod", "slow", "-n", NAMESPACE, "--wait=false")
    ending = {"ready": False, "serving": True, "terminating": True}
    eventually(lambda: net.slices("slow")[0]["endpoints"][0]["conditions"] == ending, 5)
    time.sleep(0.3)
    assert set(net.ask("client-a", local["clusterIP"])) == {"slow"}
    assert net.ask("outside", "192.0.2.12", number) == {"slow": {CLIENT}}
    net.hosts.kubectl("delete", "pod", "slow", "-n", NAMESPACE, "--force", "--grace-period=0", "--wait=false")
    net.answers({"ConnectionRefusedError"}, "client-a", local["clusterIP"])


def test_external_addresses_and_source_ranges(net: Net) -> None:
    spec = net.apply("outer", externalIPs=["203.0.113.7", "fd00:99::7"], ipFamilyPolicy="PreferDualStack")
    run("ip", "-n", net.hosts.client, "route", "replace", "203.0.113.0/24", "via", "192.0.2.12")
    run("ip", "-n", net.hosts.client, "route", "replace", "fd00:99::/64", "via", "fd00:1::c")
    for source in ("outside", "client-a", "b"):
        for address in ("203.0.113.7", "fd00:99::7"):
            net.answers(BOTH, source, address, 80, 12)
    net.patch("outer", type="LoadBalancer", externalIPs=None, loadBalancerClass="example.com/none")
    net.patch("outer", sub="status", loadBalancer={"ingress": [{"ip": "203.0.113.7", "ipMode": "VIP"}]})
    net.answers(BOTH, "outside", "203.0.113.7", 80, 12)
    net.patch("outer", loadBalancerSourceRanges=["198.51.100.0/24"])
    for source in ("outside", "b"):
        net.answers({"TimeoutError"}, source, "203.0.113.7")
    net.patch("outer", loadBalancerSourceRanges=["198.51.100.0/24", "192.0.2.0/24"])
    for source in ("outside", "b"):
        net.answers(BOTH, source, "203.0.113.7", 80, 12)
    net.patch("outer", sub="status", loadBalancer={"ingress": [{"ip": "203.0.113.7", "ipMode": "Proxy"}]})
    eventually(lambda: not set(net.ask("outside", "203.0.113.7")) & BOTH, 5)
    assert set(net.ask("client-a", spec["clusterIP"], 80, 12)) == BOTH


def test_a_lifecycle_of_status_and_conditions(net: Net) -> None:
    """[Conformance] Services should complete a service status lifecycle."""
    net.apply("status", type="LoadBalancer", loadBalancerClass="example.com/none")
    change = {"metadata": {"annotations": {"patched": "true"}}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}
    net.hosts.kubectl("patch", "svc", "status", "-n", NAMESPACE, "--type=merge", "--subresource=status", "-p", json.dumps(change))
    found = net.hosts.get("svc", "status", "-n", NAMESPACE)
    assert found["metadata"]["annotations"]["patched"] == "true"
    assert found["status"]["loadBalancer"]["ingress"] == [{"ip": "203.0.113.1", "ipMode": "VIP"}]
    condition = {
        "type": "StatusUpdate",
        "status": "True",
        "reason": "E2E",
        "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    found["status"]["conditions"] = [condition]
    net.hosts.kubectl("replace", "--subresource=status", "-n", NAMESPACE, "-f", "-", input=json.dumps(found))
    assert net.hosts.get("svc", "status", "-n", NAMESPACE)["status"]["conditions"] == [condition]
    net.patch("status", type="ClusterIP")
    assert "loadBalancer" not in {k: v for k, v in net.hosts.get("svc", "status", "-n", NAMESPACE)["status"].items() if v}


def test_a_node_that_is_lost_loses_its_endpoints_at_once(net: Net) -> None:
    """Last: the node does not come back."""
    net.apply("lost")
    address = net.spec("lost")["clusterIP"]
    net.answers(BOTH, "client-a", address, 80, 12)
    net.hosts["b"].cut()
    try:
        eventually(lambda: net.hosts.readiness()["b"] != "True", 60, "b not Ready")
        begin = time.monotonic()
        net.answers({"web-a"}, "client-a", address, 80, 12)
        assert time.monotonic() - begin < 5
    finally:
        net.hosts["b"].mend()
    eventually(lambda: net.hosts.readiness()["b"] == "True", 60, "b Ready")
    net.answers(BOTH, "client-a", address, 80, 12)
    net.hosts.kubectl("delete", "node", "b")
    net.answers({"web-a"}, "client-a", address, 80, 12)
