"""Admission by others: webhooks (over TLS, by URL and by Service) and policies in CEL, as kubectl's user meets them."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from k1s.base import pki

from .conftest import NODE_ADDRESS, Cluster, eventually

BUSYBOX = "docker.io/library/busybox:1.36"

# A webhook server: what it answers depends on the path.
SERVER = r"""
import base64, http.server, json, ssl, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request, path = review["request"], self.path.partition("?")[0]
        response = {"uid": request["uid"], "allowed": True}
        if path == "/deny":
            response.update(allowed=False, status={"message": "not on my watch: " + request["operation"], "code": 403})
        elif path == "/slow":
            time.sleep(4)
        elif path == "/mutate":
            name = request["kind"]["kind"]
            patch = [{"op": "add", "path": "/metadata/annotations", "value": {"seen": name}}]
            if name == "Pod":
                extra = {"name": "added", "image": "docker.io/library/busybox:1.36", "command": ["true"]}
                patch.append({"op": "add", "path": "/spec/initContainers", "value": [extra]})
            if name == "Gadget":
                patch += [{"op": "add", "path": "/spec/" + k, "value": "red"} for k in ("unknown", "colour")]
            response.update(patchType="JSONPatch", patch=base64.b64encode(json.dumps(patch).encode()).decode())
            response["warnings"] = ["mutated by a test"]
        data = json.dumps({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[3], sys.argv[4])
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
"""
PORT = 9443


@pytest.fixture(scope="module")
def webhook(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Runs the server; gives its CA bundle. The Service default/hook leads to it."""
    files: Path = tmp_path_factory.mktemp("webhook")
    ca, key = pki.create_ca("test-ca", time.time()), pki.new_key()
    names = (NODE_ADDRESS, "hook.default.svc")
    certificate = pki.issue(ca, key, pki.Subject("hook", (), names), usage="server", now=time.time())
    (files / "crt").write_bytes(certificate)
    (files / "key").write_bytes(key)
    (files / "server.py").write_text(SERVER)
    command = cluster.inside(sys.executable, files / "server.py", NODE_ADDRESS, str(PORT), files / "crt", files / "key")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        cluster.kubectl("apply", "-f", "-", input=SERVICE)
        yield base64.b64encode(ca.certificate).decode()
    finally:
        process.kill()
        process.wait()
        cluster.kubectl("delete", "-f", "-", "--ignore-not-found", input=SERVICE)


SERVICE = f"""
apiVersion: v1
kind: Service
metadata: {{name: hook, namespace: default}}
spec: {{ports: [{{port: 8443, targetPort: {PORT}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: hook-1, namespace: default, labels: {{kubernetes.io/service-name: hook}}}}
addressType: IPv4
ports: [{{port: {PORT}, protocol: TCP}}]
endpoints: [{{addresses: [{NODE_ADDRESS}], conditions: {{ready: true}}}}]
"""


class Hooks:
    """Registers webhooks that see one namespace only, and takes them away again."""

    def __init__(self, cluster: Cluster, bundle: str, namespace: str) -> None:
        self.cluster, self.bundle, self.namespace = cluster, bundle, namespace
        self.made: list[tuple[str, str]] = []

    def add(self, kind: str, path: str, resource: str, *, url: bool = False, group: str = "", **fields: object) -> None:
        target: dict[str, object] = {"service": {"name": "hook", "namespace": "default", "path": path, "port": 8443}}
        if url:
            target = {"url": f"https://{NODE_ADDRESS}:{PORT}{path}"}
        hook = {
            "name": f"t{len(self.made)}.example.com",
            "clientConfig": {"caBundle": self.bundle, **target},
            "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": ["*"], "resources": [resource]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **fields,
        }
        name = f"{self.namespace[:40]}-{len(self.made)}"
        body = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": f"{kind}WebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [hook],
        }
        self.made.append((f"{kind}WebhookConfiguration", name))
        self.cluster.kubectl("create", "-f", "-", input=json.dumps(body))

    def remove(self) -> None:
        for kind, name in self.made:
            self.cluster.kubectl("delete", kind, name, "--ignore-not-found")


@pytest.fixture
def hooks(cluster: Cluster, webhook: str, namespace: str) -> Iterator[Hooks]:
    made = Hooks(cluster, webhook, namespace)
    yield made
    made.remove()


def test_validating_webhook_denies_every_operation(cluster: Cluster, hooks: Hooks) -> None:
    cluster.kubectl("create", "configmap", "old")
    hooks.add("Validating", "/deny", "configmaps")
    words = 'admission webhook "t0.example.com" denied the request: not on my watch: '
    for operation, command in {
        "CREATE": ["create", "configmap", "new"],
        "UPDATE": ["label", "configmap", "old", "a=b"],
        "DELETE": ["delete", "configmap", "old"],
    }.items():
        assert words + operation in cluster.kubectl(*command, check=False).stderr
    cluster.kubectl("create", "secret", "generic", "free")


def test_mutated_objects_are_pruned_and_get_defaults(cluster: Cluster, hooks: Hooks) -> None:
    hooks.add("Mutating", "/mutate", "pods", url=True)
    result = cluster.kubectl("run", "p", f"--image={BUSYBOX}", "--", "sleep", "1")
    assert "Warning: mutated by a test" in result.stderr
    pod = cluster.get("pod", "p")
    assert pod["metadata"]["annotations"]["seen"] == "Pod"
    added = pod["spec"]["initContainers"][0]
    assert added["terminationMessagePath"] == "/dev/termination-log" and added["imagePullPolicy"] == "IfNotPresent"


def test_custom_resources_pass_webhooks(cluster: Cluster, hooks: Hooks) -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"colour": {"type": "string"}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.hooks.example.com"},
        "spec": {
            "group": "hooks.example.com",
            "scope": "Namespaced",
            "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [version],
        },
    }
    cluster.kubectl("create", "-f", "-", input=json.dumps(crd))
    try:
        cluster.kubectl("wait", "--for=condition=Established", "crd/gadgets.hooks.example.com", "--timeout=10s")
        # What is deleted cannot be changed: a patch for it would be refused.
        written = {"apiGroups": ["hooks.example.com"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["gadgets"]}
        hooks.add("Mutating", "/mutate", "gadgets", rules=[written])
        body = {"apiVersion": "hooks.example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {}}
        cluster.kubectl("create", "-f", "-", input=json.dumps(body))
        assert cluster.get("gadget", "g")["spec"] == {"colour": "red"}
        hooks.add("Validating", "/deny", "gadgets", group="hooks.example.com")
        assert "denied the request" in cluster.kubectl("delete", "gadget", "g", check=False).stderr
        hooks.remove()
    finally:
        cluster.kubectl("delete", "crd", "gadgets.hooks.example.com", "--timeout=20s")


def test_connections_pass_webhooks(cluster: Cluster, hooks: Hooks) -> None:
    cluster.kubectl("run", "p", f"--image={BUSYBOX}", "--", "sleep", "100")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    hooks.add("Validating", "/deny", "pods/exec")
    result = cluster.kubectl("exec", "p", "--", "true", check=False)
    assert "not on my watch: CONNECT" in result.stderr


def test_unreachable_webhook_fails_closed_or_open(cluster: Cluster, hooks: Hooks) -> None:
    hooks.add("Validating", "/slow", "configmaps", timeoutSeconds=1)
    result = cluster.kubectl("create", "configmap", "a", check=False)
    assert 'failed calling webhook "t0.example.com"' in result.stderr and "context deadline exceeded" in result.stderr
    hooks.remove()
    hooks.add("Validating", "/slow", "configmaps", timeoutSeconds=1, failurePolicy="Ignore")
    cluster.kubectl("create", "configmap", "a")
    hooks.remove()
    hooks.bundle = base64.b64encode(pki.create_ca("another", time.time()).certificate).decode()
    hooks.add("Validating", "/allow", "configmaps")
    assert "Internal error occurred: failed calling webhook" in cluster.kubectl("create", "configmap", "b", check=False).stderr


def test_match_conditions_choose_requests(cluster: Cluster, hooks: Hooks) -> None:
    condition = {"name": "not-me", "expression": "object.metadata.name != 'skip-me'"}
    hooks.add("Validating", "/deny", "configmaps", matchConditions=[condition])
    cluster.kubectl("create", "configmap", "skip-me")
    assert "denied" in cluster.kubectl("create", "configmap", "other", check=False).stderr
    with pytest.raises(AssertionError, match="compilation failed"):
        hooks.add("Validating", "/deny", "secrets", matchConditions=[{"name": "bad", "expression": "... [] bad"}])


def test_configurations_are_beyond_webhooks(cluster: Cluster, hooks: Hooks) -> None:
    hooks.add("Validating", "/deny", "*", group="*", namespaceSelector={}, rules=[
        {"apiGroups": ["admissionregistration.k8s.io"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}
    ])  # fmt: skip
    cluster.kubectl("label", *hooks.made[0], "a=b")
    cluster.kubectl("delete", *hooks.made[0])


POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: e2e-replicas}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}]
  variables: [{name: replicas, expression: object.spec.replicas}]
  validations:
  - {expression: variables.replicas > 1, messageExpression: "'wants replicas > 1, got ' + string(object.spec.replicas)"}
  - {expression: "namespaceObject.metadata.name == 'NAMESPACE'", message: another namespace}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: e2e-replicas-here}
spec:
  policyName: e2e-replicas
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAMESPACE}}}
"""


def test_policy_in_cel_denies(cluster: Cluster, namespace: str) -> None:
    manifest = POLICY.replace("NAMESPACE", namespace)
    cluster.kubectl("create", "-f", "-", input=manifest)
    try:
        policy = eventually(lambda: cluster.get("validatingadmissionpolicy", "e2e-replicas").get("status"), 5)
        assert policy["observedGeneration"] == 1 and policy["typeChecking"] == {}
        result = cluster.kubectl("create", "deployment", "one", f"--image={BUSYBOX}", check=False)
        assert (
            "ValidatingAdmissionPolicy 'e2e-replicas' with binding 'e2e-replicas-here' denied request: "
            "wants replicas > 1, got 1" in result.stderr
        )
        cluster.kubectl("create", "deployment", "two", f"--image={BUSYBOX}", "--replicas=2", "--", "sleep", "100")
    finally:
        cluster.kubectl("delete", "-f", "-", input=manifest)
