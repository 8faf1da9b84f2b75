"""A real aggregated API server behind a whole server: what its users see with kubectl, and whom it sees."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from k1s.base import pki
from tests.wire.conftest import TOOLS
from tests.wire.operators.flunders import FlunderServer
from tests.wire.operators.flunders_described import API_VERSION, BASE, GROUP, VERSION
from tests.wire.whole_server import WholeServer

Object = dict[str, Any]
NAME = f"{VERSION}.{GROUP}"
CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
# What it may do: read how to know the front proxy, and ask who may do what.
SETUP = f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: apiserver, namespace: wardle}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: wardle-auth-reader, namespace: kube-system}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}}
subjects: [{{kind: ServiceAccount, name: apiserver, namespace: wardle}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: wardle:system:auth-delegator}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:auth-delegator}}
subjects: [{{kind: ServiceAccount, name: apiserver, namespace: wardle}}]
---
apiVersion: v1
kind: Service
metadata: {{name: api, namespace: wardle}}
spec: {{type: ExternalName, externalName: localhost}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: flunder-admin, labels: {{rbac.authorization.k8s.io/aggregate-to-edit: "true"}}}}
rules: [{{apiGroups: [{GROUP}], resources: [flunders], verbs: ["*"]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: flunder-maker}}
rules: [{{apiGroups: [{GROUP}], resources: [flunders], verbs: [create, list]}}]
"""


def _flunder(name: str, **spec: str) -> str:
    return json.dumps({"apiVersion": API_VERSION, "kind": "Flunder", "metadata": {"name": name}, "spec": spec})


def _until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return found


class Cluster:
    """A whole server and the aggregated one behind it."""

    def __init__(self, server: WholeServer, wardle: FlunderServer) -> None:
        self.server, self.wardle = server, wardle
        self.kubectl = server.kubectl

    def condition(self) -> Object:
        _, _, obj = self.server.call("GET", f"/apis/apiregistration.k8s.io/v1/apiservices/{NAME}")
        return next((c for c in obj.get("status", {}).get("conditions") or () if c["type"] == "Available"), {})

    def register(self) -> None:
        spec = {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 1000,
            "versionPriority": 15,
            "caBundle": base64.b64encode(self.wardle.ca.certificate).decode(),
            "service": {"namespace": "wardle", "name": "api", "port": self.wardle.port},
        }
        obj = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME}, "spec": spec}
        self.kubectl("apply", "-f", "-", input=json.dumps(obj))
        self.kubectl("wait", f"apiservice/{NAME}", "--for=condition=Available", "--timeout=20s")

    def namespace(self, name: str) -> str:
        self.kubectl("create", "namespace", name)
        return name

    def let(self, user: str, namespace: str, role: str) -> None:
        self.kubectl("create", "rolebinding", user, "-n", namespace, f"--clusterrole={role}", f"--user={user}")

    def refused(self, *arguments: str, input: str | None = None) -> str:
        result = self.kubectl(*arguments, input=input, check=False)
        assert result.returncode != 0, result.stdout
        return result.stderr

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """kubectl beside the test; ended with it."""
        command = [str(TOOLS / "bin" / "kubectl"), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.server.env, cwd=self.server.home)
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def cluster(server: WholeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("wardle")
    server.kubectl("create", "namespace", "wardle")
    server.kubectl("create", "-f", "-", input=SETUP)
    token = server.kubectl("create", "token", "-n", "wardle", "apiserver").stdout.strip()
    url, authority, _, _ = server.credentials()
    wardle = FlunderServer(home, url, authority, token)
    wardle.start()
    made = Cluster(server, wardle)
    try:
        made.register()
        yield made
    finally:
        server.kubectl("delete", "apiservice", NAME, "--ignore-not-found")
        wardle.stop()
        server.kubectl("delete", "-f", "-", "--wait=false", "--ignore-not-found", input=SETUP)


def test_it_is_available_and_known(cluster: Cluster) -> None:
    condition = cluster.condition()
    assert (condition["status"], condition["reason"], condition["message"]) == ("True", "Passed", "all checks passed")
    row = cluster.kubectl("get", "apiservice", NAME, "--no-headers").stdout.split()
    assert row[1:3] == ["wardle/api", "True"]
    rows = [line.split() for line in cluster.kubectl("api-resources", f"--api-group={GROUP}", "--no-headers").stdout.splitlines()]
    assert rows == [["flunders", "fl", API_VERSION, "true", "Flunder"]]
    assert API_VERSION in cluster.kubectl("api-versions").stdout.splitlines()
    explained = cluster.kubectl("explain", "flunder").stdout
    assert "KIND:       Flunder" in explained and "Flunder is what this server has." in explained
    assert "The name of another Flunder." in cluster.kubectl("explain", "flunder.spec.reference").stdout
    assert cluster.server.call("GET", f"/apis/{GROUP}")[2]["preferredVersion"]["version"] == VERSION
    v2 = cluster.server.call("GET", "/openapi/v2")[2]
    assert "com.example.wardle.v1alpha1.Flunder" in v2["definitions"]


def test_a_flunders_life(cluster: Cluster) -> None:
    at = ("-n", cluster.namespace("flunder-life"))
    assert cluster.kubectl("create", *at, "-f", "-", input=_flunder("a")).stdout == "flunder.wardle.example.com/a created\n"
    assert "AlreadyExists" in cluster.refused("create", *at, "-f", "-", input=_flunder("a"))
    assert cluster.kubectl("apply", *at, "-f", "-", input=_flunder("b", reference="a")).stdout.endswith("/b created\n")
    assert cluster.kubectl("apply", *at, "-f", "-", input=_flunder("b", reference="a")).stdout.endswith("/b unchanged\n")
    assert cluster.kubectl("apply", *at, "-f", "-", input=_flunder("b", reference="c")).stdout.endswith("/b configured\n")
    rows = [line.split() for line in cluster.kubectl("get", *at, "flunders").stdout.splitlines()]
    assert rows == [["NAME", "REFERENCE"], ["a", "<none>"], ["b", "c"]]
    assert cluster.kubectl("get", *at, "fl", "b", "-o", "jsonpath={.spec.reference}").stdout == "c"
    assert cluster.kubectl("get", "flunders", "-A", "-o", "name").stdout.count("flunder.wardle.example.com/") >= 2
    cluster.kubectl("patch", *at, "flunder", "b", "--type=merge", "-p", '{"spec":{"reference":"d"}}')
    assert cluster.kubectl("get", *at, "fl", "b", "-o", "jsonpath={.spec.reference}").stdout == "d"
    # kubectl holds it against the schema out of the documents that have been put together.
    wrong = _flunder("c", refrence="a")
    refused = cluster.refused("create", *at, "-f", "-", input=wrong)
    assert 'unknown field "refrence" in com.example.wardle.v1alpha1.Flunder.spec' in refused
    cluster.kubectl("delete", *at, "flunder", "a", "--timeout=20s")
    expected = 'Error from server (NotFound): flunders.wardle.example.com "a" not found\n'
    assert cluster.refused("get", *at, "flunder", "a") == expected


def test_watches(cluster: Cluster) -> None:
    at = ("-n", cluster.namespace("flunder-watch"))
    cluster.kubectl("create", *at, "-f", "-", input=_flunder("a"))
    with cluster.running("get", *at, "flunders", "-w", "--output-watch-events") as process:
        out = process.stdout
        assert out is not None
        # Each line is waited for before the next change: nothing comes late and all at once.
        assert out.readline().split() == ["EVENT", "NAME", "REFERENCE"]
        assert out.readline().split() == ["ADDED", "a", "<none>"]
        cluster.kubectl("create", *at, "-f", "-", input=_flunder("b"))
        assert out.readline().split() == ["ADDED", "b", "<none>"]
        cluster.kubectl("patch", *at, "flunder", "b", "--type=merge", "-p", '{"spec":{"reference":"a"}}')
        assert out.readline().split() == ["MODIFIED", "b", "a"]
        cluster.kubectl("delete", *at, "flunder", "a")
        assert out.readline().split() == ["DELETED", "a", "<none>"]
    cluster.kubectl("wait", *at, "flunder/b", "--for=jsonpath={.spec.reference}=a", "--timeout=10s")


def test_who_may_do_what_is_asked_twice(cluster: Cluster) -> None:
    at = ("-n", cluster.namespace("flunder-rights"))
    cluster.wardle.seen.clear()
    stranger = cluster.refused("get", *at, "flunders", "--as=bob")
    assert 'User "bob" cannot list resource "flunders" in API group "wardle.example.com" in the namespace' in stranger
    assert not [caller for caller in cluster.wardle.seen if caller.user == "bob"]  # that was the main server's answer
    cluster.let("bob", "flunder-rights", "flunder-maker")
    cluster.kubectl("create", *at, "--as=bob", "--validate=false", "-f", "-", input=_flunder("a"))
    # What only the aggregated server knows to be needed, it refuses with words of its own.
    refused = cluster.refused("create", *at, "--as=bob", "--validate=false", "-f", "-", input=_flunder("b", reference="a"))
    assert refused.startswith('Error from server (Forbidden): error when creating "STDIN": wardle: user "bob" may not:')
    assert '"verb": "get"' in refused
    # The role is part of edit, as charts of such servers have it.
    cluster.let("eve", "flunder-rights", "edit")
    cluster.kubectl("create", *at, "--as=eve", "--validate=false", "-f", "-", input=_flunder("b", reference="a"))


def test_it_is_told_who_asks(cluster: Cluster) -> None:
    namespace = cluster.namespace("flunder-users")
    cluster.kubectl("create", "rolebinding", "devs", "-n", namespace, "--clusterrole=flunder-admin", "--group=devs")
    path = f"{BASE}/namespaces/{namespace}/flunders"
    cluster.wardle.seen.clear()
    headers = {
        "Impersonate-User": "ann",
        "Impersonate-Group": "devs",
        "Impersonate-Extra-example.com%2fScope": "here & now",
        "X-Remote-User": "system:admin",
        "X-Remote-Group": "system:masters",
        "X-Remote-Extra-Scopes": "all",
    }
    assert cluster.server.call("GET", path, headers=headers)[0] == 200
    (caller,) = [caller for caller in cluster.wardle.seen if caller.path == path]
    assert (caller.user, caller.groups) == ("ann", ("devs", "system:authenticated"))
    assert caller.extra == {"example.com/scope": ["here & now"]}
    (review,) = [r for r in cluster.wardle.reviews if r["spec"].get("user") == "ann"]
    assert review["status"]["allowed"] and review["spec"]["extra"] == {"example.com/scope": ["here & now"]}


def test_forged_headers_are_worth_nothing(cluster: Cluster, server: WholeServer) -> None:
    namespace = cluster.namespace("flunder-forged")
    path = f"{BASE}/namespaces/{namespace}/flunders"
    server.kubectl("create", "sa", "-n", namespace, "poor")
    server.kubectl(
        "create", "rolebinding", "poor", "-n", namespace, "--clusterrole=flunder-admin", f"--serviceaccount={namespace}:poor"
    )
    token = server.kubectl("create", "token", "-n", namespace, "poor").stdout.strip()
    headers = {
        "Authorization": f"Bearer {token}",
        "X-Remote-User": "system:admin",
        "X-Remote-Group": "system:masters",
        "x-remote-uid": "1",
        "X-REMOTE-EXTRA-SCOPES": "all",
    }
    cluster.wardle.seen.clear()
    assert server.call("GET", path, headers=headers, admin=False)[0] == 200
    (caller,) = [caller for caller in cluster.wardle.seen if caller.path == path]
    assert caller.user == f"system:serviceaccount:{namespace}:poor"
    assert set(caller.groups) == {"system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"}
    assert "scopes" not in caller.extra
    # Nor do they make anybody of a client without credentials, or let one in that comes past the main server.
    assert server.call("GET", path, headers={**headers, "Authorization": ""}, admin=False)[0] in (401, 403)
    assert len([caller for caller in cluster.wardle.seen if caller.path == path]) == 1


def _past_the_main_server(cluster: Cluster, certificate: Path | None, key: Path | None) -> int:
    context = ssl.create_default_context(cadata=cluster.wardle.ca.certificate.decode())
    context.check_hostname = False
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    headers = {"X-Remote-User": "system:admin", "X-Remote-Group": "system:masters"}
    with closing(http.client.HTTPSConnection("127.0.0.1", cluster.wardle.port, context=context, timeout=10)) as connection:
        connection.request("GET", BASE, headers=headers)
        return connection.getresponse().status


def test_only_the_front_proxy_is_believed(cluster: Cluster, server: WholeServer, tmp_path: Path) -> None:
    _, _, admin, admin_key = server.credentials()
    assert _past_the_main_server(cluster, None, None) == 401
    assert _past_the_main_server(cluster, admin, admin_key) == 401
    (authority,) = server.data.rglob("request-header-ca.crt")
    ca = pki.load(authority, authority.with_suffix(".key"))
    assert ca is not None
    for name, code in (("mallory", 401), ("system:auth-proxy", 200)):
        key = pki.new_key()
        pki.save(
            pki.Pair(pki.issue(ca, key, pki.Subject(name), usage="client", now=time.time()), key),
            tmp_path / f"{code}.crt",
            tmp_path / f"{code}.key",
        )
        assert _past_the_main_server(cluster, tmp_path / f"{code}.crt", tmp_path / f"{code}.key") == code, name


def test_who_may_read_how_to_know_the_front_proxy(cluster: Cluster, server: WholeServer) -> None:
    server.kubectl("create", "sa", "-n", "wardle", "other")
    codes = {}
    for account in ("apiserver", "other"):
        token = server.kubectl("create", "token", "-n", "wardle", account).stdout.strip()
        asked = {"Authorization": f"Bearer {token}"}
        codes[account] = server.call("GET", CONFIG_MAP, headers=asked, admin=False)[0]
    assert codes == {"apiserver": 200, "other": 403}


def test_a_namespace_takes_its_flunders_along(cluster: Cluster) -> None:
    at = ("-n", cluster.namespace("flunder-gone"))
    for name in ("a", "b"):
        cluster.kubectl("create", *at, "-f", "-", input=_flunder(name))
    cluster.kubectl("delete", "namespace", "flunder-gone", "--timeout=40s")
    assert not [slot for slot in cluster.wardle.store.items if slot[0] == "flunder-gone"]


def _conditions(cluster: Cluster, namespace: str) -> str:
    show = "{range .status.conditions[*]}{.type}={.status} {end}"
    return cluster.kubectl("get", "namespace", namespace, "-o", f"jsonpath={show}").stdout


def test_it_stops_and_comes_back(cluster: Cluster, server: WholeServer) -> None:
    namespace = cluster.namespace("flunder-stopped")
    cluster.kubectl("create", "-n", namespace, "-f", "-", input=_flunder("a"))
    cluster.wardle.stop()
    code, headers, body = server.call("GET", f"{BASE}/flunders")
    # The first is passed on in vain; the condition follows.
    assert (code, headers["content-type"]) == (503, "text/plain; charset=utf-8")
    where = f"localhost:{cluster.wardle.port}"
    assert body == f"error trying to reach service: dial tcp {where}: connect: connection refused\n".encode()
    _until(lambda: cluster.condition()["status"] == "False")
    condition = cluster.condition()
    assert condition["reason"] == "FailedDiscoveryCheck"
    assert condition["message"].startswith(f"failing or missing response from https://{where}{BASE}: Get ")
    assert condition["message"].endswith("connect: connection refused")
    code, headers, body = server.call("GET", f"{BASE}/flunders")
    assert (code, body, headers["x-content-type-options"]) == (503, b"service unavailable\n", "nosniff")
    assert "the server is currently unable to handle the request" in cluster.refused("get", "flunders", "-A")
    shown = cluster.kubectl("get", "apiservice", NAME, "--no-headers").stdout
    assert "False (FailedDiscoveryCheck)" in shown
    cluster.kubectl("get", "pods", "-A")  # what else there is goes on
    # A namespace is not taken for empty while nobody can list what may be inside.
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    _until(lambda: "NamespaceDeletionDiscoveryFailure=True" in _conditions(cluster, namespace))
    cluster.wardle.start()
    cluster.kubectl("wait", f"apiservice/{NAME}", "--for=condition=Available", "--timeout=70s")
    cluster.kubectl("wait", f"namespace/{namespace}", "--for=delete", "--timeout=70s")
    assert server.call("GET", f"{BASE}/flunders")[0] == 200


def test_it_is_taken_away(cluster: Cluster, server: WholeServer) -> None:
    cluster.kubectl("delete", "apiservice", NAME)
    code, _, body = server.call("GET", f"{BASE}/flunders")
    assert (code, body) == (404, b"404 page not found\n") or (code, body["reason"]) == (404, "NotFound")
    assert GROUP not in {group["name"] for group in server.call("GET", "/apis")[2]["groups"]}
    assert server.call("GET", f"/apis/{GROUP}")[0] == 404
    accept = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    assert GROUP not in {item["metadata"]["name"] for item in server.call("GET", "/apis", headers=accept)[2]["items"]}
    assert BASE[1:] not in server.call("GET", "/openapi/v3")[2]["paths"]
    assert "com.example.wardle.v1alpha1.Flunder" not in server.call("GET", "/openapi/v2")[2]["definitions"]
    assert cluster.kubectl("api-resources", f"--api-group={GROUP}", "--no-headers").stdout == ""  # not what it has kept
    assert 'the server doesn\'t have a resource type "flunders"' in cluster.refused("get", "flunders")
