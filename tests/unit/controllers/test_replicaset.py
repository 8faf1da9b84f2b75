"""ReplicaSet and ReplicationController on the fake API."""

from __future__ import annotations

from typing import Any

import pytest
from controllers_fake_api import Bench, FakeApi

from k1s.api.errors import ApiError, forbidden
from k1s.server.controllers.replicaset import ReplicaSetController
from k1s.server.controllers.replicationcontroller import ReplicationControllerController

LABELS = {"app": "a"}
TEMPLATE: dict[str, Any] = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def add_set(api: FakeApi, replicas: int, **spec: Any) -> None:
    api.add("ReplicaSet", metadata={"name": "rs"}, spec={
        "replicas": replicas, "selector": {"matchLabels": LABELS}, "template": TEMPLATE, **spec})  # fmt: skip


async def test_creates_counts_and_reports_readiness() -> None:
    async with Bench(ReplicaSetController) as bench:
        add_set(bench.api, 5)
        await bench.settle()
        pods = bench.api.objects("Pod")
        assert len(pods) == 5
        assert pods[0]["metadata"]["generateName"] == "rs-" and pods[0]["metadata"]["ownerReferences"][0]["controller"]
        bench.kubelet()
        await bench.settle()
        status = bench.api.object("ReplicaSet", "rs")["status"]
        assert status == {
            "replicas": 5, "fullyLabeledReplicas": 5, "readyReplicas": 5, "availableReplicas": 5, "observedGeneration": 1,
        }  # fmt: skip
        assert bench.reasons().count("SuccessfulCreate") == 5


async def test_a_stale_cache_never_leads_to_too_many_pods() -> None:
    async with Bench(ReplicaSetController) as bench:
        bench.api.held = []
        add_set(bench.api, 3)
        rs = bench.api.held.pop(0)
        rs()  # the cache shows the set, but none of its pods
        await bench.settle()
        bench.controllers[0].controller.add("default/rs")
        await bench.settle()
        assert len(bench.api.objects("Pod")) == 3
        bench.api.release()
        await bench.settle()
        assert len(bench.api.objects("Pod")) == 3
        assert bench.api.object("ReplicaSet", "rs")["status"]["replicas"] == 3


async def test_deletes_the_surplus_worst_first() -> None:
    async with Bench(ReplicaSetController) as bench:
        add_set(bench.api, 3)
        await bench.settle()
        bench.kubelet()
        names = [p["metadata"]["name"] for p in bench.api.objects("Pod")]
        bench.api.set("Pod", names[1], metadata={"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}})
        bench.api.set("ReplicaSet", "rs", spec={"replicas": 2})
        await bench.settle()
        assert [p["metadata"]["name"] for p in bench.api.objects("Pod")] == [names[0], names[2]]
        bench.api.set("ReplicaSet", "rs", spec={"replicas": 0})
        await bench.settle()
        assert bench.api.objects("Pod") == []
        assert bench.reasons().count("SuccessfulDelete") == 3


async def test_replaces_pods_that_end() -> None:
    async with Bench(ReplicaSetController) as bench:
        add_set(bench.api, 2)
        await bench.settle()
        bench.kubelet()
        names = [p["metadata"]["name"] for p in bench.api.objects("Pod")]
        bench.api.set("Pod", names[0], status={"phase": "Failed"})
        bench.api.kill("Pod", names[1])
        await bench.settle()
        assert len(bench.api.objects("Pod")) == 3


async def test_adopts_orphans_and_releases_what_no_longer_matches() -> None:
    async with Bench(ReplicaSetController) as bench:
        bench.api.add("Pod", metadata={"name": "orphan", "labels": LABELS}, spec={})
        add_set(bench.api, 1)
        await bench.settle()
        assert [p["metadata"]["name"] for p in bench.api.objects("Pod")] == ["orphan"]
        assert bench.api.object("Pod", "orphan")["metadata"]["ownerReferences"][0]["name"] == "rs"
        bench.api.set("Pod", "orphan", metadata={"labels": {"app": "other"}})
        await bench.settle()
        assert bench.api.object("Pod", "orphan")["metadata"]["ownerReferences"] == []
        assert len(bench.api.objects("Pod")) == 2


async def test_a_quota_that_refuses_is_asked_little_and_reported() -> None:
    api = FakeApi()

    def refuse(verb: str, resource: Any, obj: Any) -> ApiError | None:
        if verb == "create" and resource.kind == "Pod":
            return forbidden("pods", "", "x", "exceeded quota")
        return None

    api.fail = refuse
    async with Bench(ReplicaSetController, api=api) as bench:
        add_set(api, 100)
        await bench.settle(0.004)
        assert len([c for c in api.calls if c[:2] == ("create", "pods")]) <= 6
        await bench.settle()
        condition = api.object("ReplicaSet", "rs")["status"]["conditions"][0]
        assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
        assert "exceeded quota" in condition["message"] and "FailedCreate" in bench.reasons()
        api.fail = lambda *a: None
        await bench.settle(60)
        assert len(api.objects("Pod")) == 100
        assert "conditions" not in api.object("ReplicaSet", "rs")["status"]


async def test_availability_waits_for_min_ready_seconds() -> None:
    async with Bench(ReplicaSetController) as bench:
        add_set(bench.api, 1, minReadySeconds=10)
        await bench.settle()
        bench.kubelet()
        await bench.settle()
        assert bench.api.object("ReplicaSet", "rs")["status"]["availableReplicas"] == 0
        await bench.settle(11)
        assert bench.api.object("ReplicaSet", "rs")["status"]["availableReplicas"] == 1


@pytest.mark.parametrize("replicas", [0, 3])
async def test_replication_controller_uses_a_plain_selector(replicas: int) -> None:
    async with Bench(ReplicationControllerController) as bench:
        bench.api.add(
            "ReplicationController",
            metadata={"name": "rc"},
            spec={"replicas": replicas, "selector": LABELS, "template": TEMPLATE},
        )
        await bench.settle()
        assert len(bench.api.objects("Pod")) == replicas
