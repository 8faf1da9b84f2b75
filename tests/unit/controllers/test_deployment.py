"""Deployments on the fake API, with the ReplicaSet controller beside and a make-believe kubelet."""

from __future__ import annotations

from typing import Any

from controllers_fake_api import Bench

from k1s.server.controllers.deployment.controller import DeploymentController
from k1s.server.controllers.replicaset import ReplicaSetController

REVISION = "deployment.kubernetes.io/revision"


def template(image: str) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": image}]}}


def add(bench: Bench, replicas: int = 4, **spec: Any) -> None:
    bench.api.add("Deployment", metadata={"name": "d"}, spec={
        "replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template("one"),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, **spec,
    })  # fmt: skip


def sizes(bench: Bench) -> dict[str, int]:
    sets = bench.api.objects("ReplicaSet")
    return {rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs["spec"]["replicas"] for rs in sets}


def condition(bench: Bench, kind: str) -> dict[str, Any]:
    return next(c for c in bench.api.object("Deployment", "d")["status"]["conditions"] if c["type"] == kind)


def bench_of(**options: Any) -> Bench:
    return Bench(DeploymentController, ReplicaSetController, **options)


async def roll_out(bench: Bench, steps: int = 10) -> None:
    for _ in range(steps):
        bench.kubelet()
        await bench.settle()


async def test_first_rollout_completes() -> None:
    async with bench_of() as bench:
        add(bench)
        await bench.settle()
        rs = bench.api.objects("ReplicaSet")[0]
        assert rs["metadata"]["name"].startswith("d-")
        suffix = rs["metadata"]["labels"]["pod-template-hash"]
        assert rs["spec"]["selector"]["matchLabels"] == {"app": "a", "pod-template-hash": suffix}
        assert condition(bench, "Progressing")["reason"] in ("NewReplicaSetCreated", "ReplicaSetUpdated")
        assert condition(bench, "Available")["status"] == "False"
        await roll_out(bench, 2)
        status = bench.api.object("Deployment", "d")["status"]
        assert [status[f] for f in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")] == [4] * 4
        assert condition(bench, "Progressing")["reason"] == "NewReplicaSetAvailable"
        assert condition(bench, "Available")["status"] == "True"
        assert bench.api.object("Deployment", "d")["metadata"]["annotations"][REVISION] == "1"


async def test_rolling_update_keeps_its_bounds_all_the_way() -> None:
    async with bench_of() as bench:
        add(bench, 8)
        await bench.settle()
        await roll_out(bench, 2)
        bench.api.set("Deployment", "d", spec={"template": template("two")})
        seen: list[int] = []
        for _ in range(12):
            await bench.settle()
            pods = [p for p in bench.api.objects("Pod") if not p["metadata"].get("deletionTimestamp")]
            ready = [p for p in pods if (p.get("status") or {}).get("phase") == "Running"]
            assert len(pods) <= 10 and len(ready) >= 6
            seen.append(len(pods))
            bench.kubelet()
        assert sizes(bench) == {"one": 0, "two": 8}
        assert max(seen) == 10
        assert bench.api.object("Deployment", "d")["metadata"]["annotations"][REVISION] == "2"


async def test_rollback_reuses_the_old_set_and_gives_it_a_new_revision() -> None:
    async with bench_of() as bench:
        add(bench)
        await bench.settle()
        await roll_out(bench, 2)
        bench.api.set("Deployment", "d", spec={"template": template("two")})
        await roll_out(bench)
        bench.api.set("Deployment", "d", spec={"template": template("one")})
        await roll_out(bench)
        assert sizes(bench) == {"one": 4, "two": 0}
        first = next(rs for rs in bench.api.objects("ReplicaSet") if rs["spec"]["replicas"])
        assert first["metadata"]["annotations"][REVISION] == "3"
        assert first["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"


async def test_recreate_waits_until_the_old_pods_are_gone() -> None:
    async with bench_of() as bench:
        bench.api.graceful_pods = True
        add(bench, 2, strategy={"type": "Recreate"})
        await bench.settle()
        await roll_out(bench, 2)
        bench.api.set("Deployment", "d", spec={"template": template("two")})
        await bench.settle()
        assert sizes(bench) == {"one": 0}
        names = [p["metadata"]["name"] for p in bench.api.objects("Pod")]
        bench.api.kill("Pod", names[0])
        await bench.settle()
        assert sizes(bench) == {"one": 0}
        bench.api.kill("Pod", names[1])
        await bench.settle()
        assert sizes(bench) == {"one": 0, "two": 2}


async def test_scaling_in_the_middle_of_a_rollout_is_proportional() -> None:
    async with bench_of() as bench:
        add(bench, 10, strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}})
        await bench.settle()
        await roll_out(bench, 2)
        bench.api.set("Deployment", "d", spec={"template": template("two")})
        await bench.settle()
        assert sizes(bench) == {"one": 8, "two": 5}
        bench.api.set("Deployment", "d", spec={"replicas": 15})
        await bench.settle()
        assert sizes(bench) == {"one": 11, "two": 7}  # as in the documentation of Kubernetes


async def test_paused_does_not_roll_but_scales() -> None:
    async with bench_of() as bench:
        add(bench)
        await bench.settle()
        await roll_out(bench, 2)
        bench.api.set("Deployment", "d", spec={"paused": True, "template": template("two"), "replicas": 6})
        await bench.settle()
        assert sizes(bench) == {"one": 6}
        assert condition(bench, "Progressing")["reason"] == "DeploymentPaused"
        bench.api.set("Deployment", "d", spec={"paused": False})
        await roll_out(bench)
        assert sizes(bench) == {"one": 0, "two": 6}


async def test_the_progress_deadline_passes_without_any_event() -> None:
    async with bench_of() as bench:
        add(bench, progressDeadlineSeconds=60)
        await bench.settle()
        await bench.settle(50)
        assert condition(bench, "Progressing")["status"] == "True"
        await bench.settle(15)
        late = condition(bench, "Progressing")
        assert (late["status"], late["reason"]) == ("False", "ProgressDeadlineExceeded")
        calls = len(bench.api.calls)
        await bench.settle(1000)
        assert len(bench.api.calls) == calls


async def test_history_is_kept_to_its_limit() -> None:
    async with bench_of() as bench:
        add(bench, 1, revisionHistoryLimit=2)
        for number in range(5):
            bench.api.set("Deployment", "d", spec={"template": template(f"v{number}")})
            await bench.settle()
            await roll_out(bench, 3)
        assert sizes(bench) == {"v2": 0, "v3": 0, "v4": 1}


async def test_a_hash_collision_gets_another_name() -> None:
    async with bench_of() as bench:
        add(bench, 1)
        await bench.settle()
        name = bench.api.objects("ReplicaSet")[0]["metadata"]["name"]
        bench.api.kill("ReplicaSet", name)
        bench.api.kill("Pod", bench.api.objects("Pod")[0]["metadata"]["name"])
    async with bench_of() as bench:
        bench.api.add("ReplicaSet", metadata={"name": name}, spec={"replicas": 0, "selector": {}, "template": template("other")})
        add(bench, 1)
        await bench.settle()
        assert bench.api.object("Deployment", "d")["status"]["collisionCount"] == 1
        assert len(bench.api.objects("ReplicaSet")) == 2


async def test_idle_means_no_calls() -> None:
    async with bench_of() as bench:
        add(bench)
        await bench.settle()
        await roll_out(bench, 3)
        before = len(bench.api.calls)
        await bench.settle(3600)
        for controller in bench.controllers:
            controller.controller.add("default/d")
        await bench.settle()
        assert len(bench.api.calls) == before
