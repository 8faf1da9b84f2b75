"""A node writes its own objects only, and not everything in those.

Owns: NodeRestriction. Called by: admission/chain. Never does: decide what a node may read (authz/node).
Source: upstream plugin/pkg/admission/noderestriction.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from k1s.api.catalog import builtin
from k1s.base import pki
from k1s.client.interface import InformerFactory, Object
from k1s.server.apiserver.admission.service_account import MIRROR
from k1s.server.apiserver.admission.step import Step, refuse, subresource
from k1s.server.apiserver.attributes import AdmissionRequest
from k1s.server.apiserver.authz.node import NODE_PREFIX, NODES_GROUP, node_name
from k1s.server.apiserver.authz.references import config_map_names, pod_claims, secret_names

_OWN_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
    }
)
_OWN_LABEL_PREFIXES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_SERVING_SIGNERS = ("kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet")


class NodeRestriction(Step):
    resources = frozenset(
        {
            "pods",
            "nodes",
            "persistentvolumeclaims",
            "serviceaccounts",
            "leases.coordination.k8s.io",
            "csinodes.storage.k8s.io",
            "resourceslices.resource.k8s.io",
            "certificatesigningrequests.certificates.k8s.io",
            "podcertificaterequests.certificates.k8s.io",
        }
    )

    def __init__(self, informers: InformerFactory) -> None:
        self._pods = informers.informer(builtin("Pod"))
        self._nodes = informers.informer(builtin("Node"))
        self._claims = informers.informer(builtin("PersistentVolumeClaim"))
        self._volumes = informers.informer(builtin("PersistentVolume"))
        self._drivers = informers.informer(builtin("CSIDriver"))

    async def validate(self, request: AdmissionRequest) -> None:
        if NODES_GROUP not in request.user.groups:
            return
        node = node_name(request.user)
        if not node:
            raise refuse(request, f'could not determine node from user "{request.user.name}"')
        match request.resource.plural, subresource(request):
            case "pods", "":
                self._pod(request, node)
            case "pods", "status" | "resize":
                self._pod_status(request, node)
            case "pods", "eviction":
                self._own_pod(request, node, "evict pods")
            case "pods", other:
                raise refuse(request, f"unexpected pod subresource \"{other}\", only 'status' and 'eviction' are allowed")
            case "nodes", _:
                self._node(request, node)
            case "persistentvolumeclaims", sub:
                if sub != "status":
                    raise refuse(request, f'unexpected operation "{request.operation}"')
            case "serviceaccounts", "token":
                self._token(request, node)
            case "leases", _:
                self._named(request, node, "leases", "kube-node-lease")
            case "csinodes", _:
                self._named(request, node, "CSINode", "")
            case "resourceslices", _:
                self._slice(request, node)
            case "certificatesigningrequests", "":
                self._csr(request, node)
            case "podcertificaterequests", "":
                self._pod_certificate(request, node)

    def _pod(self, request: AdmissionRequest, node: str) -> None:
        if request.operation == "DELETE":
            self._own_pod(request, node, "delete pods")
            return
        pod = request.obj
        if request.operation != "CREATE" or pod is None:
            raise refuse(
                request, f'unexpected operation "{request.operation}", node "{node}" can only create and delete mirror pods'
            )
        if MIRROR not in (pod["metadata"].get("annotations") or {}):
            raise refuse(request, f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods')
        if pod["spec"].get("nodeName") != node:
            raise refuse(request, f'node "{node}" can only create pods with spec.nodeName set to itself')
        for owner in pod["metadata"].get("ownerReferences") or ():
            current = self._nodes.get(node)
            mine = current is not None and owner.get("uid") == current["metadata"]["uid"]
            if (owner.get("kind"), owner.get("name")) != ("Node", node) or not mine:
                raise refuse(request, f'node "{node}" can only create pods with an owner reference set to itself')
        for what, names in (
            ("service accounts", {pod["spec"].get("serviceAccountName")} - {None, ""}),
            ("secrets", secret_names(pod)),
            ("configmaps", config_map_names(pod)),
            ("persistentvolumeclaims", pod_claims(pod)),
        ):
            if names:
                raise refuse(request, f'node "{node}" can not create pods that reference {what}')

    def _pod_status(self, request: AdmissionRequest, node: str) -> None:
        new, old = request.obj or {}, request.old or {}
        if (old.get("spec") or {}).get("nodeName") != node:
            raise refuse(request, f'node "{node}" can only update pod status for pods with spec.nodeName set to itself')
        if (new.get("metadata") or {}).get("labels") != (old.get("metadata") or {}).get("labels"):
            raise refuse(request, f'node "{node}" cannot update labels through pod status')

    def _own_pod(self, request: AdmissionRequest, node: str, what: str) -> None:
        pod = request.old or self._pods.get(request.name, request.namespace)
        if pod is not None and (pod.get("spec") or {}).get("nodeName") != node:
            raise refuse(request, f'node "{node}" can only {what} with spec.nodeName set to itself')

    def _node(self, request: AdmissionRequest, node: str) -> None:
        if request.name != node:
            raise refuse(request, f'node "{node}" is not allowed to modify node "{request.name}"')
        new, old = request.obj or {}, request.old or {}
        if request.operation == "DELETE":
            raise refuse(request, f'node "{node}" is not allowed to delete itself')
        labels, before = ((o.get("metadata") or {}).get("labels") or {} for o in (new, old))
        changed = {key for key in labels.keys() | before.keys() if labels.get(key) != before.get(key)}
        forbidden = sorted(key for key in changed if _reserved(key))
        if forbidden:
            verb = "set the following labels" if request.operation == "CREATE" else "modify labels"
            raise refuse(request, f"is not allowed to {verb}: {', '.join(forbidden)}")
        # Not upstream's rule: others route a range to the node that has it, and the server dials pods through it.
        if _ranges(new) != _ranges(old):
            raise refuse(request, f'node "{node}" is not allowed to set or change spec.podCIDR and spec.podCIDRs')
        if request.operation == "UPDATE":
            if _taints(new) != _taints(old):
                raise refuse(request, f'node "{node}" is not allowed to modify taints')
            owners, owners_before = ((o.get("metadata") or {}).get("ownerReferences") or [] for o in (new, old))
            if owners != owners_before:
                raise refuse(request, f'node "{node}" is not allowed to modify ownerReferences')

    def _token(self, request: AdmissionRequest, node: str) -> None:
        reference = ((request.obj or {}).get("spec") or {}).get("boundObjectRef") or {}
        if reference.get("kind") != "Pod" or reference.get("apiVersion") != "v1" or not reference.get("name"):
            raise refuse(request, "node requested token not bound to a pod")
        if not reference.get("uid"):
            raise refuse(request, "node requested token with a pod binding without a uid")
        pod = self._pods.get(str(reference["name"]), request.namespace)
        if pod is None or pod["metadata"]["uid"] != reference["uid"]:
            raise refuse(request, "the UID in the bound object reference does not match the UID in record")
        if pod["spec"].get("nodeName") != node:
            raise refuse(request, "node requested token bound to a pod scheduled on a different node")
        audiences = ((request.obj or {}).get("spec") or {}).get("audiences") or [""]
        if len(audiences) > 1:
            raise refuse(request, "node may only request 0 or 1 audiences")
        if audiences[0] not in self._audiences(pod):
            text = (
                f'audience "{audiences[0]}" not found in pod spec volume, {request.user.name} is not authorized to request tokens'
            )
            raise refuse(request, f"{text} for this audience")

    def _audiences(self, pod: Object) -> set[str]:
        """Those that the pod's volumes name ("": the API's own), themselves or through their drivers (KEP-4412)."""
        out: set[str] = {""}
        drivers: set[Any] = set()
        for volume in pod["spec"].get("volumes") or ():
            for source in (volume.get("projected") or {}).get("sources") or ():
                out.add(str((source.get("serviceAccountToken") or {}).get("audience") or ""))
            drivers.add((volume.get("csi") or {}).get("driver"))
        for name in pod_claims(pod):
            claim = self._claims.get(name, pod["metadata"]["namespace"])
            held = self._volumes.get(str((claim or {}).get("spec", {}).get("volumeName") or "")) or {"spec": {}}
            drivers.add((held["spec"].get("csi") or {}).get("driver"))
        for name in drivers - {None}:
            driver = self._drivers.get(str(name)) or {"spec": {}}
            out.update(entry.get("audience") or "" for entry in driver["spec"].get("tokenRequests") or ())
        return out

    def _named(self, request: AdmissionRequest, node: str, what: str, namespace: str) -> None:
        name = request.name or ((request.obj or {}).get("metadata") or {}).get("name")
        if namespace and request.namespace != namespace:
            raise refuse(request, f'can only access {what} in the "{namespace}" system namespace')
        if name != node:
            raise refuse(request, f"can only access {what} with the same name as the requesting node")

    def _slice(self, request: AdmissionRequest, node: str) -> None:
        obj = request.obj if request.operation == "CREATE" else request.old
        if obj is not None and (obj.get("spec") or {}).get("nodeName") != node:
            raise refuse(request, "can only create or change a ResourceSlice with spec.nodeName set to the requesting node")

    def _csr(self, request: AdmissionRequest, node: str) -> None:
        if request.operation != "CREATE" or request.obj is None or request.obj["spec"].get("signerName") not in _SERVING_SIGNERS:
            return
        try:
            csr = pki.read_csr(base64.b64decode(request.obj["spec"].get("request") or ""))
        except (pki.PkiError, binascii.Error) as error:
            raise refuse(request, f"unable to parse csr: {error}") from error
        if csr.subject.common_name != NODE_PREFIX + node:
            raise refuse(request, "can only create a node CSR with CN=" + NODE_PREFIX + node)

    def _pod_certificate(self, request: AdmissionRequest, node: str) -> None:
        """A node asks for its own pods only, and says of them what is true."""
        if request.operation != "CREATE" or request.obj is None:
            raise refuse(request, f'unexpected operation "{request.operation}"')
        spec = request.obj.get("spec") or {}
        if spec.get("nodeName") != node:
            raise refuse(
                request,
                f'PodCertificateRequest.Spec.NodeName="{spec.get("nodeName")}", which is not the requesting node "{node}"',
            )
        pod = self._pods.get(str(spec.get("podName")), request.namespace)
        if pod is None or pod["metadata"]["uid"] != spec.get("podUID"):
            raise refuse(
                request, f'PodCertificateRequest for pod "{request.namespace}/{spec.get("podName")}" that does not exist'
            )
        if pod["spec"].get("nodeName") != node:
            raise refuse(request, f'pod "{request.namespace}/{spec.get("podName")}" is not running on node "{node}"')
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            raise refuse(request, "PodCertificateRequest is for a mirror pod")
        if (pod["spec"].get("serviceAccountName") or "default") != spec.get("serviceAccountName"):
            raise refuse(request, "PodCertificateRequest names another service account than the pod's")


def _taints(node: Object) -> list[Object]:
    return [{k: v for k, v in t.items() if k != "timeAdded"} for t in (node.get("spec") or {}).get("taints") or ()]


def _ranges(node: Object) -> tuple[Any, Any]:
    spec = node.get("spec") or {}
    return spec.get("podCIDR") or "", spec.get("podCIDRs") or []


def _reserved(label: str) -> bool:
    """Labels of Kubernetes' own domains that a node may not give itself (else it could attract others' pods)."""
    domain, slash, _ = label.partition("/")
    if not slash:
        return False
    if domain == "node-restriction.kubernetes.io" or domain.endswith(".node-restriction.kubernetes.io"):
        return True
    if not any(domain == own or domain.endswith("." + own) for own in ("kubernetes.io", "k8s.io")):
        return False
    if label in _OWN_LABELS:
        return False
    return not any(domain == prefix or domain.endswith("." + prefix) for prefix in _OWN_LABEL_PREFIXES)
