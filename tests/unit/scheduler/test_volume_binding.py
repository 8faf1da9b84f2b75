"""Pods with claims go where their volumes are."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.server.scheduler.cycle import Placed, Unfit, schedule
from k1s.server.scheduler.profile import PLUGINS
from k1s.server.scheduler.snapshot import NoStorage, PodInfo, Snapshot

Object = dict[str, Any]
LATE = {"metadata": {"name": "late"}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}
MADE = {"metadata": {"name": "made"}, "provisioner": "example.com/disks", "volumeBindingMode": "WaitForFirstConsumer"}
SOON = {"metadata": {"name": "soon"}, "provisioner": "example.com/disks", "volumeBindingMode": "Immediate"}


class Stored(NoStorage):
    def __init__(self, claims: list[Object], volumes: list[Object]) -> None:
        self.claims, self.all = {c["metadata"]["name"]: c for c in claims}, {v["metadata"]["name"]: v for v in volumes}

    def claim(self, namespace: str, name: str) -> Object | None:
        return self.claims.get(name) if namespace == "n" else None

    def volume(self, name: str) -> Object | None:
        return self.all.get(name)

    def volumes(self) -> list[Object]:
        return list(self.all.values())

    def storage_class(self, name: str) -> Object | None:
        return next((c for c in (LATE, MADE, SOON) if c["metadata"]["name"] == name), None)


def claim(name: str, *, volume: str = "", storage_class: str = "late", **metadata: Any) -> Object:
    spec = {"storageClassName": storage_class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    if volume:
        spec["volumeName"] = volume
    meta = {"name": name, "namespace": "n", "uid": f"uid-{name}", **metadata}
    return {"metadata": meta, "spec": spec, "status": {"phase": "Bound" if volume else "Pending"}}


def volume(name: str, on: str = "", **spec: Any) -> Object:
    made = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "late", **spec}
    if on:
        expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [on]}
        made["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    return {"metadata": {"name": name}, "spec": made}


def decide(claims: list[Object], volumes: list[Object], names: str = "data") -> Placed | Unfit:
    snapshot = Snapshot(Stored(claims, volumes))
    for name in ("a", "b", "c"):
        labels = {"kubernetes.io/hostname": name}
        status = {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}
        snapshot.set_node({"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status})
    used = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names.split()]
    spec = {"containers": [{"name": "c", "image": "i"}], "volumes": used}
    return schedule(PodInfo.of({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}), snapshot, PLUGINS)


def test_a_bound_volume_draws_its_pod() -> None:
    assert decide([claim("data", volume="v")], [volume("v", "b")]) == Placed("b")
    assert isinstance(decide([claim("data", volume="v")], [volume("v")]), Placed)


def test_volumes_on_two_nodes_are_too_far_apart() -> None:
    outcome = decide([claim("one", volume="v"), claim("two", volume="w")], [volume("v", "a"), volume("w", "b")], "one two")
    assert isinstance(outcome, Unfit)
    assert outcome.reasons == "0/3 nodes are available: 3 node(s) didn't match PersistentVolume's node affinity."


def test_a_claim_that_waits_goes_where_a_volume_is_free() -> None:
    taken = volume("v", "a", claimRef={"namespace": "n", "name": "other", "uid": "x"})
    small = volume("s", "b", capacity={"storage": "500Mi"})
    assert decide([claim("data")], [taken, small, volume("w", "c")]) == Placed("c")
    outcome = decide([claim("data")], [taken, small])
    assert isinstance(outcome, Unfit) and "3 node(s) didn't find available persistent volumes to bind" in outcome.message


def test_two_claims_need_two_volumes() -> None:
    free = [volume("v", "a"), volume("w", "b"), volume("x", "b")]
    assert decide([claim("one"), claim("two")], free, "one two") == Placed("b")


def test_a_provisioner_makes_a_volume_anywhere() -> None:
    assert isinstance(decide([claim("data", storage_class="made")], []), Placed)


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ([], 'persistentvolumeclaim "data" not found'),
        ([claim("data", deletionTimestamp="2026-01-01T00:00:00Z")], 'persistentvolumeclaim "data" is being deleted'),
        ([claim("data", storage_class="soon")], "pod has unbound immediate PersistentVolumeClaims"),
        ([claim("data", storage_class="")], "pod has unbound immediate PersistentVolumeClaims"),
        ([claim("data", volume="gone")], 'persistentvolume "gone" not found'),
    ],
)
def test_what_no_node_can_help(claims: list[Object], text: str) -> None:
    outcome = decide(claims, [])
    assert isinstance(outcome, Unfit)
    assert outcome.message == (
        f"0/3 nodes are available: {text}. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    assert outcome.failed_by == {"VolumeBinding"} and not outcome.gated
