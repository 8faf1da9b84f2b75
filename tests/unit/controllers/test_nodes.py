"""Node lifecycle, taint eviction and pod GC in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from controllers_fake_api import Bench

from k1s.api.catalog import builtin
from k1s.server.controllers.config import ControllerConfig
from k1s.server.controllers.node_lifecycle import NodeLifecycleController
from k1s.server.controllers.nodes import tolerates
from k1s.server.controllers.pod_gc import PodGcController
from k1s.server.controllers.taint_eviction import TaintEvictionController, stay

READY = [
    {"type": t, "status": "True" if t == "Ready" else "False"} for t in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
]
DEFAULTS = [
    {"key": f"node.kubernetes.io/{k}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for k in ("not-ready", "unreachable")
]


def add_node(bench: Bench, name: str) -> None:
    bench.api.add("Node", metadata={"name": name}, spec={}, status={"conditions": READY})
    bench.api.add("Lease", metadata={"name": name, "namespace": "kube-node-lease"}, spec={"renewTime": "0"})


def add_pod(bench: Bench, name: str, node: str, tolerations: Any = DEFAULTS, **meta: Any) -> None:
    bench.api.add(
        "Pod", metadata={"name": name, **meta}, spec={"nodeName": node, "tolerations": tolerations},
        status={"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    )  # fmt: skip


def renew(bench: Bench, *names: str) -> None:
    for name in names:
        bench.api.set("Lease", name, "kube-node-lease", spec={"renewTime": str(bench.clock.now())})


async def live(bench: Bench, seconds: int, *names: str) -> None:
    """Time goes on, the named nodes renew their leases."""
    for _ in range(seconds // 10):
        renew(bench, *names)
        await bench.settle(10)


def taints(bench: Bench, node: str) -> list[str]:
    found = bench.api.object("Node", node)["spec"].get("taints") or []
    return sorted(f"{t['key'].split('/')[1]}:{t['effect']}" for t in found)


def pod_names(bench: Bench) -> list[str]:
    return sorted(p["metadata"]["name"] for p in bench.api.objects("Pod"))


async def test_a_silent_node_is_unknown_tainted_and_emptied_after_five_minutes() -> None:
    async with Bench(NodeLifecycleController, TaintEvictionController) as bench:
        for name in ("a", "b", "c"):
            add_node(bench, name)
        add_pod(bench, "p", "c")
        add_pod(bench, "daemon", "c", [{"operator": "Exists"}])
        add_pod(bench, "quick", "c", [])
        await live(bench, 30, "a", "b", "c")
        assert taints(bench, "c") == []
        await live(bench, 60, "a", "b")
        assert taints(bench, "c") == ["unreachable:NoExecute", "unreachable:NoSchedule"]
        ready = next(c for c in bench.api.object("Node", "c")["status"]["conditions"] if c["type"] == "Ready")
        assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
        assert pod_names(bench) == ["daemon", "p"]
        assert bench.api.object("Pod", "p")["status"]["conditions"][0]["status"] == "False"
        await live(bench, 310, "a", "b")
        assert pod_names(bench) == ["daemon"]
        assert "TaintManagerEviction" in bench.reasons() and "NodeNotReady" in bench.reasons()


async def test_a_node_that_comes_back_keeps_its_pods() -> None:
    async with Bench(NodeLifecycleController, TaintEvictionController) as bench:
        for name in ("a", "b"):
            add_node(bench, name)
        add_pod(bench, "p", "b")
        await live(bench, 100, "a")
        assert "unreachable:NoExecute" in taints(bench, "b")
        bench.api.set("Node", "b", status={"conditions": READY})
        await live(bench, 400, "a", "b")
        assert taints(bench, "b") == [] and pod_names(bench) == ["p"]


async def test_when_every_node_is_silent_nobody_is_evicted() -> None:
    async with Bench(NodeLifecycleController, TaintEvictionController) as bench:
        for name in ("a", "b"):
            add_node(bench, name)
            add_pod(bench, f"p-{name}", name)
        await bench.settle(1000)
        assert pod_names(bench) == ["p-a", "p-b"]
        assert taints(bench, "a") == ["unreachable:NoSchedule"]


async def test_a_jump_of_the_wall_clock_harms_nobody() -> None:
    async with Bench(NodeLifecycleController, TaintEvictionController) as bench:
        for name in ("a", "b"):
            add_node(bench, name)
        add_pod(bench, "p", "b")
        await live(bench, 20, "a", "b")
        bench.clock._start += 86_400
        await live(bench, 60, "a", "b")
        assert taints(bench, "b") == [] and pod_names(bench) == ["p"]


async def test_a_stall_of_this_process_gives_every_node_its_grace_again() -> None:
    async with Bench(NodeLifecycleController) as bench:
        for name in ("a", "b"):
            add_node(bench, name)
        await live(bench, 20, "a", "b")
        bench.clock._elapsed += 300  # as if the process had been stopped: no timer ran, no lease was seen
        await bench.settle(0.1)
        assert taints(bench, "a") == [] and taints(bench, "b") == []
        await live(bench, 60, "a")
        assert taints(bench, "a") == [] and "unreachable:NoSchedule" in taints(bench, "b")


async def test_conditions_and_cordon_become_taints() -> None:
    async with Bench(NodeLifecycleController) as bench:
        add_node(bench, "a")
        foreign = {"key": "mine", "effect": "NoSchedule"}
        bench.api.set("Node", "a", spec={"unschedulable": True, "taints": [foreign]}, status={
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]})  # fmt: skip
        await bench.settle()
        found = bench.api.object("Node", "a")["spec"]["taints"]
        assert found[0] == foreign
        assert [t["key"].split("/")[-1] for t in found] == ["mine", "disk-pressure", "unschedulable"]


async def test_an_idle_node_costs_nothing() -> None:
    async with Bench(NodeLifecycleController, TaintEvictionController, PodGcController) as bench:
        add_node(bench, "a")
        await live(bench, 600, "a")
        assert bench.api.calls == []


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Equal", "value": "w"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_tolerates(toleration: dict[str, str], expected: bool) -> None:
    assert tolerates(toleration, {"key": "k", "value": "v", "effect": "NoExecute"}) is expected


def test_stay_is_the_shortest_of_the_used_tolerations() -> None:
    taint = {"key": "k", "effect": "NoExecute"}
    forever = {"key": "k", "operator": "Exists"}
    assert stay([], [taint]) == 0.0
    assert stay([forever], [taint]) is None
    assert stay([forever, {**forever, "tolerationSeconds": 60}, {**forever, "tolerationSeconds": 30}], [taint]) == 30.0
    assert stay([forever], [taint, {"key": "l", "effect": "NoExecute"}]) == 0.0


async def test_pods_of_a_gone_node_are_given_up_after_the_quarantine() -> None:
    async with Bench(PodGcController) as bench:
        bench.api.graceful_pods = True
        add_node(bench, "a")
        add_pod(bench, "p", "a")
        bench.api.kill("Node", "a")
        await bench.settle(30)
        assert pod_names(bench) == ["p"]
        await bench.settle(15)
        assert pod_names(bench) == []
        assert ("update", "pods/status", "default/p") in bench.api.calls


async def test_a_node_that_is_back_in_time_keeps_its_pods() -> None:
    async with Bench(PodGcController) as bench:
        add_pod(bench, "p", "a")
        await bench.settle(30)
        add_node(bench, "a")
        await bench.settle(60)
        assert pod_names(bench) == ["p"]


async def test_a_pod_deleted_before_it_was_scheduled_goes_at_once() -> None:
    async with Bench(PodGcController) as bench:
        bench.api.graceful_pods = True
        bench.api.add("Pod", metadata={"name": "p"}, spec={})
        await bench.api.delete(builtin("Pod"), "p", "default")
        await bench.settle()
        assert pod_names(bench) == []


async def test_ended_pods_above_the_threshold_go_oldest_first() -> None:
    async with Bench(PodGcController, config=ControllerConfig(terminated_pod_threshold=2)) as bench:
        add_node(bench, "a")
        for number in range(4):
            add_pod(bench, f"p{number}", "a", creationTimestamp=f"2026-01-0{number + 1}T00:00:00Z")
            bench.api.set("Pod", f"p{number}", status={"phase": "Succeeded"})
        await bench.settle()
        assert pod_names(bench) == ["p2", "p3"]
