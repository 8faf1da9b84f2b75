"""Near, far and evenly spread."""

from __future__ import annotations

from typing import Any

from k1s.server.scheduler.cycle import Placed, Unfit, schedule
from k1s.server.scheduler.profile import PLUGINS
from k1s.server.scheduler.snapshot import PodInfo, Snapshot

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"


def node(name: str, zone: str) -> dict[str, Any]:
    labels = {HOST: name, ZONE: zone}
    return {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": {"allocatable": {"cpu": "9", "pods": "99"}}}


NODES = [node("a1", "a"), node("a2", "a"), node("b1", "b")]


def pod(name: str, app: str, on: str = "", namespace: str = "n", owner: str = "", **spec: Any) -> dict[str, Any]:
    if on:
        spec["nodeName"] = on
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "uid": name, "labels": {"app": app}}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    return {"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


def term(app: str, key: str = ZONE, **more: Any) -> dict[str, Any]:
    return {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}, **more}


def decide(wanted: dict[str, Any], *placed: dict[str, Any], namespaces: dict[str, Any] | None = None) -> Placed | Unfit:
    snapshot = Snapshot()
    snapshot.namespaces.update(namespaces or {})
    for one in NODES:
        snapshot.set_node(one)
    for one in placed:
        snapshot.set_pod(one)
    return schedule(PodInfo.of(wanted), snapshot, PLUGINS)


def why(outcome: Placed | Unfit) -> str:
    assert isinstance(outcome, Unfit), outcome
    return outcome.message


def test_required_affinity_follows_and_the_first_of_a_group_may_start() -> None:
    near = {"podAffinity": {REQUIRED: [term("db")]}}
    assert decide(pod("p", "web", affinity=near), pod("db", "db", "b1")) == Placed("b1")
    assert "3 node(s) didn't match pod affinity rules" in why(decide(pod("p", "web", affinity=near)))
    assert isinstance(decide(pod("p", "db", affinity=near)), Placed)
    assert isinstance(decide(pod("p", "web", affinity=near), pod("db", "db", "b1", namespace="other")), Unfit)


def test_anti_affinity_holds_both_ways() -> None:
    far = {"podAntiAffinity": {REQUIRED: [term("web")]}}
    assert decide(pod("p", "web", affinity=far), pod("q", "web", "a1")) == Placed("b1")
    assert decide(pod("p", "web"), pod("q", "x", "a1", affinity=far)) == Placed("b1")
    text = why(decide(pod("p", "web", affinity=far), pod("q", "web", "a1"), pod("r", "web", "b1")))
    assert "3 node(s) didn't match pod anti-affinity rules" in text
    far = {"podAntiAffinity": {REQUIRED: [term("web", HOST)]}}
    assert decide(pod("p", "web", affinity=far), pod("q", "web", "a1"), pod("r", "web", "b1")) == Placed("a2")


def test_namespaces_of_a_term() -> None:
    other = pod("db", "db", "b1", namespace="other")
    selected = {"podAffinity": {REQUIRED: [term("db", namespaceSelector={"matchLabels": {"team": "x"}})]}}
    assert decide(pod("p", "web", affinity=selected), other, namespaces={"other": {"team": "x"}}) == Placed("b1")
    assert isinstance(decide(pod("p", "web", affinity=selected), other, namespaces={"other": {}}), Unfit)
    listed = {"podAffinity": {REQUIRED: [term("db", namespaces=["other"])]}}
    assert decide(pod("p", "web", affinity=listed), other) == Placed("b1")


def test_preferences_pull_and_push() -> None:
    near = {"podAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": term("db")}]}}
    assert decide(pod("p", "web", affinity=near), pod("db", "db", "b1")) == Placed("b1")
    far = {"podAntiAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": term("db")}]}}
    assert decide(pod("p", "web", affinity=far), pod("db", "db", "a1")) == Placed("b1")


def spread(**more: Any) -> list[dict[str, Any]]:
    selector = {"matchLabels": {"app": "web"}}
    return [{"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector, **more}]


def test_spread_keeps_the_skew() -> None:
    wanted = pod("p", "web", topologySpreadConstraints=spread())
    assert decide(wanted, pod("q", "web", "a1")) == Placed("b1")
    assert isinstance(decide(wanted, pod("q", "web", "a1"), pod("r", "web", "b1")), Placed)
    only_a: Any = {"nodeSelector": {HOST: "a2"}, "topologySpreadConstraints": spread(nodeAffinityPolicy="Ignore")}
    assert "1 node(s) didn't match pod topology spread constraints" in why(
        decide(pod("p", "web", **only_a), pod("q", "web", "a1"))
    )
    missing = pod("p", "web", topologySpreadConstraints=spread(topologyKey="rack"))
    assert "3 node(s) didn't match pod topology spread constraints (missing required label)" in why(decide(missing))
    three = pod("p", "web", topologySpreadConstraints=spread(minDomains=3))
    assert isinstance(decide(three, pod("q", "web", "a1"), pod("r", "web", "b1")), Unfit)


def test_replicas_are_spread_without_being_told() -> None:
    assert decide(pod("p", "web", owner="rs"), pod("q", "web", "a1", owner="rs"), pod("r", "web", "b1", owner="rs")) == Placed(
        "a2"
    )
    soft = pod("p", "web", topologySpreadConstraints=spread(whenUnsatisfiable="ScheduleAnyway"))
    assert decide(soft, pod("q", "web", "a1"), pod("r", "web", "a2")) == Placed("b1")
