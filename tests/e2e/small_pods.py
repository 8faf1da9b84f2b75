"""Many small pods at once: made with one call, watched with one call, read with one call, so that tables of cases stay quick."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from .conftest import Cluster, eventually

BUSYBOX = "docker.io/library/busybox:1.36"
Object = dict[str, Any]


def container(script: str | None = None, /, **fields: Any) -> Object:
    """A busybox container that runs `script`; camelCase fields pass as they are."""
    made: Object = {"name": "main", "image": BUSYBOX}
    if script is not None:
        made["command"] = ["sh", "-c", script]
    return {**made, **fields}


def pod(
    name: str, script: str | None = None, /, *, main: Object | None = None, meta: Object | None = None, **spec: Any
) -> Object:
    """A pod of one container; `main` are more fields of the container, `spec` of the pod."""
    made: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "containers": [container(script, **(main or {}))],
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **(meta or {})}, "spec": made}


def create(cluster: Cluster, namespace: str, *objects: Object) -> None:
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
    cluster.kubectl("create", "-n", namespace, "-f", "-", input=document)


def pods(cluster: Cluster, namespace: str) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in cluster.get("pods", "-n", namespace)["items"]}


def get_pod(cluster: Cluster, namespace: str, name: str) -> Object:
    found: Object = cluster.get("pod", name, "-n", namespace)
    return found


def finished(cluster: Cluster, namespace: str, names: list[str], seconds: float = 60) -> dict[str, Object]:
    """The named pods, once each of them has ended."""
    last: dict[str, Object] = {}

    def ended() -> bool:
        last.update(pods(cluster, namespace))
        open_ones = [n for n in names if last.get(n, {}).get("status", {}).get("phase") not in ("Succeeded", "Failed")]
        assert not open_ones, {n: last.get(n, {}).get("status", {}).get("containerStatuses") for n in open_ones[:5]}
        return True

    eventually(ended, seconds, "pods end")
    return last


def ready(cluster: Cluster, namespace: str, *names: str, seconds: int = 30) -> None:
    cluster.kubectl(
        "wait", "-n", namespace, "--for=condition=Ready", *[f"pod/{n}" for n in names], f"--timeout={seconds}s"
    )  # fmt: skip


def logs(cluster: Cluster, namespace: str, selector: str) -> dict[str, str]:
    """The output of every container of all pods with this label: by pod and container name."""
    out = cluster.kubectl(
        "logs", "-n", namespace, "-l", selector, "--prefix", "--tail=-1", "--all-containers", "--ignore-errors",
        check=False,  # containers that never ran have none
    ).stdout  # fmt: skip
    # What ends without a newline has the next prefix in the same line.
    pieces = re.split(r"\[pod/([^/\]]+/[^\]]+)\] ", out)
    found: dict[str, str] = {}
    for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
        found[name] = found.get(name, "") + text
    return found


def condition(found: Object, name: str) -> Object:
    conditions: list[Object] = found["status"].get("conditions") or []
    return next((c for c in conditions if c["type"] == name), {})


def state(found: Object, index: int = 0, field: str = "containerStatuses") -> Object:
    statuses: list[Object] = found["status"].get(field) or []
    return statuses[index] if index < len(statuses) else {}


def shell(cluster: Cluster, namespace: str, name: str, script: str, *, check: bool = True) -> str:
    """What `script` says when it runs in the pod."""
    return cluster.kubectl("exec", "-n", namespace, name, "--", "sh", "-c", script, check=check).stdout


def process_in(cluster: Cluster, namespace: str, name: str) -> int:
    """A process in the pod's network, for what busybox has no tool for."""
    link = shell(cluster, namespace, name, "readlink /proc/self/ns/net").strip()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/net") == link:
                return int(entry.name)
        except OSError:
            continue  # ended meanwhile
    raise AssertionError(f"no process in {link} of {name}")
