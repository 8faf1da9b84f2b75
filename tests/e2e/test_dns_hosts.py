"""DNS on several hosts: each node answers by itself, the same as the others, and goes on without the server."""

from __future__ import annotations

import json
import os
import signal
import sys

from .conftest import eventually, run
from .hosts import Hosts

NAMESPACE = "dns-hosts"
ASK = r"""
import dnslib, sys
for name in sys.argv[1:]:
    a = dnslib.DNSRecord.parse(dnslib.DNSRecord.question(name).send("10.43.0.10", 53, timeout=9))
    print(dnslib.RCODE[a.header.rcode], *sorted(str(r.rdata) for r in a.rr))
"""


def ask(hosts: Hosts, node: str, *names: str) -> list[str]:
    return run(*hosts.hosts[node].inside(sys.executable, "-c", ASK, *names)).stdout.splitlines()


def piece(*addresses: str) -> str:
    found = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "db", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [],
    }
    return json.dumps(found)


def test_every_node_answers_alone_and_alike(hosts: Hosts) -> None:
    hosts.kubectl("create", "namespace", NAMESPACE)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {"clusterIP": "None"}}
    hosts.kubectl("apply", "-n", NAMESPACE, "-f", "-", input=json.dumps(service))
    db = f"db.{NAMESPACE}.svc.cluster.local"
    names = (db, "kube-dns.kube-system.svc.cluster.local", *hosts.hosts, f"none.{NAMESPACE}.svc.cluster.local")
    for addresses in (["198.51.100.1"], ["198.51.100.1", "198.51.100.2"]):
        hosts.kubectl("apply", "-n", NAMESPACE, "-f", "-", input=piece(*addresses))
        nodes = [f"NOERROR {host.address}" for host in hosts.hosts.values()]
        wanted = [f"NOERROR {' '.join(addresses)}", "NOERROR 10.43.0.10", *nodes, "NXDOMAIN"]
        for node in hosts.hosts:
            eventually(lambda n=node, w=wanted: ask(hosts, n, *names) == w, 5, f"{node} answers")  # type: ignore[misc]
    # Without the server, every node goes on with what it knows.
    server = next(iter(hosts.hosts.values()))
    pid = server.pid_of("server")
    os.kill(pid, signal.SIGSTOP)
    try:
        for node in hosts.hosts:
            assert ask(hosts, node, *names) == wanted
    finally:
        os.kill(pid, signal.SIGCONT)
    hosts.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
