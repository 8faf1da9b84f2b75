"""Figures of the service proxy: `python bench/proxy.py` as root. One line a figure.

Services of two endpoints, in one family and in two: full load, one endpoint of one Service changed, the node's zone changed, and
what the agent holds in memory for them (the proxy's plans, and the objects as informers keep them).
Everything happens in a network namespace of its own.
"""

from __future__ import annotations

import gc
import ipaddress
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "node"))
import netlab

from k1s.agent.trimming import Trimmer
from k1s.net.family import IPV4, IPV6, Family
from k1s.net.nft import Nft
from k1s.net.proxy.apply import ServiceProxy
from k1s.net.proxy.endpoints import Place
from k1s.net.proxy.table import Ranges

COUNTS, TURNS = (200, 1000, 5000), 60
V4, V6 = ipaddress.ip_network("10.142.0.0/16"), ipaddress.ip_network("fd00:42::/48")
FIRST = {4: ipaddress.ip_address("10.143.1.0"), 6: ipaddress.ip_address("fd00:43::1:0")}
NAMES = {4: "IPv4", 6: "IPv6"}


def megabytes() -> float:
    gc.collect()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def address(version: int, number: int) -> str:
    return f"10.142.{number // 200 % 250}.{10 + number % 200}" if version == 4 else f"fd00:42::{number:x}"


def objects(number: int, versions: tuple[int, ...]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A Service and its slices, with what the API server puts into them."""
    name, uid = f"service-{number}", f"e5e2cac8-c16b-4c77-a33f-{number:012d}"
    meta = {"namespace": f"ns-{number % 50}", "uid": uid, "resourceVersion": str(number), "creationTimestamp": "2026-01-01"}
    ips = [str(FIRST[version] + number) for version in versions]
    port = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}
    spec = {
        "type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips, "ports": [port], "selector": {"app": name},
        "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ipFamilies": [NAMES[version] for version in versions],
    }  # fmt: skip
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {**meta, "name": name, "labels": {"app": name}}, "spec": spec}
    labels = {"app": name, "kubernetes.io/service-name": name}
    owner = {"apiVersion": "v1", "kind": "Service", "name": name, "uid": uid, "controller": True}
    slices = []
    for version in versions:
        endpoints = [
            {
                "addresses": [address(version, number * 2 + k)], "nodeName": f"node-{k}", "zone": "zone-1",
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "name": f"{name}-{k}", "namespace": meta["namespace"], "uid": uid},
            }
            for k in range(2)
        ]  # fmt: skip
        about = {**meta, "name": f"{name}-abcde", "labels": labels, "ownerReferences": [owner]}
        ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
        slices.append({"metadata": about, "addressType": NAMES[version], "ports": ports, "endpoints": endpoints})
    return service, slices


async def measure(nft: Nft, count: int, families: tuple[Family, ...]) -> None:
    versions = tuple(family.version for family in families)
    raw = [orjson.dumps(objects(number, versions)) for number in range(count)]
    trimmer, before = Trimmer(), megabytes()
    services: dict[str, Any] = {}
    slices: dict[str, list[Any]] = {}
    for number, data in enumerate(raw):
        services[f"k/{number}"], slices[f"k/{number}"] = orjson.loads(data)
        trimmer.service(services[f"k/{number}"])
        for piece in slices[f"k/{number}"]:
            trimmer.endpoint_slice(piece)
    held = megabytes() - before
    pods = tuple(network for network in (V4, V6) if network.version in versions)
    proxy = ServiceProxy(
        nft, lambda key: (services.get(key), slices.get(key, [])), place=Place("node-0", "zone-1"),
        ranges=Ranges(pods, pods, ()), families=families,
    )  # fmt: skip
    await proxy.load([])
    before = megabytes()
    begin = time.perf_counter()
    await proxy.load(services)
    load = time.perf_counter() - begin
    plans = megabytes() - before
    what = f"{count} services, {'two families' if len(families) > 1 else 'one family'}"
    print(f"{what}: full load {load * 1e3:.0f} ms; memory: objects {held:.0f} MiB, proxy {plans:.0f} MiB")
    took = []
    for turn in range(TURNS):
        for piece, version in zip(slices["k/7"], versions, strict=True):
            ready = {"ready": True, "serving": True, "terminating": False}
            piece["endpoints"][1] = {"addresses": [address(version, 50_000 + turn % 2)], "conditions": ready}
        begin = time.perf_counter()
        await proxy.update({"k/7"})
        took.append((time.perf_counter() - begin) * 1e3)
    took.sort()
    print(f"{what}: one endpoint changed {statistics.median(took):.2f} ms, p95 {took[int(len(took) * 0.95)]:.2f} ms")
    begin = time.perf_counter()
    await proxy.move(Place("node-0", "zone-2"))
    print(f"{what}: the node's zone changed {(time.perf_counter() - begin) * 1e3:.0f} ms")


async def main() -> None:
    for families in ((IPV4,), (IPV4, IPV6)):
        for count in COUNTS:
            nft = Nft()
            try:
                await measure(nft, count, families)
            finally:
                await nft.close()


if __name__ == "__main__":
    with netlab.host():
        uvloop.run(main())
