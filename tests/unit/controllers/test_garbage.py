"""The garbage collector on the fake API: background, foreground, orphan, absent owners."""

from __future__ import annotations

from typing import Any

from controllers_fake_api import Bench

from k1s.api.catalog import builtin
from k1s.server.controllers.garbage.collector import GarbageCollector

DEPLOYMENT, REPLICA_SET, POD = builtin("Deployment"), builtin("ReplicaSet"), builtin("Pod")


def ref(owner: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {**base, "controller": True, "blockOwnerDeletion": True, **more}


def family(bench: Bench) -> None:
    """A Deployment with a ReplicaSet with two Pods."""
    api = bench.api
    deployment = api.add("Deployment", metadata={"name": "d"}, spec={})
    rs = api.add("ReplicaSet", metadata={"name": "rs", "ownerReferences": [ref(deployment)]}, spec={})
    for name in ("p1", "p2"):
        api.add("Pod", metadata={"name": name, "ownerReferences": [ref(rs)]}, spec={})


def names(bench: Bench, kind: str) -> list[str]:
    return [o["metadata"]["name"] for o in bench.api.objects(kind)]


async def test_background_takes_everything_owned() -> None:
    async with Bench(GarbageCollector) as bench:
        family(bench)
        bench.api.add("Pod", metadata={"name": "free"}, spec={})
        await bench.settle()
        assert [c for c in bench.api.calls] == []
        await bench.api.delete(DEPLOYMENT, "d", "default", propagation="Background")
        await bench.settle()
        assert names(bench, "ReplicaSet") == [] and names(bench, "Pod") == ["free"]
        assert bench.controllers[0].graph.nodes == {} and bench.controllers[0].graph.dependents == {}


async def test_foreground_keeps_the_owner_until_the_last_dependent_has_gone() -> None:
    async with Bench(GarbageCollector) as bench:
        bench.api.graceful_pods = True
        family(bench)
        await bench.api.delete(DEPLOYMENT, "d", "default", propagation="Foreground")
        await bench.settle()
        assert names(bench, "Deployment") == ["d"] and names(bench, "ReplicaSet") == ["rs"]
        assert all(p["metadata"]["deletionTimestamp"] for p in bench.api.objects("Pod"))
        bench.api.kill("Pod", "p1")
        await bench.settle()
        assert names(bench, "Deployment") == ["d"]
        bench.api.kill("Pod", "p2")
        await bench.settle()
        assert names(bench, "ReplicaSet") == [] and names(bench, "Deployment") == []


async def test_orphan_cuts_the_references() -> None:
    async with Bench(GarbageCollector) as bench:
        family(bench)
        await bench.api.delete(DEPLOYMENT, "d", "default", propagation="Orphan")
        await bench.settle()
        assert names(bench, "Deployment") == [] and len(names(bench, "Pod")) == 2
        assert bench.api.object("ReplicaSet", "rs")["metadata"]["ownerReferences"] == []


async def test_an_owner_that_never_was_or_is_another_one_is_absent() -> None:
    async with Bench(GarbageCollector) as bench:
        rs = bench.api.add("ReplicaSet", metadata={"name": "rs"}, spec={})
        bench.api.add("Pod", metadata={"name": "wrong-uid", "ownerReferences": [ref(rs, uid="older")]}, spec={})
        bench.api.add("Pod", metadata={"name": "no-owner", "ownerReferences": [ref(rs, name="x", uid="x")]}, spec={})
        bench.api.add("Pod", metadata={"name": "fine", "ownerReferences": [ref(rs, apiVersion="apps/v1beta2")]}, spec={})
        bench.api.add("Pod", metadata={"name": "unknown", "ownerReferences": [ref(rs, kind="Thing", uid="t")]}, spec={})
        await bench.settle()
        assert sorted(names(bench, "Pod")) == ["fine", "unknown"]


async def test_one_owner_left_is_enough() -> None:
    async with Bench(GarbageCollector) as bench:
        a = bench.api.add("ReplicaSet", metadata={"name": "a"}, spec={})
        b = bench.api.add("ReplicaSet", metadata={"name": "b"}, spec={})
        bench.api.add("Pod", metadata={"name": "p", "ownerReferences": [ref(a), ref(b, controller=False)]}, spec={})
        await bench.api.delete(REPLICA_SET, "a", "default")
        await bench.settle()
        assert [r["name"] for r in bench.api.object("Pod", "p")["metadata"]["ownerReferences"]] == ["b"]


async def test_a_circle_of_foreground_deletions_is_broken() -> None:
    async with Bench(GarbageCollector) as bench:
        api = bench.api
        pods = {n: api.add("Pod", metadata={"name": n}, spec={}) for n in "abc"}
        for name, owner in (("a", "c"), ("b", "a"), ("c", "b")):
            api.set("Pod", name, metadata={"ownerReferences": [ref(pods[owner])]})
        await bench.settle()
        await api.delete(POD, "a", "default", propagation="Foreground")
        await bench.settle(2)
        assert names(bench, "Pod") == []


async def test_a_dependent_made_after_its_owner_went_is_collected() -> None:
    async with Bench(GarbageCollector) as bench:
        rs = bench.api.add("ReplicaSet", metadata={"name": "rs"}, spec={})
        await bench.api.delete(REPLICA_SET, "rs", "default")
        bench.api.add("Pod", metadata={"name": "late", "ownerReferences": [ref(rs)]}, spec={})
        await bench.settle()
        assert names(bench, "Pod") == []


async def test_a_stale_cache_deletes_nothing() -> None:
    async with Bench(GarbageCollector) as bench:
        bench.api.held = []
        rs = bench.api.add("ReplicaSet", metadata={"name": "rs"}, spec={})
        bench.api.add("Pod", metadata={"name": "p", "ownerReferences": [ref(rs)]}, spec={})
        bench.api.held.pop(1)()  # the pod is seen before its owner
        await bench.settle()
        assert names(bench, "Pod") == ["p"]
        bench.api.release()
