"""What goes wrong is said clearly, and nothing is lost by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, Cluster, eventually

BUSYBOX = "docker.io/library/busybox:1.36"


def refused(cluster: Cluster, manifest: str, *flags: str) -> str:
    result = cluster.kubectl("create", *flags, "-f", "-", check=False, input=manifest)
    assert result.returncode != 0, result.stdout
    return result.stderr


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ("apiVersion: v1\nkind: Pood\nmetadata: {name: x}", 'no matches for kind "Pood"'),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_Valid}", "a lowercase RFC 1123 subdomain"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, labels: {a: 'b c'}}", "metadata.labels: Invalid value"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: 1}", "cannot unmarshal number"),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: many}", "cannot unmarshal string"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: []}", "spec.containers: Required value"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a}], colour: red}",
            'unknown field "spec.colour"',
        ),
    ],
)
def test_bad_objects_are_refused_with_their_field(cluster: Cluster, namespace: str, manifest: str, expected: str) -> None:
    assert expected in refused(cluster, manifest)


def test_malformed_json_is_a_bad_request(cluster: Cluster) -> None:
    result = cluster.kubectl(
        "create", "--raw", "/api/v1/namespaces/default/configmaps", "-f", "-", check=False, input="{not json"
    )
    assert "BadRequest" in result.stderr or "invalid character" in result.stderr


def test_stale_resource_version_is_a_conflict(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "c", "--from-literal=a=1")
    manifest = cluster.kubectl("get", "configmap", "c", "-o", "yaml").stdout
    cluster.kubectl("patch", "configmap", "c", "--type=merge", "-p", '{"data":{"a":"2"}}')
    result = cluster.kubectl("replace", "-f", "-", check=False, input=manifest.replace('a: "1"', 'a: "3"'))
    assert "the object has been modified" in result.stderr
    assert cluster.get("configmap", "c")["data"] == {"a": "2"}


def waiting_reason(cluster: Cluster, pod: str) -> dict[str, str]:
    statuses = cluster.get("pod", pod)["status"].get("containerStatuses") or [{}]
    waiting: dict[str, str] = statuses[0].get("state", {}).get("waiting", {})
    return waiting


def test_missing_image_is_told(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("run", "nothere", "--image=registry.invalid/none:1")
    eventually(lambda: waiting_reason(cluster, "nothere").get("reason") == "ImagePullBackOff", 40)
    assert "registry.invalid/none:1" in waiting_reason(cluster, "nothere")["message"]
    described = cluster.kubectl("describe", "pod", "nothere").stdout
    assert "Failed to pull image" in described and "Back-off pulling image" in described


def test_crashing_command_backs_off(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("run", "crasher", f"--image={BUSYBOX}", "--", "sh", "-c", "exit 4")
    eventually(lambda: waiting_reason(cluster, "crasher").get("reason") == "CrashLoopBackOff", 40)
    status = cluster.get("pod", "crasher")["status"]["containerStatuses"][0]
    assert status["lastState"]["terminated"]["exitCode"] == 4
    assert "Back-off restarting failed container" in cluster.kubectl("describe", "pod", "crasher").stdout


def test_pod_that_fits_nowhere_is_explained(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl(
        "run",
        "huge",
        f"--image={BUSYBOX}",
        '--overrides={"spec":{"containers":[{"name":"huge","image":"x","resources":{"requests":{"cpu":"999"}}}]}}',
    )
    eventually(lambda: "Insufficient cpu" in cluster.kubectl("describe", "pod", "huge").stdout, 15)
    assert cluster.get("pod", "huge")["status"]["phase"] == "Pending"


def server(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "k1s.cli.main", "server", *flags], capture_output=True, text=True, timeout=60, cwd=ROOT
    )


def one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1, result
    lines = [line for line in result.stderr.splitlines() if line.startswith("k1s server:")]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in result.stderr


def test_wrong_flags_are_one_line() -> None:
    one_line(server("--no-such-flag"), "--no-such-flag")
    one_line(server("--https-listen-port", "many"), "https-listen-port", "whole number")


def test_foreign_database_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "server" / "db" / "state.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"this is somebody's diary\n" * 500)
    kept = database.read_bytes()
    one_line(server("--data-dir", str(tmp_path), "--disable-agent", "--write-kubeconfig", str(tmp_path / "kc")), str(database))
    assert database.read_bytes() == kept


def test_port_in_use_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    command = cluster.inside(
        sys.executable,
        "-m",
        "k1s.cli.main",
        "server",
        "--data-dir",
        tmp_path,
        "--disable-agent",
        "--write-kubeconfig",
        tmp_path / "kc",
    )
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    one_line(result, "6443")
