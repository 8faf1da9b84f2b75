"""Golden pairs of the agent's pure functions: tests/golden/agent/<area>/X.input.yaml -> X.output.yaml.

K1S_UPDATE_GOLDEN=1 writes the outputs anew; read the difference before you commit it.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from k1s.agent.config import AgentConfig
from k1s.agent.containers import config, env, sandbox
from k1s.agent.containers.config import Mount
from k1s.agent.containers.env import ConfigFault, Sources
from k1s.agent.machine import Machine
from k1s.agent.node import info
from k1s.agent.pods import plan, status
from k1s.agent.pods.model import HASH, RESTART_COUNT, Facts, Observed, Wait, container_hash, find_container
from k1s.agent.pods.status import Ending, NodeFacts
from k1s.cri.runtime import ContainerStatus, Image, Sandbox, Version

GOLDEN = Path(__file__).parents[2] / "golden" / "agent"
Object = dict[str, Any]
NOW = 1_700_000_000.0


def _observed(pod: Object, state: Object) -> Observed:
    """Times are seconds relative to NOW; a container's hash is that of the spec unless it says otherwise."""
    boxes = [
        Sandbox(
            id=row["id"],
            name=pod["metadata"]["name"],
            namespace=pod["metadata"]["namespace"],
            uid=pod["metadata"]["uid"],
            attempt=row.get("attempt", 0),
            ready=row.get("ready", True),
            created_at=NOW + row.get("created", -100),
            ips=tuple(row.get("ips", ["10.42.0.7"])),
        )
        for row in state.get("sandboxes") or []
    ]
    return Observed(tuple(boxes), tuple(_container(pod, row) for row in state.get("containers") or []))


def _container(pod: Object, row: Object) -> ContainerStatus:
    _, spec = find_container(pod, row["name"])
    began = row.get("started", -90)
    return ContainerStatus(
        id=row["id"],
        name=row["name"],
        attempt=row.get("restarts", 0),
        state=row["state"],
        created_at=NOW + row.get("created", began),
        started_at=NOW + began,
        finished_at=NOW + row["finished"] if "finished" in row else 0.0,
        exit_code=row.get("exit", 0),
        reason=row.get("reason", ""),
        message=row.get("message", ""),
        image=spec["image"],
        image_ref="sha256:abc",
        annotations={HASH: row.get("hash", container_hash(spec)), RESTART_COUNT: str(row.get("restarts", 0))},
    )


def _facts(state: Object) -> Facts:
    running = [row["id"] for row in state.get("containers") or [] if row["state"] == "running"]
    facts = state.get("facts") or {}
    waits = {name: Wait(NOW + w["in"], w["reason"], w.get("message", "")) for name, w in (facts.get("waits") or {}).items()}
    return Facts(
        started=frozenset(facts.get("started", running)),
        ready=frozenset(facts.get("ready", running)),
        unhealthy=facts.get("unhealthy") or {},
        waits=waits,
    )


def run_plan(given: Object) -> Any:
    decision = plan.plan(given["pod"], _observed(given["pod"], given), _facts(given), NOW)
    step = decision.step
    shown = None if step is None else {type(step).__name__: dataclasses.asdict(step)}
    return {"step": shown, "wake_in": None if decision.wake_at is None else round(decision.wake_at - NOW, 3)}


def run_status(given: Object) -> Any:
    return status.build(
        given["pod"],
        _observed(given["pod"], given),
        _facts(given),
        NOW,
        NodeFacts(("192.0.2.1",)),
        old=given.get("old") or {},
        terminating=given.get("terminating", False),
        ending=Ending(**given["ending"]) if given.get("ending") else None,
    )


def run_env(given: Object) -> Any:
    objects = {(o["kind"], o["metadata"]["name"]): o for o in given.get("objects") or []}
    sources = Sources(
        lookup=lambda kind, name: objects.get((kind, name)),
        services=tuple(given.get("services") or []),
        host_ips=("192.0.2.1",),
        pod_ips=("10.42.0.7",),
        allocatable={"cpu": 4000, "memory": 8 << 30},
    )
    _, container = find_container(given["pod"], given["container"])
    try:
        return env.build(given["pod"], container, sources)
    except ConfigFault as error:
        return {"ConfigFault": str(error)}


def run_config(given: Object) -> Any:
    _, container = find_container(given["pod"], given["container"])
    try:
        return config.container_config(
            given["pod"],
            container,
            restart_count=given.get("restarts", 0),
            image=Image(id="sha256:abc", uid=given.get("image_uid"), username=given.get("image_user", "")),
            env=given.get("env") or {},
            mounts=[Mount(**m) for m in given.get("mounts") or []],
            memory_capacity=8 << 30,
        )
    except ConfigFault as error:
        return {"ConfigFault": str(error)}


def run_sandbox(given: Object) -> Any:
    dns = sandbox.resolver(
        given["pod"],
        host=sandbox.parse_resolv_conf(given.get("resolv_conf", "")),
        cluster_dns="10.43.0.10",
        cluster_domain="cluster.local",
    )
    try:
        out = sandbox.sandbox_config(
            given["pod"],
            attempt=given.get("attempt", 0),
            log_directory="/var/log/pods/x",
            cgroup_parent="/k1s/kubepods/podx",
            dns=dns,
            cluster_domain="cluster.local",
        )
    except ConfigFault as error:
        return {"ConfigFault": str(error)}
    hosts = sandbox.hosts_file(given["pod"], ips=("10.42.0.7",), cluster_domain="cluster.local")
    return {"config": out, "hosts": hosts.splitlines()}


def run_node(given: Object) -> Any:
    config_ = AgentConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in (given.get("config") or {}).items()})
    machine = Machine(
        "host", 4, 8 << 30, 100 << 30, {"hugepages-2Mi": 64 << 20}, "arm64", "6.1", "Debian 12", "mid", "bid", "uid"
    )
    try:
        node = info.new_node("node-a", config_, machine)
    except info.NodeFault as error:
        return {"NodeFault": str(error)}
    node["status"] = info.status(
        "node-a",
        ("192.0.2.1",),
        config_,
        machine,
        Version("containerd", "1.6.20", "v1"),
        [Image("sha256:abc", ("busybox:1",), ("busybox@sha256:abc",), 100), Image("sha256:none")],
        not_ready=given.get("not_ready") or {},
        pressure=info.Pressure(**(given.get("pressure") or {})),
        now=NOW,
        old=given.get("old") or {},
    )
    return node


AREAS = {
    "plan": run_plan,
    "status": run_status,
    "env": run_env,
    "config": run_config,
    "sandbox": run_sandbox,
    "node": run_node,
}
CASES = sorted((area, path.name.removesuffix(".input.yaml")) for area in AREAS for path in (GOLDEN / area).glob("*.input.yaml"))


@pytest.mark.parametrize(("area", "name"), CASES, ids=[f"{area}/{name}" for area, name in CASES])
def test_golden(area: str, name: str) -> None:
    given = yaml.safe_load((GOLDEN / area / f"{name}.input.yaml").read_text())
    got = AREAS[area](given)
    target = GOLDEN / area / f"{name}.output.yaml"
    if os.environ.get("K1S_UPDATE_GOLDEN"):
        target.write_text(yaml.safe_dump(got, sort_keys=True, width=120))
    assert target.exists(), "no output yet: run with K1S_UPDATE_GOLDEN=1 and read what it wrote"
    assert got == yaml.safe_load(target.read_text())


def test_every_output_has_its_input() -> None:
    outputs = {p.with_name(p.name.replace(".output.", ".input.")) for p in GOLDEN.rglob("*.output.yaml")}
    assert outputs == set(GOLDEN.rglob("*.input.yaml"))
    assert len(CASES) > 30
