"""kubectl older than the cluster, and of its own version: people's machines are rarely in step with the cluster."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.wire.whole_server import WholeServer

VERSIONS = {"1.30": "kubectl-1.30", "1.33": "kubectl-1.33", "1.37": "kubectl"}
WEB = """
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
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.v%s.example.com}
spec:
  group: v%s.example.com
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct%s], categories: [all]}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}, status: {}}
    additionalPrinterColumns: [{name: Spec, type: string, jsonPath: .spec.cronSpec, description: when}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: what is wanted
            required: [cronSpec]
            properties:
              cronSpec: {type: string, pattern: '^\\S+$', description: the schedule}
              replicas: {type: integer, minimum: 1}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""

Kubectl = Callable[..., str]


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kubectl(server: WholeServer, version: str, request: pytest.FixtureRequest) -> Kubectl:
    """In a namespace of the test's own; `check=False` gives what a refusal says."""
    namespace = f"{request.node.originalname.removeprefix('test_').replace('_', '-')}-{version.replace('.', '-')}"
    server.kubectl("create", "namespace", namespace, program=VERSIONS[version])

    def run(*arguments: str, input: str | None = None, check: bool = True) -> str:
        result = server.kubectl("--namespace", namespace, *arguments, program=VERSIONS[version], input=input, check=check)
        if not check:
            assert result.returncode != 0, result.stdout
        return result.stdout + result.stderr

    return run


def test_apply_by_both_ways(kubectl: Kubectl) -> None:
    assert kubectl("apply", "-f", "-", input=WEB).count("created") == 2
    assert kubectl("apply", "-f", "-", input=WEB).count("unchanged") == 2
    more = WEB.replace("replicas: 2", "replicas: 5")
    assert "+  replicas: 5" in kubectl("diff", "-f", "-", input=more, check=False)
    assert "configured (server dry run)" in kubectl("apply", "--dry-run=server", "-f", "-", input=more)
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "2"
    # From client-side to server-side: the fields of the annotation move to the manager of applies.
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", input=more)
    fewer = more.replace("labels: {app: web}}\nspec:\n  replicas: 5", "labels: {tier: x}}\nspec:\n  replicas: 5", 1)
    kubectl("apply", "--server-side", "-f", "-", input=fewer)
    assert json.loads(kubectl("get", "deploy", "web", "-o", "json"))["metadata"]["labels"] == {"tier": "x"}
    managers = json.loads(kubectl("get", "deploy", "web", "-o", "json", "--show-managed-fields"))["metadata"]["managedFields"]
    assert {"kubectl"} <= {m["manager"] for m in managers if m["operation"] == "Apply"}
    assert not [m for m in managers if m["manager"] == "kubectl-client-side-apply" and "f:labels" in json.dumps(m["fieldsV1"])]
    other = fewer.replace("replicas: 5", "replicas: 9")
    refused = kubectl("apply", "--server-side", "--field-manager=other", "-f", "-", input=other, check=False)
    assert 'conflict with "kubectl"' in refused and ".spec.replicas" in refused
    assert "configured" in kubectl("apply", "-f", "-", input=WEB)
    assert kubectl("apply", "--prune", "-l", "app=web", "-f", "-", input=WEB)


def test_everyday_verbs(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "d", "--image=nginx", "--replicas=1")
    kubectl("expose", "deployment", "d", "--port=80", "--target-port=8080")
    kubectl("scale", "deployment/d", "--replicas=3", "--current-replicas=1")
    kubectl("set", "image", "deployment/d", "nginx=nginx:2")
    kubectl("set", "env", "deployment/d", "A=b")
    kubectl("set", "resources", "deployment/d", "--limits=cpu=200m")
    kubectl("rollout", "pause", "deployment/d")
    kubectl("rollout", "resume", "deployment/d")
    kubectl("rollout", "restart", "deployment/d")
    assert "REVISION" in kubectl("rollout", "history", "deployment/d")
    kubectl("label", "deployment/d", "tier=front")
    kubectl("annotate", "deployment/d", "note=x", "--overwrite")
    kubectl("patch", "deployment", "d", "-p", '{"spec":{"replicas":2}}')
    kubectl("patch", "deployment", "d", "--type=json", "-p", '[{"op":"replace","path":"/spec/replicas","value":4}]')
    kubectl("patch", "deployment", "d", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":6}}')
    assert kubectl("get", "deployment", "d", "--subresource=scale", "-o", "jsonpath={.spec.replicas}") == "6"
    assert kubectl("get", "deploy", "-l", "tier=front", "-o", "name").strip() == "deployment.apps/d"
    assert "deployment.apps/d" in kubectl("get", "all")
    assert "d " in kubectl("get", "deploy", "-o", "wide", "--show-labels", "--sort-by=.metadata.name")
    assert "NAME" in kubectl("get", "deploy", "-o", "custom-columns=NAME:.metadata.name")
    assert "Replicas:" in kubectl("describe", "deployment", "d")
    assert "Selector:" in kubectl("describe", "service", "d")
    assert "condition met" in kubectl("wait", "--for=jsonpath={.spec.replicas}=6", "deployment/d", "--timeout=10s")
    kubectl("run", "p", "--image=busybox", "--restart=Never", "--", "sleep", "1")
    assert "Pending" in kubectl("get", "pod", "p")
    assert "Image:" in kubectl("describe", "pod", "p")
    assert "Pending" in kubectl("get", "pods", "--field-selector=status.phase=Pending")
    kubectl("create", "token", "default", "--duration=10m")
    assert "deleted" in kubectl("delete", "pod", "p", "--force", "--grace-period=0")
    assert "deleted" in kubectl("delete", "deployment,service", "--all")
    assert "No resources found" in kubectl("get", "deployments")


def test_every_kind_that_create_knows(kubectl: Kubectl) -> None:
    for arguments in (
        ("configmap", "cm", "--from-literal=a=b"),
        ("secret", "generic", "s", "--from-literal=a=b"),
        ("secret", "docker-registry", "r", "--docker-username=u", "--docker-password=p", "--docker-email=e@x"),
        ("service", "nodeport", "np", "--tcp=80:8080"),
        ("service", "externalname", "en", "--external-name=example.com"),
        ("service", "loadbalancer", "lb", "--tcp=80:8080"),
        ("job", "j", "--image=x"),
        ("cronjob", "cj", "--image=x", "--schedule=* * * * *"),
        ("role", "r", "--verb=get,list", "--resource=pods"),
        ("rolebinding", "rb", "--role=r", "--user=u"),
        ("serviceaccount", "sa"),
        ("quota", "q", "--hard=pods=3,cpu=2"),
        ("ingress", "i", "--rule=a.example.com/b*=svc:80"),
        ("poddisruptionbudget", "pdb", "--selector=app=x", "--min-available=50%"),
    ):
        assert "created" in kubectl("create", *arguments)
    assert "created" in kubectl("create", "job", "j2", "--from=cronjob/cj")


def test_what_can_be_asked(kubectl: Kubectl, version: str) -> None:
    assert "deployments" in kubectl("api-resources", "--api-group=apps")
    assert "apps/v1" in kubectl("api-versions")
    assert "DESCRIPTION" in kubectl("explain", "pods.spec.containers.resources")
    assert "emptyDir" in kubectl("explain", "pods.spec.volumes", "--recursive")
    assert "Server Version: v1.37" in kubectl("version")
    assert "control plane" in kubectl("cluster-info")
    assert kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    assert "no" in kubectl("auth", "can-i", "create", "pods", "--as=nobody", check=False)
    assert "*.*" in kubectl("auth", "can-i", "--list")
    assert "system:masters" in kubectl("auth", "whoami")
    assert "ok" in kubectl("get", "--raw", "/readyz?verbose")
    assert "not found" in kubectl("get", "pods", "nothing", check=False)
    assert 'doesn\'t have a resource type "nothings"' in kubectl("get", "nothings", check=False)


def test_custom_resources(kubectl: Kubectl, version: str, server: WholeServer) -> None:
    number = version.replace(".", "")
    assert "created" in kubectl("apply", "-f", "-", input=CRD.replace("%s", number))
    assert "condition met" in kubectl(
        "wait", "--for=condition=Established", f"crd/crontabs.v{number}.example.com", "--timeout=10s"
    )
    body = f'apiVersion: v{number}.example.com/v1\nkind: CronTab\nmetadata: {{name: a}}\nspec: {{cronSpec: "x", replicas: 2}}\n'
    assert "created" in kubectl("apply", "-f", "-", input=body)
    assert "unchanged" in kubectl("apply", "-f", "-", input=body)
    assert "configured" in kubectl("apply", "-f", "-", input=body.replace("replicas: 2", "replicas: 3"))
    assert "SPEC" in kubectl("get", f"ct{number}")
    assert "crontab" in kubectl("get", "all")
    kubectl("scale", f"ct{number}/a", "--replicas=7")
    assert kubectl("get", f"ct{number}", "a", "-o", "jsonpath={.spec.replicas}") == "7"
    kubectl("patch", f"ct{number}", "a", "--type=merge", "-p", '{"status":{"replicas":7}}', "--subresource=status")
    assert "the schedule" in kubectl("explain", f"crontabs.v{number}.example.com.spec")
    refused = kubectl("apply", "-f", "-", input=body.replace('"x"', '"x y"'), check=False)
    assert "spec.cronSpec in body should match" in refused
    assert 'unknown field "spec.cronSpek"' in kubectl("apply", "-f", "-", input=body.replace("replicas", "cronSpek"), check=False)
    assert "deleted" in kubectl("delete", f"ct{number}", "a")
    assert "deleted" in kubectl("delete", f"crd/crontabs.v{number}.example.com")


def test_create_edit_replace_wait_watch(kubectl: Kubectl, server: WholeServer, version: str) -> None:
    kubectl("create", "configmap", "cm", "--from-literal=a=1")
    text = kubectl("get", "configmap", "cm", "-o", "yaml")
    assert "replaced" in kubectl("replace", "-f", "-", input=text.replace('a: "1"', 'a: "2"'))
    assert "the object has been modified" in kubectl("replace", "-f", "-", input=text.replace('a: "1"', 'a: "3"'), check=False)
    assert kubectl("get", "configmap", "cm", "-o", "jsonpath={.data.a}") == "2"
    assert "already exists" in kubectl("create", "configmap", "cm", check=False)
    assert "cm" in kubectl("get", "configmap", "--watch", "--request-timeout=1s", "--output-watch-events")
    assert "deleted" in kubectl("delete", "configmap", "cm", "--dry-run=server")
    assert "deleted" in kubectl("delete", "configmap", "cm", "--wait", "--cascade=foreground")
