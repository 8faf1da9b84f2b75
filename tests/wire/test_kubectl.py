"""What people do with kubectl, against the API server alone: no controllers, no nodes."""

from __future__ import annotations

import json
import subprocess

from tests.wire.conftest import Wire

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


def test_create_typed_objects(wire: Wire, namespace: str) -> None:
    n = f"--namespace={namespace}"
    for arguments in (
        ("configmap", "cm", "--from-literal=a=b"),
        ("secret", "generic", "s", "--from-literal=a=b"),
        ("deployment", "d", "--image=x", "--replicas=3"),
        ("service", "clusterip", "svc", "--tcp=80:8080"),
        ("service", "nodeport", "np", "--tcp=80:8080"),
        ("job", "j", "--image=x"),
        ("cronjob", "cj", "--image=x", "--schedule=* * * * *"),
        ("role", "r", "--verb=get,list", "--resource=pods"),
        ("rolebinding", "rb", "--role=r", "--user=u"),
        ("serviceaccount", "sa"),
        ("quota", "q", "--hard=pods=3,cpu=2"),
        ("ingress", "i", "--rule=a.example.com/b*=svc:80"),
        ("pdb", "pdb", "--selector=app=x", "--min-available=50%"),
    ):
        assert "created" in wire.kubectl("create", *arguments, n)
    assert wire.kubectl("get", "deploy", "d", "-o", "jsonpath={.spec.replicas}", n) == "3"
    assert wire.kubectl("get", "pdb", "pdb", "-o", "jsonpath={.spec.minAvailable}", n) == "50%"
    assert wire.kubectl("get", "cm", "cm", "-o", "jsonpath={.data.a}", n) == "b"
    assert wire.kubectl("get", "quota", "q", "-o", "jsonpath={.spec.hard.cpu}", n) == "2"


def test_apply_diff_and_delete(wire: Wire, namespace: str) -> None:
    n = f"--namespace={namespace}"
    assert wire.kubectl("apply", "-f", "-", n, input=MANIFEST).count("created") == 2
    assert wire.kubectl("apply", "-f", "-", n, input=MANIFEST).count("unchanged") == 2
    changed = MANIFEST.replace("replicas: 2", "replicas: 5")
    assert "+  replicas: 5" in wire.kubectl("diff", "-f", "-", n, input=changed, fails=True)
    assert "configured" in wire.kubectl("apply", "-f", "-", n, input=changed)
    assert "web" in wire.kubectl("get", "-f", "-", n, input=MANIFEST)
    assert wire.kubectl("delete", "-f", "-", n, input=MANIFEST).count("deleted") == 2


def test_server_side_apply(wire: Wire, namespace: str) -> None:
    n = f"--namespace={namespace}"
    wire.kubectl("apply", "--server-side", "-f", "-", n, input=MANIFEST)
    other = MANIFEST.replace("replicas: 2", "replicas: 9")
    refused = wire.kubectl("apply", "--server-side", "--field-manager=other", "-f", "-", n, input=other, fails=True)
    assert 'conflict with "kubectl"' in refused and ".spec.replicas" in refused
    wire.kubectl("apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-", n, input=other)
    assert wire.kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}", n) == "9"


def test_strict_fields(wire: Wire, namespace: str) -> None:
    bad = MANIFEST.replace("replicas: 2", "replicaz: 2")
    assert 'unknown field "spec.replicaz"' in wire.kubectl("apply", "-f", "-", "-n", namespace, input=bad, fails=True)
    assert "Warning" in wire.kubectl("apply", "--validate=warn", "-f", "-", "-n", namespace, input=bad)


def test_everyday_verbs(wire: Wire, namespace: str) -> None:
    n = f"--namespace={namespace}"
    wire.kubectl("apply", "-f", "-", n, input=MANIFEST)
    wire.kubectl("scale", "deploy", "web", "--replicas=4", n)
    wire.kubectl("label", "deploy", "web", "tier=front", n)
    wire.kubectl("annotate", "deploy", "web", "note=hello", n)
    wire.kubectl("set", "image", "deploy/web", "c=nginx:2", n)
    wire.kubectl("set", "env", "deploy/web", "A=b", n)
    wire.kubectl("patch", "deploy", "web", "-p", '{"spec":{"replicas":6}}', n)
    paused = '[{"op":"add","path":"/spec/paused","value":true}]'
    wire.kubectl("patch", "deploy", "web", "--type=json", "-p", paused, n)
    assert "already paused" in wire.kubectl("rollout", "pause", "deploy/web", n, fails=True)
    wire.kubectl("rollout", "restart", "deploy/web", n, fails=True)
    wire.kubectl("expose", "deploy", "web", "--name=other", "--port=80", n)
    wire.kubectl("autoscale", "deploy", "web", "--min=1", "--max=3", "--cpu=50%", n)
    obj = json.loads(wire.kubectl("get", "deploy", "web", "-o", "json", n))
    container = obj["spec"]["template"]["spec"]["containers"][0]
    assert obj["spec"]["replicas"] == 6 and container["image"] == "nginx:2" and container["env"] == [{"name": "A", "value": "b"}]
    assert obj["metadata"]["labels"]["tier"] == "front" and obj["spec"]["paused"] is True
    assert "nginx:2" in wire.kubectl("describe", "deploy", "web", n)


def test_output_forms(wire: Wire, namespace: str) -> None:
    n = f"--namespace={namespace}"
    wire.kubectl("apply", "-f", "-", n, input=MANIFEST)
    assert wire.kubectl("get", "deploy", n).splitlines()[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert "IMAGES" in wire.kubectl("get", "deploy", "-o", "wide", n)
    assert wire.kubectl("get", "deploy,svc", "-o", "name", n).split() == ["deployment.apps/web", "service/web"]
    assert wire.kubectl("get", "deploy", "-l", "app=none", n).startswith("No resources found")
    assert wire.kubectl("get", "svc", "--field-selector", "spec.type=ClusterIP", "-o", "name", n) == "service/web\n"
    for number in range(7):
        wire.kubectl("create", "configmap", f"c{number}", n)
    assert len(wire.kubectl("get", "cm", "--chunk-size=2", "-o", "name", n).split()) == 7
    assert "web" in wire.kubectl("get", "all", n)


def test_explain_and_resources(wire: Wire) -> None:
    assert "FIELD: image <string>" in wire.kubectl("explain", "pod.spec.containers.image")
    assert "strategy" in wire.kubectl("explain", "deploy.spec")
    assert "deployments" in wire.kubectl("api-resources", "--api-group=apps", "-o", "name")
    assert "autoscaling/v2" in wire.kubectl("api-versions").split()
    assert "ok" in wire.kubectl("get", "--raw", "/readyz?verbose")


def test_watching(wire: Wire, namespace: str) -> None:
    n = f"--namespace={namespace}"
    process = subprocess.Popen(
        wire.command("get", "cm", "--watch", "--no-headers", n), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wire.kubectl("create", "configmap", "seen", "--from-literal=a=b", n)
        assert process.stdout is not None
        assert process.stdout.readline().split()[:2] == ["seen", "1"]
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_waiting_for_a_deletion(wire: Wire, namespace: str) -> None:
    n = f"--namespace={namespace}"
    wire.kubectl("run", "p", "--image=x", n)
    assert "condition" in wire.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=1s", n, fails=True)
    assert "deleted" in wire.kubectl("delete", "pod", "p", "--wait=true", "--timeout=10s", n)
    wire.kubectl("create", "configmap", "a", n)
    assert "deleted" in wire.kubectl("delete", "cm", "--all", n)


DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What the widget is like.
            properties: {size: {type: integer, description: How big.}}
"""
WIDGET = """
apiVersion: example.com/v1
kind: Widget
metadata: {name: w}
spec: {size: 3}
"""


def test_custom_resources(wire: Wire, namespace: str) -> None:
    n = f"--namespace={namespace}"
    wire.kubectl("apply", "-f", "-", input=DEFINITION)
    wire.kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=10s")
    assert "created" in wire.kubectl("apply", "-f", "-", n, input=WIDGET)
    assert "configured" in wire.kubectl("apply", "-f", "-", n, input=WIDGET.replace("3", "4"))
    assert wire.kubectl("get", "wd", n).splitlines()[1].split()[:2] == ["w", "4"]
    assert "How big." in wire.kubectl("explain", "widget.spec.size")
    bad = WIDGET.replace("size: 3", "colour: red")
    assert 'unknown field "spec.colour"' in wire.kubectl("apply", "-f", "-", n, input=bad, fails=True)
    assert "deleted" in wire.kubectl("delete", "-f", "-", "--timeout=10s", input=DEFINITION)
    assert "the server could not find the requested resource" in wire.kubectl("get", "--raw", "/apis/example.com/v1", fails=True)
