"""DaemonSets on the fake API."""

from __future__ import annotations

from typing import Any

from controllers_fake_api import Bench

from k1s.server.controllers.daemonset import DaemonSetController, node_of, should_run

LABELS = {"app": "d"}


def template(image: str = "one", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": image}], **spec}}


def add(bench: Bench, **spec: Any) -> None:
    bench.api.add("DaemonSet", metadata={"name": "d"}, spec={
        "selector": {"matchLabels": LABELS}, "template": template(), "revisionHistoryLimit": 10,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}, **spec,
    })  # fmt: skip


def nodes(bench: Bench, *names: str) -> None:
    for name in names:
        bench.api.add("Node", metadata={"name": name, "labels": {"name": name}}, spec={})


def run(bench: Bench) -> None:
    """Bind every pod to the node it is pinned to, and make it ready."""
    for pod in bench.api.objects("Pod"):
        meta = pod["metadata"]
        if not pod["spec"].get("nodeName"):
            bench.api.set("Pod", meta["name"], spec={"nodeName": node_of(pod)}, status={
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2023-01-01T00:00:00Z"}],
            })  # fmt: skip


def where(bench: Bench, image: str = "one") -> list[str]:
    return sorted(node_of(p) for p in bench.api.objects("Pod") if p["spec"]["containers"][0]["image"] == image)


def status(bench: Bench) -> dict[str, Any]:
    return bench.api.object("DaemonSet", "d")["status"]


async def test_one_pod_on_every_node_also_on_later_ones() -> None:
    async with Bench(DaemonSetController) as bench:
        nodes(bench, "a", "b")
        add(bench)
        await bench.settle()
        assert where(bench) == ["a", "b"]
        pod = bench.api.objects("Pod")[0]
        assert {t["key"] for t in pod["spec"]["tolerations"]} >= {
            "node.kubernetes.io/not-ready",
            "node.kubernetes.io/unschedulable",
        }
        nodes(bench, "c")
        await bench.settle()
        run(bench)
        await bench.settle()
        assert where(bench) == ["a", "b", "c"]
        found = status(bench)
        assert found == {
            "currentNumberScheduled": 3, "numberMisscheduled": 0, "desiredNumberScheduled": 3, "numberReady": 3,
            "observedGeneration": 1, "updatedNumberScheduled": 3, "numberAvailable": 3,
        }  # fmt: skip


async def test_follows_labels_and_taints() -> None:
    async with Bench(DaemonSetController) as bench:
        nodes(bench, "a", "b")
        add(bench, template=template(nodeSelector={"disk": "ssd"}))
        await bench.settle()
        assert where(bench) == [] and status(bench)["desiredNumberScheduled"] == 0
        bench.api.set("Node", "a", metadata={"labels": {"disk": "ssd"}})
        await bench.settle()
        run(bench)
        assert where(bench) == ["a"]
        bench.api.set("Node", "a", spec={"taints": [{"key": "k", "effect": "NoSchedule"}]})
        await bench.settle()
        assert where(bench) == ["a"] and status(bench)["numberMisscheduled"] == 1
        bench.api.set("Node", "a", spec={"taints": [{"key": "k", "effect": "NoExecute"}]})
        await bench.settle()
        assert where(bench) == []


def test_cordoned_nodes_keep_their_daemons() -> None:
    node = {"metadata": {"name": "a"}, "spec": {"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}}
    assert should_run({"spec": {"template": template()}}, node) == (True, True)
    assert should_run({"spec": {"template": template(nodeName="b")}}, node) == (False, False)


async def test_rolling_update_one_node_at_a_time() -> None:
    async with Bench(DaemonSetController) as bench:
        nodes(bench, "a", "b", "c")
        add(bench)
        await bench.settle()
        run(bench)
        await bench.settle()
        bench.api.set("DaemonSet", "d", spec={"template": template("two")})
        counts = []
        for _ in range(3):
            await bench.settle()
            counts.append(len(where(bench, "two")))
            run(bench)
        await bench.settle()
        assert counts == [1, 2, 3] and where(bench) == []
        assert len(bench.api.objects("ControllerRevision")) == 2
        bench.api.set("DaemonSet", "d", spec={"template": template("one")})
        await bench.settle()
        numbers = sorted(r["revision"] for r in bench.api.objects("ControllerRevision"))
        assert numbers == [2, 3]


async def test_surge_starts_the_new_pod_before_the_old_one_goes() -> None:
    async with Bench(DaemonSetController) as bench:
        nodes(bench, "a", "b")
        add(bench, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
        await bench.settle()
        run(bench)
        bench.api.set("DaemonSet", "d", spec={"template": template("two")})
        await bench.settle()
        assert (len(where(bench)), len(where(bench, "two"))) == (2, 1)
        run(bench)
        await bench.settle()
        assert (len(where(bench)), len(where(bench, "two"))) == (1, 2)
        run(bench)
        await bench.settle()
        assert (len(where(bench)), len(where(bench, "two"))) == (0, 2)


async def test_on_delete_replaces_only_what_someone_deleted() -> None:
    async with Bench(DaemonSetController) as bench:
        nodes(bench, "a", "b")
        add(bench, updateStrategy={"type": "OnDelete"})
        await bench.settle()
        run(bench)
        bench.api.set("DaemonSet", "d", spec={"template": template("two")})
        await bench.settle()
        assert where(bench, "two") == []
        bench.api.kill("Pod", next(p["metadata"]["name"] for p in bench.api.objects("Pod") if node_of(p) == "a"))
        await bench.settle()
        assert where(bench) == ["b"] and where(bench, "two") == ["a"]


async def test_failed_pods_are_replaced_and_told() -> None:
    async with Bench(DaemonSetController) as bench:
        nodes(bench, "a")
        add(bench)
        await bench.settle()
        run(bench)
        name = bench.api.objects("Pod")[0]["metadata"]["name"]
        bench.api.set("Pod", name, status={"phase": "Failed"})
        await bench.settle()
        assert where(bench) == ["a"] and bench.api.objects("Pod")[0]["metadata"]["name"] != name
        assert "FailedDaemonPod" in bench.reasons()
