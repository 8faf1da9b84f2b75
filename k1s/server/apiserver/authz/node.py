"""What a kubelet may do: a fixed set of rules, and secrets, config maps, claims and volumes only of its own pods.

Owns: NodeAuthorizer. Called by: authz/app. Never does: restrict what a node writes into its objects (admission/node_restriction).
Source: upstream plugin/pkg/auth/authorizer/node. Where upstream keeps a graph, the few pods of the node are looked
through at each question: at most some hundred, found by index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.api.selectors import parse_fields
from k1s.client.interface import InformerFactory, Object
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.authz.references import config_map_names, pod_claims, secret_names
from k1s.server.apiserver.authz.rules import RuleSet

NODES_GROUP = "system:nodes"
NODE_PREFIX = "system:node:"
_INDEX = "authz-node"

_OWN_VERBS = ("get", "create", "update", "patch", "delete")


def node_name(user: UserInfo) -> str:
    """The node that a user is, "" for anyone else."""
    if NODES_GROUP in user.groups and user.name.startswith(NODE_PREFIX):
        return user.name[len(NODE_PREFIX) :]
    return ""


class NodeAuthorizer:
    def __init__(self, informers: InformerFactory, rules: Iterable[dict[str, Any]]) -> None:
        """`rules`: what every node may do whatever runs on it (the rules of ClusterRole system:node)."""
        self._static = RuleSet(rules)
        self._pods = informers.informer(builtin("Pod"))
        self._pods.add_index(_INDEX, _node_of)
        self._claims = informers.informer(builtin("PersistentVolumeClaim"))
        self._volumes = informers.informer(builtin("PersistentVolume"))
        self._attachments = informers.informer(builtin("VolumeAttachment"))
        self._certificate_requests = informers.informer(builtin("PodCertificateRequest"))
        self._slices = informers.informer(builtin("ResourceSlice"))

    def allowed(self, user: UserInfo, info: RequestInfo) -> tuple[bool, str]:
        if NODES_GROUP not in user.groups:
            return False, ""
        node = node_name(user)
        if not node:
            return False, f'unknown node for user "{user.name}"'
        if info.is_resource:
            special = self._special(node, info)
            if special is not None:
                return special
            allowed = self._static.allows(info.verb, info.group, info.plural, info.subresource, info.name)
        else:
            allowed = self._static.allows_path(info.verb, info.path)
        return allowed, ""

    def _special(self, node: str, info: RequestInfo) -> tuple[bool, str] | None:
        """The answer for resources that depend on the node's name or its pods, None for all others."""
        match info.group, info.plural:
            case "", "secrets" | "configmaps":
                return self._read(node, info)
            case "", "persistentvolumeclaims" if info.subresource == "status":
                if info.verb not in ("update", "patch"):
                    return False, "can only get/update/patch this type"
                return self._object(node, info, self._pod_has_claim(info.namespace, info.name))
            case "", "persistentvolumeclaims":
                return self._get(node, info, self._pod_has_claim(info.namespace, info.name))
            case "", "persistentvolumes":
                return self._get(node, info, lambda pod: self._pod_has_volume(pod, info.name))
            case "resource.k8s.io", "resourceclaims":
                return self._get(node, info, _has_resource_claim(info.namespace, info.name))
            case "storage.k8s.io", "volumeattachments":
                return self._attachment(node, info)
            case "", "serviceaccounts":
                return self._service_account(node, info)
            case "coordination.k8s.io", "leases":
                return self._lease(node, info)
            case "storage.k8s.io", "csinodes":
                return self._csi_node(node, info)
            case "resource.k8s.io", "resourceslices":
                return self._slice(node, info)
            case "certificates.k8s.io", "podcertificaterequests" if not info.subresource:
                return self._certificate_request(node, info)
            case "", "nodes":
                return self._node(node, info)
            case "", "pods":
                return self._pod(node, info)
        return None

    def _get(self, node: str, info: RequestInfo, check: Callable[[Object], bool]) -> tuple[bool, str]:
        if info.verb != "get":
            return False, "can only get individual resources of this type"
        if info.subresource:
            return False, "cannot get subresource"
        return self._object(node, info, check)

    def _object(self, node: str, info: RequestInfo, check: Callable[[Object], bool]) -> tuple[bool, str]:
        if not info.name:
            return False, "No Object name found"
        good = self._related(node, check)
        return good, "" if good else _unrelated(node)

    def _read(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        # A kubelet that watches does so by name, one object at a time.
        if info.verb not in ("get", "list", "watch"):
            return False, "can only read resources of this type"
        if info.subresource:
            return False, "cannot read subresource"
        if not info.namespace:
            return False, "can only read namespaced object of this type"
        namespace, name = info.namespace, info.name
        if info.plural == "configmaps":
            return self._object(node, info, lambda pod: _namespace(pod) == namespace and name in config_map_names(pod))
        return self._object(node, info, lambda pod: self._pod_has_secret(pod, namespace, name))

    def _attachment(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.verb != "get":
            return False, "can only get individual resources of this type"
        if info.subresource:
            return False, "cannot get subresource"
        found = self._attachments.get(info.name) if info.name else None
        good = found is not None and found["spec"].get("nodeName") == node
        return good, "" if good else _unrelated(node)

    def _service_account(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.verb == "get" and not info.subresource:  # image credential providers ask for the account's annotations
            return self._object(node, info, _runs_as(info.namespace, info.name))
        if info.verb != "create" or not info.name:
            return False, "can only create tokens for individual service accounts"
        if info.subresource != "token":
            return False, "can only create token subresource of serviceaccount"
        return self._object(node, info, _runs_as(info.namespace, info.name))

    def _lease(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.verb not in _OWN_VERBS:
            return False, "can only get, create, update, patch, or delete a node lease"
        if info.namespace != "kube-node-lease":
            return False, 'can only access leases in the "kube-node-lease" system namespace'
        # A create has its name in the body only; admission (node_restriction) looks there.
        if info.verb != "create" and info.name != node:
            return False, "can only access node lease with the same name as the requesting node"
        return True, ""

    def _csi_node(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.verb not in _OWN_VERBS:
            return False, "can only get, create, update, patch, or delete a CSINode"
        if info.subresource:
            return False, "cannot authorize CSINode subresources"
        if info.verb != "create" and info.name != node:
            return False, "can only access CSINode with the same name as the requesting node"
        return True, ""

    def _slice(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.subresource:
            return False, "cannot authorize ResourceSlice subresources"
        if info.verb == "create":
            return True, ""  # admission checks spec.nodeName
        if info.verb in ("list", "watch", "deletecollection"):
            good = _selects(info.field_selector, "spec.nodeName", node)
            return good, "" if good else "can only list/watch/deletecollection resourceslices with nodeName field selector"
        if info.verb not in ("get", "update", "patch", "delete"):
            verbs = "get, watch, list, create, update, patch, delete, deletecollection"
            return False, f"only the following verbs are allowed for a ResourceSlice: {verbs}"
        if not info.name:
            return False, "No Object name found"
        found = self._slices.get(info.name)
        good = found is not None and found["spec"].get("nodeName") == node
        return good, "" if good else _unrelated(node)

    def _certificate_request(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.verb == "create":
            return True, ""  # admission checks the pod and its node
        if info.verb in ("list", "watch"):
            good = _selects(info.field_selector, "spec.nodeName", node)
            return good, "" if good else "can only list/watch podcertificaterequests with nodeName field selector"
        if info.verb != "get":
            return False, "only the following verbs are allowed for a PodCertificateRequest: get, watch, list, create"
        found = self._certificate_requests.get(info.name, info.namespace) if info.name else None
        good = found is not None and found["spec"].get("nodeName") == node
        return good, "" if good else _unrelated(node)

    def _node(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        """What a node writes into its object is admission's matter (node_restriction)."""
        if info.subresource == "status":
            return info.verb in ("update", "patch"), ""
        if info.subresource:
            return False, ""
        if info.verb in ("create", "update", "patch"):
            return True, ""
        if info.verb not in ("get", "list", "watch"):
            return False, ""
        if info.name == node:
            return True, ""
        if not info.name:
            return False, f"node '{node}' cannot read all nodes, only its own Node object"
        return False, f"node '{node}' cannot read '{info.name}', only its own Node object"

    def _pod(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        match info.subresource, info.verb:
            case ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create"):
                return True, ""
            case "", "list" | "watch" if _selects(info.field_selector, "spec.nodeName", node):
                return True, ""
            case "", "list" | "watch" if not info.name:
                return False, "can only list/watch pods with spec.nodeName field selector"
            case "", "get" | "list" | "watch":
                if not info.name:
                    return False, "No Object name found"
                found = self._pods.get(info.name, info.namespace)
                good = found is not None and node in _node_of(found)
                return good, "" if good else _unrelated(node)
        return False, ""

    def _related(self, node: str, check: Callable[[Object], bool]) -> bool:
        return any(check(pod) for pod in self._pods.by_index(_INDEX, node) if not _finished(pod))

    def _pod_has_claim(self, namespace: str, name: str) -> Callable[[Object], bool]:
        return lambda pod: _namespace(pod) == namespace and name in pod_claims(pod)

    def _pod_has_secret(self, pod: Object, namespace: str, name: str) -> bool:
        here = _namespace(pod) == namespace and name in secret_names(pod)
        return here or self._volume_secret(pod, namespace, name)

    def _pod_volumes(self, pod: Object) -> Iterator[Object]:
        for claim_name in pod_claims(pod):
            claim = self._claims.get(claim_name, _namespace(pod))
            volume = self._volumes.get(str((claim or {}).get("spec", {}).get("volumeName") or "")) if claim else None
            if volume is not None:
                yield volume

    def _pod_has_volume(self, pod: Object, name: str) -> bool:
        return any(volume["metadata"]["name"] == name for volume in self._pod_volumes(pod))

    def _volume_secret(self, pod: Object, namespace: str, name: str) -> bool:
        for volume in self._pod_volumes(pod):
            csi = volume["spec"].get("csi") or {}
            for key in ("nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"):
                reference = csi.get(key) or {}
                if (reference.get("namespace"), reference.get("name")) == (namespace, name):
                    return True
        return False


def _finished(pod: Object) -> bool:
    # A finished pod needs nothing any more, but its volumes may still be unmounted: keep it while it is being deleted.
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") and not pod["metadata"].get("deletionTimestamp")


def _node_of(pod: Object) -> Iterable[str]:
    node = (pod.get("spec") or {}).get("nodeName")
    return (node,) if node else ()


def _namespace(pod: Object) -> str:
    return str(pod["metadata"].get("namespace", ""))


def _runs_as(namespace: str, name: str) -> Callable[[Object], bool]:
    return lambda pod: _namespace(pod) == namespace and (pod["spec"].get("serviceAccountName") or "default") == name


def _has_resource_claim(namespace: str, name: str) -> Callable[[Object], bool]:
    def check(pod: Object) -> bool:
        if _namespace(pod) != namespace:
            return False
        named = [c.get("resourceClaimName") for c in pod["spec"].get("resourceClaims") or ()]
        made = [c.get("resourceClaimName") for c in (pod.get("status") or {}).get("resourceClaimStatuses") or ()]
        return name in named or name in made

    return check


def _selects(selector: str, field: str, value: str) -> bool:
    """Whether a field selector holds the term that this field has this value."""
    if field not in selector:
        return False
    try:
        terms = parse_fields(selector).requirements
    except ApiError:
        return False
    return any((term.field, term.operator, term.value) == (field, "=", value) for term in terms)


def _unrelated(node: str) -> str:
    return f"no relationship found between node '{node}' and this object"
