"""What upstream's AdmissionWebhook conformance tests do, against a whole server: deny, mutate, time out, match, be left alone."""

from __future__ import annotations

import base64
import http.server
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k1s.base import pki
from tests.wire.whole_server import WholeServer

Object = dict[str, Any]
REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = {"Content-Type": "application/merge-patch+json"}


def _deny(request: Object) -> Object:
    if "allowed" in json.dumps(request.get("object") or {}):
        return {"allowed": True}
    data = ((request.get("object") or request.get("oldObject") or {}).get("data")) or {}
    if data.get("webhook-e2e-test") == "webhook-allow":
        return {"allowed": True}
    return {"allowed": False, "status": {"reason": "the custom resource contains unwanted data"}}


def _patching(*operations: Object) -> Callable[[Object], Object]:
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda request: {"allowed": True, "patchType": "JSONPatch", "patch": patch}


def _slow(request: Object) -> Object:
    time.sleep(3)
    return {"allowed": True}


def _stages(request: Object) -> Object:
    """The mutation of upstream's mutating-custom-resource webhook: each stage once."""
    data = request["object"]["data"]
    operations = []
    if data.get("mutation-start") == "yes":
        operations.append({"op": "add", "path": "/data/mutation-stage-1", "value": "yes"})
    if data.get("mutation-stage-1") == "yes":
        operations.append({"op": "add", "path": "/data/mutation-stage-2", "value": "yes"})
    return _patching(*operations)(request) if operations else {"allowed": True}


HOOKS: dict[str, Callable[[Object], Object]] = {
    "/deny": _deny,
    "/mark": _patching({"op": "add", "path": "/data", "value": {"mutation-start": "yes", "mutation-stage-1": "yes"}}),
    "/init": _patching(
        {
            "op": "add",
            "path": "/spec/initContainers",
            "value": [{"image": "webhook-added-image", "name": "webhook-added-init-container"}],
        }
    ),
    "/slow": _slow,
    "/stages": _stages,
    "/label": _patching({"op": "add", "path": "/metadata/labels", "value": {"mutated": "yes"}}),
}


class Hooks:
    """An HTTPS server of admission reviews; `asked` is what came."""

    def __init__(self, home: Path) -> None:
        now = time.time()
        authority, key = pki.create_ca("hooks-ca", now), pki.new_key()
        leaf = pki.issue(authority, key, pki.Subject("hooks", sans=("127.0.0.1",)), usage="server", now=now)
        (home / "hooks.pem").write_bytes(leaf)
        (home / "hooks.key").write_bytes(key)
        self.asked: list[Object] = []
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.append(review["request"])
                response = {"uid": review["request"]["uid"], **HOOKS[self.path.partition("?")[0]](review["request"])}
                body = json.dumps({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(home / "hooks.pem", home / "hooks.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._bundle = base64.b64encode(authority.certificate).decode()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def client(self, path: str) -> Object:
        return {"url": f"https://127.0.0.1:{self._server.server_address[1]}{path}", "caBundle": self._bundle}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Rig:
    def __init__(self, server: WholeServer, hooks: Hooks, ns: str) -> None:
        self.server, self.hooks, self.ns = server, hooks, ns
        self.path = f"/api/v1/namespaces/{ns}"
        self._made: list[str] = []
        assert server.call("POST", "/api/v1/namespaces", {"metadata": {"name": ns, "labels": {"suite": ns}}})[0] == 201

    def call(self, method: str, path: str, body: Object | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        code, _, found = self.server.call(method, path, body, headers)
        return code, found

    def hook(self, kind: str, path: str, rules: Object, **fields: Any) -> str:
        """Registers it and waits until it is asked, as upstream does with its marker requests."""
        name = f"{self.ns}-{len(self._made)}.example.com"
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], **rules}
        made = {
            "name": name,
            "rules": [rule],
            "clientConfig": self.hooks.client(path) if path else {"url": "https://127.0.0.1:1/nobody"},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchLabels": {"suite": self.ns}},
            **fields,
        }
        url = f"{REGISTRATION}/{kind}webhookconfigurations"
        code, found = self.call("POST", url, {"metadata": {"name": name, "labels": {"suite": self.ns}}, "webhooks": [made]})
        assert code == 201, found
        self._made.append(f"{url}/{name}")
        return self._made[-1]

    def clean(self) -> None:
        for path in self._made:
            self.call("DELETE", path)


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooks]:
    made = Hooks(tmp_path_factory.mktemp("hooks"))
    yield made
    made.stop()


@pytest.fixture
def rig(server: WholeServer, hooks: Hooks, request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = Rig(server, hooks, re.sub("[^a-z]+", "-", request.node.name).strip("-").removeprefix("test-")[:40])
    yield made
    made.clean()


def _pod(name: str, **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}], **spec}}


def _definition(rig: Rig, **version: Any) -> str:
    """A CRD with instances of free `data`; the path of its instances."""
    group = f"{rig.ns}.example.com"
    schema = {"type": "object", "properties": {"data": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}
    first = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
    body = {
        "metadata": {"name": f"gadgets.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"}, "versions": [first]},
    }
    code, found = rig.call("POST", DEFINITIONS, body)
    assert code == 201, found
    path = f"/apis/{group}/v1/namespaces/{rig.ns}/gadgets"
    deadline = time.monotonic() + 10
    while rig.call("GET", path)[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path


def _gadget(rig: Rig, name: str, **data: str) -> Object:
    return {"apiVersion": f"{rig.ns}.example.com/v1", "kind": "Gadget", "metadata": {"name": name}, "data": data}


def test_deny_pods_and_configmaps(rig: Rig) -> None:
    hook = rig.hook("validating", "/deny", {"resources": ["pods", "configmaps"], "operations": ["CREATE", "UPDATE", "DELETE"]})
    code, found = rig.call(
        "POST", f"{rig.path}/configmaps", {"metadata": {"name": "a"}, "data": {"webhook-e2e-test": "webhook-disallow"}}
    )
    assert code == 400 and found["reason"] == "the custom resource contains unwanted data", found
    name = hook.rpartition("/")[2]
    assert found["message"] == f'admission webhook "{name}" denied the request: the custom resource contains unwanted data'
    assert rig.call("POST", f"{rig.path}/pods", _pod("a"))[0] == 400
    allowed = {"metadata": {"name": "a"}, "data": {"webhook-e2e-test": "webhook-allow"}}
    assert rig.call("POST", f"{rig.path}/configmaps", allowed)[0] == 201
    bad = {"data": {"webhook-e2e-test": "webhook-disallow"}}
    assert rig.call("PUT", f"{rig.path}/configmaps/a", {"metadata": {"name": "a"}, **bad})[0] == 400
    assert rig.call("PATCH", f"{rig.path}/configmaps/a", bad, MERGE)[0] == 400
    # A namespace that the selector leaves out is free.
    assert rig.call("PATCH", f"/api/v1/namespaces/{rig.ns}", {"metadata": {"labels": {"suite": "other"}}}, MERGE)[0] == 200
    _until(lambda: rig.call("PATCH", f"{rig.path}/configmaps/a", bad, MERGE)[0] == 200)


def test_deny_attaching(rig: Rig) -> None:
    assert rig.call("POST", f"{rig.path}/pods", _pod("to-be-attached-pod"))[0] == 201
    rig.hook("validating", "/deny", {"resources": ["pods/attach"], "operations": ["CONNECT"]})
    code, found = rig.call("POST", f"{rig.path}/pods/to-be-attached-pod/attach?container=c&stdout=true")
    assert code == 400 and "denied the request" in found["message"], found
    asked = rig.hooks.asked[-1]
    assert asked["operation"] == "CONNECT" and asked["subResource"] == "attach" and asked["name"] == "to-be-attached-pod"
    assert asked["object"]["kind"] == "PodAttachOptions" and asked["object"]["container"] == "c"


def test_deny_custom_resources(rig: Rig) -> None:
    path = _definition(rig)
    rules = {"apiGroups": [f"{rig.ns}.example.com"], "resources": ["gadgets"], "operations": ["CREATE", "UPDATE", "DELETE"]}
    hook = rig.hook("validating", "/deny", rules)
    code, found = rig.call("POST", path, _gadget(rig, "a", **{"webhook-e2e-test": "webhook-disallow"}))
    assert code == 400 and "the custom resource contains unwanted data" in found["message"]
    assert rig.call("POST", path, _gadget(rig, "a", **{"webhook-e2e-test": "webhook-allow"}))[0] == 201
    code, found = rig.call("PATCH", f"{path}/a", {"data": {"webhook-e2e-test": "webhook-disallow"}}, MERGE)
    assert code == 400
    rig.call("DELETE", hook)
    assert rig.call("PATCH", f"{path}/a", {"data": {"webhook-e2e-test": "webhook-disallow"}}, MERGE)[0] == 200
    rig.hook("validating", "/deny", rules)
    assert rig.call("DELETE", f"{path}/a")[0] == 400
    assert rig.call("DELETE", path)[0] == 400
    asked = rig.hooks.asked[-1]
    assert asked["operation"] == "DELETE" and asked["oldObject"]["metadata"]["name"] == "a" and asked["object"] is None
    assert rig.call("PATCH", f"{path}/a", {"data": {"webhook-e2e-test": "webhook-allow"}}, MERGE)[0] == 200
    assert rig.call("DELETE", f"{path}/a")[0] == 200


def test_fail_closed(rig: Rig) -> None:
    rig.hook("validating", "", {"resources": ["configmaps"]}, failurePolicy="Fail")
    code, found = rig.call("POST", f"{rig.path}/configmaps", {"metadata": {"name": "foo"}})
    assert code == 500 and found["reason"] == "InternalError", found
    assert 'failed calling webhook "' in found["message"] and "connect: connection refused" in found["message"], found


def test_mutate_configmaps_twice(rig: Rig) -> None:
    for path in ("/mark", "/stages"):
        rig.hook("mutating", path, {"resources": ["configmaps"], "operations": ["CREATE"]})
    code, found = rig.call("POST", f"{rig.path}/configmaps", {"metadata": {"name": "a"}, "data": {"mutation-start": "yes"}})
    assert code == 201
    assert found["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"}


def test_mutate_a_pod_and_default(rig: Rig) -> None:
    rig.hook("mutating", "/init", {"resources": ["pods"], "operations": ["CREATE"]})
    code, found = rig.call("POST", f"{rig.path}/pods", _pod("webhook-to-be-mutated"))
    assert code == 201, found
    added = found["spec"]["initContainers"][0]
    assert added["name"] == "webhook-added-init-container" and added["terminationMessagePolicy"] == "File"


def test_leave_webhook_configurations_alone(rig: Rig) -> None:
    everything: Object = {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "operations": ["*"]}
    rig.hook("validating", "/deny", everything, namespaceSelector={})
    rig.hook("mutating", "/label", everything, namespaceSelector={})
    dummy = rig.hook("validating", "/deny", {"resources": ["pods"]}, objectSelector={"matchLabels": {"nobody": "x"}})
    code, found = rig.call("GET", dummy)
    assert code == 200 and "mutated" not in found["metadata"]["labels"]
    assert rig.call("DELETE", dummy)[0] == 200


def test_mutate_custom_resources(rig: Rig) -> None:
    schema = {
        "type": "object",
        "properties": {
            "data": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("mutation-start", "mutation-stage-1")},
            }
        },
    }
    path = _definition(rig, schema={"openAPIV3Schema": schema})
    rules = {"apiGroups": [f"{rig.ns}.example.com"], "resources": ["gadgets"], "operations": ["CREATE"]}
    rig.hook("mutating", "/stages", rules)
    rig.hook("mutating", "/stages", rules)
    code, found = rig.call("POST", path, _gadget(rig, "a", **{"mutation-start": "yes"}))
    # What the second adds is not in the schema, and pruned.
    assert code == 201 and found["data"] == {"mutation-start": "yes", "mutation-stage-1": "yes"}


def test_deny_definitions(rig: Rig) -> None:
    rules = {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "operations": ["CREATE"]}
    rig.hook(
        "validating",
        "/deny",
        rules,
        namespaceSelector={},
        objectSelector={"matchLabels": {"webhook-e2e-test": "webhook-disallow"}},
    )
    body = {
        "metadata": {"name": f"denied.{rig.ns}.example.com", "labels": {"webhook-e2e-test": "webhook-disallow"}},
        "spec": {
            "group": f"{rig.ns}.example.com",
            "scope": "Cluster",
            "names": {"plural": "denied", "kind": "Denied"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }
    code, found = rig.call("POST", DEFINITIONS, body)
    assert code == 400 and "denied the request" in found["message"]


def test_honor_timeouts(rig: Rig) -> None:
    cases = ((1, "Fail", 500), (1, "Ignore", 201), (None, "Fail", 201))
    for number, (seconds, policy, wanted) in enumerate(cases):
        fields = {} if seconds is None else {"timeoutSeconds": seconds}
        hook = rig.hook(
            "validating", "/slow", {"resources": ["configmaps"], "operations": ["CREATE"]}, failurePolicy=policy, **fields
        )
        code, found = rig.call("POST", f"{rig.path}/configmaps", {"metadata": {"name": f"c{number}"}})
        assert code == wanted, found
        if code == 500:
            assert "context deadline exceeded" in found["message"], found
        rig.call("DELETE", hook)


@pytest.mark.parametrize("kind", ["validating", "mutating"])
def test_patch_update_and_list(rig: Rig, kind: str) -> None:
    path = "/deny" if kind == "validating" else "/label"
    hook = rig.hook(kind, path, {"resources": ["configmaps"], "operations": ["CREATE"]})

    def touched(name: str) -> bool:
        code, found = rig.call("POST", f"{rig.path}/configmaps", {"metadata": {"name": name}})
        rig.call("DELETE", f"{rig.path}/configmaps/{name}")
        return code == 400 if kind == "validating" else "mutated" in found["metadata"].get("labels", {})

    assert touched("first")
    found = rig.call("GET", hook)[1]
    found["webhooks"][0]["rules"][0]["operations"] = ["UPDATE"]
    assert rig.call("PUT", hook, found)[0] == 200
    _until(lambda: not touched("second"))
    operations = [{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]
    code, _, _ = rig.server.call("PATCH", hook, json.dumps(operations), {"Content-Type": "application/json-patch+json"})
    assert code == 200
    _until(lambda: touched("third"))
    listed = rig.call("GET", f"{hook.rpartition('/')[0]}?labelSelector=suite%3D{rig.ns}")[1]
    assert len(listed["items"]) == 1
    assert rig.call("DELETE", f"{hook.rpartition('/')[0]}?labelSelector=suite%3D{rig.ns}")[0] == 200
    _until(lambda: not touched("fourth"))


@pytest.mark.parametrize("kind", ["validating", "mutating"])
def test_match_conditions(rig: Rig, kind: str) -> None:
    conditions = [{"name": "not-me", "expression": "object.metadata.name != 'skip-me'"}]
    path = "/deny" if kind == "validating" else "/label"
    rig.hook(kind, path, {"resources": ["configmaps"], "operations": ["CREATE"]}, matchConditions=conditions)
    code, found = rig.call("POST", f"{rig.path}/configmaps", {"metadata": {"name": "skip-me"}})
    assert code == 201 and "labels" not in found["metadata"]
    code, found = rig.call("POST", f"{rig.path}/configmaps", {"metadata": {"name": "other"}})
    assert code == 400 if kind == "validating" else found["metadata"]["labels"] == {"mutated": "yes"}
    bad = {
        "metadata": {"name": f"{rig.ns}-bad"},
        "webhooks": [
            {
                "name": "x.example.com",
                "clientConfig": rig.hooks.client("/deny"),
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "rules": [],
                "matchConditions": [{"name": "invalid-expression-1", "expression": "... [] bad expression"}],
            }
        ],
    }
    code, found = rig.call("POST", f"{REGISTRATION}/{kind}webhookconfigurations", bad)
    assert code == 422 and "compilation failed" in found["message"], found


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
