"""What a kubelet may do: a fixed set of rules, and secrets, config maps, claims and volumes only of its own pods.

Owns: NodeAuthorizer. Called by: authz/app. Never does: restrict what a node writes into its objects (admission/node_restriction).
Source: upstream plugin/pkg/auth/authorizer/node. Where upstream keeps a graph, the few pods of the node are looked
through at each question: at most some hundred, found by index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from k1s.api.catalog import builtin
from k1s.client.interface import InformerFactory, Object
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.authz.references import config_map_names, pod_claims, secret_names
from k1s.server.apiserver.authz.rules import RuleSet

NODES_GROUP = "system:nodes"
NODE_PREFIX = "system:node:"
_INDEX = "authz-node"

_READ = {("", "configmaps"), ("", "secrets"), ("", "persistentvolumeclaims"), ("", "persistentvolumes")}


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
        """The answer for resources that depend on the node's pods, None for all others."""
        resource, sub = (info.group, info.plural), info.subresource
        if resource == ("", "persistentvolumeclaims") and sub == "status":
            good = info.verb in ("update", "patch") and self._related(node, self._pod_has_claim(info.namespace, info.name))
            return good, "" if good else _unrelated(node)
        if resource in _READ:
            return self._read(node, info)
        if resource == ("", "serviceaccounts"):
            return self._service_account(node, info)
        if resource == ("coordination.k8s.io", "leases"):
            return self._own_lease(node, info)
        if resource == ("storage.k8s.io", "csinodes"):
            return self._own(
                node, info, ("create", "get", "update", "patch", "delete"), "can only access CSINode with the same name"
            )
        if resource == ("storage.k8s.io", "volumeattachments"):
            attachment = self._attachments.get(info.name) if info.name else None
            good = info.verb == "get" and attachment is not None and attachment["spec"].get("nodeName") == node
            return good, "" if good else _unrelated(node)
        if resource == ("resource.k8s.io", "resourceclaims") and not sub:
            good = info.verb == "get" and self._related(node, _has_resource_claim(info.namespace, info.name))
            return good, "" if good else _unrelated(node)
        if resource == ("resource.k8s.io", "resourceslices"):
            return self._slice(node, info)
        return None

    def _read(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.subresource:
            return False, "can only read resources of this type"
        # A kubelet that watches does so by name, one object at a time.
        if info.verb not in ("get", "list", "watch") or (info.plural.startswith("persistent") and info.verb != "get"):
            return False, "can only read resources of this type"
        if not info.name:
            return False, "can only read resources of this type" if info.verb == "get" else "No Object name found"
        namespace, name = info.namespace, info.name
        checks: dict[str, Callable[[Object], bool]] = {
            "secrets": lambda pod: _namespace(pod) == namespace and name in secret_names(pod),
            "configmaps": lambda pod: _namespace(pod) == namespace and name in config_map_names(pod),
            "persistentvolumeclaims": self._pod_has_claim(namespace, name),
            "persistentvolumes": lambda pod: self._pod_has_volume(pod, name),
        }
        good = self._related(node, checks[info.plural])
        if not good and info.plural == "secrets":
            good = self._related(node, lambda pod: self._volume_secret(pod, namespace, name))
        return good, "" if good else _unrelated(node)

    def _service_account(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.subresource != "token" or info.verb != "create":
            if info.verb == "get" and not info.subresource:  # image credential providers ask for the account's annotations
                good = self._related(node, _runs_as(info.namespace, info.name))
                return good, "" if good else _unrelated(node)
            return False, "can only create tokens for individual service accounts"
        if not info.name:
            return False, "can only create tokens for individual service accounts"
        good = self._related(node, _runs_as(info.namespace, info.name))
        return good, "" if good else _unrelated(node)

    def _own_lease(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.namespace != "kube-node-lease":
            return False, 'can only access leases in the "kube-node-lease" system namespace'
        return self._own(
            node,
            info,
            ("get", "create", "update", "patch", "delete"),
            "can only access node lease with the same name as the requesting node",
        )

    def _own(self, node: str, info: RequestInfo, verbs: tuple[str, ...], text: str) -> tuple[bool, str]:
        if info.verb not in verbs or info.subresource:
            return False, f"can only {', '.join(verbs[:-1])}, or {verbs[-1]} this"
        # A create has its name in the body only; admission (node_restriction) looks there.
        if info.name != node and not (info.verb == "create" and not info.name):
            return False, text
        return True, ""

    def _slice(self, node: str, info: RequestInfo) -> tuple[bool, str]:
        if info.verb == "create":
            return True, ""  # admission checks spec.nodeName
        if info.verb in ("list", "watch", "deletecollection"):
            good = f"spec.nodeName={node}" in info.field_selector.split(",")
            return good, "" if good else "can only list/watch/deletecollection resourceslices with nodeName field selector"
        found = self._slices.get(info.name)
        good = found is not None and found["spec"].get("nodeName") == node
        return good, "" if good else _unrelated(node)

    def _related(self, node: str, check: Callable[[Object], bool]) -> bool:
        return any(check(pod) for pod in self._pods.by_index(_INDEX, node) if not _finished(pod))

    def _pod_has_claim(self, namespace: str, name: str) -> Callable[[Object], bool]:
        return lambda pod: _namespace(pod) == namespace and name in pod_claims(pod)

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


def _unrelated(node: str) -> str:
    return f"no relationship found between node '{node}' and this object"
