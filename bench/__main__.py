"""`python -m bench`: measures the budgets of docs/PERFORMANCE.md against a k1s of its own, or any Kubernetes API.

Owns: the options, the order of the rows and the table at the end. Called by: make bench. Never does: measure.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from bench import idle, nodes, own, plane, processes, watchers
from bench.figures import ROWS, Result, median, table
from bench.target import Api, Target, from_kubeconfig

IDLE_ROWS = {"memory", "idle-cpu", "idle-disk"}
START_ROWS = {"start-readyz", "start-node"}
LOAD = {
    "create-1": plane.creates(1),
    "create": plane.creates(16),
    "create-64": plane.creates(64),
    "get-1": plane.gets(1),
    "get-16": plane.gets(16),
    "get": plane.gets(64),
    "watchers": watchers.watchers,
    "list": plane.lists({}),
    "list-gzip": plane.lists({"Accept-Encoding": "gzip"}),
}
POD_ROWS = {"memory-pods", "list-selected", "list-unselected"}
NODE_ROWS = {"pod", "deployment-up", "deployment-down"}


class Bench:
    """Collects a figure and a note, or the reason why there is none, for each wanted row."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.wanted = set(options.rows.split(",")) if options.rows else {row.name for row in ROWS}
        unknown = self.wanted - {row.name for row in ROWS}
        if unknown:
            raise SystemExit(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(r.name for r in ROWS)}")
        self.figures: dict[str, tuple[float | None, str]] = {}

    def found(self, name: str, value: float | None, note: str) -> None:
        if name in self.wanted:
            self.figures[name] = (value, note)
            print(f"  {name}: {'skipped' if value is None else f'{value:.3g}'} ({note})", file=sys.stderr, flush=True)

    def skip(self, names: set[str], why: str) -> None:
        for name in sorted(names & self.wanted):
            self.found(name, None, why)

    def starts(self, cluster: own.OwnCluster) -> None:
        """The first start makes certificates and default objects; the warm ones after it count."""
        began = time.monotonic()
        cluster.start()
        new = f"first start {time.monotonic() - began:.2f} s; "
        if not self.wanted & START_ROWS:
            return
        readyz, node = [], []
        for _ in range(self.options.starts):
            cluster.end()
            # Heartbeats have whole seconds: those of the last start must lie in another one.
            time.sleep(1.1)
            first, second = cluster.start()
            readyz.append(first)
            node += [second] if second is not None else []
        self.found("start-readyz", median(readyz), new + ", ".join(f"{s:.2f}" for s in readyz))
        if node:
            self.found("start-node", median(node), new + ", ".join(f"{s:.2f}" for s in node))
        else:
            self.skip({"start-node"}, "--no-agent")

    def idle(self, pids: list[int]) -> None:
        if not self.wanted & IDLE_ROWS:
            return
        if not pids:
            self.skip(IDLE_ROWS, "needs the processes: --pids, or an own k1s")
            return
        got = idle.measure(pids, self.options.idle_seconds)
        self.found("memory", got.rss_mib, f"PSS {got.pss_mib:.0f} MiB; {got.each}")
        self.found("idle-cpu", got.cpu_percent, f"over {got.seconds:.0f} s")
        self.found("idle-disk", got.kilobytes_per_second, f"over {got.seconds:.0f} s")

    def load(self, api: Api, target: Target, pids: list[int]) -> None:
        if self.wanted & POD_ROWS:
            # First of all: what grows is to be the pods.
            for name, figure in watchers.pods(api, target, pids, self.options.seconds).items():
                self.found(name, *figure)
        filled = False
        for name, measure in LOAD.items():
            if name not in self.wanted:
                continue
            if name in ("list", "list-gzip") and not filled:
                plane.fill(api, target)
                filled = True
            value, note = measure(api, target, pids, self.options.seconds)
            self.found(name, value, note)
        if filled and pids:
            print(f"  after the load: {processes.memory_mib(pids)[0]:.0f} MiB resident", file=sys.stderr)
        if filled:
            api.call("DELETE", f"{plane.PATH}?labelSelector=bench%3Dlist")

    def nodes(self, api: Api) -> None:
        if "pod" in self.wanted:
            self.found("pod", *nodes.pod(api, self.options.image))
        if self.wanted & {"deployment-up", "deployment-down"}:
            up, down, note = nodes.deployment(api, self.options.image)
            self.found("deployment-up", up, note)
            self.found("deployment-down", down, note)

    def all(self, target: Target, pids: list[int], *, node: bool) -> None:
        api = Api(target)
        self.idle(pids)
        load = bool(self.wanted & (LOAD.keys() | POD_ROWS))
        if not load and not self.wanted & NODE_ROWS:
            return
        with plane.namespace(api):
            # Pods first: fifteen thousand objects are no empty cluster.
            if node:
                self.nodes(api)
            else:
                self.skip(NODE_ROWS, "--no-agent")
            self.load(api, target, pids)

    def results(self) -> list[Result]:
        return [Result(row, *self.figures.get(row.name, (None, "not measured"))) for row in ROWS if row.name in self.wanted]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the budgets of docs/PERFORMANCE.md.")
    parser.add_argument("--kubeconfig", type=Path, help="measure the API that this file names, instead of an own k1s")
    parser.add_argument("--url", help="measure the API at this URL")
    parser.add_argument("--token", default="", help="bearer token for --url")
    parser.add_argument("--ca", default="", help="file with the CA of --url (default: do not verify)")
    parser.add_argument("--pids", default="", help="comma-separated processes of that API's control plane and node on this host")
    parser.add_argument("--k1s", default="", help="command of the own k1s (default: this checkout), for example dist/k1s")
    parser.add_argument("--tools", type=Path, default=own.ROOT / ".tools", help="directory with bin/ and images/ for the own k1s")
    parser.add_argument("--no-agent", action="store_true", help="the control plane alone; the rows of the node are skipped")
    parser.add_argument("--image", default="docker.io/library/busybox:1.36", help="image of the pods")
    parser.add_argument("--rows", default="", help="comma-separated names: " + ", ".join(row.name for row in ROWS))
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each load row runs")
    parser.add_argument("--idle-seconds", type=float, default=60.0, help="how long the idle rows run")
    parser.add_argument("--starts", type=int, default=5, help="how many warm starts; the median counts")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    bench = Bench(chosen)
    load_before = os.getloadavg()[0]
    if chosen.kubeconfig or chosen.url:
        _remote(bench, chosen)
    else:
        _own(bench, chosen)
    results = bench.results()
    print(f"load average before: {load_before:.2f}, after: {os.getloadavg()[0]:.2f}; {os.cpu_count()} cores\n")
    print(table(results))
    if chosen.json:
        chosen.json.write_text(json.dumps([{**asdict(r), "verdict": r.verdict} for r in results], indent=1) + "\n")
    return 1 if any(result.verdict == "missed" for result in results) else 0


def _remote(bench: Bench, chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="k1s-bench-") as scratch:
        if chosen.kubeconfig:
            target = from_kubeconfig(chosen.kubeconfig, Path(scratch))
        else:
            target = Target(chosen.url, ca=chosen.ca, token=chosen.token, insecure=not chosen.ca)
        bench.skip(START_ROWS, "only for an own k1s")
        bench.all(target, [int(pid) for pid in chosen.pids.split(",") if pid], node=not chosen.no_agent)


def _own(bench: Bench, chosen: argparse.Namespace) -> None:
    if os.geteuid() != 0:
        raise SystemExit("an own k1s needs root (a network namespace); or name an API with --kubeconfig")
    command = shlex.split(chosen.k1s) if chosen.k1s else own.default_command()
    own.leave_network()
    cluster = own.OwnCluster(command, chosen.tools, agent=not chosen.no_agent)
    try:
        bench.starts(cluster)
        bench.all(cluster.target(), processes.family(cluster.pid), node=not chosen.no_agent)
    finally:
        cluster.remove()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (own.StartFailed, nodes.TooSlow) as error:
        sys.exit(f"bench: {error}")
