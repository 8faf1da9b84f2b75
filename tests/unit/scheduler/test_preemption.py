"""Whose end makes room, on which node."""

from __future__ import annotations

from typing import Any

from k1s.server.scheduler import preemption
from k1s.server.scheduler.cycle import Placed, Unfit, schedule
from k1s.server.scheduler.profile import PLUGINS
from k1s.server.scheduler.snapshot import PodInfo, Snapshot


def node(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}}


def pod(name: str, cpu: str, priority: int, on: str = "", **more: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
    metadata = {"name": name, "namespace": "n", "uid": name, "labels": {"app": name}}
    spec: dict[str, Any] = {"containers": [container], "priority": priority, **more}
    if on:
        spec["nodeName"] = on
    return {"metadata": metadata, "spec": spec}


def choose(wanted: dict[str, Any], placed: list[dict[str, Any]], budgets: Any = ()) -> preemption.Candidate | None:
    snapshot = Snapshot()
    for name in sorted({p["spec"]["nodeName"] for p in placed}):
        snapshot.set_node(node(name))
    for one in placed:
        snapshot.set_pod(one)
    info = PodInfo.of(wanted)
    outcome = schedule(info, snapshot, PLUGINS)
    assert isinstance(outcome, Unfit)
    return preemption.choose(info, outcome.hopeful, snapshot, PLUGINS, budgets)


def victims(candidate: preemption.Candidate | None) -> tuple[str, list[str]]:
    assert candidate is not None
    return candidate.node, [v.uid for v in candidate.victims]


def test_only_as_many_as_needed_and_the_least_important_go() -> None:
    placed = [pod("a", "1", 1, "x"), pod("b", "1", 5, "x"), pod("c", "2", 50, "x")]
    assert victims(choose(pod("new", "1", 10), placed)) == ("x", ["a"])
    assert victims(choose(pod("new", "2", 10), placed)) == ("x", ["b", "a"])
    assert choose(pod("new", "3", 10), placed) is None
    assert choose(pod("new", "1", 1), placed) is None


def test_the_node_with_the_cheapest_victims_is_taken() -> None:
    placed = [pod("a", "4", 5, "x"), pod("b", "4", 3, "y"), pod("c", "4", 4, "z")]
    assert victims(choose(pod("new", "4", 10), placed)) == ("y", ["b"])


def test_budgets_are_kept_where_it_can_be() -> None:
    budget = {
        "metadata": {"name": "pdb", "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}},
        "status": {"disruptionsAllowed": 0},
    }
    placed = [pod("a", "2", 1, "x"), pod("b", "2", 2, "x")]
    assert victims(choose(pod("new", "2", 10), placed)) == ("x", ["a"])
    assert victims(choose(pod("new", "2", 10), placed, [budget])) == ("x", ["b"])
    both = choose(pod("new", "4", 10), placed, [budget])
    assert both is not None and both.violations == 1


def test_promised_room_is_kept_for_the_important() -> None:
    snapshot = Snapshot()
    snapshot.set_node(node("x"))
    waiting = PodInfo.of(pod("waiting", "3", 10))
    snapshot.nominate(waiting, "x")
    assert isinstance(schedule(PodInfo.of(pod("less", "2", 5)), snapshot, PLUGINS), Unfit)
    assert schedule(PodInfo.of(pod("more", "2", 20)), snapshot, PLUGINS) == Placed("x")
    assert schedule(waiting, snapshot, PLUGINS) == Placed("x")
    snapshot.withdraw("waiting")
    assert schedule(PodInfo.of(pod("less", "2", 5)), snapshot, PLUGINS) == Placed("x")


def test_who_may_preempt() -> None:
    snapshot = Snapshot()
    snapshot.set_node(node("x"))
    assert not preemption.eligible(PodInfo.of(pod("p", "1", 9, preemptionPolicy="Never")), snapshot)
    ending = pod("old", "4", 1, "x")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    snapshot.set_pod(ending)
    info = PodInfo.of(pod("p", "1", 9))
    assert preemption.eligible(info, snapshot)
    snapshot.nominate(info, "x")
    assert not preemption.eligible(info, snapshot)
