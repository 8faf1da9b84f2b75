"""Who may do what: the default roles, the node authorizer and RBAC's corners, as a matrix."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.api.catalog import builtin, builtin_catalog
from k1s.api.errors import ApiError
from k1s.base.http import Request
from k1s.server.apiserver import request_info
from k1s.server.apiserver.attributes import ANONYMOUS, RequestInfo, UserInfo
from k1s.server.apiserver.authz.app import Authorizer
from k1s.server.apiserver.authz.node import NodeAuthorizer
from k1s.server.apiserver.authz.rbac import RbacAuthorizer
from k1s.server.defaults import rbac as defaults


def ask(verb: str, what: str, namespace: str = "", name: str = "", **more: Any) -> RequestInfo:
    """`what`: "pods", "pods/log", "deployments.apps", "/version"."""
    if what.startswith("/"):
        return RequestInfo(False, what, verb)
    resource, _, subresource = what.partition("/")
    plural, _, group = resource.partition(".")
    return RequestInfo(True, "/", verb, group, "v1", plural, subresource, namespace, name, **more)


def user(name: str, *groups: str) -> UserInfo:
    return UserInfo(name, (*groups, "system:authenticated"))


def account(name: str, namespace: str) -> UserInfo:
    return user(f"system:serviceaccount:{namespace}:{name}", "system:serviceaccounts", f"system:serviceaccounts:{namespace}")


NODE = user("system:node:n1", "system:nodes")


@pytest.fixture
def authorizer(informers: Any) -> Authorizer:
    for obj in defaults.objects():
        informers.informer(builtin(obj["kind"])).put(obj)
    return Authorizer(RbacAuthorizer(informers), NodeAuthorizer(informers, defaults.node_rules()))


def bind(informers: Any, role: str, subject: str, namespace: str = "", kind: str = "ClusterRole") -> None:
    who, _, name = subject.partition(":")
    entry = {"kind": who, "name": name}
    if who == "ServiceAccount":
        entry["namespace"], entry["name"] = name.split(":")
    informers.put(
        "RoleBinding" if namespace else "ClusterRoleBinding",
        f"{role}-{subject}".replace(":", "-"),
        namespace,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        subjects=[entry],
    )


MATRIX = [
    (user("root", "system:masters"), ask("delete", "nodes", name="n"), True),
    (user("root", "system:masters"), ask("get", "/anything"), True),
    (ANONYMOUS, ask("get", "/version"), True),
    (ANONYMOUS, ask("get", "/livez"), True),
    (ANONYMOUS, ask("get", "/api"), False),
    (ANONYMOUS, ask("get", "/metrics"), False),
    (ANONYMOUS, ask("list", "pods", "default"), False),
    (user("u"), ask("get", "/apis/apps/v1"), True),
    (user("u"), ask("post", "/apis/apps/v1"), False),
    (user("u"), ask("create", "selfsubjectaccessreviews.authorization.k8s.io"), True),
    (user("u"), ask("create", "subjectaccessreviews.authorization.k8s.io"), False),
    (user("u"), ask("get", "pods", "default", "p"), False),
    (user("m", "system:monitoring"), ask("get", "/metrics"), True),
    (user("m", "system:monitoring"), ask("get", "/livez/ping"), True),
    (account("default", "x"), ask("get", "/openid/v1/jwks"), True),
    (account("default", "x"), ask("get", "secrets", "x", "s"), False),
    (account("job-controller", "kube-system"), ask("create", "pods", "x"), True),
    (account("job-controller", "kube-system"), ask("update", "jobs.batch/status", "x", "j"), True),
    (account("job-controller", "kube-system"), ask("delete", "jobs.batch", "x", "j"), False),
    (account("disruption-controller", "kube-system"), ask("get", "statefulsets.apps/scale", "x", "s"), True),
    (account("disruption-controller", "kube-system"), ask("update", "statefulsets.apps/scale", "x", "s"), False),
    (account("job-controller", "other"), ask("create", "pods", "x"), False),
    (user("system:kube-scheduler"), ask("create", "pods/binding", "x", "p"), True),
    (user("system:kube-scheduler"), ask("update", "leases.coordination.k8s.io", "kube-system", "kube-scheduler"), True),
    (user("system:kube-scheduler"), ask("update", "leases.coordination.k8s.io", "x", "other"), False),
    (user("system:kube-scheduler"), ask("create", "leases.coordination.k8s.io", "kube-system"), True),
    (user("system:kube-scheduler"), ask("get", "configmaps", "kube-system", "extension-apiserver-authentication"), True),
    (user("system:kube-scheduler"), ask("get", "configmaps", "default", "extension-apiserver-authentication"), False),
    (user("viewer"), ask("get", "pods/log", "n", "p"), True),
    (user("viewer"), ask("get", "secrets", "n", "s"), False),
    (user("viewer"), ask("get", "pods", "other", "p"), False),
    (user("viewer"), ask("create", "deployments.apps", "n"), False),
    (user("editor"), ask("create", "deployments.apps", "n"), True),
    (user("editor"), ask("get", "secrets", "n", "s"), True),
    (user("editor"), ask("create", "pods/exec", "n", "p"), True),
    (user("editor"), ask("create", "roles.rbac.authorization.k8s.io", "n"), False),
    (user("editor"), ask("update", "endpoints", "n", "e"), False),
    (user("adm"), ask("create", "roles.rbac.authorization.k8s.io", "n"), True),
    (user("adm"), ask("get", "pods", "n", "p"), True),
    (user("adm"), ask("delete", "namespaces", "n", "n"), False),
    (NODE, ask("list", "services"), True),
    (NODE, ask("watch", "endpointslices.discovery.k8s.io"), True),
    (NODE, ask("create", "nodes"), True),
    (NODE, ask("patch", "nodes/status", name="n1"), True),
    (NODE, ask("delete", "nodes", name="n1"), False),
    (NODE, ask("get", "secrets", "a", "used"), True),
    (NODE, ask("get", "secrets", "b", "used"), False),
    (NODE, ask("get", "secrets", "a", "unused"), False),
    (NODE, ask("list", "secrets", "a"), False),
    (NODE, ask("get", "secrets", "a", "elsewhere"), False),
    (NODE, ask("watch", "configmaps", "a", "settings"), True),
    (NODE, ask("update", "configmaps", "a", "settings"), False),
    (NODE, ask("get", "configmaps", "a", "finished"), False),
    (NODE, ask("get", "persistentvolumeclaims", "a", "data"), True),
    (NODE, ask("get", "persistentvolumeclaims", "a", "p-scratch"), True),
    (NODE, ask("get", "persistentvolumes", name="pv-1"), True),
    (NODE, ask("get", "persistentvolumes", name="pv-2"), False),
    (NODE, ask("get", "secrets", "csi", "publish"), True),
    (NODE, ask("create", "serviceaccounts/token", "a", "worker"), True),
    (NODE, ask("create", "serviceaccounts/token", "a", "other"), False),
    (NODE, ask("update", "leases.coordination.k8s.io", "kube-node-lease", "n1"), True),
    (NODE, ask("update", "leases.coordination.k8s.io", "kube-node-lease", "n2"), False),
    (NODE, ask("create", "leases.coordination.k8s.io", "kube-node-lease"), True),
    (NODE, ask("get", "leases.coordination.k8s.io", "kube-system", "n1"), False),
    (NODE, ask("get", "csinodes.storage.k8s.io", name="n2"), False),
    (user("system:node:", "system:nodes"), ask("get", "secrets", "a", "used"), False),
    (user("n1", "system:nodes"), ask("get", "secrets", "a", "used"), False),
    (user("system:node:n1"), ask("get", "secrets", "a", "used"), False),
]


def pod(informers: Any, name: str, node: str, spec: dict[str, Any], phase: str = "Running", namespace: str = "a") -> None:
    informers.put("Pod", name, namespace, spec={"nodeName": node, **spec}, status={"phase": phase})


@pytest.fixture
def cluster(informers: Any) -> None:
    for role, name in (("view", "viewer"), ("edit", "editor"), ("admin", "adm")):
        bind(informers, role, f"User:{name}", "n")
    env = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "used", "key": "k"}}}]
    volumes = [
        {"name": "v", "configMap": {"name": "settings"}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "scratch", "ephemeral": {}},
    ]
    containers = [{"name": "c", "env": env}]
    pod(informers, "p", "n1", {"containers": containers, "volumes": volumes, "serviceAccountName": "worker"})
    pod(informers, "q", "n2", {"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "elsewhere"}}]}]})
    done = [{"name": "v", "configMap": {"name": "finished"}}]
    pod(informers, "r", "n1", {"containers": [], "volumes": done}, phase="Succeeded")
    informers.put("PersistentVolumeClaim", "data", "a", spec={"volumeName": "pv-1"})
    csi = {"nodePublishSecretRef": {"name": "publish", "namespace": "csi"}}
    informers.put("PersistentVolume", "pv-1", spec={"csi": csi})
    informers.put("PersistentVolume", "pv-2", spec={})


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("who", "info", "wanted"), MATRIX, ids=lambda v: f"{v.name}" if isinstance(v, UserInfo) else None)
def test_matrix(authorizer: Authorizer, who: UserInfo, info: RequestInfo, wanted: bool) -> None:
    assert authorizer.decide(who, info)[0] is wanted, (who.name, info)


def test_matrix_has_no_row_that_a_role_for_everyone_would_pass() -> None:
    assert sum(1 for *_, wanted in MATRIX if not wanted) > len(MATRIX) / 3


async def test_refusals_are_worded_as_upstream(authorizer: Authorizer) -> None:
    log = 'pods "p" is forbidden: User "u" cannot get resource "pods/log" in API group "" in the namespace "n"'
    every = 'deployments.apps is forbidden: User "u" cannot list resource "deployments" in API group "apps" at the cluster scope'
    cases = {
        log: ask("get", "pods/log", "n", "p"),
        every: ask("list", "deployments.apps"),
        'forbidden: User "u" cannot get path "/metrics"': ask("get", "/metrics"),
    }
    for text, info in cases.items():
        with pytest.raises(ApiError) as caught:
            await authorizer.authorize(user("u"), info)
        assert (caught.value.code, caught.value.reason, caught.value.message) == (403, "Forbidden", text)


async def test_a_node_is_told_why(authorizer: Authorizer) -> None:
    with pytest.raises(ApiError, match="no relationship found between node 'n1' and this object"):
        await authorizer.authorize(NODE, ask("get", "secrets", "a", "x"))


def test_changes_take_effect_at_once(authorizer: Authorizer, informers: Any) -> None:
    info = ask("get", "secrets", "n", "s")
    assert not authorizer.decide(user("u"), info)[0]
    bind(informers, "edit", "User:u", "n")
    assert authorizer.decide(user("u"), info)[0]
    informers.drop("RoleBinding", "edit-User-u", "n")
    assert not authorizer.decide(user("u"), info)[0]


def test_a_binding_to_an_absent_role_is_named_in_the_reason(authorizer: Authorizer, informers: Any) -> None:
    bind(informers, "nowhere", "User:u")
    good, reason = authorizer.decide(user("u"), ask("get", "pods", "n", "p"))
    assert (good, reason) == (False, 'RBAC: clusterrole.rbac.authorization.k8s.io "nowhere" not found')


def test_resource_names(authorizer: Authorizer, informers: Any) -> None:
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"], "resourceNames": ["a"]}
    informers.put("Role", "one", "n", rules=[rule])
    bind(informers, "one", "ServiceAccount:n:sa", "n", kind="Role")
    who = account("sa", "n")
    assert authorizer.decide(who, ask("get", "configmaps", "n", "a"))[0]
    assert not authorizer.decide(who, ask("get", "configmaps", "n", "b"))[0]
    assert not authorizer.decide(who, ask("list", "configmaps", "n"))[0]
    assert authorizer.decide(who, ask("list", "configmaps", "n", "a"))[0]  # ?fieldSelector=metadata.name=a
    assert not authorizer.decide(who, ask("get", "configmaps", "m", "a"))[0]


def test_a_role_binding_does_not_reach_cluster_scope(authorizer: Authorizer, informers: Any) -> None:
    bind(informers, "cluster-admin", "User:u", "n")
    assert authorizer.decide(user("u"), ask("delete", "pods", "n", "p"))[0]
    assert not authorizer.decide(user("u"), ask("list", "pods"))[0]
    assert not authorizer.decide(user("u"), ask("get", "/metrics"))[0]


def test_the_cache_is_bounded(authorizer: Authorizer) -> None:
    for number in range(1500):
        authorizer.decide(user(f"u{number}"), ask("get", "pods", "n", "p"))
    assert len(authorizer.rbac._cache) <= 1024


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("metadata.name=a", "a"),
        ("metadata.name==a,spec.x=y", "a"),
        ("spec.x!=y\\,metadata.name=a", ""),
        ("spec.x=y\\,metadata.name=a", ""),
        ("metadata.name!=a", ""),
        ("metadata.name=..", ""),
        ("metadata.name=a%2fb", ""),
    ],
)
def test_a_list_of_one_name_is_read_as_the_handler_reads_it(query: str, name: str) -> None:
    request = Request("GET", "/api/v1/namespaces/n/configmaps", [("fieldSelector", query)])
    assert request_info.parse(request, builtin_catalog()).name == name


def test_nodes_do_not_smuggle_their_selector_into_a_value(authorizer: Authorizer) -> None:
    def slices(selector: str) -> bool:
        return authorizer.decide(NODE, ask("list", "resourceslices.resource.k8s.io", field_selector=selector))[0]

    assert slices("spec.nodeName=n1")
    assert slices("spec.driver=d,spec.nodeName==n1")
    assert not slices("spec.driver!=d\\,spec.nodeName=n1")
    assert not slices("spec.nodeName!=n1")


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (ask("list", "nodes"), "node 'n1' cannot read all nodes, only its own Node object"),
        (ask("get", "nodes", name="n2"), "node 'n1' cannot read 'n2', only its own Node object"),
        (ask("get", "nodes", name="n1"), ""),
        (ask("list", "pods"), "can only list/watch pods with spec.nodeName field selector"),
        (ask("list", "pods", field_selector="spec.nodeName=n1"), ""),
        (ask("get", "pods", "a", "other"), "no relationship found between node 'n1' and this object"),
        (ask("create", "pods", "a"), ""),
        (ask("list", "persistentvolumes"), "can only get individual resources of this type"),
        (ask("list", "configmaps"), "can only read namespaced object of this type"),
        (ask("create", "serviceaccounts", "a", "x"), "can only create token subresource of serviceaccount"),
    ],
)
def test_what_the_node_authorizer_alone_says(informers: Any, info: RequestInfo, reason: str) -> None:
    node = NodeAuthorizer(informers, defaults.node_rules())
    assert node.allowed(NODE, info) == (not reason, reason)


def test_the_reason_for_a_yes(authorizer: Authorizer, informers: Any) -> None:
    bind(informers, "view", "ServiceAccount:x:reader", "n")
    why = authorizer.rbac.why(account("reader", "x"), ask("get", "pods", "n", "p"))
    name = "view-ServiceAccount-x-reader"
    assert why == f'RBAC: allowed by RoleBinding "{name}/n" of ClusterRole "view" to ServiceAccount "reader/x"'
    why = authorizer.rbac.why(user("u"), ask("get", "/api"))
    assert why == (
        'RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" to Group "system:authenticated"'
    )


def test_strangers_fill_no_memory_with_names_that_they_invent(authorizer: Authorizer, informers: Any) -> None:
    anybody = UserInfo("eve", ("system:authenticated",))
    for number in range(50):
        invented = RequestInfo(True, "", "get", f"g{number}", "v1", f"r{number}", "", "a")
        assert not authorizer.decide(anybody, invented)[0]
        authorizer.decide(anybody, RequestInfo(True, "", "get", "", "v1", "pods", "", f"{number}" * 2000))
    cache = authorizer.rbac._cache
    assert len(cache) == 1 and all(not rules._known for rules, _ in cache.values())
    allowed = RequestInfo(True, "", "create", "authorization.k8s.io", "v1", "selfsubjectaccessreviews")
    bind(informers, "system:basic-user", "eve")
    assert authorizer.decide(anybody, allowed)[0] and authorizer.decide(anybody, allowed)[0]
    assert any(rules._known for rules, _ in cache.values())
