"""The default roles and bindings as objects, from the tables beside this file.

Owns: their metadata (labels, autoupdate) and the aggregation of admin, edit and view. Called by: bootstrap.
Never does: write them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k1s.server.defaults import controller_roles, system_roles, user_roles
from k1s.server.defaults.notation import Rule, rules

Object = dict[str, Any]

API_VERSION = "rbac.authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_BOOTSTRAPPING = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"


def node_rules() -> list[Rule]:
    """What the node authorizer lets every node do."""
    return rules(system_roles.NODE)


def objects() -> Iterator[Object]:
    """Every default ClusterRole, ClusterRoleBinding, Role and RoleBinding."""
    yield _cluster_role("cluster-admin", rules(user_roles.CLUSTER_ADMIN))
    yield from _aggregated()
    for name, lines in system_roles.CLUSTER_ROLES.items():
        yield _cluster_role(name, rules(lines))
    for name, subjects in system_roles.CLUSTER_BINDINGS.items():
        yield _binding("ClusterRoleBinding", name, "", ("ClusterRole", name), subjects)
    for controller, lines in controller_roles.CONTROLLERS.items():
        name = f"system:controller:{controller}"
        yield _cluster_role(name, rules(lines))
        account = f"ServiceAccount:kube-system:{controller}"
        yield _binding("ClusterRoleBinding", name, "", ("ClusterRole", name), (account,))
    for (namespace, name), lines in system_roles.ROLES.items():
        yield {"apiVersion": API_VERSION, "kind": "Role", "metadata": _metadata(name, namespace), "rules": rules(lines)}
    for (namespace, name), (role, subjects) in system_roles.ROLE_BINDINGS.items():
        yield _binding("RoleBinding", name, namespace, ("Role", role), subjects)


def _aggregated() -> Iterator[Object]:
    parts = {name: rules(lines) for name, lines in user_roles.AGGREGATED.items()}
    # The aggregation controller comes to the same result; computed here so that the roles hold from the first request on.
    view = parts["system:aggregate-to-view"]
    edit = [*parts["system:aggregate-to-edit"], *view]
    whole = {"view": view, "edit": edit, "admin": [*edit, *parts["system:aggregate-to-admin"]]}
    for name, content in {**parts, **whole}.items():
        role = _cluster_role(name, content)
        for target in user_roles.LABELS.get(name, ()):
            role["metadata"]["labels"][_AGGREGATE + target] = "true"
        if name in user_roles.AGGREGATORS:
            selector = {"matchLabels": {_AGGREGATE + user_roles.AGGREGATORS[name]: "true"}}
            role["aggregationRule"] = {"clusterRoleSelectors": [selector]}
        yield role


def _metadata(name: str, namespace: str = "") -> Object:
    out: Object = {"name": name, "labels": dict(_BOOTSTRAPPING), "annotations": {AUTOUPDATE: "true"}}
    if namespace:
        out["namespace"] = namespace
    return out


def _cluster_role(name: str, content: list[Rule]) -> Object:
    return {"apiVersion": API_VERSION, "kind": "ClusterRole", "metadata": _metadata(name), "rules": content}


def _binding(kind: str, name: str, namespace: str, role: tuple[str, str], subjects: tuple[str, ...]) -> Object:
    out: Object = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": _metadata(name, namespace),
        "roleRef": {"apiGroup": GROUP, "kind": role[0], "name": role[1]},
    }
    if subjects:
        out["subjects"] = [_subject(text) for text in subjects]
    return out


def _subject(text: str) -> Object:
    kind, _, name = text.partition(":")
    if kind == "ServiceAccount":
        namespace, _, account = name.partition(":")
        return {"kind": kind, "name": account, "namespace": namespace}
    return {"apiGroup": GROUP, "kind": kind, "name": name}
