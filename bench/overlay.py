"""Throughput and latency of pods' paths: `python bench/overlay.py [seconds]` as root.

Two hosts on one LAN (tests/node/lan.py), a pod each and a second one on the first; the agent's real network part on both. In one
run, in many short turns, so that a noisy machine is noisy for all: the bare path between the hosts, k1s's path between pods, a
VXLAN of the same shape made by hand (bridge, pair of links, device, entries; no rules of its own), by address and through a
Service. TCP with one stream; latency is that of one byte there and back; ratios are those of the medians.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "node"))
import netlab
from lan import Host, eventually, lan, ping

TURNS = 25
ROUND_TRIPS = 1000

SERVER = r"""
import socket, sys, threading
s = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=16)
print("ready", flush=True)
def serve(c):
    kind = c.recv(1)
    buffer = bytearray(1 << 20)
    if kind == b"s":
        while c.recv_into(buffer):
            pass
    else:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while d := c.recv(1):
            c.send(d)
    c.close()
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
"""
CLIENT = r"""
import socket, sys, time
kind, address, port, amount = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
c = socket.create_connection((address, port), 5)
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
c.sendall(kind.encode())
if kind == "s":
    data = bytes(1 << 20)
    begin, sent = time.perf_counter(), 0
    while time.perf_counter() - begin < amount:
        c.sendall(data)
        sent += len(data)
    c.shutdown(socket.SHUT_WR)
    c.recv(1)  # the other side has taken it all
    print(sent * 8 / (time.perf_counter() - begin) / 1e9)
else:
    took = []
    for _ in range(int(amount)):
        begin = time.perf_counter()
        c.send(b"x"); c.recv(1)
        took.append(time.perf_counter() - begin)
    took.sort()
    print(took[len(took) // 2] * 1e6)
"""


@dataclass(frozen=True)
class Path_:
    """From a namespace to an address and port."""

    name: str
    source: str
    address: str
    port: int = 8080


def measure(path: Path_, kind: str, amount: float) -> float:
    python = shutil.which("python3") or "python3"
    command = ["ip", "netns", "exec", path.source, python, "-ISc", CLIENT, kind, path.address, str(path.port), str(amount)]
    return float(netlab.run(*command, timeout=amount + 30 if kind == "s" else 60))


def by_hand(hosts: list[Host]) -> tuple[str, str]:
    """The same shape without k1s: what the kernel gives. Returns the second pod's address and the namespace of the first."""
    spaces = []
    for host, other in (hosts, hosts[::-1]):
        space = host._stack.enter_context(netlab.namespace())
        spaces.append(space)
        mac, mine = f"06:00:00:00:00:0{other.number}", f"06:00:00:00:00:0{host.number}"
        for command in (
            "link add hand0 type bridge",
            f"addr add 172.31.{host.number}.1/24 dev hand0",
            "link set hand0 mtu 1450 up",
            f"link add hand1 mtu 1450 type veth peer name eth0 mtu 1450 netns {space}",
            "link set hand1 master hand0 up",
            f"link add hand9 address {mine} mtu 1450 type vxlan id 9 dstport 4789 local {host.address} nolearning",
            "link set hand9 up",
            f"route add 172.31.{other.number}.0/24 via 172.31.{other.number}.1 dev hand9 onlink",
            f"neigh add 172.31.{other.number}.1 lladdr {mac} dev hand9 nud permanent",
        ):
            netlab.run("ip", "-n", host.netns, *command.split())
        netlab.run("bridge", "-n", host.netns, "fdb", "add", mac, "dev", "hand9", "dst", other.address)
        for command in (
            f"addr add 172.31.{host.number}.2/32 dev eth0",
            "link set eth0 up",
            f"route add 172.31.{host.number}.1 dev eth0",
            f"route add default via 172.31.{host.number}.1",
        ):
            netlab.run("ip", "-n", space, *command.split())
    return spaces[0], spaces[1]


def service(name: str, address: str, target: str) -> tuple[dict, dict]:
    meta = {"name": name, "namespace": "d", "resourceVersion": "1"}
    labels = {"kubernetes.io/service-name": name}
    piece = {"addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": [target], "nodeName": "x"}]}
    return (
        {"metadata": meta, "spec": {"clusterIP": address, "ports": [{"port": 80}]}},
        {"metadata": {**meta, "labels": labels}, **piece},
    )


def main(seconds: float) -> None:
    servers: list[subprocess.Popen[str]] = []

    def serve(space: str, address: str) -> None:
        python = shutil.which("python3") or "python3"
        command = ["ip", "netns", "exec", space, python, "-ISc", SERVER, address, "8080"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        servers.append(server)
        assert server.stdout is not None
        server.stdout.readline()

    with lan(2) as made:
        try:
            a, b = made.hosts
            near, far = a.pod("near"), b.pod("far")
            a.pod("client")
            hand_client, hand_server = by_hand(made.hosts)
            for space, address in (
                (b.netns, b.address), (b.pods["far"][0], far), (a.pods["near"][0], near), (hand_server, "172.31.2.2"),
            ):  # fmt: skip
                serve(space, address)
            for name, virtual, target in (("near", "10.143.0.7", near), ("far", "10.143.0.8", far)):
                whole, piece = service(name, virtual, target)
                a.put("Service", whole)
                a.put("EndpointSlice", piece)
            eventually(lambda: ping(a, "client", far), "pods meet")
            client = a.pods["client"][0]
            paths = [
                Path_("bare path between hosts", a.netns, b.address),
                Path_("VXLAN by hand", hand_client, "172.31.2.2"),
                Path_("k1s VXLAN", client, far),
                Path_("k1s VXLAN, through a Service", client, "10.143.0.8", 80),
                Path_("k1s same host", client, near),
                Path_("k1s same host, through a Service", client, "10.143.0.7", 80),
            ]
            eventually(lambda: all(reachable(path) for path in paths), "all paths", 10)
            report(paths, seconds)
        finally:
            for server in servers:
                server.kill()
                server.wait()


def reachable(path: Path_) -> bool:
    try:
        return measure(path, "p", 1) > 0
    except AssertionError:
        return False


def report(paths: list[Path_], seconds: float) -> None:
    streams: dict[str, list[float]] = {path.name: [] for path in paths}
    trips: dict[str, list[float]] = {path.name: [] for path in paths}
    for turn in range(TURNS):
        # Another order each time: what comes first finds other caches.
        for path in paths if turn % 2 else paths[::-1]:
            streams[path.name].append(measure(path, "s", seconds))
            trips[path.name].append(measure(path, "p", ROUND_TRIPS))
    for path in paths:
        rate, trip = statistics.median(streams[path.name]), statistics.median(trips[path.name])
        print(f"{path.name}: {rate:.2f} Gbit/s, {trip:.1f} us there and back")
    for one, other in (
        ("k1s VXLAN", "VXLAN by hand"),
        ("k1s VXLAN", "bare path between hosts"),
        ("k1s VXLAN, through a Service", "k1s VXLAN"),
        ("k1s same host, through a Service", "k1s same host"),
    ):
        rate = statistics.median(streams[one]) / statistics.median(streams[other])
        trip = statistics.median(trips[one]) / statistics.median(trips[other])
        print(f"{one} against {other}: throughput x {rate:.2f}, latency x {trip:.2f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.3)
