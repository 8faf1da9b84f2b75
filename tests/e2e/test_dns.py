"""DNS as pods see it: every kind of record of the specification, as Services and pods come, change and go."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from .conftest import NODE_ADDRESS, Cluster, eventually, run
from .small_pods import Object, create, get_pod, pod, process_in, ready, shell

NAMESPACE = "dns-records"
ZONE = f"{NAMESPACE}.svc.cluster.local"
ASK = r"""
import dnslib, sys
for text in sys.argv[2:]:
    name, kind = text.split("/")
    if kind == "PTR" and name[0].isdigit() and "arpa" not in name:
        name = ".".join(reversed(name.split("."))) + ".in-addr.arpa"
    q = dnslib.DNSRecord.question(name, kind)
    a = dnslib.DNSRecord.parse(q.send("10.43.0.10", 53, tcp=sys.argv[1] == "tcp", timeout=9))
    print(dnslib.RCODE[a.header.rcode], *sorted(str(r.rdata).strip('"').rstrip(".") for r in a.rr))
"""


def service(name: str, app: str | None = "db", **spec: object) -> Object:
    ports = [{"name": "sql", "port": 5432, "targetPort": 5432}]
    body: Object = {"ports": ports, **({"selector": {"app": app}} if app else {}), **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}


def ask(cluster: Cluster, source: str, *questions: str, how: str = "udp") -> list[str]:
    """`name/type` each, asked from the network of that pod ("" for the node itself)."""
    where = ["nsenter", f"--net=/proc/{process_in(cluster, NAMESPACE, source)}/ns/net"] if source else cluster.inside()
    return run(*where, sys.executable, "-c", ASK, how, *questions).stdout.splitlines()


@pytest.fixture(scope="module")
def records(cluster: Cluster) -> Iterator[dict[str, str]]:
    """The addresses of the pods db-0, db-1 (never ready) and single."""
    cluster.kubectl("create", "namespace", NAMESPACE)
    eventually(lambda: cluster.get("sa", "default", "-n", NAMESPACE), 10)
    never = {"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}
    labels = {"labels": {"app": "db"}}
    create(
        cluster, NAMESPACE,
        pod("db-0", "sleep 3600", meta=labels, hostname="db-0", subdomain="db"),
        pod("db-1", "sleep 3600", meta=labels, main=never, hostname="db-1", subdomain="db"),
        pod("single", "sleep 3600", meta={"labels": {"app": "single"}}),
        pod("host", "sleep 3600", hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"),
        service("web"), service("db", clusterIP="None"), service("all", clusterIP="None", publishNotReadyAddresses=True),
        service("single", "single", clusterIP="None"), service("by-hand", None, clusterIP="None"),
        service("out", None, type="ExternalName", externalName=f"web.{ZONE}"),
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": [],
         "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "by-hand"}},
         "endpoints": [{"addresses": ["198.51.100.7"], "hostname": "far"}, {"addresses": ["198.51.100.8"]}]},
    )  # fmt: skip
    ready(cluster, NAMESPACE, "db-0", "single", "host")
    found = {name: get_pod(cluster, NAMESPACE, name)["status"].get("podIP", "") for name in ("db-0", "db-1", "single")}
    found["web"] = cluster.get("svc", "web", "-n", NAMESPACE)["spec"]["clusterIP"]
    eventually(lambda: found["db-1"] in ask(cluster, "single", f"all.{ZONE}/A")[0], 15, "not ready, but published")
    yield found
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def table(found: dict[str, str]) -> dict[str, str]:
    zero, one, web = found["db-0"], found["db-1"], found["web"]
    single = found["single"].replace(".", "-")
    return {
        f"web.{ZONE}/A": f"NOERROR {web}",
        f"WEB.{ZONE.upper()}/A": f"NOERROR {web}",
        f"web.{ZONE}/AAAA": "NOERROR",
        f"_sql._tcp.web.{ZONE}/SRV": f"NOERROR 0 100 5432 web.{ZONE}",
        f"_sql._udp.web.{ZONE}/SRV": "NXDOMAIN",
        f"_tcp.web.{ZONE}/SRV": "NOERROR",
        f"{web}/PTR": f"NOERROR web.{ZONE}",
        f"db.{ZONE}/A": f"NOERROR {zero}",
        f"db-0.db.{ZONE}/A": f"NOERROR {zero}",
        f"db-1.db.{ZONE}/A": "NXDOMAIN",
        f"_sql._tcp.db.{ZONE}/SRV": f"NOERROR 0 100 5432 db-0.db.{ZONE}",
        f"all.{ZONE}/A": "NOERROR " + " ".join(sorted([zero, one])),
        f"single.{ZONE}/A": f"NOERROR {found['single']}",
        f"{single}.single.{ZONE}/A": f"NOERROR {found['single']}",
        f"{found['single']}/PTR": f"NOERROR {single}.single.{ZONE}",
        f"by-hand.{ZONE}/A": "NOERROR 198.51.100.7 198.51.100.8",
        f"far.by-hand.{ZONE}/A": "NOERROR 198.51.100.7",
        "198.51.100.7/PTR": f"NOERROR far.by-hand.{ZONE}",
        f"out.{ZONE}/A": "NOERROR " + " ".join(sorted([web, f"web.{ZONE}"])),
        f"out.{ZONE}/CNAME": f"NOERROR web.{ZONE}",
        f"{single}.{NAMESPACE}.pod.cluster.local/A": f"NOERROR {found['single']}",
        f"{ZONE}/A": "NOERROR",
        f"none.{ZONE}/A": "NXDOMAIN",
        f"*.{ZONE}/A": "NXDOMAIN",
        "dns-version.cluster.local/TXT": "NOERROR 1.1.0",
        "kube-dns.kube-system.svc.cluster.local/A": "NOERROR 10.43.0.10",
        "10.43.0.10/PTR": "NOERROR kube-dns.kube-system.svc.cluster.local",
        "node-1/A": f"NOERROR {NODE_ADDRESS}",
        f"{NODE_ADDRESS}/PTR": "NOERROR node-1",
    }


@pytest.mark.parametrize("source", ["single", "host", ""])
@pytest.mark.parametrize("how", ["udp", "tcp"])
def test_every_record(cluster: Cluster, records: dict[str, str], source: str, how: str) -> None:
    wanted = table(records)
    assert dict(zip(wanted, ask(cluster, source, *wanted, how=how), strict=True)) == wanted


def test_names_by_the_search_path(cluster: Cluster, records: dict[str, str]) -> None:
    for name in ("web", f"web.{NAMESPACE}", f"web.{NAMESPACE}.svc", "db-0.db", "out"):
        address = records["db-0"] if name.startswith("db") else records["web"]
        for source in ("single", "host"):
            said = shell(cluster, NAMESPACE, source, f"ping -c 1 -W 1 {name} 2>&1 | head -1", check=False)
            assert f"({address})" in said, (name, source)
    assert shell(cluster, NAMESPACE, "db-0", "hostname -f").strip() == f"db-0.db.{ZONE}"


def test_answers_follow_the_objects(cluster: Cluster, records: dict[str, str]) -> None:
    def answer(question: str) -> str:
        return ask(cluster, "single", question)[0]

    def patch(kind: str, name: str, change: Object) -> None:
        cluster.kubectl("patch", kind, name, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(change))

    patch("svc", "out", {"spec": {"externalName": f"db.{ZONE}"}})
    eventually(lambda: records["db-0"] in answer(f"out.{ZONE}/A"), 5, "another target")
    change = {"spec": {"type": "ClusterIP", "externalName": None, "ports": [{"port": 80}]}}
    patch("svc", "out", change)
    eventually(lambda: answer(f"out.{ZONE}/A").startswith("NOERROR 10.43."), 5, "an address of its own")
    cluster.kubectl("delete", "svc", "out", "-n", NAMESPACE)
    eventually(lambda: answer(f"out.{ZONE}/A") == "NXDOMAIN", 5, "gone")
    cluster.kubectl("label", "pod", "single", "-n", NAMESPACE, "app=other", "--overwrite")
    eventually(lambda: answer(f"single.{ZONE}/A") == "NXDOMAIN", 5, "nobody there")
    cluster.kubectl("label", "pod", "single", "-n", NAMESPACE, "app=single", "--overwrite")
    eventually(lambda: answer(f"single.{ZONE}/A") == f"NOERROR {records['single']}", 5, "back")


def test_settings_of_the_user(cluster: Cluster, records: dict[str, str]) -> None:
    def apply(hosts: str) -> None:
        data = {"hosts": hosts, "rewrite": f"shop.example.com web.{ZONE}"}
        found = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "k1s-dns", "namespace": "kube-system"},
            "data": data,
        }
        cluster.kubectl("apply", "-f", "-", input=json.dumps(found))

    try:
        apply("192.168.1.20 nas.home")
        wanted = ["NOERROR 192.168.1.20", "NOERROR " + " ".join(sorted([records["web"], f"web.{ZONE}"]))]
        eventually(lambda: ask(cluster, "single", "nas.home/A", "shop.example.com/A") == wanted, 5)
        apply("nas.home 192.168.1.20")
        said = "hosts, line 1: 'nas.home' is not an IP address; what was set before stays"
        eventually(lambda: said in cluster.kubectl("get", "events", "-n", "kube-system").stdout, 10, "an Event")
        assert ask(cluster, "single", "nas.home/A") == wanted[:1]
    finally:
        cluster.kubectl("delete", "configmap", "k1s-dns", "-n", "kube-system")


def test_metrics_where_monitoring_looks(cluster: Cluster, records: dict[str, str]) -> None:
    ports = cluster.get("svc", "kube-dns", "-n", "kube-system")["spec"]["ports"]
    assert [(p["name"], p["port"], p["protocol"]) for p in ports] == [
        ("dns", 53, "UDP"), ("dns-tcp", 53, "TCP"), ("metrics", 9153, "TCP"),
    ]  # fmt: skip
    text = shell(cluster, NAMESPACE, "single", "wget -qO- http://kube-dns.kube-system:9153/metrics")
    assert "coredns_dns_requests_total{" in text
    # The agent's own endpoint has the same.
    raw = cluster.kubectl("get", "--raw", "/api/v1/nodes/node-1/proxy/metrics").stdout
    assert "coredns_dns_responses_total{" in raw
