"""LoadBalancer Services from a machine of the LAN that is not of the cluster: addresses of nodes, and of a pool."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from k1s.net.announce.election import rank

from .conftest import eventually
from .hosts import CLIENT, Hosts, cluster_of, run

POOL = ("192.0.2.240", "192.0.2.241", "192.0.2.242")
BUSYBOX = "docker.io/library/busybox:1.36"
NAMESPACE = "balance"
Object = dict[str, Any]

# Says who answers, and from where it was asked.
WHO = r"""mkdir -p /www/cgi-bin; cat > /www/cgi-bin/who <<'END'
#!/bin/sh
echo; echo $(hostname) $(echo $REMOTE_ADDR | sed 's/.*:\([0-9.]*\).*/\1/')
END
chmod +x /www/cgi-bin/who; exec httpd -f -p '[::]:8080' -h /www"""

ASK = """
import sys, urllib.request
for _ in range(int(sys.argv[2])):
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode().strip())
    except OSError as error:
        print("error", type(error).__name__)
"""


def deployment(name: str, *, replicas: int = 3, **spec: Any) -> Object:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app": name}},
                }
            ],
            "containers": [
                {
                    "name": "main",
                    "image": BUSYBOX,
                    "command": ["sh", "-c", WHO],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                }
            ],
            **spec,
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def service(name: str, app: str, port: int, **spec: Any) -> Object:
    ports = [{"port": port, "targetPort": 8080}]
    full = {"type": "LoadBalancer", "selector": {"app": app}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": full}


def apply(hosts: Hosts, *objects: Object) -> None:
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    hosts.kubectl("apply", "-n", NAMESPACE, "-f", "-", input=document)


def addresses(hosts: Hosts, name: str) -> list[str]:
    found = hosts.get("service", name, "-n", NAMESPACE)
    return [entry["ip"] for entry in found["status"]["loadBalancer"].get("ingress", ())]


def ask(hosts: Hosts, address: str, port: int, times: int = 1) -> list[str]:
    """`pod client` of each answer."""
    url = f"http://{address}:{port}/cgi-bin/who"
    return hosts.outside(sys.executable, "-ISc", ASK, url, str(times)).stdout.split("\n")[:times]


def pods_on(hosts: Hosts, app: str) -> dict[str, str]:
    """Pod -> node."""
    found = hosts.get("pods", "-n", NAMESPACE, "-l", f"app={app}")["items"]
    return {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in found}


def reasons(hosts: Hosts, name: str) -> dict[str, str]:
    """Reason -> message of the events of a Service."""
    selector = f"involvedObject.kind=Service,involvedObject.name={name}"
    found = hosts.get("events", "-n", NAMESPACE, "--field-selector", selector)["items"]
    return {event["reason"]: event["message"] for event in found}


@pytest.fixture(scope="module")
def nodes(hosts: Hosts) -> Iterator[Hosts]:
    hosts.kubectl("create", "namespace", NAMESPACE)
    apply(hosts, deployment("who"))
    hosts.kubectl("rollout", "status", "deploy/who", "-n", NAMESPACE, "--timeout=90s")
    yield hosts
    hosts.kubectl("delete", "namespace", NAMESPACE)


def test_every_node_serves_the_service_at_its_address(nodes: Hosts) -> None:
    apply(nodes, service("web", "who", 8000))
    eventually(lambda: addresses(nodes, "web") == ["192.0.2.11", "192.0.2.12", "192.0.2.13"], 10)
    pods = pods_on(nodes, "who")
    assert sorted(pods.values()) == ["a", "b", "c"]
    for address in addresses(nodes, "web"):
        answers = eventually(lambda address=address: ask(nodes, address, 8000, 20), 10)
        assert {answer.split()[0] for answer in answers} == set(pods), address
    assert {"EnsuringLoadBalancer", "EnsuredLoadBalancer"} <= set(reasons(nodes, "web"))
    shown = nodes.kubectl("get", "service", "web", "-n", NAMESPACE, "--no-headers").stdout
    assert "192.0.2.11,192.0.2.12,192.0.2.13" in shown


def test_local_policy_keeps_the_clients_address(nodes: Hosts) -> None:
    apply(nodes, deployment("one", replicas=1, nodeName="b", topologySpreadConstraints=None))
    apply(nodes, service("local", "one", 8001, externalTrafficPolicy="Local"))
    eventually(lambda: addresses(nodes, "local") == ["192.0.2.12"], 30)
    (pod,) = pods_on(nodes, "one")
    eventually(lambda: ask(nodes, "192.0.2.12", 8001, 3) == [f"{pod} {CLIENT}"] * 3, 10)
    # Nodes without an endpoint do not answer, rather than sending it on.
    assert ask(nodes, "192.0.2.13", 8001)[0].startswith("error")


def test_a_port_belongs_to_the_older_service_and_the_nodes_own_to_none(nodes: Hosts) -> None:
    apply(nodes, service("web", "who", 8000))
    eventually(lambda: addresses(nodes, "web"), 10)
    apply(nodes, service("late", "who", 8000), service("api", "who", 6443))
    said = eventually(lambda: reasons(nodes, "late").get("SyncLoadBalancerFailed"), 10)
    assert f"8000/TCP of the nodes is taken by Service {NAMESPACE}/web" in said
    said = eventually(lambda: reasons(nodes, "api").get("SyncLoadBalancerFailed"), 10)
    assert "6443/TCP is used by the nodes themselves" in said
    assert addresses(nodes, "late") == addresses(nodes, "api") == []
    nodes.kubectl("delete", "service", "web", "-n", NAMESPACE)
    eventually(lambda: addresses(nodes, "late") == ["192.0.2.11", "192.0.2.12", "192.0.2.13"], 10)
    nodes.kubectl("get", "nodes")


def test_another_class_is_not_ours(nodes: Hosts) -> None:
    apply(nodes, service("theirs", "who", 8002, loadBalancerClass="example.com/metal"), service("ours", "who", 8003))
    eventually(lambda: addresses(nodes, "ours"), 10)
    found = nodes.get("service", "theirs", "-n", NAMESPACE)
    assert found["status"] == {"loadBalancer": {}}
    assert "finalizers" not in found["metadata"]


# --- a pool


@pytest.fixture(scope="module")
def pool(tools: object) -> Iterator[Hosts]:
    with cluster_of(f"lb{os.getpid() % 100000}", ("a", "b", "c"), "--loadbalancer-pool", f"{POOL[0]}-{POOL[-1]}") as made:
        made.kubectl("create", "namespace", NAMESPACE)
        apply(made, deployment("who"))
        made.kubectl("rollout", "status", "deploy/who", "-n", NAMESPACE, "--timeout=90s")
        yield made


def holders(hosts: Hosts, address: str) -> list[str]:
    found = []
    for name, host in hosts.hosts.items():
        shown = run(*host.inside("ip", "-o", "addr", "show", "dev", "k1s-lb"), check=False).stdout
        if f" {address}/32 " in shown:
            found.append(name)
    return found


def mac_seen(hosts: Hosts, address: str) -> str:
    """Which host the client believes to have the address; nobody is asked."""
    shown = run("ip", "-n", hosts.client, "neigh", "show", "to", address).stdout
    for name, host in hosts.hosts.items():
        words = run("ip", "-n", host.netns, "-o", "link", "show", "eth0").stdout.split()
        if words[words.index("link/ether") + 1] in shown:
            return name
    return ""


def test_each_service_has_an_address_that_one_node_announces(pool: Hosts) -> None:
    apply(pool, service("web", "who", 80), service("api", "who", 6443))
    eventually(lambda: addresses(pool, "web") and addresses(pool, "api"), 10)
    both = [addresses(pool, name)[0] for name in ("web", "api")]
    assert sorted(both) == ["192.0.2.240", "192.0.2.241"]
    for address, port in zip(both, (80, 6443), strict=True):
        eventually(lambda address=address: len(holders(pool, address)) == 1, 10)
        answers = eventually(lambda address=address, port=port: ask(pool, address, port, 20), 10)
        assert {answer.split()[0] for answer in answers} == set(pods_on(pool, "who"))
    said = eventually(lambda: reasons(pool, "web").get("AnnouncingAddress"), 10)
    assert f"announces {both[0]} on eth0" in said


def test_local_policy_announces_where_the_pod_is_and_keeps_the_clients_address(pool: Hosts) -> None:
    apply(pool, deployment("one", replicas=1, nodeName="b", topologySpreadConstraints=None))
    apply(pool, service("local", "one", 81, externalTrafficPolicy="Local", loadBalancerIP="192.0.2.242"))
    eventually(lambda: holders(pool, "192.0.2.242") == ["b"], 30)
    (pod,) = pods_on(pool, "one")
    eventually(lambda: ask(pool, "192.0.2.242", 81, 3) == [f"{pod} {CLIENT}"] * 3, 10)
    # The pod moves, the address with it.
    apply(pool, deployment("one", replicas=1, nodeName="c", topologySpreadConstraints=None))
    pool.kubectl("rollout", "status", "deploy/one", "-n", NAMESPACE, "--timeout=60s")
    eventually(lambda: holders(pool, "192.0.2.242") == ["c"], 20)
    eventually(lambda: ask(pool, "192.0.2.242", 81)[0].endswith(CLIENT), 10)
    pool.kubectl("delete", "service", "local", "-n", NAMESPACE)
    eventually(lambda: holders(pool, "192.0.2.242") == [], 10)


def test_an_exhausted_pool_says_so(pool: Hosts) -> None:
    apply(pool, *(service(f"more-{number}", "who", 80) for number in range(4)))
    eventually(lambda: any("PoolExhausted" in json.dumps(pool.get("service", f"more-{n}", "-n", NAMESPACE)) for n in range(4)))
    pool.kubectl("delete", "service", "-n", NAMESPACE, *(f"more-{number}" for number in range(4)))


def test_an_address_survives_its_node_without_the_server(pool: Hosts) -> None:
    """kill -9 of the server, and then the power of the node that holds the address. The last test: the cluster is left so."""
    # The one whose holder is not the server's own host.
    address = next(a for a in POOL if max(pool.hosts, key=lambda node: rank(a, node)) != "a")
    pool.kubectl("delete", "service", "--all", "-n", NAMESPACE)
    apply(pool, service("safe", "who", 80, loadBalancerIP=address))
    (first,) = eventually(lambda: holders(pool, address), 10)
    assert first != "a"
    eventually(lambda: ask(pool, address, 80)[0].endswith(CLIENT) or ask(pool, address, 80)[0], 10)
    assert mac_seen(pool, address) == first
    pool["a"].kill()
    assert not ask(pool, address, 80)[0].startswith("error")
    # Its cable goes first; to end all of its processes takes a while, which is not the address's.
    with ThreadPoolExecutor(1) as aside:
        began = time.monotonic()
        gone = aside.submit(pool[first].power_off)
        eventually(lambda: mac_seen(pool, address) not in ("", first), 20)
        print(f"another node announces it {time.monotonic() - began:.2f} s after the first lost its power")
        gone.result()
    # Without the server nobody takes the dead node's pod out of the table, so one in three goes nowhere.
    answers = eventually(lambda: [a for a in ask(pool, address, 80, 4) if not a.startswith("error")], 20)
    assert answers


# --- both families

POOL6 = "2001:db8::f0-2001:db8::ff"


@pytest.fixture(scope="module")
def dual(tools: object) -> Iterator[Hosts]:
    def addresses(hosts: Hosts) -> None:
        for number, netns in enumerate([hosts.client, *(host.netns for host in hosts.hosts.values())], 10):
            run("ip", "-n", netns, "addr", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad")

    ranges = ("--cluster-cidr=10.42.0.0/16,fd42::/56", "--service-cidr=10.43.0.0/16,fd43::/112")
    pools = ("--loadbalancer-pool", f"{POOL[0]}-{POOL[-1]},{POOL6}")
    with cluster_of(f"ld{os.getpid() % 100000}", ("a", "b"), *ranges, *pools, before=addresses) as made:
        made.kubectl("create", "namespace", NAMESPACE)
        apply(made, deployment("who", replicas=2))
        made.kubectl("rollout", "status", "deploy/who", "-n", NAMESPACE, "--timeout=90s")
        yield made


def test_an_address_of_each_family(dual: Hosts) -> None:
    apply(dual, service("both", "who", 80, ipFamilyPolicy="RequireDualStack", externalTrafficPolicy="Local"))
    four, six = eventually(lambda: addresses(dual, "both"), 10)
    assert (four, six) == ("192.0.2.240", "2001:db8::f0")
    assert eventually(lambda: ask(dual, four, 80)[0].endswith(CLIENT), 10)
    answers = eventually(lambda: [a for a in ask(dual, f"[{six}]", 80, 5) if not a.startswith("error")], 10)
    assert {answer.split()[0] for answer in answers} <= set(pods_on(dual, "who"))
    # Nodes are known by their own addresses, not by those that they announce.
    for node in dual.get("nodes")["items"]:
        assert six not in [a["address"] for a in node["status"]["addresses"]]


def test_an_ipv6_address_survives_its_node(dual: Hosts) -> None:
    """The server's host goes, as the node that holds it or as the one that decides nothing: the other one has it."""
    (six,) = [a for a in eventually(lambda: addresses(dual, "both"), 10) if ":" in a]
    eventually(lambda: mac_seen(dual, six), 10)
    dual["a"].power_off()
    eventually(lambda: ask(dual, f"[{six}]", 80)[0] and mac_seen(dual, six) == "b", 20)
    assert not eventually(lambda: ask(dual, f"[{six}]", 80), 10)[0].startswith("error")
