"""How long a pool address of a LoadBalancer Service has nobody: `python bench/failover.py [ROUNDS]` as root. One line a figure.

Three nodes on a LAN of network namespaces, each with the announcing part of an agent as a process of its own. Measured from what
happens to the node that has the address until a client's kernel has learnt the new one, unasked. Then what the heartbeats cost.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "node"))
from test_net_announce import VIP, VIP6, Lan, lan_of, ranked, until

from k1s.net.announce.election import LISTEN_SECONDS

_COST_SECONDS = 20.0
_MANY = [f"192.0.2.{number}" for number in range(101, 201)]


def show(name: str, seconds: list[float]) -> None:
    print(f"{name}: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s ({len(seconds)} times)", flush=True)


def settle(lan: Lan, address: str) -> list[str]:
    """All nodes at work, the address with the one that is to have it; the nodes by rank."""
    order = ranked(address, *lan.nodes)
    until(lambda: lan.holders(address) == order[:1], 30)
    # Those that have just started listen first.
    time.sleep(LISTEN_SECONDS)
    lan.reach(address)
    until(lambda: lan.known(address) == order[0], 10)
    return order


def power_lost(lan: Lan, address: str) -> float:
    first, second, _ = settle(lan, address)
    lan.unplug(first)
    lan.kill(first)
    seconds = until(lambda: lan.known(address) == second)
    lan.plug(first)
    lan.start(first, VIP, VIP6)
    return seconds


def agent_killed(lan: Lan, address: str) -> float:
    first, second, _ = settle(lan, address)
    lan.kill(first)
    seconds = until(lambda: lan.known(address) == second)
    lan.start(first, VIP, VIP6)
    return seconds


def withdrawn(lan: Lan, address: str) -> float:
    """The last local endpoint is gone, the node was excluded by its label."""
    first, second, _ = settle(lan, address)
    lan.offer(first)
    seconds = until(lambda: lan.known(address) == second)
    lan.offer(first, VIP, VIP6)
    return seconds


def cost(lan: Lan) -> None:
    pids = [process.pid for process in lan.running.values()]
    before = [cpu_seconds(pid) for pid in pids]
    time.sleep(_COST_SECONDS)
    used = [(cpu_seconds(pid) - was) / _COST_SECONDS * 100 for pid, was in zip(pids, before, strict=True)]
    print(f"heartbeats, {len(_MANY)} addresses, {len(pids)} nodes: {statistics.mean(used):.2f} % of a core a node", flush=True)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(rounds: int) -> None:
    with lan_of("a", "b", "c") as lan:
        for node in lan.nodes:
            lan.start(node, VIP, VIP6)
        for name, happens in (("power lost", power_lost), ("agent killed", agent_killed), ("withdrawn", withdrawn)):
            for address, family in ((VIP, "IPv4"), (VIP6, "IPv6")):
                show(f"{name}, {family}", [happens(lan, address) for _ in range(rounds)])
        for node in lan.nodes:
            lan.offer(node, *_MANY)
        until(lambda: sum(len(lan.addresses(node) & set(_MANY)) for node in lan.nodes) == len(_MANY), 60)
        cost(lan)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
