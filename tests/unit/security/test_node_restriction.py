"""What a node may write: its own objects, and not everything in those."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.server.apiserver.admission.node_restriction import NodeRestriction
from k1s.server.apiserver.attributes import AdmissionRequest, UserInfo

NODE = UserInfo("system:node:n1", ("system:nodes", "system:authenticated"))
MIRROR = {"kubernetes.io/config.mirror": "h"}


def node(name: str = "n1", labels: dict[str, str] | None = None, taints: list[Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": {"taints": taints or [], **spec}}


def pod(on: str = "n1", annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    meta = {"name": "p", "namespace": "ns", "annotations": annotations or {}}
    return {"metadata": meta, "spec": {"nodeName": on, "containers": [], **spec}}


def lease(name: str = "n1", namespace: str = "kube-node-lease") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {}}


def token(**reference: str) -> dict[str, Any]:
    return {"metadata": {"name": "sa", "namespace": "ns"}, "spec": {"boundObjectRef": {"apiVersion": "v1", **reference}}}


def secret_pod() -> dict[str, Any]:
    return pod(annotations=MIRROR, volumes=[{"name": "v", "secret": {"secretName": "s"}}])


def asking(audience: str = "", **change: str) -> dict[str, Any]:
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-pods-ns-p", **change}
    spec = {"boundObjectRef": reference, "audiences": [audience] if audience else []}
    return {"metadata": {"name": "sa", "namespace": "ns"}, "spec": spec}


def certificate(**change: str) -> dict[str, Any]:
    spec = {"nodeName": "n1", "podName": "p", "podUID": "uid-pods-ns-p", "serviceAccountName": "default", **change}
    return {"metadata": {"name": "c", "namespace": "ns"}, "spec": spec}


OWN_LABELS = {"kubernetes.io/hostname": "n1", "example.com/rack": "7", "node.kubernetes.io/instance-type": "pi"}
TAINT = [{"key": "k", "effect": "NoSchedule"}]
OK = ""

# kind, subresource, operation, object, old, part of the refusal
CASES: list[tuple[str, str, str, Any, Any, str]] = [
    ("Node", "", "CREATE", node(labels=OWN_LABELS, taints=TAINT), None, OK),
    ("Node", "", "CREATE", node("n2"), None, 'node "n1" is not allowed to modify node "n2"'),
    (
        "Node",
        "",
        "CREATE",
        node(labels={"node-role.kubernetes.io/master": ""}),
        None,
        "is not allowed to set the following labels",
    ),
    ("Node", "", "UPDATE", node(labels={"node-restriction.kubernetes.io/x": "1"}), node(), "is not allowed to modify labels"),
    ("Node", "", "UPDATE", node(taints=TAINT), node(), "is not allowed to modify taints"),
    ("Node", "", "UPDATE", node(), node(taints=TAINT), "is not allowed to modify taints"),
    ("Node", "", "CREATE", node(podCIDR="10.42.0.0/16"), None, "spec.podCIDR"),
    ("Node", "", "UPDATE", node(podCIDRs=["0.0.0.0/0"]), node(), "spec.podCIDR"),
    ("Node", "", "UPDATE", node(podCIDR="10.42.1.0/24", podCIDRs=["10.42.1.0/24"]), node(podCIDR="10.42.1.0/24"), "spec.podCIDR"),
    ("Node", "", "UPDATE", node(podCIDR="10.42.1.0/24"), node(podCIDR="10.42.1.0/24"), OK),
    ("Node", "status", "UPDATE", node(), node(), OK),
    ("Node", "", "DELETE", None, node(), "is not allowed to delete itself"),
    ("Pod", "", "CREATE", pod(annotations=MIRROR), None, OK),
    ("Pod", "", "CREATE", pod(), None, "can only create mirror pods"),
    ("Pod", "", "CREATE", pod("n2", MIRROR), None, "can only create pods with spec.nodeName set to itself"),
    ("Pod", "", "CREATE", secret_pod(), None, "can not create pods that reference secrets"),
    ("Pod", "", "DELETE", None, pod(), OK),
    ("Pod", "", "DELETE", None, pod("n2"), "can only delete pods with spec.nodeName set to itself"),
    ("Pod", "status", "UPDATE", pod(), pod(), OK),
    ("Pod", "status", "UPDATE", pod("n2"), pod("n2"), "can only update pod status"),
    ("Pod", "binding", "CREATE", pod(), None, "unexpected pod subresource"),
    ("Pod", "eviction", "CREATE", pod(), pod("n2"), "can only evict pods"),
    ("ServiceAccount", "token", "CREATE", token(kind="Pod", name="p", uid="uid-pods-ns-p"), None, OK),
    ("ServiceAccount", "token", "CREATE", token(kind="Pod", name="far", uid="uid-pods-ns-far"), None, "a different node"),
    ("ServiceAccount", "token", "CREATE", token(kind="Pod", name="p"), None, "without a uid"),
    ("ServiceAccount", "token", "CREATE", token(kind="Secret", name="s"), None, "not bound to a pod"),
    ("ServiceAccount", "token", "CREATE", asking("vault"), None, OK),
    ("ServiceAccount", "token", "CREATE", asking("driver"), None, OK),
    ("ServiceAccount", "token", "CREATE", asking("other"), None, 'audience "other" not found in pod spec volume'),
    ("PodCertificateRequest", "", "CREATE", certificate(), None, OK),
    ("PodCertificateRequest", "", "CREATE", certificate(nodeName="n2"), None, "which is not the requesting node"),
    ("PodCertificateRequest", "", "CREATE", certificate(podUID="x"), None, "that does not exist"),
    ("PodCertificateRequest", "", "CREATE", certificate(podName="far", podUID="uid-pods-ns-far"), None, "is not running on node"),
    ("PodCertificateRequest", "", "CREATE", certificate(serviceAccountName="root"), None, "another service account"),
    ("Lease", "", "UPDATE", lease(), lease(), OK),
    ("Lease", "", "CREATE", lease("n2"), None, "same name as the requesting node"),
    ("Lease", "", "CREATE", lease(namespace="kube-system"), None, '"kube-node-lease" system namespace'),
    ("CSINode", "", "CREATE", {"metadata": {"name": "n2"}}, None, "same name as the requesting node"),
    ("ResourceSlice", "", "CREATE", {"metadata": {"name": "s"}, "spec": {"nodeName": "n2"}}, None, "spec.nodeName"),
    ("PersistentVolumeClaim", "", "UPDATE", lease("c", "ns"), lease("c", "ns"), "unexpected operation"),
]


@pytest.mark.parametrize(("kind", "sub", "operation", "obj", "old", "text"), CASES)
async def test_nodes(informers: Any, kind: str, sub: str, operation: str, obj: Any, old: Any, text: str) -> None:
    informers.put("Node", "n1")
    volumes = [
        {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault"}}, {"serviceAccountToken": {}}]}},
        {"name": "c", "csi": {"driver": "d"}},
    ]
    informers.put("CSIDriver", "d", spec={"tokenRequests": [{"audience": "driver"}]})
    informers.put("Pod", "p", "ns", spec={"nodeName": "n1", "volumes": volumes})
    informers.put("Pod", "far", "ns", spec={"nodeName": "n2"})
    resource = builtin(kind)
    meta = (old if obj is None else obj)["metadata"]
    subresource = resource.subresource(sub) if sub else None
    request = AdmissionRequest(operation, resource, subresource, meta.get("namespace", ""), meta["name"], obj, old, NODE)
    step = NodeRestriction(informers)
    if text == OK:
        await step.validate(request)
    else:
        with pytest.raises(ApiError) as caught:
            await step.validate(request)
        assert caught.value.code == 403
        assert text in caught.value.message
    # Nobody else is concerned.
    request.user = UserInfo("u", ("system:authenticated",))
    await step.validate(request)
