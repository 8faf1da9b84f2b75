"""Every API that the conformance suite only reads and writes: created, watched, patched, updated, its status too, deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .api import Api, Refused
from .conftest import Cluster, eventually

Object = dict[str, Any]
CONDITION = {"type": "E2E", "status": "True", "reason": "E2E", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}
CONDITIONS = {"conditions": [CONDITION]}
BACKEND = {"service": {"name": "s", "port": {"number": 80}}}
RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}

# path -> (object, status to write or None)
KINDS: dict[str, tuple[Object, Object | None]] = {
    "/apis/coordination.k8s.io/v1/namespaces/NS/leases": ({"spec": {"holderIdentity": "h", "leaseDurationSeconds": 30}}, None),
    "/apis/networking.k8s.io/v1/namespaces/NS/ingresses": (
        {"spec": {"defaultBackend": BACKEND}}, {"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}),
    "/apis/networking.k8s.io/v1/ingressclasses": ({"spec": {"controller": "example.com/c"}}, None),
    "/apis/networking.k8s.io/v1/namespaces/NS/networkpolicies": ({"spec": {"podSelector": {}}}, None),
    "/apis/networking.k8s.io/v1/servicecidrs": ({"spec": {"cidrs": ["10.253.0.0/24"]}}, CONDITIONS),
    "/apis/networking.k8s.io/v1/ipaddresses": (
        {"spec": {"parentRef": {"group": "", "resource": "services", "namespace": "default", "name": "x"}}}, None),
    "/apis/node.k8s.io/v1/runtimeclasses": ({"handler": "runc"}, None),
    "/apis/scheduling.k8s.io/v1/priorityclasses": ({"value": 7}, None),
    "/apis/storage.k8s.io/v1/storageclasses": ({"provisioner": "example.com/p"}, None),
    "/apis/storage.k8s.io/v1/csidrivers": ({"spec": {"attachRequired": True}}, None),
    "/apis/storage.k8s.io/v1/csinodes": ({"spec": {"drivers": []}}, None),
    "/apis/storage.k8s.io/v1/volumeattachments": (
        {"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}}, {"attached": True}),
    "/apis/storage.k8s.io/v1/namespaces/NS/csistoragecapacities": ({"storageClassName": "s"}, None),
    "/apis/policy/v1/namespaces/NS/poddisruptionbudgets": (
        {"spec": {"minAvailable": 1, "selector": {"matchLabels": {"x": "y"}}}}, CONDITIONS),
    "/apis/autoscaling/v2/namespaces/NS/horizontalpodautoscalers": (
        {"spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}}, CONDITIONS),
    "/apis/discovery.k8s.io/v1/namespaces/NS/endpointslices": (
        {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80}]}, None),
    "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas": (
        {"spec": {"matchingPrecedence": 9000, "priorityLevelConfiguration": {"name": "exempt"}, "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "u"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}}, CONDITIONS),
    "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations": (
        {"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}},
        CONDITIONS),
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies": (
        {"spec": {"matchConstraints": {"resourceRules": [RULE]}, "validations": [{"expression": "true"}]}}, CONDITIONS),
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings": (
        {"spec": {"policyName": "nothing", "validationActions": ["Deny"]}}, None),
    "/apis/apps/v1/namespaces/NS/controllerrevisions": ({"data": {"a": 1}, "revision": 1}, None),
    "/apis/apps/v1/namespaces/NS/statefulsets": (
        {"spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}}, CONDITIONS),
    "/apis/apps/v1/namespaces/NS/replicasets": (
        {"spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}}, CONDITIONS),
    "/api/v1/namespaces/NS/replicationcontrollers": (
        {"spec": {"replicas": 0, "selector": {"a": "b"}, "template": TEMPLATE}}, CONDITIONS),
    "/api/v1/namespaces/NS/podtemplates": ({"template": TEMPLATE}, None),
    "/api/v1/namespaces/NS/limitranges": ({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}}, None),
    "/api/v1/namespaces/NS/resourcequotas": ({"spec": {"hard": {"pods": "3"}}}, {"hard": {"pods": "3"}}),
    "/api/v1/namespaces/NS/services": ({"spec": {"ports": [{"port": 80}]}}, CONDITIONS),
    "/api/v1/namespaces/NS/endpoints": ({"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]}, None),
    "/api/v1/namespaces/NS/serviceaccounts": ({"automountServiceAccountToken": False}, None),
    "/api/v1/persistentvolumes": (
        {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "none",
                  "hostPath": {"path": "/tmp"}}}, {"message": "m", "reason": "E2E"}),
    "/apis/rbac.authorization.k8s.io/v1/namespaces/NS/roles": ({"rules": []}, None),
    "/apis/rbac.authorization.k8s.io/v1/clusterroles": ({"rules": []}, None),
}  # fmt: skip


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[Api]:
    made = Api(cluster)
    yield made
    made.close()


@pytest.fixture(scope="module")
def home(api: Api) -> Iterator[str]:
    api.post("/api/v1/namespaces", {"metadata": {"name": "kinds"}})
    yield "kinds"
    api.delete("/api/v1/namespaces/kinds")


def cidr_name(path: str) -> str:
    return "10.43.200.200" if path.endswith("ipaddresses") else "e2e-thing"


@pytest.mark.parametrize("path", KINDS, ids=lambda p: p.rpartition("/")[2])
def test_kind(api: Api, home: str, path: str) -> None:
    body, status = KINDS[path]
    path, name = path.replace("/NS/", f"/{home}/"), cidr_name(path)
    one = f"{path}/{name}"
    made = api.post(path, {"metadata": {"name": name, "labels": {"e2e": "yes"}}, **body})
    assert made["metadata"]["uid"] and made["kind"]
    start = api.get(path)["metadata"]["resourceVersion"]
    patched = api.patch(one, {"metadata": {"annotations": {"patched": "true"}}})
    assert patched["metadata"]["annotations"]["patched"] == "true"

    def update() -> Any:
        current = api.get(one)
        current["metadata"]["annotations"]["updated"] = "true"
        return api.put(one, current)

    assert retried(update)["metadata"]["annotations"]["updated"] == "true"
    if status is not None:
        key = next(iter(status))
        assert key in api.patch(f"{one}/status", {"status": status})["status"]

        def update_status() -> Any:
            current = api.get(f"{one}/status")
            current.setdefault("status", {}).update(status or {})
            return api.put(f"{one}/status", current)

        assert key in retried(update_status)["status"]
    assert name in [item["metadata"]["name"] for item in api.get(path, labelSelector="e2e=yes")["items"]]
    if home in path:
        everywhere = path.replace(f"/namespaces/{home}", "")
        assert name in [item["metadata"]["name"] for item in api.get(everywhere, labelSelector="e2e=yes")["items"]]
    api.delete(path, labelSelector="e2e=yes")
    eventually(lambda: not api.get(path, labelSelector="e2e=yes")["items"], 10)
    kinds = []
    for kind, _ in api.watch(path, 5, resourceVersion=start, labelSelector="e2e=yes"):
        kinds.append(kind)
        if kind == "DELETED":
            break
    assert kinds[0] == "MODIFIED" and kinds[-1] == "DELETED"


def retried(act: Any) -> Any:
    """A controller may be quicker than we are."""
    for _ in range(5):
        try:
            return act()
        except Refused as error:
            if error.code != 409:
                raise
    return act()
