"""kubectl as its users and the conformance suite type it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from .conftest import TOOLS, Cluster, eventually

BUSYBOX = "docker.io/library/busybox:1.36"
DEPLOYMENT = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{app: web}}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: web, image: "{BUSYBOX}", command: [sh, -c, "echo hello; echo world; exec sleep 1000"]}}]
"""


@pytest.fixture
def web(cluster: Cluster, namespace: str) -> str:
    """A running Deployment `web`; gives its pod."""
    cluster.kubectl("apply", "-f", "-", input=DEPLOYMENT)
    cluster.kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    return cluster.kubectl("get", "pods", "-l", "app=web", "-o", "name").stdout.strip()


def test_versions_and_places(cluster: Cluster) -> None:
    assert "v1" in cluster.kubectl("api-versions").stdout.split()
    found = json.loads(cluster.kubectl("version", "-o", "json").stdout)
    assert found["serverVersion"]["minor"].startswith("37") and found["clientVersion"]["major"] == "1"
    assert "Kubernetes control plane" in cluster.kubectl("cluster-info").stdout
    cluster.kubectl("cluster-info", "dump", "--namespaces=kube-system", "--output-directory=/dev/null", check=False)


def test_apply_keeps_what_others_set(cluster: Cluster, web: str) -> None:
    changed = DEPLOYMENT.replace("  replicas: 1\n", "").replace("labels: {app: web}}\nspec", "labels: {app: web, x: why}}\nspec")
    cluster.kubectl("apply", "-f", "-", input=changed)
    live = cluster.get("deploy", "web")
    assert live["metadata"]["labels"]["x"] == "why"
    last = cluster.kubectl("apply", "view-last-applied", "deploy/web", "-o", "json").stdout
    assert json.loads(last)["metadata"]["labels"]["x"] == "why"
    cluster.kubectl("scale", "deploy/web", "--replicas=2")
    assert "conflict" in cluster.kubectl("apply", "--server-side", "-f", "-", check=False, input=DEPLOYMENT).stderr
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=DEPLOYMENT)


def test_diff_and_server_dry_run(cluster: Cluster, web: str) -> None:
    other = DEPLOYMENT.replace(BUSYBOX, "example.com/other:1")
    result = cluster.kubectl("diff", "-f", "-", check=False, input=other)
    assert result.returncode == 1 and "+        image: example.com/other:1" in result.stdout.replace(
        "      - image", "        image"
    )
    cluster.kubectl("apply", "--dry-run=server", "-f", "-", input=other)
    patch = json.dumps({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "example.com/other:1"}]}}}})
    cluster.kubectl("patch", "deploy", "web", "--dry-run=server", "-p", patch)
    assert cluster.get("deploy", "web")["spec"]["template"]["spec"]["containers"][0]["image"] == BUSYBOX


def test_describe_tells_what_users_look_for(cluster: Cluster, web: str, namespace: str) -> None:
    cluster.kubectl("expose", "deploy/web", "--port=80", "--name=web")
    for what, words in {
        web: ("Name:", "Namespace:", "Node:", "Labels:", "Status:       ", "IP:", "Controlled By:  ReplicaSet/web-", "Image:"),
        "deploy/web": ("Replicas:", "1 desired", "Pod Template:", "StrategyType:", "NewReplicaSet:"),
        "service/web": ("Selector:                 app=web", "Endpoints:", "Session Affinity:"),
        "node/node-1": ("Name:               node-1", "Capacity:", "Kubelet Version:", "Allocated resources:", "Conditions:"),
        f"namespace/{namespace}": (f"Name:         {namespace}", "Status:       Active"),
    }.items():
        text = cluster.kubectl("describe", what).stdout
        assert [word for word in words if word not in text] == [], text


def test_labels_annotations_and_patches(cluster: Cluster, web: str) -> None:
    cluster.kubectl("label", web, "testing-label=value")
    assert "value" in cluster.kubectl("get", web, "-L", "testing-label").stdout
    cluster.kubectl("label", web, "testing-label-")
    assert "value" not in cluster.kubectl("get", web, "-L", "testing-label").stdout
    cluster.kubectl("patch", web, "-p", '{"metadata":{"annotations":{"x":"y"}}}')
    assert cluster.get(web)["metadata"]["annotations"]["x"] == "y"
    cluster.kubectl("taint", "node", "node-1", "k1s-e2e=value:PreferNoSchedule")
    assert "k1s-e2e=value:PreferNoSchedule" in cluster.kubectl("describe", "node", "node-1").stdout
    cluster.kubectl("taint", "node", "node-1", "k1s-e2e-")


def test_replace_swaps_the_image(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("run", "p", f"--image={BUSYBOX}", "--labels=run=p", "--", "sleep", "100")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    pod = cluster.kubectl("get", "pod", "p", "-o", "json").stdout
    cluster.kubectl("replace", "-f", "-", input=pod.replace(f'"image": "{BUSYBOX}"', '"image": "example.com/other:1"'))
    assert cluster.get("pod", "p")["spec"]["containers"][0]["image"] == "example.com/other:1"
    cluster.kubectl("delete", "pod", "p", "--force", "--grace-period=0")


def test_logs_in_their_ways(cluster: Cluster, web: str) -> None:
    eventually(lambda: cluster.kubectl("logs", web).stdout == "hello\nworld\n", 10)
    assert cluster.kubectl("logs", web, "--tail=1").stdout == "world\n"
    assert cluster.kubectl("logs", web, "--limit-bytes=1").stdout == "h"
    assert re.match(r"20\d\d-\d\d-\d\dT\S+ hello\n", cluster.kubectl("logs", web, "--timestamps").stdout)
    assert cluster.kubectl("logs", "deploy/web", "--since=24h").stdout.startswith("hello")
    assert "hello" in cluster.kubectl("logs", "-l", "app=web", "--prefix").stdout


def test_files_go_in_and_out(cluster: Cluster, web: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("some words\n" * 1000)
    name = web.removeprefix("pod/")
    cluster.kubectl("cp", str(tmp_path / "in"), f"{name}:/tmp/file")
    assert cluster.kubectl("exec", name, "--", "wc", "-l", "/tmp/file").stdout.split()[0] == "1000"
    cluster.kubectl("cp", f"{name}:/tmp/file", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == (tmp_path / "in").read_text()
    result = cluster.kubectl("exec", "-i", name, "--", "sh", "-c", "cat; exit 3", check=False, input="typed")
    assert result.stdout == "typed" and result.returncode == 3


def test_run_with_input_and_exit_code(cluster: Cluster, namespace: str) -> None:
    result = cluster.kubectl(
        "run", "once", f"--image={BUSYBOX}", "--restart=Never", "-i", "--rm", "--pod-running-timeout=30s", "--",
        "sh", "-c", "cat && echo read", input="abcd1234",
    )  # fmt: skip
    assert "abcd1234" in result.stdout and "read" in result.stdout
    failed = cluster.kubectl(
        "run", "fails", f"--image={BUSYBOX}", "--restart=Never", "-i", "--", "sh", "-c", "exit 42", check=False
    )
    assert failed.returncode == 42
    cluster.kubectl("run", "p", f"--image={BUSYBOX}", "--dry-run=server", "-o", "yaml")
    assert cluster.kubectl("get", "pod", "p", check=False).returncode == 1


def test_quotas_from_flags(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "quota", "million", "--hard=pods=1000000,services=1000000")
    assert cluster.get("quota", "million")["spec"]["hard"] == {"pods": "1M", "services": "1M"}
    cluster.kubectl("create", "quota", "scopes", "--hard=pods=5", "--scopes=BestEffort,NotTerminating")
    bad = cluster.kubectl("create", "quota", "bad", "--hard=hard=pods=1", "--scopes=Nothing", check=False)
    assert bad.returncode == 1
    assert "million" in cluster.kubectl("describe", "quota").stdout


def test_proxy_on_a_free_port(cluster: Cluster) -> None:
    command = cluster.inside(TOOLS / "bin" / "kubectl", "proxy", "-p", "0", "--disable-filter")
    process = subprocess.Popen(command, env=cluster.env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert port is not None
        answer = subprocess.run(
            cluster.inside("curl", "-s", f"http://127.0.0.1:{port[1]}/api/"), capture_output=True, text=True, timeout=20
        )
        assert json.loads(answer.stdout)["versions"] == ["v1"]
    finally:
        process.kill()
        process.wait()


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: foos.cli.example.com}
spec:
  group: cli.example.com
  scope: Namespaced
  names: {plural: foos, singular: foo, kind: Foo, shortNames: [fo]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    selectableFields: [{jsonPath: .spec.bars}]
    additionalPrinterColumns: [{name: Bars, type: integer, jsonPath: .spec.bars}]
    schema:
      openAPIV3Schema:
        type: object
        description: Foo CRD for Testing
        properties:
          spec:
            type: object
            description: Specification of Foo
            required: [bars]
            properties:
              bars: {type: integer, description: How many bars., default: 3}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, properties: {seen: {type: boolean}}}
"""


def test_custom_resources_are_explained_and_validated(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "-f", "-", input=CRD)
    try:
        cluster.kubectl("wait", "--for=condition=Established", "crd/foos.cli.example.com", "--timeout=10s")
        text = eventually(lambda: cluster.kubectl("explain", "foos.spec.bars", check=False).stdout, 10)
        assert "How many bars." in text and "FIELD: bars <integer>" in text
        assert "Specification of Foo" in cluster.kubectl("explain", "foos.spec").stdout
        assert cluster.kubectl("explain", "foos.spec.nothing", check=False).returncode == 1
        head = "apiVersion: cli.example.com/v1\nkind: Foo\nmetadata: {name: f}\n"
        assert 'unknown field "spec.colour"' in cluster.kubectl(
            "create", "-f", "-", check=False, input=head + "spec: {bars: 1, colour: red}"
        ).stderr  # fmt: skip
        assert "spec.bars" in cluster.kubectl("create", "-f", "-", check=False, input=head + "spec: {bars: x}").stderr
        cluster.kubectl("apply", "-f", "-", input=head + "spec: {free: {any: {thing: 1}}}\nstatus: {seen: true}")
        made = cluster.get("fo", "f")
        assert made["spec"] == {"bars": 3, "free": {"any": {"thing": 1}}} and "status" not in made
        cluster.kubectl("patch", "foo", "f", "--subresource=status", "--type=merge", "-p", '{"status":{"seen":true}}')
        assert cluster.get("foo", "f")["status"] == {"seen": True}
        assert "Standard object's metadata." in cluster.kubectl("explain", "foos.metadata").stdout
        assert cluster.kubectl("get", "foos", "--field-selector=spec.bars=3", "-o", "name").stdout == "foo.cli.example.com/f\n"
        assert cluster.kubectl("get", "foos", "--field-selector=spec.bars=4", "-o", "name").stdout == ""
        assert re.search(r"NAME\s+BARS\nf\s+3", cluster.kubectl("get", "foos").stdout)
    finally:
        cluster.kubectl("delete", "crd", "foos.cli.example.com", "--timeout=20s")
