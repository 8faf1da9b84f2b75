"""How long until a name answers with a changed endpoint: `python -m bench.dns_latency` as root.

A k1s of its own (real server and agent); 100 times the EndpointSlice of a headless Service gets another address, and its name
is asked until the answer has it. The commit is somewhere between sending the request and its answer: both are shown.
"""

from __future__ import annotations

import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import dnslib

from bench.own import OwnCluster, leave_network
from bench.target import Api

TIMES, DNS = 100, ("10.43.0.10", 53)
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    leave_network()
    cluster = OwnCluster([sys.executable, "-m", "k1s.cli.main"], ROOT / ".tools", agent=True)
    try:
        cluster.start()
        api = Api(cluster.target())
        api.call("POST", "/api/v1/namespaces/default/services", service())
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        api.call("POST", path, piece("10.42.9.1"))
        asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asker.connect(DNS)
        asker.settimeout(1.0)
        question = bytes(dnslib.DNSRecord.question("db.default.svc.cluster.local").pack())
        sent, committed = [], []
        for number in range(2, TIMES + 2):
            address = f"10.42.9.{number}"
            began = time.monotonic()
            api.call("PUT", f"{path}/db", piece(address))
            done = time.monotonic()
            while True:
                asker.send(question)
                if asker.recv(2048).endswith(socket.inet_aton(address)):
                    break
            found = time.monotonic()
            sent.append((found - began) * 1e3)
            committed.append((found - done) * 1e3)
            time.sleep(0.02)
        for title, values in (("from sending the change", sent), ("from its answer", committed)):
            values.sort()
            p99 = values[int(len(values) * 0.99)]
            print(f"name answers, {title}: median {statistics.median(values):.1f} ms, p99 {p99:.1f} ms ({TIMES} times)")
    finally:
        cluster.end()
        cluster.remove()


def service() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {"clusterIP": "None"}}


def piece(address: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "db", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [],
    }


if __name__ == "__main__":
    main()
