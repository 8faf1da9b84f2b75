"""A cluster of two hosts with IPv4 and IPv6: addresses, pods across hosts, Services and names by either family."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import eventually
from .hosts import Hosts, cluster_of, run

BUSYBOX = "docker.io/library/busybox:1.36"
RANGES = ("--cluster-cidr=10.42.0.0/16,fd42::/56", "--service-cidr=10.43.0.0/16,fd43::/112")


def addresses(hosts: Hosts) -> None:
    for number, host in enumerate(hosts.hosts.values(), 11):
        run("ip", "-n", host.netns, "addr", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad")


@pytest.fixture(scope="module")
def dual(tools: Path) -> Iterator[Hosts]:
    with cluster_of(f"k1d{os.getpid() % 10000}", ("a", "b"), *RANGES, before=addresses) as made:
        for node in ("a", "b"):
            made.kubectl("apply", "-f", "-", input=json.dumps(pod(node)))
        made.kubectl("wait", "--for=condition=Ready", "pod/on-a", "pod/on-b", "--timeout=60s")
        yield made


def pod(node: str) -> dict:
    command = f"mkdir /www; echo {node} > /www/index.html; exec httpd -f -p '[::]:8080' -h /www"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"on-{node}", "labels": {"app": "web", "node": node}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", command]}],
        },
    }


def service(name: str, **spec: object) -> dict:
    ports = [{"port": 80, "targetPort": 8080}]
    whole = {"selector": {"node": "b"}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole}


def fetch(hosts: Hosts, address: str, port: int = 80, *, pod: str = "on-a") -> str:
    shown = f"[{address}]" if ":" in address else address
    return hosts.exec(pod, "timeout", "3", "wget", "-q", "-O", "-", f"http://{shown}:{port}/", check=False).strip()


def test_nodes_and_pods_have_both(dual: Hosts) -> None:
    def told() -> bool:
        node = dual.get("node", "b")
        internal = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
        return internal == ["192.0.2.12", "2001:db8::12"]

    eventually(told, 10, "both addresses of node b")
    spec = dual.get("node", "b")["spec"]
    assert [(":" in text) for text in spec["podCIDRs"]] == [False, True]
    status = dual.get("pod", "on-b")["status"]
    ips = [entry["ip"] for entry in status["podIPs"]]
    assert [(":" in ip) for ip in ips] == [False, True]
    assert status["podIP"] == ips[0]
    eventually(lambda: len(dual.get("pod", "on-b")["status"]["hostIPs"]) == 2, 10, "both addresses of the host")


def test_pods_of_two_hosts_by_either_family(dual: Hosts) -> None:
    for here, there in (("a", "b"), ("b", "a")):
        for entry in dual.get("pod", f"on-{there}")["status"]["podIPs"]:
            assert fetch(dual, entry["ip"], 8080, pod=f"on-{here}") == there, entry


@pytest.mark.parametrize(
    ("policy", "families"),
    [("SingleStack", ["IPv4"]), ("SingleStack", ["IPv6"]), ("RequireDualStack", ["IPv4", "IPv6"])],
)
def test_services_by_either_family(dual: Hosts, policy: str, families: list[str]) -> None:
    name = f"web-{policy}-{'-'.join(families)}".lower()
    dual.kubectl("apply", "-f", "-", input=json.dumps(service(name, ipFamilyPolicy=policy, ipFamilies=families)))
    addresses = dual.get("service", name)["spec"]["clusterIPs"]
    assert [("IPv6" if ":" in a else "IPv4") for a in addresses] == families
    for address in addresses:
        eventually(lambda address=address: fetch(dual, address) == "b", 10, address)
    eventually(lambda: fetch(dual, name) == "b", 10, name)


def test_a_node_port_by_either_family(dual: Hosts) -> None:
    wanted = service("ported", type="NodePort", ipFamilyPolicy="RequireDualStack")
    dual.kubectl("apply", "-f", "-", input=json.dumps(wanted))
    port = dual.get("service", "ported")["spec"]["ports"][0]["nodePort"]
    run("ip", "-n", dual.client, "addr", "replace", "2001:db8::200/64", "dev", "eth0", "nodad")
    for address in ("192.0.2.11", "[2001:db8::11]"):
        command = ("timeout", "3", "busybox", "wget", "-q", "-O", "-", f"http://{address}:{port}/")
        eventually(lambda command=command: dual.outside(*command, check=False).stdout.strip() == "b", 10, address)
