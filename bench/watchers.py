"""The rows of the API server's memory: watchers that hear of a change, lists by a selector, what a cached pod costs.

Owns: what is asked of the load processes, and the objects it needs. Called by: __main__. Never does: send the load itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import plane, processes
from bench.load import Job
from bench.plane import NAMESPACE, Figure
from bench.target import Api, Target
from bench.watch_load import WatchJob, WatchOutcome

WATCHERS, LOOKED_AT, WRITES_PER_SECOND = 1000, 50, 100.0
PODS, WANTED, POD_BYTES = 5000, 50, 4096
PODS_PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"


def watchers(api: Api, target: Target, pids: list[int], seconds: float) -> Figure:
    """Median delay from sending a write to reading its event, of WATCHERS watchers of one resource."""
    api.delete(f"{plane.PATH}/watched")
    api.call("POST", plane.PATH, {"metadata": {"name": "watched"}, "data": {"seq": "0"}})
    job = WatchJob(target, plane.PATH, "watched", WATCHERS, LOOKED_AT, WRITES_PER_SECOND, seconds)
    before, began = processes.use(pids), time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "bench.watch_load"],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
    )
    if result.returncode != 0:
        raise RuntimeError(f"the watching client failed: {result.stderr[-2000:]}")
    outcome = WatchOutcome(**json.loads(result.stdout))
    note = f"p99 {outcome.p99_ms:.0f} ms at {outcome.writes_per_second:.0f} writes/s (a write {outcome.write_p50_ms:.1f} ms)"
    note += f", {outcome.events} of {outcome.expected} events, client {outcome.cpu_percent:.0f} % of a core"
    if pids:
        spent = processes.use(pids).cpu_seconds - before.cpu_seconds
        note += f", server {100 * spent / (time.monotonic() - began):.0f} % with the handshakes"
    api.delete(f"{plane.PATH}/watched")
    return outcome.p50_ms, note


def _pod(wanted: str) -> str:
    """POD_BYTES or so as stored, of which 1 KiB is what the server adds."""
    containers = [
        {
            "name": f"c{n}",
            "image": "registry.example/some/image:1.2.3",
            "args": ["--flag=value"] * 4,
            "env": [{"name": f"NAME_{i}", "value": "value" * 4} for i in range(8)],
        }
        for n in range(2)
    ]
    labels = {"app": "bench", "wanted": wanted}
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p-{n}", "labels": labels, "annotations": {"note": "x" * 600}},
        # Nobody is to start it.
        "spec": {"containers": containers, "schedulerName": "none"},
    }
    return json.dumps(body, separators=(",", ":")).replace("p-{n}", f"p-{wanted}-{{n}}")


def fill(api: Api, target: Target) -> None:
    api.call("DELETE", PODS_PATH)
    for wanted, count in (("no", PODS - WANTED), ("yes", WANTED)):
        outcome, _ = plane.send(Job(target, 16, "POST", PODS_PATH, _pod(wanted), count=count), [])
        if outcome.errors:
            raise RuntimeError(f"filling: {outcome.errors} errors, first {outcome.first_error}")


def pods(api: Api, target: Target, pids: list[int], seconds: float) -> dict[str, Figure]:
    """`memory-pods`: MiB per 1,000 pods; `list-selected`, `list-unselected`: milliseconds of a list of WANTED among PODS."""
    before = processes.memory_mib(pids)[0] if pids else 0.0
    fill(api, target)
    time.sleep(3)
    found: dict[str, Figure] = {}
    if pids:
        grown = processes.memory_mib(pids)[0] - before
        size = len(json.dumps(api.call("GET", f"{PODS_PATH}?limit=1")["items"][0], separators=(",", ":")))
        found["memory-pods"] = grown * 1000 / PODS, f"{grown:.0f} MiB for {PODS:,} pods of {size / 1024:.1f} KiB"
    for name, selector in (("list-selected", "wanted%3Dyes"), ("list-unselected", "wanted%20notin%20(no)")):
        outcome, note = plane.send(
            Job(target, 1, "GET", f"{PODS_PATH}?labelSelector={selector}", seconds=min(seconds, 5.0)), pids
        )
        found[name] = outcome.p50_ms, f"{outcome.body_bytes / max(1, outcome.requests) / 1e3:.0f} kB each, {note}"
    api.call("DELETE", f"{PODS_PATH}?gracePeriodSeconds=0")
    return found
