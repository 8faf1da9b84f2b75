"""What many nodes cost the server: `python -m bench.agents --agents 100`, as root.

A server without an agent of its own, and as many agents with the in-memory runtime as wanted, a few processes of many agents
each (they share their imports, so that the machine holds them; the server cannot tell). Prints the time until every node is
Ready, then the server's memory and CPU over an idle minute, then while one Deployment with three pods a node starts.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import subprocess
import sys
import time
from pathlib import Path

from bench import own, processes
from bench.target import Api

ROOT = Path(__file__).resolve().parents[1]
_FIRST_PORT = 20000


async def carry(server: str, token_file: Path, home: Path, first: int, count: int) -> None:
    """`count` agents in this process."""
    from k1s.agent import app
    from k1s.agent.config import AgentConfig

    agents = [
        AgentConfig(
            server=server,
            token_file=str(token_file),
            data_dir=home / f"n{number}" / "data",
            run_dir=home / f"n{number}" / "run",
            node_name=f"node-{number:03}",
            fake_runtime=True,
            kubelet_port=_FIRST_PORT + number,
            resolv_conf="/dev/null",
        )
        for number in range(first, first + count)
    ]
    await asyncio.gather(*(app.run(dataclasses.replace(config)) for config in agents))


def ready(api: Api) -> int:
    nodes = api.call("GET", "/api/v1/nodes")["items"]
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions") or ())
        for node in nodes
    )


def available(api: Api) -> int:
    deployment = api.call("GET", "/apis/apps/v1/namespaces/default/deployments/many")
    return int(deployment.get("status", {}).get("availableReplicas") or 0)


def until(wanted: int, count: object, seconds: float) -> float:
    began = time.monotonic()
    got = 0
    while time.monotonic() - began < seconds:
        got = count()  # type: ignore[operator]
        if got >= wanted:
            return time.monotonic() - began
        time.sleep(0.2)
    raise SystemExit(f"only {got} of {wanted} within {seconds:.0f} s")


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m bench.agents")
    options.add_argument("--agents", type=int, default=100)
    options.add_argument("--carriers", type=int, default=4)
    options.add_argument("--idle-seconds", type=float, default=60.0)
    options.add_argument("--carry", nargs=5, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.carry:
        import uvloop

        server, token, home, first, count = given.carry
        uvloop.run(carry(server, Path(token), Path(home), int(first), int(count)))
        return
    own.leave_network()
    cluster = own.OwnCluster([sys.executable, "-m", "k1s.cli.main"], ROOT / ".tools", agent=False)
    carriers: list[subprocess.Popen[bytes]] = []
    try:
        cluster.start()
        measure(cluster, carriers, given)
    finally:
        for carrier in carriers:
            carrier.kill()
            carrier.wait()
        cluster.remove()


def measure(cluster: own.OwnCluster, carriers: list[subprocess.Popen[bytes]], given: argparse.Namespace) -> None:
    api = Api(cluster.target())
    pids = [cluster.pid]
    rss, pss = processes.memory_mib(pids)
    print(f"server alone: {rss:.0f} MiB RSS")
    before, share = processes.use(pids), -(-given.agents // given.carriers)
    for first in range(0, given.agents, share):
        count = min(share, given.agents - first)
        words = ["https://127.0.0.1:6443", cluster.home / "data" / "server" / "node-token", cluster.home / "agents", first, count]
        command = [sys.executable, "-m", "bench.agents", "--carry", *map(str, words)]
        with (cluster.home / "agents.log").open("ab") as log:
            carriers.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))
    took = until(given.agents, lambda: ready(api), 300)
    used = processes.use(pids).cpu_seconds - before.cpu_seconds
    print(f"{given.agents} agents Ready in {took:.1f} s; {used / given.agents * 1000:.0f} ms of server CPU a node")
    time.sleep(5)
    rss, pss = processes.memory_mib(pids)
    print(f"server with {given.agents} agents: {rss:.0f} MiB RSS ({pss:.0f} PSS)")
    began, at = processes.use(pids), time.monotonic()
    time.sleep(given.idle_seconds)
    spent = time.monotonic() - at
    now = processes.use(pids)
    cpu = (now.cpu_seconds - began.cpu_seconds) / spent * 100
    written = (now.written - began.written) / spent / 1024
    print(f"idle over {spent:.0f} s: {cpu:.2f} % of a core, {written:.2f} KB/s to disk")
    deployment(api, given.agents * 3)
    began, at = processes.use(pids), time.monotonic()
    took = until(given.agents * 3, lambda: available(api), 600)
    cpu = processes.use(pids).cpu_seconds - began.cpu_seconds
    rss, _ = processes.memory_mib(pids)
    print(f"Deployment of {given.agents * 3}: available in {took:.1f} s, {cpu:.1f} s of the server's CPU, {rss:.0f} MiB RSS then")
    api.close()


def deployment(api: Api, replicas: int) -> None:
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "many"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "many"}},
            "template": {
                "metadata": {"labels": {"app": "many"}},
                "spec": {"containers": [{"name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent"}]},
            },
        },
    }
    api.call("POST", "/apis/apps/v1/namespaces/default/deployments", body)


if __name__ == "__main__":
    main()
