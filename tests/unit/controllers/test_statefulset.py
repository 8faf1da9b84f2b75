"""StatefulSets on the fake API."""

from __future__ import annotations

from typing import Any

from controllers_fake_api import Bench

from k1s.server.controllers.statefulset.controller import StatefulSetController

LABELS = {"app": "s"}


def template(image: str = "one") -> dict[str, Any]:
    return {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": image}]}}


def add(bench: Bench, replicas: int = 3, **spec: Any) -> None:
    claims = [{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]
    bench.api.add("StatefulSet", metadata={"name": "s"}, spec={
        "replicas": replicas, "selector": {"matchLabels": LABELS}, "serviceName": "svc", "template": template(),
        "volumeClaimTemplates": claims, "revisionHistoryLimit": 10,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}, **spec,
    })  # fmt: skip


def pods(bench: Bench) -> dict[str, str]:
    return {p["metadata"]["name"]: p["spec"]["containers"][0]["image"] for p in bench.api.objects("Pod")}


def status(bench: Bench) -> dict[str, Any]:
    return bench.api.object("StatefulSet", "s")["status"]


async def all_up(bench: Bench, times: int = 6) -> None:
    for _ in range(times):
        bench.kubelet()
        await bench.settle()


async def test_comes_up_in_order_with_names_and_claims() -> None:
    async with Bench(StatefulSetController) as bench:
        add(bench)
        await bench.settle()
        assert list(pods(bench)) == ["s-0"]
        bench.kubelet(ready=False)
        await bench.settle()
        assert list(pods(bench)) == ["s-0"]
        bench.api.set("Pod", "s-0", status={"conditions": [{"type": "Ready", "status": "True"}]})
        await all_up(bench)
        assert list(pods(bench)) == ["s-0", "s-1", "s-2"]
        pod = bench.api.object("Pod", "s-1")
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("s-1", "svc")
        assert pod["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-s-1"}}]
        assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
        assert [c["metadata"]["name"] for c in bench.api.objects("PersistentVolumeClaim")] == ["data-s-0", "data-s-1", "data-s-2"]
        found = status(bench)
        assert [found[f] for f in ("replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas")] == [
            3
        ] * 5
        assert (
            found["currentRevision"] == found["updateRevision"] == bench.api.objects("ControllerRevision")[0]["metadata"]["name"]
        )


async def test_parallel_does_not_wait() -> None:
    async with Bench(StatefulSetController) as bench:
        add(bench, podManagementPolicy="Parallel")
        await bench.settle()
        assert len(pods(bench)) == 3
        bench.api.set("StatefulSet", "s", spec={"replicas": 0})
        await bench.settle()
        assert pods(bench) == {}


async def test_goes_down_from_the_top_one_by_one() -> None:
    async with Bench(StatefulSetController) as bench:
        bench.api.graceful_pods = True
        add(bench)
        await bench.settle()
        await all_up(bench)
        bench.api.set("StatefulSet", "s", spec={"replicas": 1})
        await bench.settle()
        going = [p["metadata"]["name"] for p in bench.api.objects("Pod") if p["metadata"].get("deletionTimestamp")]
        assert going == ["s-2"]
        bench.api.kill("Pod", "s-2")
        await bench.settle()
        bench.api.kill("Pod", "s-1")
        await bench.settle()
        assert list(pods(bench)) == ["s-0"] and len(bench.api.objects("PersistentVolumeClaim")) == 3


async def test_rolls_from_the_top_and_keeps_below_the_partition() -> None:
    async with Bench(StatefulSetController) as bench:
        add(bench, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}})
        await bench.settle()
        await all_up(bench)
        first = status(bench)["currentRevision"]
        bench.api.set("StatefulSet", "s", spec={"template": template("two")})
        await bench.settle()
        assert pods(bench) == {"s-0": "one", "s-1": "one", "s-2": "two"}
        await all_up(bench)
        assert pods(bench) == {"s-0": "one", "s-1": "two", "s-2": "two"}
        assert status(bench)["currentRevision"] == first and status(bench)["updatedReplicas"] == 2
        bench.api.kill("Pod", "s-0")
        await bench.settle()
        assert pods(bench)["s-0"] == "one"
        await all_up(bench)
        bench.api.set("StatefulSet", "s", spec={"updateStrategy": {"rollingUpdate": {"partition": 0}}})
        await all_up(bench)
        assert set(pods(bench).values()) == {"two"}
        assert status(bench)["currentRevision"] == status(bench)["updateRevision"] != first


async def test_on_delete_waits_for_somebody() -> None:
    async with Bench(StatefulSetController) as bench:
        add(bench, 2, updateStrategy={"type": "OnDelete"})
        await bench.settle()
        await all_up(bench)
        bench.api.set("StatefulSet", "s", spec={"template": template("two")})
        await all_up(bench)
        assert set(pods(bench).values()) == {"one"}
        bench.api.kill("Pod", "s-1")
        await all_up(bench)
        assert pods(bench) == {"s-0": "one", "s-1": "two"}


async def test_a_failed_pod_is_made_again() -> None:
    async with Bench(StatefulSetController) as bench:
        add(bench, 1)
        await bench.settle()
        uid = bench.api.object("Pod", "s-0")["metadata"]["uid"]
        bench.api.set("Pod", "s-0", status={"phase": "Failed"})
        await bench.settle()
        assert bench.api.object("Pod", "s-0")["metadata"]["uid"] != uid


async def test_ordinals_may_start_elsewhere_and_min_ready_seconds_delay() -> None:
    async with Bench(StatefulSetController) as bench:
        add(bench, 2, ordinals={"start": 5}, minReadySeconds=10)
        await bench.settle()
        bench.kubelet()
        await bench.settle()
        assert list(pods(bench)) == ["s-5"] and status(bench)["availableReplicas"] == 0
        await bench.settle(11)
        assert list(pods(bench)) == ["s-5", "s-6"]


async def test_claims_go_with_the_set_or_the_pod_as_the_policy_says() -> None:
    async with Bench(StatefulSetController) as bench:
        bench.api.graceful_pods = True
        add(bench, 2, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Delete", "whenScaled": "Delete"})
        await bench.settle()
        await all_up(bench)
        owners = [c["metadata"]["ownerReferences"][0]["kind"] for c in bench.api.objects("PersistentVolumeClaim")]
        assert owners == ["StatefulSet", "StatefulSet"]
        bench.api.set("StatefulSet", "s", spec={"replicas": 1})
        await bench.settle()
        owners = [c["metadata"]["ownerReferences"][0]["kind"] for c in bench.api.objects("PersistentVolumeClaim")]
        assert owners == ["StatefulSet", "Pod"]


async def test_a_pod_of_somebody_else_in_the_way_is_reported() -> None:
    async with Bench(StatefulSetController) as bench:
        bench.api.add("Pod", metadata={"name": "s-0"}, spec={"containers": []})
        add(bench, 1)
        await bench.settle()
        assert "FailedCreate" in bench.reasons()
        bench.api.kill("Pod", "s-0")
        await bench.settle(2)
        assert pods(bench) == {"s-0": "one"}
