"""Claims and volumes: binding, protection, ephemeral volumes."""

from __future__ import annotations

from typing import Any

from controllers_fake_api import Bench

from k1s.api.catalog import builtin
from k1s.server.controllers.ephemeral_volume import EphemeralVolumeController
from k1s.server.controllers.volume_binding import VolumeBindingController
from k1s.server.controllers.volume_protection import VolumeProtectionController

CLAIM = builtin("PersistentVolumeClaim")


def volume(bench: Bench, name: str, size: str, storage_class: str = "", **spec: Any) -> None:
    base = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": storage_class, **spec}
    bench.api.add("PersistentVolume", metadata={"name": name}, spec=base)


def claim(bench: Bench, name: str = "c", size: str = "1Gi", storage_class: str = "", **spec: Any) -> None:
    base = {
        "resources": {"requests": {"storage": size}},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        **spec,
    }
    bench.api.add("PersistentVolumeClaim", metadata={"name": name}, spec=base)


def phases(bench: Bench) -> tuple[str, str]:
    found = bench.api.object("PersistentVolumeClaim", "c")
    return found["status"]["phase"], found["spec"].get("volumeName", "")


async def test_a_claim_takes_the_smallest_volume_that_will_do() -> None:
    async with Bench(VolumeBindingController) as bench:
        volume(bench, "small", "500Mi")
        volume(bench, "big", "10Gi")
        volume(bench, "right", "2Gi")
        volume(bench, "other-class", "1Gi", "gold")
        claim(bench)
        await bench.settle()
        assert phases(bench) == ("Bound", "right")
        found = bench.api.object("PersistentVolume", "right")
        assert found["status"]["phase"] == "Bound" and found["spec"]["claimRef"]["name"] == "c"
        assert bench.api.object("PersistentVolume", "big")["status"]["phase"] == "Available"
        assert bench.api.object("PersistentVolumeClaim", "c")["status"]["capacity"] == {"storage": "2Gi"}
        calls = len(bench.api.calls)
        bench.controllers[0].controller.add("claim/default/c")
        await bench.settle()
        assert len(bench.api.calls) == calls
        bench.api.kill("PersistentVolumeClaim", "c")
        await bench.settle()
        assert bench.api.object("PersistentVolume", "right")["status"]["phase"] == "Released"


async def test_a_claim_waits_and_a_later_volume_is_taken() -> None:
    async with Bench(VolumeBindingController) as bench:
        claim(bench)
        await bench.settle()
        assert phases(bench) == ("Pending", "") and "FailedBinding" in bench.reasons()
        volume(bench, "v", "1Gi")
        await bench.settle()
        assert phases(bench) == ("Bound", "v")
        bench.api.kill("PersistentVolume", "v")
        await bench.settle()
        assert phases(bench) == ("Lost", "v")


async def test_a_provisioner_is_asked_and_its_volume_is_bound() -> None:
    async with Bench(VolumeBindingController) as bench:
        bench.api.add("StorageClass", metadata={"name": "fast"}, provisioner="example.com/disk", volumeBindingMode="Immediate")
        claim(bench, storage_class="fast")
        await bench.settle()
        found = bench.api.object("PersistentVolumeClaim", "c")
        assert found["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] == "example.com/disk"
        reference = {"namespace": "default", "name": "c", "uid": found["metadata"]["uid"]}
        volume(bench, "made", "1Gi", "fast", claimRef=reference)
        await bench.settle()
        assert phases(bench) == ("Bound", "made")


async def test_first_consumer_decides_the_node() -> None:
    async with Bench(VolumeBindingController) as bench:
        bench.api.add("StorageClass", metadata={"name": "local"}, provisioner="kubernetes.io/no-provisioner",
                      volumeBindingMode="WaitForFirstConsumer")  # fmt: skip
        for name in ("a", "b"):
            bench.api.add("Node", metadata={"name": name, "labels": {"host": name}}, spec={})
            term = {"matchExpressions": [{"key": "host", "operator": "In", "values": [name]}]}
            volume(bench, f"on-{name}", "1Gi", "local", nodeAffinity={"required": {"nodeSelectorTerms": [term]}})
        claim(bench, storage_class="local")
        await bench.settle()
        assert phases(bench) == ("Pending", "") and "WaitForFirstConsumer" in bench.reasons()
        bench.api.set("PersistentVolumeClaim", "c", metadata={"annotations": {"volume.kubernetes.io/selected-node": "b"}})
        await bench.settle()
        assert phases(bench) == ("Bound", "on-b")


async def test_the_node_of_the_first_pod_is_the_claims() -> None:
    async with Bench(VolumeBindingController) as bench:
        bench.api.add(
            "StorageClass", metadata={"name": "path"}, provisioner="example.com/path", volumeBindingMode="WaitForFirstConsumer"
        )
        claim(bench, storage_class="path")
        spec = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}
        bench.api.add("Pod", metadata={"name": "p"}, spec=spec)
        await bench.settle()
        assert "annotations" not in bench.api.object("PersistentVolumeClaim", "c")["metadata"]
        bench.api.set("Pod", "p", spec={"nodeName": "b"})
        await bench.settle()
        annotations = bench.api.object("PersistentVolumeClaim", "c")["metadata"]["annotations"]
        assert annotations["volume.kubernetes.io/selected-node"] == "b"
        assert annotations["volume.kubernetes.io/storage-provisioner"] == "example.com/path"
        assert phases(bench) == ("Pending", "")


async def test_what_is_in_use_stays_until_its_last_user_has_gone() -> None:
    async with Bench(VolumeProtectionController) as bench:
        claim(bench)
        await bench.settle()
        finalizer = "kubernetes.io/pvc-protection"
        assert bench.api.object("PersistentVolumeClaim", "c")["metadata"]["finalizers"] == [finalizer]
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
        bench.api.add("Pod", metadata={"name": "user"}, spec={"nodeName": "n", "volumes": volumes})
        bench.api.add("Pod", metadata={"name": "waiting"}, spec={"volumes": volumes})
        await bench.api.delete(CLAIM, "c", "default")
        await bench.settle()
        assert bench.api.object("PersistentVolumeClaim", "c")["metadata"]["finalizers"] == [finalizer]
        bench.api.kill("Pod", "user")
        await bench.settle()
        assert bench.api.objects("PersistentVolumeClaim") == []


async def test_a_bound_volume_stays() -> None:
    async with Bench(VolumeProtectionController) as bench:
        volume(bench, "v", "1Gi")
        await bench.settle()
        bench.api.set("PersistentVolume", "v", "", status={"phase": "Bound"})
        await bench.api.delete(builtin("PersistentVolume"), "v")
        await bench.settle()
        assert len(bench.api.objects("PersistentVolume")) == 1
        bench.api.set("PersistentVolume", "v", "", status={"phase": "Released"})
        await bench.settle()
        assert bench.api.objects("PersistentVolume") == []


async def test_ephemeral_volumes_get_a_claim_of_their_pods() -> None:
    async with Bench(EphemeralVolumeController) as bench:
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}
        spec = {"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]}
        bench.api.add("Pod", metadata={"name": "p"}, spec=spec)
        await bench.settle()
        (found,) = bench.api.objects("PersistentVolumeClaim")
        assert found["metadata"]["name"] == "p-scratch" and found["metadata"]["ownerReferences"][0]["kind"] == "Pod"
        assert found["metadata"]["labels"] == {"a": "b"}
