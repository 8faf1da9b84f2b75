"""One decision at a time: filters, scores and the words of "does not fit"."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.server.scheduler.cycle import NO_NODES, Placed, Unfit, schedule
from k1s.server.scheduler.profile import PLUGINS
from k1s.server.scheduler.resources import pod_requests
from k1s.server.scheduler.snapshot import PodInfo, Snapshot


def node(name: str, *, cpu: str = "4", memory: str = "8Gi", pods: str = "110", **spec: Any) -> dict[str, Any]:
    labels = spec.pop("labels", {})
    status = {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods}, "images": spec.pop("images", [])}
    return {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}, "spec": spec, "status": status}


def pod(
    name: str = "p", *, cpu: str = "", on: str = "", ports: list[dict[str, Any]] | None = None, **spec: Any
) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "c", "image": spec.pop("image", "i:1"), "ports": ports or []}
    if cpu:
        container["resources"] = {"requests": {"cpu": cpu}}
    if on:
        spec["nodeName"] = on
    return {"metadata": {"name": name, "namespace": "n", "uid": f"uid-{name}"}, "spec": {"containers": [container], **spec}}


def decide(wanted: dict[str, Any], nodes: list[dict[str, Any]], placed: list[dict[str, Any]] | None = None) -> Placed | Unfit:
    snapshot = Snapshot()
    for one in nodes:
        snapshot.set_node(one)
    for one in placed or []:
        snapshot.set_pod(one)
    return schedule(PodInfo.of(wanted), snapshot, PLUGINS)


def message(outcome: Placed | Unfit) -> str:
    assert isinstance(outcome, Unfit), outcome
    return outcome.message


def test_no_nodes() -> None:
    assert message(decide(pod(), [])) == NO_NODES


def test_resources_are_counted_with_what_runs_already() -> None:
    assert decide(pod(cpu="2"), [node("a"), node("b")], [pod("x", cpu="3", on="a")]) == Placed("b")
    text = message(decide(pod(cpu="2"), [node("a", cpu="1"), node("b")], [pod("x", cpu="3", on="b")]))
    assert text == (
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: "
        "1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    )


def test_too_many_pods() -> None:
    assert "1 Too many pods" in message(decide(pod(), [node("a", pods="1")], [pod("x", on="a")]))


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({}, False),
        ({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}, True),
        ({"key": "k", "value": "w", "effect": "NoSchedule"}, False),
        ({"key": "k", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_taints(toleration: dict[str, str], fits: bool) -> None:
    tainted = node("a", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    outcome = decide(pod(tolerations=[toleration] if toleration else []), [tainted])
    if fits:
        assert outcome == Placed("a")
    else:
        assert "1 node(s) had untolerated taint {k: v}" in message(outcome)


def test_cordoned_selector_and_name() -> None:
    assert "node(s) were unschedulable" in message(decide(pod(), [node("a", unschedulable=True)]))
    assert "didn't match Pod's node affinity/selector" in message(decide(pod(nodeSelector={"x": "y"}), [node("a")]))
    assert decide(pod(nodeSelector={"x": "y"}), [node("a"), node("b", labels={"x": "y"})]) == Placed("b")


def affinity(kind: str, terms: Any) -> dict[str, Any]:
    return {"nodeAffinity": {f"{kind}DuringSchedulingIgnoredDuringExecution": terms}}


def test_node_affinity_required_and_preferred() -> None:
    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    nodes = [node("a"), node("b", labels={"disk": "ssd"})]
    assert decide(pod(affinity=affinity("required", {"nodeSelectorTerms": [term]})), nodes) == Placed("b")
    assert decide(pod(affinity=affinity("preferred", [{"weight": 1, "preference": term}])), nodes) == Placed("b")
    by_field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}
    assert decide(pod(affinity=affinity("required", {"nodeSelectorTerms": [by_field]})), nodes) == Placed("a")
    assert isinstance(decide(pod(affinity=affinity("required", {"nodeSelectorTerms": [{}]})), nodes), Unfit)


@pytest.mark.parametrize(
    ("one", "two", "fits"),
    [
        ({"hostPort": 80}, {"hostPort": 80}, False),
        ({"hostPort": 80}, {"hostPort": 80, "protocol": "UDP"}, True),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80, "hostIP": "10.0.0.2"}, True),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80}, False),
    ],
)
def test_host_ports(one: dict[str, Any], two: dict[str, Any], fits: bool) -> None:
    outcome = decide(pod(ports=[one]), [node("a")], [pod("x", on="a", ports=[two])])
    assert isinstance(outcome, Placed) == fits


def test_scores_spread_and_like_local_images() -> None:
    assert decide(pod(), [node("a"), node("b")], [pod("x", cpu="1", on="a")]) == Placed("b")
    big = [{"names": ["docker.io/library/big:1"], "sizeBytes": 900 * 1024 * 1024}]
    assert decide(pod(image="big:1"), [node("a"), node("b", images=big)]) == Placed("b")
    soft = node("a", taints=[{"key": "k", "effect": "PreferNoSchedule"}])
    assert decide(pod(), [soft, node("b")]) == Placed("b")


def test_gated_pods_are_not_looked_at() -> None:
    outcome = decide(pod(schedulingGates=[{"name": "g"}]), [node("a")])
    assert isinstance(outcome, Unfit) and outcome.gated


def test_init_containers_and_sidecars_count_at_their_peak() -> None:
    def container(cpu: str, **more: str) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "containers": [container("1"), container("500m")],
        "initContainers": [container("2"), container("300m", restartPolicy="Always"), container("1500m")],
        "overhead": {"cpu": "10m"},
    }
    # max(1500 + 300 running, init peaks 2000 and 300 + 1500) + overhead
    assert pod_requests({"spec": spec}) == {"cpu": 2010}


def test_assumed_pods_count_until_they_are_seen_or_forgotten() -> None:
    snapshot = Snapshot()
    snapshot.set_node(node("a", pods="1"))
    first = PodInfo.of(pod("first"))
    snapshot.assume(first, "a")
    snapshot.set_pod(pod("first"))  # an update from before the binding
    assert isinstance(schedule(PodInfo.of(pod("second")), snapshot, PLUGINS), Unfit)
    snapshot.forget(first.uid)
    assert schedule(PodInfo.of(pod("second")), snapshot, PLUGINS) == Placed("a")
