"""What the conformance suite asks of the network: Services of every kind, affinity, endpoints, DNS, host ports, proxying."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .conftest import NODE_ADDRESS, Cluster, eventually, run
from .small_pods import Object, container, create, get_pod, pod, process_in, ready, shell

NAMESPACE = "network-conformance"
SERVE = "httpd -f -p 8080 -h /etc"
# busybox has neither a UDP server nor a UDP client: Python runs in the pods' networks.
UDP_SERVER = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 8081))
print("up", flush=True)
while True:
    s.sendto(sys.argv[1].encode(), s.recvfrom(99)[1])
"""
UDP_CLIENT = """
import socket, sys
for _ in range(int(sys.argv[3])):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(0.5)
    s.sendto(b"x", (sys.argv[1], int(sys.argv[2])))
    try:
        print(s.recv(99).decode())
    except OSError:
        pass
"""


def service(name: str, ports: list[Object] | None = None, **spec: object) -> Object:
    body: Object = {
        "ports": ports if ports is not None else [{"port": 80, "targetPort": 8080}],
        "selector": {"app": "web"},
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": {"all": "yes"}}, "spec": body}


PORTS = [
    {"name": "http", "port": 80, "targetPort": 8080},
    {"name": "udp", "port": 90, "targetPort": 8081, "protocol": "UDP"},
    {"name": "named", "port": 81, "targetPort": "web"},
]
SERVER = {"ports": [{"name": "web", "containerPort": 8080}], "readinessProbe": {
    "tcpSocket": {"port": 8080}, "periodSeconds": 1}}  # fmt: skip


@pytest.fixture(scope="module")
def table(cluster: Cluster) -> Iterator[str]:
    cluster.kubectl("create", "namespace", NAMESPACE)
    eventually(lambda: cluster.get("sa", "default", "-n", NAMESPACE), 10)
    servers = [pod(f"web-{n}", SERVE, main=SERVER, meta={"labels": {"app": "web"}}) for n in (1, 2)]
    create(
        cluster, NAMESPACE, *servers,
        pod("client", "sleep 3600"), pod("host", "sleep 3600", hostNetwork=True),
        pod("named", "sleep 3600", hostname="h", subdomain="headless", meta={"labels": {"app": "named"}}),
        service("web", PORTS), service("node-port", PORTS, type="NodePort"), service("balanced", type="LoadBalancer"),
        service("sticky", sessionAffinity="ClientIP"),
        service("headless", clusterIP="None", selector={"app": "named"}),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "external"},
         "spec": {"type": "ExternalName", "externalName": f"web.{NAMESPACE}.svc.cluster.local"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "manual"}, "spec": {"ports": [{"port": 80}]}},
    )  # fmt: skip
    ready(cluster, NAMESPACE, "web-1", "web-2", "client", "host", "named")
    yield NAMESPACE
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def http(address: str, times: int = 1) -> str:
    return f"for i in $(seq {times}); do wget -qO- http://{address}/hostname; done"


@contextmanager
def udp_servers(cluster: Cluster, *names: str) -> Iterator[None]:
    """In the network of each pod a server on port 8081 that says the pod's name."""
    started = []
    try:
        for name in names:
            network = f"--net=/proc/{process_in(cluster, NAMESPACE, name)}/ns/net"
            command = ["nsenter", network, sys.executable, "-c", UDP_SERVER, name]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stdout = started[-1].stdout
            assert stdout is not None and stdout.readline() == "up\n"
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


def udp(cluster: Cluster, source: str, address: str, port: int, times: int = 1) -> list[str]:
    """Who answers `times` datagrams from the network of that pod."""
    network = f"--net=/proc/{process_in(cluster, NAMESPACE, source)}/ns/net"
    return run("nsenter", network, sys.executable, "-c", UDP_CLIENT, address, str(port), str(times)).stdout.split()


@pytest.mark.parametrize("source", ["client", "host"])
def test_pods_and_services_answer_pods_and_nodes(cluster: Cluster, table: str, source: str) -> None:
    addresses = {f"web-{n}": get_pod(cluster, table, f"web-{n}")["status"]["podIP"] for n in (1, 2)}
    for name, address in addresses.items():
        assert shell(cluster, table, source, http(f"{address}:8080")).split() == [name]
    cluster_ip = cluster.get("svc", "web", "-n", table)["spec"]["clusterIP"]
    eventually(lambda: len(set(shell(cluster, table, source, http(cluster_ip, 8)).split())) == 2, 15, "both ends of a Service")
    assert len(set(shell(cluster, table, source, http(f"{cluster_ip}:81", 12)).split())) == 2
    with udp_servers(cluster, "web-1", "web-2"):
        for name, address in addresses.items():
            assert udp(cluster, source, address, 8081) == [name]
        assert set(udp(cluster, source, cluster_ip, 90, 12)) == {"web-1", "web-2"}
        node_port = next(
            p["nodePort"] for p in cluster.get("svc", "node-port", "-n", table)["spec"]["ports"] if p["name"] == "udp"
        )
        assert set(udp(cluster, source, NODE_ADDRESS, node_port, 12)) == {"web-1", "web-2"}


def test_a_server_reaches_itself_through_its_service(cluster: Cluster, table: str) -> None:
    cluster_ip = cluster.get("svc", "web", "-n", table)["spec"]["clusterIP"]
    assert len(set(shell(cluster, table, "web-1", http(cluster_ip, 12)).split())) == 2


@pytest.mark.parametrize("source", ["client", "host"])
def test_node_ports(cluster: Cluster, table: str, source: str) -> None:
    ports = {p["name"]: p["nodePort"] for p in cluster.get("svc", "node-port", "-n", table)["spec"]["ports"]}
    assert len(set(shell(cluster, table, source, http(f"{NODE_ADDRESS}:{ports['http']}", 12)).split())) == 2
    got = run(*cluster.inside("/bin/busybox", "wget", "-qO-", f"http://{NODE_ADDRESS}:{ports['named']}/hostname"))
    assert got.stdout.startswith("web-")


def test_session_affinity_can_be_switched(cluster: Cluster, table: str) -> None:
    cluster_ip = cluster.get("svc", "sticky", "-n", table)["spec"]["clusterIP"]

    def answers() -> int:
        return len(set(shell(cluster, table, "client", http(cluster_ip, 15)).split()))

    eventually(lambda: answers() == 1, 10)
    for policy, expected in (("None", 2), ("ClientIP", 1)):
        patch = json.dumps({"spec": {"sessionAffinity": policy}})
        cluster.kubectl("patch", "svc", "sticky", "-n", table, "--type=merge", "-p", patch)
        eventually(lambda n=expected: answers() == n, 10, policy)  # type: ignore[misc]


def test_types_can_be_changed(cluster: Cluster, table: str) -> None:
    create(cluster, table, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "changing"},
                            "spec": {"type": "ExternalName", "externalName": "foo.example.com"}})  # fmt: skip

    def patch(**spec: object) -> Object:
        cluster.kubectl("patch", "svc", "changing", "-n", table, "--type=merge", "-p", json.dumps({"spec": spec}))
        made: Object = cluster.get("svc", "changing", "-n", table)["spec"]
        return made

    selector, ports = {"app": "web"}, [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]
    made = patch(type="ClusterIP", externalName=None, selector=selector, ports=ports)
    eventually(lambda: shell(cluster, table, "client", http("changing"), check=False).startswith("web-"), 15)
    made = patch(type="NodePort")
    port = made["ports"][0]["nodePort"]
    eventually(lambda: shell(cluster, table, "client", http(f"{NODE_ADDRESS}:{port}"), check=False).startswith("web-"), 15)
    made = patch(type="ClusterIP", ports=[{"port": 80, "targetPort": 8080, "protocol": "TCP", "nodePort": None}])
    assert "nodePort" not in made["ports"][0]
    made = patch(type="ExternalName", externalName=f"web.{table}.svc.cluster.local", clusterIP=None, clusterIPs=None)
    assert "clusterIP" not in made, made
    name = f"changing.{table}.svc.cluster.local"
    eventually(lambda: "canonical name" in shell(cluster, table, "client", f"nslookup {name}", check=False), 15)
    eventually(lambda: shell(cluster, table, "client", http("changing"), check=False).startswith("web-"), 10)


def test_names(cluster: Cluster, table: str) -> None:
    domain = f"{table}.svc.cluster.local"
    web = cluster.get("svc", "web", "-n", table)["spec"]["clusterIP"]
    named = get_pod(cluster, table, "named")["status"]["podIP"]
    expected = {
        f"web.{domain}": web,
        f"headless.{domain}": named,
        f"h.headless.{domain}": named,
        "kubernetes.default.svc.cluster.local": "10.43.0.1",
        f"external.{domain}": f"canonical name = web.{domain}",
        f"{named.replace('.', '-')}.{table}.pod.cluster.local": named,
    }
    for name, answer in expected.items():
        said = shell(cluster, table, "client", f"nslookup -type=a {name}.", check=False)
        assert answer in said, (name, said)
    said = shell(cluster, table, "client", f"nslookup -type=srv _http._tcp.web.{domain}.", check=False)
    assert re.search(rf"0 100 80 web\.{re.escape(domain)}", said), said
    reverse = ".".join(reversed(web.split("."))) + ".in-addr.arpa"
    assert f"web.{domain}" in shell(cluster, table, "client", f"nslookup -type=ptr {reverse}.", check=False)
    assert "NXDOMAIN" in shell(cluster, table, "client", f"nslookup -type=a none.{domain}. 2>&1", check=False)
    for short in ("web", f"web.{table}", f"web.{table}.svc", f"web.{domain}", f"web.{domain}."):
        assert shell(cluster, table, "client", http(short)).startswith("web-"), short
    assert shell(cluster, table, "named", "hostname -f") == f"h.headless.{domain}\n"


def test_endpoints_follow_pods_and_ports(cluster: Cluster, table: str) -> None:
    def ends(name: str) -> list[Object]:
        found: list[Object] = cluster.get("endpoints", name, "-n", table).get("subsets") or []
        return found

    assert {p["name"]: p["port"] for s in ends("web") for p in s["ports"]} == {"http": 8080, "udp": 8081, "named": 8080}
    slices = cluster.get("endpointslices", "-n", table, "-l", "kubernetes.io/service-name=web")["items"]
    assert {e["targetRef"]["name"] for s in slices for e in s["endpoints"]} == {"web-1", "web-2"}
    assert all(s["addressType"] == "IPv4" and s["metadata"]["ownerReferences"][0]["kind"] == "Service" for s in slices)
    assert slices[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"
    cluster.kubectl("label", "pod", "web-2", "-n", table, "app=out", "--overwrite")
    eventually(lambda: sum(len(s["addresses"]) for s in ends("web")) == 1, 10)
    cluster.kubectl("label", "pod", "web-2", "-n", table, "app=web", "--overwrite")
    eventually(lambda: sum(len(s["addresses"]) for s in ends("web")) == 2, 10)


def test_custom_endpoints_are_mirrored(cluster: Cluster, table: str) -> None:
    address = get_pod(cluster, table, "web-1")["status"]["podIP"]
    create(cluster, table, {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "manual"}, "subsets": [
        {"addresses": [{"ip": address}], "ports": [{"port": 8080}]}]})  # fmt: skip

    def mirrored() -> list[Object]:
        found: list[Object] = cluster.get("endpointslices", "-n", table, "-l", "kubernetes.io/service-name=manual")["items"]
        return found

    made = eventually(mirrored, 10)[0]
    assert made["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslicemirroring-controller.k8s.io"
    assert made["endpoints"][0]["addresses"] == [address] and made["ports"][0]["port"] == 8080
    cluster_ip = cluster.get("svc", "manual", "-n", table)["spec"]["clusterIP"]
    eventually(lambda: shell(cluster, table, "client", http(cluster_ip), check=False) == "web-1\n", 10)
    cluster.kubectl("delete", "endpoints", "manual", "-n", table)
    eventually(lambda: not mirrored(), 10)


def test_the_api_server_has_endpoints_of_its_own(cluster: Cluster) -> None:
    slices = cluster.get("endpointslices", "-n", "default", "-l", "kubernetes.io/service-name=kubernetes")["items"]
    assert len(slices) == 1 and slices[0]["metadata"]["name"] == "kubernetes", slices
    subsets = cluster.get("endpoints", "kubernetes", "-n", "default")["subsets"]
    assert subsets[0]["addresses"][0]["ip"] == slices[0]["endpoints"][0]["addresses"][0]


def test_host_ports_share_a_number(cluster: Cluster, table: str) -> None:
    def one(name: str, host_ip: str, protocol: str) -> Object:
        target = {"TCP": 8080, "UDP": 8081}[protocol]
        port = {"containerPort": target, "hostPort": 54323, "protocol": protocol, "hostIP": host_ip}
        return pod(name, SERVE, main={"ports": [port]})

    made = [one("hp-1", "127.0.0.1", "TCP"), one("hp-2", NODE_ADDRESS, "TCP"), one("hp-3", NODE_ADDRESS, "UDP")]
    create(cluster, table, *made)
    ready(cluster, table, "hp-1", "hp-2", "hp-3")
    for address, name in (("127.0.0.1", "hp-1"), (NODE_ADDRESS, "hp-2")):
        script = http(f"{address}:54323")
        eventually(lambda s=script, n=name: shell(cluster, table, "host", s, check=False).split() == [n], 10)  # type: ignore[misc]
    with udp_servers(cluster, "hp-3"):
        assert udp(cluster, "host", NODE_ADDRESS, 54323) == ["hp-3"]
        assert udp(cluster, "client", NODE_ADDRESS, 54323) == ["hp-3"]


def test_proxying_through_the_api_server(cluster: Cluster, table: str) -> None:
    base = f"/api/v1/namespaces/{table}"
    paths = [f"{base}/pods/web-1:8080/proxy/hostname", f"{base}/pods/http:web-1:8080/proxy/hostname",
             f"{base}/services/web:http/proxy/hostname", f"{base}/services/http:web:81/proxy/hostname",
             f"{base}/services/web:named/proxy/hostname"]  # fmt: skip
    for path in paths:
        assert cluster.kubectl("get", "--raw", path).stdout.startswith("web-"), path
    missing = cluster.kubectl("get", "--raw", f"{base}/pods/web-1:8080/proxy/none", check=False)
    assert missing.returncode != 0 and "NotFound" in missing.stderr + missing.stdout


def test_forwarded_ports_carry_data_both_ways(cluster: Cluster, table: str) -> None:
    forward = subprocess.Popen(
        cluster.inside(".tools/bin/kubectl", "port-forward", "-n", table, "pod/web-2", ":8080"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=cluster.env,
    )  # fmt: skip
    try:
        assert forward.stdout is not None
        match = re.search(r"127\.0\.0\.1:(\d+) ->", forward.stdout.readline())
        assert match
        got = run(*cluster.inside("/bin/busybox", "wget", "-qO-", f"http://127.0.0.1:{match[1]}/hostname"))
        assert got.stdout == "web-2\n"
    finally:
        forward.terminate()
        forward.wait(10)


def test_containers_of_a_pod_share_the_network(cluster: Cluster, table: str) -> None:
    two = [container("httpd -f -p 8080 -h /etc", name="server"), container("sleep 3600", name="main")]
    create(cluster, table, pod("pair", containers=two))
    ready(cluster, table, "pair")
    said = cluster.kubectl("exec", "-n", table, "pair", "-c", "main", "--", "wget", "-qO-", "http://localhost:8080/hostname")
    assert said.stdout == "pair\n"


def test_services_are_deleted_as_a_collection(cluster: Cluster, table: str) -> None:
    cluster.kubectl("delete", "services", "-n", table, "-l", "all=yes")
    assert {s["metadata"]["name"] for s in cluster.get("svc", "-n", table)["items"]} == {"external", "manual", "changing"}
    eventually(lambda: not cluster.get("endpointslices", "-n", table, "-l", "kubernetes.io/service-name=web")["items"], 15)
