"""Every route and verb of discovery, and paths that are no resources: who may and who may not.

Each question is a request through the whole chain (parsing, authentication's result, authorization, routing); where it would be
carried out, a stand-in answers 299. What people's roles hold is said a second time below, as Kubernetes documents them, without
looking at our tables; what everybody may is kept in tests/golden/authorization/matrix.txt (K1S_GOLDEN=write makes it anew).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from k1s.api.catalog import builtin
from k1s.base import pki
from k1s.base.clock import REAL_CLOCK
from k1s.base.http import Answer, Request, Response
from k1s.client.rest import RestClient
from k1s.client.transport import LocalTransport
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import ANONYMOUS, UserInfo
from k1s.server.bootstrap import ensure_defaults
from k1s.server.config import ServerConfig
from k1s.server.security import Security
from k1s.storage.memory import MemoryStore

GOLDEN = Path(__file__).parents[2] / "golden" / "authorization" / "matrix.txt"
READ, WRITE = {"get", "list", "watch"}, {"create", "delete", "deletecollection", "patch", "update"}
METHODS = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE"}


def user(name: str, *groups: str) -> UserInfo:
    return UserInfo(name, (*groups, "system:authenticated"))


ROOT = user("root", "system:masters")
WHO = {
    "anonymous": ANONYMOUS,
    "nobody": user("nobody"),
    "account": user("system:serviceaccount:n:default", "system:serviceaccounts", "system:serviceaccounts:n"),
    "view": user("viewer"),
    "edit": user("editor"),
    "admin": user("owner"),
    "cluster-admin": user("boss"),
    "node": user("system:node:x", "system:nodes"),
    "other-node": user("system:node:y", "system:nodes"),
    "no-node": user("jane", "system:nodes"),
    "bootstrapper": user("system:bootstrap:abcdef", "system:bootstrappers"),
    "scheduler": user("system:kube-scheduler"),
    "controller-manager": user("system:kube-controller-manager"),
    "proxy": user("system:kube-proxy"),
    "monitoring": user("prometheus", "system:monitoring"),
}
PATHS = (
    "/",
    "/api",
    "/apis",
    "/apis/apps",
    "/api/v1",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/apis/apps/v1",
    "/version",
    "/healthz",
    "/livez",
    "/readyz",
    "/livez/ping",
    "/readyz/ping",
    "/metrics",
    "/statusz",
    "/flagz",
    "/debug/pprof/",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
    "/nothing",
)


class Matrix:
    """An API server with default roles, in which nothing is ever carried out."""

    def __init__(self) -> None:
        config = ServerConfig(data_dir=Path("/nonexistent"))
        self.security = security = Security(config, REAL_CLOCK, [pki.new_key()])
        self.store = MemoryStore()
        self.server = ApiServer(
            self.store,
            authenticator=security,
            authorizer=security,
            config=config,
            handlers=security.handlers(),
            paths=security.paths(),
        )
        self.client = RestClient(LocalTransport(self.server.handle, ROOT))

    async def start(self) -> asyncio.Task[None]:
        await self.store.open()
        loaded = asyncio.Event()
        task = asyncio.create_task(self.server.run(loaded.set))
        await loaded.wait()
        self.server.admission = self.security.attach(self.server.informers, self.client)
        where = {"advertise_address": "192.0.2.1", "client_ca": b"CA", "request_header_ca": b"RH"}
        await ensure_defaults(self.client, self.server.informers, self.server.config, **where)
        await self._bind("RoleBinding", "view", "viewer", "n")
        await self._bind("RoleBinding", "edit", "editor", "n")
        await self._bind("RoleBinding", "admin", "owner", "n")
        await self._bind("ClusterRoleBinding", "cluster-admin", "boss")
        await self._bind("ClusterRoleBinding", "system:node-bootstrapper", "system:bootstrappers", kind="Group")
        return task

    async def _bind(self, binding: str, role: str, name: str, namespace: str = "", kind: str = "User") -> None:
        group = "rbac.authorization.k8s.io"
        if namespace:
            found = self.server.informers.informer(builtin("Namespace")).get(namespace)
            if found is None:
                await self.client.create(builtin("Namespace"), {"metadata": {"name": namespace}})
        await self.client.create(
            builtin(binding),
            {
                "metadata": {"name": f"{role}-test", "namespace": namespace},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": group, "kind": kind, "name": name}],
            },
            namespace,
        )

    def freeze(self) -> None:
        find = self.server._registry.find

        async def stand_in(*_: Any) -> Answer:
            return Response(299)

        def found(info: Any) -> Any:
            find(info)
            return stand_in

        self.server._registry.find = found  # type: ignore[method-assign]

    async def json(self, path: str) -> Any:
        answer = await self.server.handle(Request("GET", path, raw_path=path, context={"user": ROOT}))
        assert isinstance(answer, Response)
        return orjson.loads(answer.body)

    async def routes(self) -> list[tuple[str, str, bool, tuple[str, ...]]]:
        """(path of the group and version, resource[/subresource], namespaced, verbs), as discovery tells them."""
        groups = (await self.json("/apis"))["groups"]
        bases = ["/api/v1", *(f"/apis/{version['groupVersion']}" for group in groups for version in group["versions"])]
        out = []
        for base in bases:
            for row in (await self.json(base))["resources"]:
                out.append((base, row["name"], row["namespaced"], tuple(row["verbs"])))
        return out

    async def may(self, who: UserInfo, method: str, path: str, query: tuple[tuple[str, str], ...] = ()) -> bool:
        answer = await self.server.handle(Request(method, path, query, raw_path=path, context={"user": who}))
        status = answer.status if isinstance(answer, Response) else 200
        assert status not in (401, 500), (who, method, path, answer)
        return status != 403


@pytest.fixture
async def matrix() -> AsyncIterator[Matrix]:
    made = Matrix()
    task = await made.start()
    made.freeze()
    yield made
    task.cancel()
    await made.store.close()


def place(base: str, name: str, namespace: str, verb: str) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """The request for a verb on a resource; its object is called x."""
    resource, _, subresource = name.partition("/")
    path = f"{base}/namespaces/{namespace}/{resource}" if namespace else f"{base}/{resource}"
    if verb not in ("create", "list", "watch", "deletecollection") or subresource:
        path += "/x"
    if subresource:
        path += f"/{subresource}"
    return METHODS.get(verb, "GET"), path, (("watch", "1"),) if verb == "watch" else ()


def label(base: str, name: str) -> str:
    group = base.removeprefix("/api/v1").removeprefix("/apis/")
    resource, _, subresource = name.partition("/")
    return f"{resource}{'.' + group if group else ''}{'/' + subresource if subresource else ''}"


async def gathered(matrix: Matrix, namespace: str) -> dict[str, dict[str, set[str]]]:
    """Who -> resource -> verbs. What is not namespaced is asked for without one."""
    out: dict[str, dict[str, set[str]]] = {who: {} for who in WHO}
    for base, name, namespaced, verbs in await matrix.routes():
        for verb in verbs:
            method, path, query = place(base, name, namespace if namespaced else "", verb)
            for who, identity in WHO.items():
                if await matrix.may(identity, method, path, query):
                    out[who].setdefault(label(base, name), set()).add(verb)
    return out


def lines(found: dict[str, dict[str, set[str]]], everything: dict[str, set[str]]) -> Iterator[str]:
    for who, rights in found.items():
        yield f"{who}:"
        for resource in sorted(rights):
            verbs = "*" if rights[resource] == everything[resource] else " ".join(sorted(rights[resource]))
            yield f"  {resource} = {verbs}"


async def test_matrix_of_resources(matrix: Matrix) -> None:
    everything = {label(base, name): set(verbs) for base, name, _, verbs in await matrix.routes()}
    text = ["# in the namespace n, where roles are bound"]
    here = await gathered(matrix, "n")
    assert here["cluster-admin"] == everything
    text += lines({who: rights for who, rights in here.items() if who != "cluster-admin"}, everything)
    text.append("# in another namespace: what differs")
    for who, rights in (await gathered(matrix, "o")).items():
        lost = {resource: verbs - rights.get(resource, set()) for resource, verbs in here[who].items()}
        assert not {r for r, verbs in rights.items() if verbs - here[who].get(r, set())}, who
        text += [f"{who}: lacks {len([r for r in lost if lost[r]])} resources"] if any(lost.values()) else []
    text.append("# paths")
    for path in PATHS:
        allowed = [who for who, identity in WHO.items() if await matrix.may(identity, "GET", path)]
        text.append(f"{path}: {' '.join(allowed)}")
    shown = "\n".join(text) + "\n"
    if os.environ.get("K1S_GOLDEN") == "write":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(shown)
    assert shown == GOLDEN.read_text()


# The model: what Kubernetes says of its roles for people (docs: "User-facing roles").
SEEN = {
    "": "bindings configmaps endpoints events limitranges namespaces namespaces/status persistentvolumeclaims"
    " persistentvolumeclaims/status pods pods/log pods/status replicationcontrollers replicationcontrollers/scale"
    " replicationcontrollers/status resourcequotas resourcequotas/status serviceaccounts services services/status",
    "apps/v1": "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets"
    " replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    "autoscaling/v1": "horizontalpodautoscalers horizontalpodautoscalers/status",
    "autoscaling/v2": "horizontalpodautoscalers horizontalpodautoscalers/status",
    "batch/v1": "cronjobs cronjobs/status jobs jobs/status",
    "discovery.k8s.io/v1": "endpointslices",
    "networking.k8s.io/v1": "ingresses ingresses/status networkpolicies",
    "policy/v1": "poddisruptionbudgets poddisruptionbudgets/status",
    "resource.k8s.io/v1": "resourceclaims resourceclaims/status resourceclaimtemplates",
}
# Editors read these, too: who may run pods may have them mounted.
SEEN_BY_EDITORS = {"": "secrets pods/attach pods/exec pods/portforward pods/proxy services/proxy"}
CHANGED = {
    "": "configmaps events persistentvolumeclaims pods pods/attach pods/exec pods/portforward pods/proxy replicationcontrollers"
    " replicationcontrollers/scale secrets serviceaccounts services services/proxy",
    "apps/v1": "daemonsets deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
    "autoscaling/v1": "horizontalpodautoscalers",
    "autoscaling/v2": "horizontalpodautoscalers",
    "batch/v1": "cronjobs jobs",
    "coordination.k8s.io/v1": "leases",
    "networking.k8s.io/v1": "ingresses networkpolicies",
    "policy/v1": "poddisruptionbudgets",
    "resource.k8s.io/v1": "resourceclaims resourceclaimtemplates",
}
EVERYBODY = {
    "selfsubjectaccessreviews.authorization.k8s.io/v1",
    "selfsubjectrulesreviews.authorization.k8s.io/v1",
    "selfsubjectreviews.authentication.k8s.io/v1",
}


PEOPLE = ("nobody", "view", "edit", "admin")


def named(table: dict[str, str]) -> set[str]:
    return {label(f"/apis/{group}" if group else "/api/v1", name) for group, names in table.items() for name in names.split()}


def model(role: str, resource: str, verb: str) -> bool:
    """Whether a person with a role in the namespace may, said independently of the tables of roles."""
    if resource in EVERYBODY:
        return verb == "create"
    if role == "nobody":
        return False
    if verb in READ and resource in named(SEEN):
        return True
    if role == "view":
        return False
    if verb in READ and resource in named(SEEN_BY_EDITORS) | {"leases.coordination.k8s.io/v1"}:
        return True
    if verb in WRITE and resource in named(CHANGED):
        return True
    if verb == "create" and resource in ("pods/eviction", "serviceaccounts/token"):
        return True
    if role == "edit":
        return False
    if resource in ("roles.rbac.authorization.k8s.io/v1", "rolebindings.rbac.authorization.k8s.io/v1"):
        return True
    return resource == "localsubjectaccessreviews.authorization.k8s.io/v1"


async def test_people_may_what_their_roles_are_known_for(matrix: Matrix) -> None:
    wrong = []
    questions = [(route, role, verb) for route in await matrix.routes() for verb in route[3] for role in PEOPLE]
    for (base, name, namespaced, _), role, verb in questions:
        method, path, query = place(base, name, "n" if namespaced else "", verb)
        # A namespace is an object of itself: its own role reads it.
        if name.partition("/")[0] == "namespaces" and verb == "get":
            path = path.replace("/x", "/n")
        wanted = model(role, label(base, name), verb)
        if not namespaced and label(base, name) not in EVERYBODY:
            wanted = role != "nobody" and name in ("namespaces", "namespaces/status") and verb == "get"
        if await matrix.may(WHO[role], method, path, query) is not wanted:
            wrong.append((role, verb, label(base, name), f"wanted {wanted}"))
    assert not wrong


# As a viewer of the namespace n: may it be let through?
CROOKED = (
    ("/api/v1/namespaces/n/pods/x", True),
    ("/api/v1/namespaces/n//pods/x", True),
    ("/api/v1/namespaces/n/pods/x/", True),
    ("/api/v1/namespaces/n/secrets/x", False),
    ("/api/v1/namespaces/n/pods/../secrets/x", False),
    ("/api/v1/namespaces/n/pods/%2e%2e/secrets/x", False),
    ("/api/v1/namespaces/o/../n/pods/x", False),
    ("/api/v1/namespaces/n/pods/x/../../secrets/x", False),
    ("/api/v1/proxy/namespaces/n/pods/x", False),
    ("/api/v1/watch/namespaces/n/secrets", False),
    ("/API/V1/namespaces/n/pods/x", False),
    ("//api/v1/namespaces/n/secrets/x", False),
    ("/api//v1/namespaces/n/secrets/x", False),
    ("/healthz/../metrics", False),
    ("/openapi/../metrics", True),
)


async def test_paths_are_authorized_as_they_are_routed(matrix: Matrix) -> None:
    for path, allowed in CROOKED:
        answer = await matrix.server.handle(Request("GET", path, raw_path=path, context={"user": WHO["view"]}))
        status = answer.status if isinstance(answer, Response) else 200
        if allowed:
            assert status != 403, path
        else:
            assert status in (400, 403, 404, 405), (path, status)
        # What a rule for prefixes lets through must not be something else once it is answered.
        assert not isinstance(answer, Response) or b"apiserver_request_total" not in answer.body
