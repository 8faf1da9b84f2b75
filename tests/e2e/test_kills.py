"""Kill -9 of each part: containers go on, the API is back, nothing acknowledged is lost, nothing runs twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from .conftest import Cluster, eventually

BUSYBOX = "docker.io/library/busybox:1.36"


@pytest.fixture(scope="module")
def pods(cluster: Cluster) -> Iterator[str]:
    name = "kills"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("create", "deployment", "web", "-n", name, f"--image={BUSYBOX}", "--replicas=3", "--", "sleep", "86400")
    cluster.kubectl("rollout", "status", "deploy/web", "-n", name, "--timeout=60s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def identity(cluster: Cluster, namespace: str) -> dict[str, tuple[str, int]]:
    """Pod -> (container id, restarts)."""
    out = {}
    for pod in cluster.get("pods", "-n", namespace)["items"]:
        status = pod["status"]["containerStatuses"][0]
        out[pod["metadata"]["name"]] = (status["containerID"], status["restartCount"])
    return out


def api_is_back(cluster: Cluster, seconds: float) -> float:
    began = time.monotonic()
    eventually(lambda: cluster.kubectl("get", "--raw", "/readyz", check=False).stdout == "ok", seconds)
    return time.monotonic() - began


@pytest.mark.parametrize("part", ["server", "agent", "containerd"])
def test_kill(cluster: Cluster, pods: str, part: str) -> None:
    before = identity(cluster, pods)
    cluster.kubectl("create", "configmap", f"written-before-{part}", "-n", pods, "--from-literal=a=1")
    os.kill(cluster.pid_of(part), signal.SIGKILL)
    if part == "server":
        assert cluster.server is not None
        cluster.server.wait(10)
        cluster.start(wait=False)
    api_is_back(cluster, 10)
    cluster.kubectl("get", "configmap", f"written-before-{part}", "-n", pods)
    eventually(lambda: cluster.pid_of(part), 20)
    # The whole chain works again: a new pod runs.
    cluster.kubectl("run", f"after-{part}", "-n", pods, f"--image={BUSYBOX}", "--", "sleep", "86400")
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/after-{part}", "-n", pods, "--timeout=60s")
    cluster.kubectl("delete", "pod", f"after-{part}", "-n", pods, "--grace-period=0", "--force")
    eventually(lambda: identity(cluster, pods) == before, 30, f"pods as before the kill of {part}: {before}")
    running = [p for p in cluster.get("pods", "-n", pods)["items"] if p["status"]["phase"] == "Running"]
    assert len(running) == 3
