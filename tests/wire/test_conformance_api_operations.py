"""Every kind through what upstream's "API operations" conformance tests do with it: one walk, one row per kind."""

from __future__ import annotations

import json
import threading
import time
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.wire.whole_server import WholeServer

Object = dict[str, Any]
_POD = {"containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]}
_TEMPLATE = {"metadata": {"labels": {"app": "x"}}, "spec": _POD}
_SELECTED = {"selector": {"matchLabels": {"app": "x"}}, "template": _TEMPLATE}
_JOB = {"template": {"spec": {**_POD, "restartPolicy": "Never"}}}
_CONDITION = {"type": "StatusPatched", "status": "True", "reason": "E2E", "message": "Set from an e2e test"}
_DATED = {**_CONDITION, "lastTransitionTime": "2026-01-01T00:00:00Z"}
_BALANCER = {"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}
_RULES = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["podtemplates"]}]
_HOOK = {
    "name": "a.example.com",
    "clientConfig": {"url": "https://127.0.0.1:9/x"},
    "rules": _RULES,
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
    "failurePolicy": "Ignore",
    "namespaceSelector": {"matchLabels": {"nobody": "here"}},
}
_DEVICES = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "none.example.com"}}]}}


@dataclass(frozen=True)
class Row:
    """`body` without names; what `status` says is patched and put at .../status; kinds without a namespace have `cluster`."""

    path: str
    body: Object = field(default_factory=dict)
    status: Object | None = None
    cluster: bool = False
    names: tuple[str, ...] = ()
    # The strategy of its status resets metadata (ResetObjectMetaForStatus).
    plain_status: bool = False

    @property
    def kind(self) -> str:
        return self.path.rpartition("/")[2]


def _rows() -> list[Row]:
    return [
        Row("api/v1/configmaps", {"data": {"a": "b"}}),
        Row("api/v1/secrets", {"data": {"a": "Yg=="}, "type": "Opaque"}),
        Row("api/v1/serviceaccounts"),
        Row("api/v1/podtemplates", {"template": _TEMPLATE}),
        Row("api/v1/limitranges", {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
        Row("api/v1/resourcequotas", {"spec": {"hard": {"pods": "5"}}}, {"hard": {"pods": "5"}, "used": {"pods": "3"}}),
        Row("api/v1/pods", {"spec": _POD}, {"message": "Patched by e2e test", "reason": "E2E"}),
        Row(
            "api/v1/services",
            {
                "spec": {
                    "ports": [{"port": 80}],
                    "selector": {"a": "b"},
                    "type": "LoadBalancer",
                    "loadBalancerClass": "example.com/vip",
                }
            },
            _BALANCER,
        ),
        Row("api/v1/endpoints", {"subsets": [{"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80}]}]}),
        Row(
            "api/v1/replicationcontrollers",
            {"spec": {"replicas": 0, "selector": {"app": "x"}, "template": _TEMPLATE}},
            {"conditions": [_CONDITION]},
        ),
        Row(
            "api/v1/persistentvolumeclaims",
            {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}},
            {"conditions": [_CONDITION]},
        ),
        Row(
            "api/v1/persistentvolumes",
            {
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "capacity": {"storage": "1Gi"},
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": "nobody",
                    "hostPath": {"path": "/tmp/nowhere"},
                }
            },
            {"message": "StatusPatched", "reason": "E2E"},
            cluster=True,
        ),
        Row("api/v1/events", {"involvedObject": {"namespace": "$ns", "name": "x"}, "reason": "Test", "type": "Normal"}),
        Row(
            "apis/events.k8s.io/v1/events",
            {
                "regarding": {"namespace": "$ns"},
                "reason": "Test",
                "action": "Do",
                "note": "n",
                "type": "Normal",
                "eventTime": "2017-09-19T13:49:16.000000Z",
                "reportingController": "test-controller",
                "reportingInstance": "test-node",
            },
        ),
        Row("apis/apps/v1/deployments", {"spec": {"replicas": 0, **_SELECTED}}, {"conditions": [_CONDITION]}),
        Row("apis/apps/v1/replicasets", {"spec": {"replicas": 0, **_SELECTED}}, {"conditions": [_CONDITION]}),
        Row(
            "apis/apps/v1/statefulsets", {"spec": {"replicas": 0, "serviceName": "s", **_SELECTED}}, {"conditions": [_CONDITION]}
        ),
        Row("apis/apps/v1/daemonsets", {"spec": _SELECTED}, {"conditions": [_CONDITION]}),
        Row("apis/apps/v1/controllerrevisions", {"revision": 1, "data": {"spec": {"x": 1}}}),
        Row("apis/batch/v1/jobs", {"spec": {"suspend": True, **_JOB}}, {"conditions": [_DATED]}),
        Row(
            "apis/batch/v1/cronjobs",
            {"spec": {"schedule": "* */1 * * *", "suspend": True, "jobTemplate": {"spec": _JOB}}},
            {"lastScheduleTime": "2026-01-01T00:00:00Z"},
        ),
        Row(
            "apis/autoscaling/v2/horizontalpodautoscalers",
            {"spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "x", "apiVersion": "apps/v1"}}},
            {"currentReplicas": 1, "desiredReplicas": 1},
        ),
        Row(
            "apis/autoscaling/v1/horizontalpodautoscalers",
            {"spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "x", "apiVersion": "apps/v1"}}},
        ),
        Row(
            "apis/policy/v1/poddisruptionbudgets",
            {"spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}},
            {"currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 1, "expectedPods": 1},
        ),
        Row(
            "apis/networking.k8s.io/v1/ingresses",
            {"spec": {"defaultBackend": {"service": {"name": "d", "port": {"number": 80}}}}},
            _BALANCER,
        ),
        Row("apis/networking.k8s.io/v1/ingressclasses", {"spec": {"controller": "example.com/controller"}}, cluster=True),
        Row("apis/networking.k8s.io/v1/networkpolicies", {"spec": {"podSelector": {}}}),
        Row(
            "apis/networking.k8s.io/v1/servicecidrs",
            {"spec": {"cidrs": ["10.9$i.0.0/24"]}},
            {"conditions": [_DATED]},
            plain_status=True,
            cluster=True,
        ),
        Row(
            "apis/networking.k8s.io/v1/ipaddresses",
            {"spec": {"parentRef": {"resource": "services", "namespace": "$ns", "name": "foo"}}},
            cluster=True,
            names=("192.168.7.1", "192.168.7.2", "192.168.7.3"),
        ),
        Row(
            "apis/discovery.k8s.io/v1/endpointslices",
            {"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4"]}], "ports": [{"name": "p", "port": 80}]},
        ),
        Row("apis/storage.k8s.io/v1/storageclasses", {"provisioner": "e2e-fake-provisioner"}, cluster=True),
        Row("apis/storage.k8s.io/v1/csidrivers", {"spec": {"attachRequired": True}}, cluster=True),
        Row("apis/storage.k8s.io/v1/csinodes", {"spec": {"drivers": []}}, cluster=True),
        Row("apis/storage.k8s.io/v1/csistoragecapacities", {"storageClassName": "x"}),
        Row(
            "apis/storage.k8s.io/v1/volumeattachments",
            {"spec": {"attacher": "e2e.example.com", "nodeName": "n", "source": {"persistentVolumeName": "p"}}},
            {"attached": True},
            cluster=True,
            plain_status=True,
        ),
        Row(
            "apis/storage.k8s.io/v1/volumeattributesclasses",
            {"driverName": "e2e-fake-csi-driver", "parameters": {"a": "b"}},
            cluster=True,
        ),
        Row("apis/coordination.k8s.io/v1/leases", {"spec": {"holderIdentity": "h", "leaseDurationSeconds": 30}}),
        Row("apis/node.k8s.io/v1/runtimeclasses", {"handler": "conformance-handler"}, cluster=True),
        Row("apis/scheduling.k8s.io/v1/priorityclasses", {"value": 100}, cluster=True),
        Row("api/v1/nodes", {}, {"conditions": [_CONDITION]}, cluster=True),
        Row("api/v1/namespaces", {}, {"conditions": [_DATED]}, cluster=True),
        Row("apis/rbac.authorization.k8s.io/v1/roles", {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        Row(
            "apis/rbac.authorization.k8s.io/v1/rolebindings",
            {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}},
        ),
        Row("apis/rbac.authorization.k8s.io/v1/clusterroles", {"rules": []}, cluster=True),
        Row(
            "apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}},
            cluster=True,
        ),
        Row(
            "apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
            {
                "spec": {
                    "matchingPrecedence": 10000,
                    "priorityLevelConfiguration": {"name": "global-default"},
                    "distinguisherMethod": {"type": "ByUser"},
                    "rules": [
                        {
                            "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
                            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                        }
                    ],
                }
            },
            {"conditions": [{**_DATED, "type": "Dangling", "status": "False"}]},
            cluster=True,
            plain_status=True,
        ),
        Row(
            "apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            {"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}},
            {"conditions": [_DATED]},
            cluster=True,
            plain_status=True,
        ),
        Row("apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", {"webhooks": [_HOOK]}, cluster=True),
        Row("apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", {"webhooks": [_HOOK]}, cluster=True),
        Row(
            "apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
            {
                "spec": {
                    "matchConstraints": {"resourceRules": _RULES, "namespaceSelector": {"matchLabels": {"nobody": "x"}}},
                    "validations": [{"expression": "object.spec.replicas <= 100"}],
                }
            },
            {"conditions": [_DATED]},
            plain_status=True,
            cluster=True,
        ),
        Row(
            "apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
            {"spec": {"policyName": "replicalimit-policy.example.com", "validationActions": ["Deny"]}},
            cluster=True,
        ),
        Row(
            "apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies",
            {
                "spec": {
                    "matchConstraints": {"resourceRules": _RULES, "namespaceSelector": {"matchLabels": {"nobody": "x"}}},
                    "reinvocationPolicy": "Never",
                    "mutations": [
                        {
                            "patchType": "ApplyConfiguration",
                            "applyConfiguration": {"expression": 'Object{metadata: Object.metadata{labels: {"a": "b"}}}'},
                        }
                    ],
                }
            },
            cluster=True,
        ),
        Row(
            "apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings",
            {"spec": {"policyName": "nobody.example.com"}},
            cluster=True,
        ),
        Row("apis/resource.k8s.io/v1/deviceclasses", {"spec": {}}, cluster=True),
        Row("apis/resource.k8s.io/v1/resourceclaims", {"spec": _DEVICES}, {"allocation": {"devices": {}}}, plain_status=True),
        Row("apis/resource.k8s.io/v1/resourceclaimtemplates", {"spec": {"spec": _DEVICES}}),
        Row(
            "apis/resource.k8s.io/v1/resourceslices",
            {
                "spec": {
                    "driver": "d.example.com",
                    "nodeName": "n",
                    "pool": {"name": "p$i", "resourceSliceCount": 1, "generation": 1},
                    "devices": [],
                }
            },
            cluster=True,
        ),
    ]


class Watch:
    """The events of a path, read by a thread until the server ends the watch."""

    def __init__(self, server: WholeServer, path: str) -> None:
        self.events: list[Object] = []
        self._connection = server.connect()
        self._connection.request("GET", f"/{path}&watch=true&timeoutSeconds=25")
        answer = self._connection.getresponse()
        assert answer.status == 200, answer.read()

        def read() -> None:
            while line := answer.readline():
                self.events.append(json.loads(line))

        threading.Thread(target=read, daemon=True).start()

    def until(self, kind: str, name: str, having: Object | None = None) -> None:
        deadline = time.monotonic() + 10
        while True:
            for event in list(self.events):
                meta = event["object"]["metadata"]
                annotations = meta.get("annotations", {})
                if event["type"] == kind and meta["name"] == name and (having or {}).items() <= annotations.items():
                    return
            assert time.monotonic() < deadline, f"no {kind} of {name} with {having}: {self.events}"
            time.sleep(0.02)


class Walk:
    def __init__(self, server: WholeServer, row: Row) -> None:
        self.server, self.row = server, row
        root, _, resource = row.path.rpartition("/")
        self.ns = f"ops-{resource}-{root.removeprefix('apis/').replace('/', '-').split('.')[0]}"
        if row.cluster:
            self.path = row.path
        else:
            self.path = f"{root}/namespaces/{self.ns}/{resource}"
            assert server.call("POST", "/api/v1/namespaces", {"metadata": {"name": self.ns}})[0] == 201
        self.chosen = f"special-label={self.ns}"

    def ask(self, method: str, path: str, body: Object | None = None, *, code: int = 200, merge: bool = False) -> Object:
        headers = {"Content-Type": "application/merge-patch+json"} if merge else {}
        answered, _, found = self.server.call(method, f"/{path}", body, headers)
        assert answered == code, f"{method} {path}: {answered}\n{found}"
        assert isinstance(found, dict)
        return found

    def names(self) -> list[str]:
        return list(self.row.names) or [
            f"{self.ns}-{i}.example.com" if "polic" in self.row.kind else f"{self.ns[:50]}-{i}" for i in range(3)
        ]

    def create(self, name: str, number: int) -> Object:
        text = json.dumps(self.row.body).replace("$ns", self.ns).replace("$i", str(number))
        labels = {"special-label": self.ns}
        if self.row.kind == "ipaddresses":
            labels |= {"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "e2e"}
        found = self.ask("POST", self.path, {**json.loads(text), "metadata": {"name": name, "labels": labels}}, code=201)
        assert found["metadata"]["name"] == name
        assert found["metadata"]["uid"] and found["metadata"]["creationTimestamp"]
        return found

    def listed(self) -> list[str]:
        found = self.ask("GET", f"{self.path}?labelSelector={self.chosen}")
        assert found["kind"].endswith("List")
        return sorted(item["metadata"]["name"] for item in found["items"])


@pytest.mark.parametrize("row", [pytest.param(row, id=row.path) for row in _rows()])
def test_operations(row: Row, server: WholeServer) -> None:
    walk = Walk(server, row)
    first, second, third = walk.names()
    root, _, resource = row.path.rpartition("/")
    served = {found["name"]: found for found in walk.ask("GET", root)["resources"]}
    assert served[resource]["namespaced"] is not row.cluster
    assert (f"{resource}/status" in served) or row.status is None
    revision = walk.ask("GET", f"{walk.path}?labelSelector={walk.chosen}")["metadata"]["resourceVersion"]
    watch = Watch(server, f"{walk.path}?labelSelector={walk.chosen}&resourceVersion={revision}")
    for number, name in enumerate(walk.names()):
        walk.create(name, number)
    assert walk.ask("GET", f"{walk.path}/{first}")["metadata"]["name"] == first
    assert walk.listed() == sorted(walk.names())
    if not row.cluster:
        everywhere = walk.ask("GET", f"{row.path}?labelSelector={walk.chosen}")["items"]
        assert sorted(item["metadata"]["name"] for item in everywhere) == sorted(walk.names())
        assert walk.ask("GET", f"{row.path}?fieldSelector=metadata.namespace%3D{walk.ns}&labelSelector={walk.chosen}")["items"]
    only = walk.ask("GET", f"{walk.path}?fieldSelector=metadata.name%3D{second}")["items"]
    assert [item["metadata"]["name"] for item in only] == [second]

    patched = walk.ask("PATCH", f"{walk.path}/{first}", {"metadata": {"annotations": {"patched": "true"}}}, merge=True)
    assert patched["metadata"]["annotations"]["patched"] == "true"
    watch.until("ADDED", first)
    watch.until("MODIFIED", first, {"patched": "true"})
    updated = _updated(walk, f"{walk.path}/{first}", "updated")
    assert updated["metadata"]["annotations"]["updated"] == "true"
    watch.until("MODIFIED", first, {"updated": "true"})
    if row.status is not None:
        _status(walk, f"{walk.path}/{first}", row.status, marked=not row.plain_status)
        if not row.plain_status:
            watch.until("MODIFIED", first, {"patchedstatus": "true"})

    deleted = walk.ask("DELETE", f"{walk.path}/{first}")
    assert deleted["kind"] == "Status" or deleted["metadata"]["name"] == first
    watch.until("DELETED", first)
    walk.ask("GET", f"{walk.path}/{first}", code=404)
    assert walk.listed() == sorted([second, third])
    if resource != "namespaces":
        listed = walk.ask("DELETE", f"{walk.path}?labelSelector={walk.chosen}")
        assert listed["kind"].endswith("List")
    else:
        for name in (second, third):
            walk.ask("DELETE", f"{walk.path}/{name}")
    for name in (second, third):
        watch.until("DELETED", name)
    assert walk.listed() == []
    order = [event["type"] for event in watch.events if event["object"]["metadata"]["name"] == first]
    assert order[0] == "ADDED" and order[-1] == "DELETED" and set(order[1:-1]) == {"MODIFIED"}


def _updated(walk: Walk, path: str, mark: str) -> Object:
    """A PUT of what was read, again when somebody was faster, as clients do."""
    for _ in range(5):
        found = walk.ask("GET", path.removesuffix("/status"))
        found["metadata"].setdefault("annotations", {})[mark] = "true"
        code, _, answer = walk.server.call("PUT", f"/{path}", found)
        if code != 409:
            assert code == 200, answer
            return dict(answer)
    raise AssertionError(f"five conflicts at {path}")


def _status(walk: Walk, path: str, status: Object, *, marked: bool) -> None:
    read = walk.ask("GET", f"{path}/status")
    assert read["kind"] == walk.ask("GET", path)["kind"]
    body = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": deepcopy(status)}
    patched = walk.ask("PATCH", f"{path}/status", body, merge=True)
    assert ("patchedstatus" in patched["metadata"]["annotations"]) is marked
    _holds(status, patched["status"])
    updated = _updated(walk, f"{path}/status", "updatedstatus")
    assert ("updatedstatus" in updated["metadata"]["annotations"]) is marked


def _holds(wanted: Any, found: Any) -> None:
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            _holds(value, found[key])
    elif isinstance(wanted, list):
        assert len(wanted) == len(found)
        for pair in zip(wanted, found, strict=True):
            _holds(*pair)
    else:
        assert wanted == found
