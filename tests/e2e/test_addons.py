"""Add-ons of the user: manifests that come, change, break and go; charts run by the real helm. In a cluster of its own."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, Cluster, eventually

MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: '{value}'}}\n"
KIND = """
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: mine}
spec: {cron: often}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {kind: CronTab, listKind: CronTabList, plural: crontabs, singular: crontab}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {cron: {type: string}}}}}}
"""


@pytest.fixture(scope="module")
def own(tools: object) -> Iterator[Cluster]:
    made = Cluster(f"k1s-add-{os.getpid()}")
    try:
        made.create_network()
        # There before the server: the first start applies it.
        write(made, "first.yaml", MAP.format(name="first", value="1"))
        made.start()
        yield made
    finally:
        made.remove()


def write(cluster: Cluster, name: str, text: str) -> None:
    path = cluster.data / "server" / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def drop(cluster: Cluster, name: str) -> None:
    (cluster.data / "server" / "manifests" / name).unlink()


def value(cluster: Cluster, name: str) -> str:
    return cluster.kubectl("get", "configmap", name, "-o", "jsonpath={.data.key}", "--ignore-not-found").stdout


def gone(cluster: Cluster, *what: str) -> bool:
    return cluster.kubectl("get", *what, "--ignore-not-found", "-o", "name").stdout == ""


def test_manifests_come_change_and_go(own: Cluster) -> None:
    eventually(lambda: value(own, "first") == "1", 15)
    write(own, "below/more.yaml", MAP.format(name="a", value="1") + "---\n" + MAP.format(name="b", value="1"))
    eventually(lambda: value(own, "a") == value(own, "b") == "1", 10)
    write(own, "below/more.yaml", MAP.format(name="a", value="2"))
    eventually(lambda: value(own, "a") == "2" and gone(own, "configmap", "b"), 10)
    own.kubectl("create", "configmap", "by-hand")
    drop(own, "below/more.yaml")
    eventually(lambda: gone(own, "configmap", "a"), 10)
    assert not gone(own, "configmap", "by-hand") and value(own, "first") == "1"


def test_a_file_that_goes_while_the_server_is_down(own: Cluster) -> None:
    write(own, "lost.yaml", MAP.format(name="lost", value="1"))
    eventually(lambda: value(own, "lost") == "1", 10)
    before = own.get("configmap", "first")["metadata"]["resourceVersion"]
    os.kill(own.pid_of("server"), signal.SIGKILL)
    assert own.server is not None
    own.server.wait(10)
    drop(own, "lost.yaml")
    own.start()
    eventually(lambda: gone(own, "configmap", "lost"), 15)
    assert own.get("configmap", "first")["metadata"]["resourceVersion"] == before, "what did not change is not written"


def test_skip(own: Cluster) -> None:
    write(own, "skipped.yaml.skip", "")
    write(own, "skipped.yaml", MAP.format(name="skipped", value="1"))
    write(own, "other.yaml", MAP.format(name="other", value="1"))
    eventually(lambda: value(own, "other") == "1", 10)
    assert gone(own, "configmap", "skipped")
    drop(own, "skipped.yaml.skip")
    eventually(lambda: value(own, "skipped") == "1", 10)


def test_a_kind_and_its_objects_in_one_file(own: Cluster) -> None:
    write(own, "kinds.yaml", KIND)
    eventually(lambda: own.kubectl("get", "crontab", "mine", check=False).returncode == 0, 15)
    drop(own, "kinds.yaml")
    eventually(lambda: gone(own, "crd", "crontabs.stable.example.com"), 15)


def test_a_broken_manifest_says_what_is_wrong_and_stops_nothing(own: Cluster) -> None:
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: wrong}\nspec: {ports: [{port: 0}]}\n"
    write(own, "broken.yaml", MAP.format(name="broken", value="1") + "---\nkind: [\n")
    write(
        own,
        "half.yaml",
        MAP.format(name="half", value="1") + "---\n" + service + "---\napiVersion: v7\nkind: Odd\nmetadata: {name: x}\n",
    )
    write(own, "whole.yaml", MAP.format(name="whole", value="1"))
    eventually(lambda: value(own, "whole") == value(own, "half") == "1", 10)
    assert gone(own, "configmap", "broken")

    def told() -> str:
        return own.kubectl("get", "events", "-n", "kube-system", "-o", "jsonpath={range .items[*]}{.message}{'\\n'}{end}").stdout

    for words in ("broken.yaml: document 2:", "Service default/wrong", "spec.ports[0].port", 'no kind "Odd" in v7'):
        eventually(lambda words=words: words in told(), 15, words)
        assert words in own.log.read_text()
    assert len([line for line in own.log.read_text().splitlines() if "broken.yaml" in line]) == 1
    write(own, "broken.yaml", MAP.format(name="broken", value="2"))
    eventually(lambda: value(own, "broken") == "2", 10)


def archive(version: str) -> str:
    """examples/chart as an archive, base64."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in sorted((ROOT / "examples" / "chart").rglob("*")):
            data = path.read_bytes() if path.is_file() else None
            if data is not None:
                if path.name == "Chart.yaml":
                    data = "\n".join(
                        f"version: {version}" if line.startswith("version:") else line for line in data.decode().splitlines()
                    ).encode()
                info = tarfile.TarInfo(f"chart/{path.relative_to(ROOT / 'examples' / 'chart')}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return base64.b64encode(gzip.compress(out.getvalue(), mtime=0)).decode()


def chart(name: str, spec: str) -> str:
    return f"apiVersion: helm.cattle.io/v1\nkind: HelmChart\nmetadata: {{name: {name}, namespace: kube-system}}\nspec: {spec}\n"


def condition(cluster: Cluster, name: str) -> Any:
    found = cluster.get("helmchart", name, "-n", "kube-system").get("status", {}).get("conditions", [])
    return next((c for c in found if c["type"] == "Deployed"), {})


def test_a_chart_is_installed_configured_upgraded_and_uninstalled(own: Cluster) -> None:
    spec = f"{{chartContent: {archive('0.1.0')}, targetNamespace: charts, createNamespace: true, set: {{greeting: 'good, day'}}}}"
    write(own, "hello.yaml", chart("hello", spec))
    eventually(lambda: condition(own, "hello").get("status") == "True", 30)
    releases = own.helm("list", "-n", "charts").stdout
    assert "hello" in releases and "deployed" in releases
    assert "good, day" in own.helm("get", "values", "hello", "-n", "charts").stdout
    config = "apiVersion: helm.cattle.io/v1\nkind: HelmChartConfig\nmetadata: {name: hello, namespace: kube-system}\n"
    write(own, "hello-config.yaml", config + "spec:\n  valuesContent: |\n    replicas: 2\n")
    eventually(lambda: own.get("deploy", "-n", "charts")["items"][0]["spec"]["replicas"] == 2, 20)
    write(own, "hello.yaml", chart("hello", spec.replace(archive("0.1.0"), archive("0.2.0"))))
    eventually(lambda: "0.2.0" in own.helm("list", "-n", "charts").stdout, 20)
    # What somebody changed by hand is the chart's again with its next change.
    own.kubectl("scale", "deploy", "--all", "--replicas=3", "-n", "charts")
    write(own, "hello-config.yaml", config + "spec:\n  valuesContent: |\n    replicas: 1\n")
    eventually(lambda: own.get("deploy", "-n", "charts")["items"][0]["spec"]["replicas"] == 1, 20)
    eventually(lambda: "deployed" in own.helm("list", "-n", "charts").stdout, 10)
    revision = own.helm("list", "-n", "charts").stdout
    own.stop()
    own.start()
    eventually(lambda: condition(own, "hello").get("status") == "True", 20)
    assert own.helm("list", "-n", "charts").stdout == revision, "a restart runs no helm"
    drop(own, "hello.yaml")
    eventually(lambda: gone(own, "helmchart", "-n", "kube-system"), 30)
    eventually(lambda: gone(own, "deploy", "-n", "charts") and "hello" not in own.helm("list", "-n", "charts").stdout, 20)


def test_a_chart_of_the_static_directory_and_one_that_fails(own: Cluster) -> None:
    place = own.data / "server" / "static" / "charts" / "local-0.3.0.tgz"
    place.parent.mkdir(parents=True)
    place.write_bytes(base64.b64decode(archive("0.3.0")))
    write(own, "local.yaml", chart("local", "{chart: 'https://%{KUBERNETES_API}%/static/charts/local-0.3.0.tgz'}"))
    eventually(lambda: condition(own, "local").get("status") == "True", 30)
    # What is no archive: helm says so, and it is told.
    write(own, "bad.yaml", chart("bad", "{chartContent: bm8gY2hhcnQ=}"))
    found = eventually(lambda: condition(own, "bad"), 30)
    assert found["status"] == "False" and found["reason"] == "HelmFailed" and "helm upgrade:" in found["message"]
    assert "HelmFailed" in own.kubectl("get", "events", "-n", "kube-system").stdout
    assert condition(own, "local").get("status") == "True"
    drop(own, "bad.yaml")
    drop(own, "local.yaml")
    eventually(lambda: gone(own, "helmchart", "-n", "kube-system"), 30)
    assert not list((own.data / "server" / "helm").glob("run-*"))


def test_a_chart_of_a_repository_with_a_password(own: Cluster, tmp_path: Path) -> None:
    (tmp_path / "hello-0.1.0.tgz").write_bytes(base64.b64decode(archive("0.1.0")))
    entry = {"apiVersion": "v2", "name": "hello", "version": "0.1.0", "urls": ["hello-0.1.0.tgz"]}
    (tmp_path / "index.yaml").write_text(json.dumps({"apiVersion": "v1", "entries": {"hello": [entry]}}))
    web = Path(__file__).with_name("web.py")
    command = own.inside(sys.executable, "-IS", web, "files", "127.0.0.1", "18081", tmp_path, "me:s3cret")
    server = subprocess.Popen(command)
    try:
        own.kubectl(
            "create", "secret", "generic", "repository", "-n", "kube-system", "--type=kubernetes.io/basic-auth",
            "--from-literal=username=me", "--from-literal=password=wrong",
        )  # fmt: skip
        spec = "{chart: hello, repo: 'http://127.0.0.1:18081', version: 0.1.0, authSecret: {name: repository}}"
        write(own, "remote.yaml", chart("remote", spec))
        eventually(lambda: "401" in condition(own, "remote").get("message", ""), 30)
        own.kubectl("patch", "secret", "repository", "-n", "kube-system", "-p", '{"stringData": {"password": "s3cret"}}')
        eventually(lambda: condition(own, "remote").get("status") == "True", 30)
        assert "s3cret" not in own.log.read_text()
        drop(own, "remote.yaml")
        eventually(lambda: gone(own, "helmchart", "-n", "kube-system"), 30)
    finally:
        server.kill()
        server.wait()
