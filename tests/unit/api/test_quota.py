"""What objects cost a quota."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from k1s.api.catalog import builtin
from k1s.api.quota import charged_kinds, matches, pod_totals, usage

POD, SERVICE, CLAIM = builtin("Pod"), builtin("Service"), builtin("PersistentVolumeClaim")


def container(cpu: str = "", memory: str = "", limit: str = "", **more: Any) -> dict[str, Any]:
    requests = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
    return {"name": "c", "resources": {"requests": requests, "limits": {"cpu": limit} if limit else {}}, **more}


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": list(containers), **spec}}


def shown(amounts: dict[str, Decimal]) -> dict[str, float]:
    return {name: float(amount) for name, amount in amounts.items()}


def test_a_pod_costs_its_containers_together() -> None:
    found = shown(usage(POD, pod(container("100m", "1Mi", limit="1"), container("0.2"))))
    assert found == {
        "count/pods": 1, "pods": 1, "cpu": 0.3, "requests.cpu": 0.3, "memory": 2**20, "requests.memory": 2**20, "limits.cpu": 1,
    }  # fmt: skip


def test_the_largest_init_step_counts_and_sidecars_stay() -> None:
    sidecar = container("1", restartPolicy="Always")
    found = pod(container("2"), initContainers=[container("1.5"), sidecar, container("5")], overhead={"cpu": "250m"})
    assert pod_totals(found, "requests") == {"cpu": Decimal("6.25")}
    assert pod_totals(pod(container("2"), initContainers=[sidecar]), "requests") == {"cpu": Decimal(3)}


def test_pod_level_resources_stand_for_the_sum() -> None:
    assert pod_totals(pod(container("2"), resources={"requests": {"cpu": "1"}}), "requests") == {"cpu": Decimal(1)}


def test_an_ended_pod_costs_only_its_count() -> None:
    ended = {**pod(container("1")), "status": {"phase": "Succeeded"}}
    assert shown(usage(POD, ended)) == {"count/pods": 1}


def test_extended_resources_are_requests() -> None:
    gpu = {"name": "c", "resources": {"requests": {"example.com/gpu": "2", "hugepages-2Mi": "4Mi"}}}
    found = shown(usage(POD, pod(gpu)))
    assert found["requests.example.com/gpu"] == 2 and found["hugepages-2Mi"] == 4 * 2**20


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"type": "ClusterIP", "ports": [{}]}, {}),
        ({"type": "NodePort", "ports": [{}, {}]}, {"services.nodeports": 2}),
        ({"type": "LoadBalancer", "ports": [{}]}, {"services.loadbalancers": 1, "services.nodeports": 1}),
        (
            {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False, "ports": [{}]},
            {"services.loadbalancers": 1, "services.nodeports": 0},
        ),
    ],
)
def test_services(spec: dict[str, Any], expected: dict[str, int]) -> None:
    assert shown(usage(SERVICE, {"spec": spec})) == {"count/services": 1, "services": 1, **expected}


def test_claims_by_class() -> None:
    claim = {"metadata": {}, "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}}
    found = shown(usage(CLAIM, claim))
    prefix = "gold.storageclass.storage.k8s.io/"
    assert (
        found[f"{prefix}persistentvolumeclaims"] == 1 and found[f"{prefix}requests.storage"] == found["requests.storage"] == 2**30
    )


def test_other_groups_are_only_counted() -> None:
    assert shown(usage(builtin("Deployment"), {"spec": {}})) == {"count/deployments.apps": 1}


@pytest.mark.parametrize(
    ("scope", "found", "expected"),
    [
        ("BestEffort", pod(container()), True),
        ("BestEffort", pod(container("1")), False),
        ("NotBestEffort", pod(container("1")), True),
        ("Terminating", pod(activeDeadlineSeconds=5), True),
        ("NotTerminating", pod(activeDeadlineSeconds=5), False),
    ],
)
def test_scopes(scope: str, found: dict[str, Any], expected: bool) -> None:
    assert matches({"spec": {"scopes": [scope]}}, POD, found) is expected


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [("In", ["high"], True), ("NotIn", ["high"], False), ("Exists", [], True), ("DoesNotExist", [], False)],
)
def test_priority_classes(operator: str, values: list[str], expected: bool) -> None:
    term = {"scopeName": "PriorityClass", "operator": operator, "values": values}
    quota = {"spec": {"scopeSelector": {"matchExpressions": [term]}}}
    assert matches(quota, POD, pod(priorityClassName="high")) is expected
    assert matches(quota, SERVICE, {}) is False


def test_charged_kinds() -> None:
    names = ["count/deployments.apps", "services.nodeports", "requests.storage", "limits.cpu", "secrets"]
    assert charged_kinds(names) == {"deployments.apps", "services", "persistentvolumeclaims", "pods", "secrets"}
