"""Endpoints, mirrored slices, disruption budgets, aggregated roles, certificates."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from controllers_fake_api import Bench

from k1s.base.pki import Subject, create_ca, make_csr, new_key, read_certificate, read_csr, signed_by
from k1s.server.controllers.certificate_signing import CertificateController, approval
from k1s.server.controllers.cluster_role_aggregation import ClusterRoleAggregationController
from k1s.server.controllers.config import CertificateSigners, ControllerConfig
from k1s.server.controllers.disruption import DisruptionController
from k1s.server.controllers.endpoints import EndpointsController
from k1s.server.controllers.endpointslice_mirroring import EndpointSliceMirroringController
from k1s.server.controllers.resource_quota import ResourceQuotaController

READY = [{"type": "Ready", "status": "True"}]


def add_pod(bench: Bench, name: str, *, ready: bool = True, ip: str = "10.42.0.5", **meta: Any) -> None:
    status = {"phase": "Running", "podIP": ip, "conditions": READY if ready else []}
    metadata = {"name": name, "labels": {"app": "a"}, **meta}
    bench.api.add("Pod", metadata=metadata, spec={"nodeName": "n", "containers": []}, status=status)


async def test_endpoints_follow_pods_and_go_with_the_service() -> None:
    async with Bench(EndpointsController) as bench:
        bench.api.add(
            "Service", metadata={"name": "s"}, spec={"selector": {"app": "a"}, "ports": [{"port": 80, "protocol": "TCP"}]}
        )
        add_pod(bench, "p1")
        add_pod(bench, "p2", ready=False, ip="10.42.0.6")
        await bench.settle()
        found = bench.api.object("Endpoints", "s")
        assert found["metadata"]["labels"] == {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
        (subset,) = found["subsets"]
        assert [a["ip"] for a in subset["addresses"]] == ["10.42.0.5"]
        assert [a["targetRef"]["name"] for a in subset["notReadyAddresses"]] == ["p2"]
        assert subset["ports"] == [{"port": 80, "protocol": "TCP"}]
        bench.api.set("Endpoints", "s", subsets=[])
        await bench.settle()
        assert len(bench.api.object("Endpoints", "s")["subsets"]) == 1
        bench.api.kill("Service", "s")
        await bench.settle()
        assert bench.api.objects("Endpoints") == []


async def test_somebody_elses_endpoints_are_left_alone() -> None:
    async with Bench(EndpointsController) as bench:
        bench.api.add("Endpoints", metadata={"name": "lock"}, subsets=[])
        bench.api.add("Service", metadata={"name": "manual"}, spec={"ports": [{"port": 80}]})
        bench.api.add("Endpoints", metadata={"name": "manual"}, subsets=[{"addresses": [{"ip": "1.2.3.4"}]}])
        await bench.settle()
        assert bench.api.calls == []


async def test_hand_made_endpoints_are_mirrored_and_follow() -> None:
    async with Bench(EndpointSliceMirroringController) as bench:
        api = bench.api
        subset = {
            "addresses": [{"ip": "1.2.3.4"}],
            "notReadyAddresses": [{"ip": "1.2.3.5"}],
            "ports": [{"port": 80, "protocol": "TCP"}],
        }
        api.add("Endpoints", metadata={"name": "e"}, subsets=[subset])
        await bench.settle()
        assert api.objects("EndpointSlice") == []
        api.add("Service", metadata={"name": "e"}, spec={"ports": [{"port": 80}]})
        await bench.settle()
        (found,) = api.objects("EndpointSlice")
        assert [(e["addresses"], e["conditions"]["ready"]) for e in found["endpoints"]] == [
            (["1.2.3.4"], True),
            (["1.2.3.5"], False),
        ]
        assert found["ports"] == [{"name": "", "port": 80, "protocol": "TCP"}]
        api.set("Endpoints", "e", subsets=[{"addresses": [{"ip": "1.2.3.9"}], "ports": [{"port": 81, "protocol": "TCP"}]}])
        await bench.settle()
        (changed,) = api.objects("EndpointSlice")
        assert changed["metadata"]["name"] == found["metadata"]["name"]
        assert changed["endpoints"][0]["addresses"] == ["1.2.3.9"] and changed["ports"][0]["port"] == 81
        api.set("Endpoints", "e", metadata={"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}})
        await bench.settle()
        assert api.objects("EndpointSlice") == []


def add_set(bench: Bench, replicas: int) -> dict[str, Any]:
    return bench.api.add("ReplicaSet", metadata={"name": "rs"}, spec={"replicas": replicas})


def owned_by(rs: dict[str, Any]) -> dict[str, Any]:
    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": rs["metadata"]["uid"], "controller": True}
    return {"ownerReferences": [reference]}


@pytest.mark.parametrize(
    ("spec", "desired", "allowed"),
    [
        ({"minAvailable": 2}, 2, 1),
        ({"minAvailable": "50%"}, 2, 1),
        ({"maxUnavailable": 1}, 3, 0),
        ({"maxUnavailable": "50%"}, 2, 1),
    ],
)
async def test_budgets_count_healthy_pods_against_what_is_wanted(spec: dict[str, Any], desired: int, allowed: int) -> None:
    async with Bench(DisruptionController) as bench:
        rs = add_set(bench, 4)
        for number in range(4):
            add_pod(bench, f"p{number}", ready=number != 0, **owned_by(rs))
        bench.api.add("PodDisruptionBudget", metadata={"name": "b"}, spec={"selector": {"matchLabels": {"app": "a"}}, **spec})
        await bench.settle()
        status = bench.api.object("PodDisruptionBudget", "b")["status"]
        assert (status["currentHealthy"], status["desiredHealthy"], status["disruptionsAllowed"]) == (3, desired, allowed)
        assert status["expectedPods"] == 4 and status["conditions"][0]["status"] == ("True" if allowed else "False")


async def test_pods_without_a_controller_cannot_be_counted_relatively() -> None:
    async with Bench(DisruptionController) as bench:
        add_pod(bench, "p")
        bench.api.add("PodDisruptionBudget", metadata={"name": "b"}, spec={"selector": {}, "maxUnavailable": 1})
        await bench.settle()
        status = bench.api.object("PodDisruptionBudget", "b")["status"]
        assert status["disruptionsAllowed"] == 0 and status["conditions"][0]["reason"] == "SyncFailed"


async def test_an_eviction_that_did_not_happen_is_forgotten_after_two_minutes() -> None:
    async with Bench(DisruptionController) as bench:
        for number in range(2):
            add_pod(bench, f"p{number}")
        bench.api.add("PodDisruptionBudget", metadata={"name": "b"}, spec={"selector": {}, "minAvailable": 1})
        await bench.settle()
        bench.api.set(
            "PodDisruptionBudget", "b", status={"disruptionsAllowed": 0, "disruptedPods": {"p0": "2023-11-14T22:13:20Z"}}
        )
        await bench.settle()
        assert bench.api.object("PodDisruptionBudget", "b")["status"]["disruptionsAllowed"] == 0
        await bench.settle(130)
        status = bench.api.object("PodDisruptionBudget", "b")["status"]
        assert status["disruptionsAllowed"] == 1 and "disruptedPods" not in status


async def test_roles_are_aggregated() -> None:
    async with Bench(ClusterRoleAggregationController) as bench:
        api = bench.api
        rule = {"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]}
        api.add("ClusterRole", metadata={"name": "view"}, aggregationRule=rule, rules=[])
        api.add(
            "ClusterRole", metadata={"name": "a", "labels": {"to-view": "true"}}, rules=[{"verbs": ["get"]}, {"verbs": ["list"]}]
        )
        api.add("ClusterRole", metadata={"name": "b", "labels": {"to-view": "true"}}, rules=[{"verbs": ["get"]}])
        await bench.settle()
        assert api.object("ClusterRole", "view")["rules"] == [{"verbs": ["get"]}, {"verbs": ["list"]}]
        api.kill("ClusterRole", "a")
        await bench.settle()
        assert api.object("ClusterRole", "view")["rules"] == [{"verbs": ["get"]}]


CLIENT = "kubernetes.io/kube-apiserver-client"


def signing_config() -> tuple[ControllerConfig, bytes]:
    ca = create_ca("ca", 1_700_000_000.0)
    return ControllerConfig(signers=CertificateSigners(ca.certificate, ca.key)), ca.certificate


def request(bench: Bench, subject: Subject, signer: str = CLIENT, usages: tuple[str, ...] = ("client auth",)) -> None:
    csr = base64.b64encode(make_csr(new_key(), subject)).decode()
    spec = {"request": csr, "signerName": signer, "usages": list(usages), "expirationSeconds": 3600}
    bench.api.add("CertificateSigningRequest", metadata={"name": "c"}, spec=spec)


def approve(bench: Bench) -> None:
    condition = {"type": "Approved", "status": "True", "lastUpdateTime": "2023-11-14T22:13:20Z"}
    bench.api.set("CertificateSigningRequest", "c", status={"conditions": [condition]})


async def sign(bench: Bench) -> dict[str, Any]:
    """Signing runs in a thread: real time has to pass as well."""
    for _ in range(100):
        await bench.settle(0.01)
        status = bench.api.object("CertificateSigningRequest", "c").get("status", {})
        if status.get("certificate") or len(status.get("conditions", [])) > 1:
            break
        await asyncio.sleep(0.01)
    return status


async def test_approved_requests_are_signed_and_forgotten_after_an_hour() -> None:
    config, ca = signing_config()
    async with Bench(CertificateController, config=config) as bench:
        request(bench, Subject("jane", ("dev",)))
        await bench.settle()
        assert "status" not in bench.api.object("CertificateSigningRequest", "c")
        approve(bench)
        status = await sign(bench)
        pem = base64.b64decode(status["certificate"])
        assert read_certificate(pem).subject.common_name == "jane" and signed_by(pem, ca)
        await bench.settle(3700)
        assert bench.api.objects("CertificateSigningRequest") == []


@pytest.mark.parametrize(
    ("subject", "signer", "usages", "message"),
    [
        (Subject("root", ("system:masters",)), CLIENT, ("client auth",), "system:masters"),
        (Subject("jane"), CLIENT, ("server auth",), "invalid usage for client certificate: server auth"),
        (Subject("jane", ("system:nodes",)), f"{CLIENT}-kubelet", ("client auth",), "system:node:"),
        (Subject("system:node:a", ("system:nodes",)), "kubernetes.io/kubelet-serving", ("server auth",), "subjectAltName"),
    ],
)
async def test_a_signer_refuses_what_it_does_not_stand_for(subject: Subject, signer: str, usages: Any, message: str) -> None:
    config, _ = signing_config()
    async with Bench(CertificateController, config=config) as bench:
        request(bench, subject, signer, usages)
        approve(bench)
        status = await sign(bench)
        assert "certificate" not in status
        assert message in status["conditions"][1]["message"]


@pytest.mark.parametrize(
    ("author", "signer", "usages", "right"),
    [
        ("system:bootstrap:abcdef", f"{CLIENT}-kubelet", ("client auth", "digital signature"), "nodeclient"),
        ("system:node:a", f"{CLIENT}-kubelet", ("client auth", "digital signature", "key encipherment"), "selfnodeclient"),
        ("system:node:a", f"{CLIENT}-kubelet", ("client auth",), ""),
        ("system:node:a", "kubernetes.io/kubelet-serving", ("server auth", "digital signature"), ""),
        ("jane", CLIENT, ("client auth",), ""),
    ],
)
def test_what_nodes_are_given_without_asking_a_person(author: str, signer: str, usages: tuple[str, ...], right: str) -> None:
    sans = ("a",) if "serving" in signer else ()
    csr = read_csr(make_csr(new_key(), Subject("system:node:a", ("system:nodes",), sans)))
    asked = {"spec": {"signerName": signer, "usages": list(usages), "username": author}}
    assert approval(asked, csr)[0] == right


async def test_quota_status_follows_what_is_there() -> None:
    async with Bench(ResourceQuotaController) as bench:
        hard = {"pods": "5", "requests.cpu": "2", "requests.memory": "1Gi", "count/configmaps": "3", "services": "1"}
        bench.api.add("ResourceQuota", metadata={"name": "q"}, spec={"hard": hard})
        await bench.settle()
        status = bench.api.object("ResourceQuota", "q")["status"]
        assert status == {"hard": hard, "used": dict.fromkeys(hard, "0")}
        resources = {"requests": {"cpu": "250m", "memory": "512Mi"}}
        for name in ("a", "b"):
            bench.api.add("Pod", metadata={"name": name}, spec={"containers": [{"name": "c", "resources": resources}]})
        bench.api.add("ConfigMap", metadata={"name": "c"})
        bench.api.add("ConfigMap", metadata={"name": "c", "namespace": "other"})
        await bench.settle()
        used = bench.api.object("ResourceQuota", "q")["status"]["used"]
        assert used == {"pods": "2", "requests.cpu": "500m", "requests.memory": "1Gi", "count/configmaps": "1", "services": "0"}
        bench.api.set("Pod", "a", status={"phase": "Succeeded"})
        bench.api.set("ResourceQuota", "q", spec={"hard": {"services": None}})
        await bench.settle()
        used = bench.api.object("ResourceQuota", "q")["status"]["used"]
        assert used == {"pods": "1", "requests.cpu": "250m", "requests.memory": "512Mi", "count/configmaps": "1"}
        calls = len(bench.api.calls)
        bench.api.set("Pod", "b", status={"podIP": "1.2.3.4"})
        await bench.settle()
        assert len(bench.api.calls) == calls
