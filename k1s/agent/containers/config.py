"""A container of a pod as CRI's ContainerConfig: pure.

Owns: the whole translation but for environment (env.py), security (security.py) and resources (resources/qos.py), which it joins.
Called by: pods/start. Never does: I/O. Golden-tested in tests/golden/agent/config.
Source: pkg/kubelet/kuberuntime/kuberuntime_container.go (generateContainerConfig), labels.go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k1s.agent.containers import security
from k1s.agent.containers.expand import expand
from k1s.agent.pods.model import (
    CONTAINER_NAME,
    GRACE_PERIOD,
    HASH,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    RESTART_COUNT,
    TERMINATION_PATH,
    TERMINATION_POLICY,
    container_hash,
)
from k1s.agent.resources.qos import container_resources, oom_score_adj
from k1s.cri.runtime import Image

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of the host in the container."""

    container_path: str
    host_path: str
    readonly: bool = False
    propagation: str = "PROPAGATION_PRIVATE"
    recursive_readonly: bool = False

    def as_cri(self) -> Object:
        out: Object = {"container_path": self.container_path, "host_path": self.host_path, "readonly": self.readonly}
        if self.propagation != "PROPAGATION_PRIVATE":
            out["propagation"] = self.propagation
        if self.recursive_readonly:
            out["recursive_read_only"] = True
        return out


PROPAGATION = {
    "None": "PROPAGATION_PRIVATE",
    "HostToContainer": "PROPAGATION_HOST_TO_CONTAINER",
    "Bidirectional": "PROPAGATION_BIDIRECTIONAL",
}


def container_config(
    pod: Object,
    container: Object,
    *,
    restart_count: int,
    image: Image,
    env: Mapping[str, str],
    mounts: Sequence[Mount],
    devices: Sequence[Object] = (),
    memory_capacity: int,
    target: str = "",
) -> Object:
    """ContainerConfig; `target` is the container id an ephemeral container looks at. Raises ConfigFault."""
    meta, name = pod["metadata"], container["name"]
    out: Object = {
        "metadata": {"name": name, "attempt": restart_count},
        "image": {"image": image.id, "user_specified_image": container.get("image", "")},
        "command": [expand(part, env) for part in container.get("command") or []],
        "args": [expand(part, env) for part in container.get("args") or []],
        "envs": [{"key": key, "value": value} for key, value in env.items()],
        "mounts": [mount.as_cri() for mount in mounts],
        "labels": {
            POD_NAME: meta["name"],
            POD_NAMESPACE: meta["namespace"],
            POD_UID: meta["uid"],
            CONTAINER_NAME: name,
        },
        "annotations": _annotations(pod, container, restart_count),
        "log_path": f"{name}/{restart_count}.log",
        "stdin": bool(container.get("stdin")),
        "stdin_once": bool(container.get("stdinOnce")),
        "tty": bool(container.get("tty")),
        "linux": {
            "resources": container_resources(container, oom_score_adj=oom_score_adj(pod, container, memory_capacity)),
            "security_context": security.container_context(pod, container, image, target=target),
        },
    }
    if container.get("workingDir"):
        out["working_dir"] = container["workingDir"]
    if devices:
        out["devices"] = list(devices)
    signal = (container.get("lifecycle") or {}).get("stopSignal")
    if signal:
        out["stop_signal"] = signal
    return out


def _annotations(pod: Object, container: Object, restart_count: int) -> dict[str, str]:
    out = {
        HASH: container_hash(container),
        RESTART_COUNT: str(restart_count),
        TERMINATION_PATH: container.get("terminationMessagePath") or "/dev/termination-log",
        TERMINATION_POLICY: container.get("terminationMessagePolicy") or "File",
    }
    if pod["spec"].get("terminationGracePeriodSeconds") is not None:
        out[GRACE_PERIOD] = str(pod["spec"]["terminationGracePeriodSeconds"])
    if (container.get("lifecycle") or {}).get("preStop"):
        out["io.kubernetes.container.preStopHandler"] = json.dumps(container["lifecycle"]["preStop"], sort_keys=True)
    if container.get("ports"):
        out["io.kubernetes.container.ports"] = json.dumps(container["ports"], sort_keys=True)
    return out
