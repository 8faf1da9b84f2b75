"""The rows that load the API server: create, get, list.

Owns: what is asked of the load process, and the objects it needs (all in one namespace, deleted afterwards).
Called by: __main__. Never does: send the load itself (load.py, in its own process).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import processes
from bench.load import Job, Outcome
from bench.target import Api, Refused, Target

NAMESPACE = "k1s-bench"
LIST_OBJECTS = 15_000
# With its metadata such an object is 25 MB / 15,000 long.
LIST_VALUE_BYTES = 1_280
PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
Figure = tuple[float, str]


def send(job: Job, pids: list[int]) -> tuple[Outcome, str]:
    """Run a job in a process of its own; the outcome, and a note on what it cost."""
    before = processes.use(pids)
    result = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
    )
    if result.returncode != 0:
        raise RuntimeError(f"the load client failed: {result.stderr[-2000:]}")
    outcome = Outcome(**json.loads(result.stdout))
    note = f"p50 {outcome.p50_ms:.1f} ms, p99 {outcome.p99_ms:.1f} ms, client {outcome.cpu_percent:.0f} % of a core"
    if pids:
        spent = processes.use(pids).cpu_seconds - before.cpu_seconds
        note += f", server {100 * spent / outcome.seconds:.0f} %"
    if outcome.errors:
        note += f", {outcome.errors} ERRORS ({outcome.first_error})"
    return outcome, note


@contextmanager
def namespace(api: Api) -> Iterator[None]:
    """The namespace of the load, made afresh; deleted with all it holds, without waiting for that."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    try:
        api.call("POST", "/api/v1/namespaces", body)
    except Refused as error:
        if error.status != 409:
            raise
    try:
        yield
    finally:
        api.close()
        api.delete(f"{PATH}?propagationPolicy=Background")
        api.delete(f"/api/v1/namespaces/{NAMESPACE}")


def _config_map(name: str, size: int, labels: dict[str, str]) -> str:
    value: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels},
        "data": {"value": "x" * size},
    }
    return json.dumps(value, separators=(",", ":"))


def creates(clients: int) -> Callable[[Api, Target, list[int], float], Figure]:
    def measure(api: Api, target: Target, pids: list[int], seconds: float) -> Figure:
        job = Job(target, clients, "POST", PATH, _config_map("c-{n}", 1024, {"bench": "create"}), seconds=seconds)
        outcome, note = send(job, pids)
        api.call("DELETE", f"{PATH}?labelSelector=bench%3Dcreate")
        return outcome.rate, f"{outcome.requests} in {outcome.seconds:.1f} s, {note}"

    return measure


def gets(clients: int) -> Callable[[Api, Target, list[int], float], Figure]:
    def measure(api: Api, target: Target, pids: list[int], seconds: float) -> Figure:
        api.delete(f"{PATH}/one")
        api.call("POST", PATH, json.loads(_config_map("one", 1024, {"bench": "get"})))
        outcome, note = send(Job(target, clients, "GET", f"{PATH}/one", seconds=seconds), pids)
        api.delete(f"{PATH}/one")
        return outcome.rate, note

    return measure


def fill(api: Api, target: Target) -> None:
    """The objects that are listed; those of an earlier run go first."""
    api.call("DELETE", f"{PATH}?labelSelector=bench%3Dlist")
    body = _config_map("l-{n}", LIST_VALUE_BYTES, {"bench": "list"})
    outcome, _ = send(Job(target, 16, "POST", PATH, body, count=LIST_OBJECTS), [])
    if outcome.errors:
        raise RuntimeError(f"filling: {outcome.errors} errors, first {outcome.first_error}")


def lists(headers: dict[str, str]) -> Callable[[Api, Target, list[int], float], Figure]:
    def measure(api: Api, target: Target, pids: list[int], seconds: float) -> Figure:
        outcome, note = send(Job(target, 4, "GET", PATH, headers=headers, seconds=seconds), pids)
        each = outcome.body_bytes / max(1, outcome.requests) / 1e6
        return outcome.rate, f"{each:.1f} MB each, {note}"

    return measure
