"""The Node object: pure.

Owns: capacity, labels, addresses, nodeInfo and conditions as upstream names them. Called by: register, conditions.
Never does: I/O. Golden-tested in tests/golden/agent/node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k1s.agent.config import AgentConfig
from k1s.agent.machine import Machine
from k1s.base.clock import rfc3339
from k1s.cri.runtime import Image, Version
from k1s.version import GIT_VERSION

Object = dict[str, Any]
_MAX_IMAGES = 50


class NodeFault(ValueError):
    """--node-label or --node-taint cannot be understood."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What is running short."""

    memory: bool = False
    disk: bool = False
    pids: bool = False


def labels(name: str, config: AgentConfig, machine: Machine) -> dict[str, str]:
    out = {
        "beta.kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
    }
    for text in config.node_label:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise NodeFault(f"--node-label {text!r} is not key=value")
        out[key] = value
    return out


def taints(config: AgentConfig) -> list[Object]:
    out = []
    for text in config.node_taint:
        rest, _, effect = text.rpartition(":")
        key, _, value = rest.partition("=")
        if effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute") or not key:
            raise NodeFault(f"--node-taint {text!r} is not key=value:effect (NoSchedule, PreferNoSchedule, NoExecute)")
        out.append({"key": key, **({"value": value} if value else {}), "effect": effect})
    return out


def quantities(config: AgentConfig, machine: Machine) -> dict[str, str]:
    """status.capacity and, since k1s reserves nothing, status.allocatable."""
    return {
        "cpu": str(machine.cpus),
        "ephemeral-storage": f"{machine.ephemeral_storage // 1024}Ki",
        **{name: _pages(size) for name, size in machine.hugepages.items()},
        "memory": f"{machine.memory // 1024}Ki",
        "pods": str(config.max_pods),
    }


def extended(status: Mapping[str, Any]) -> dict[str, str | None]:
    """What allocatable lacks of the resources that others have put into capacity; None for those they took away."""
    capacity, allocatable = status.get("capacity") or {}, status.get("allocatable") or {}
    out: dict[str, str | None] = {k: v for k, v in capacity.items() if "/" in k and allocatable.get(k) != v}
    out.update({k: None for k in allocatable if "/" in k and k not in capacity})
    return out


def _pages(size: int) -> str:
    return f"{size // 1048576}Mi" if size else "0"


def new_node(name: str, config: AgentConfig, machine: Machine) -> Object:
    """What a node registers with; status follows by patch."""
    spec: Object = {}
    if config.node_taint:
        spec["taints"] = taints(config)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels(name, config, machine),
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": spec,
    }


def status(
    name: str,
    addresses: Sequence[str],
    config: AgentConfig,
    machine: Machine,
    runtime: Version,
    images: Sequence[Image],
    *,
    not_ready: Mapping[str, str],
    pressure: Pressure,
    now: float,
    old: Mapping[str, Any],
) -> Object:
    """The whole status; transition times of conditions come from `old`."""
    return {
        "addresses": [*({"type": "InternalIP", "address": a} for a in addresses), {"type": "Hostname", "address": name}],
        "allocatable": quantities(config, machine),
        "capacity": quantities(config, machine),
        "conditions": conditions(not_ready, pressure, now, old.get("conditions") or []),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.kubelet_port}},
        "images": _images(images),
        "nodeInfo": {
            "architecture": machine.architecture,
            "bootID": machine.boot_id,
            "containerRuntimeVersion": f"{runtime.name}://{runtime.version}",
            "kernelVersion": machine.kernel,
            "kubeProxyVersion": GIT_VERSION,
            "kubeletVersion": GIT_VERSION,
            "machineID": machine.machine_id,
            "operatingSystem": "linux",
            "osImage": machine.os_image,
            "systemUUID": machine.system_uuid,
        },
    }


def conditions(not_ready: Mapping[str, str], pressure: Pressure, now: float, old: Sequence[Object]) -> list[Object]:
    faults = "; ".join(f"{part}: {why}" for part, why in sorted(not_ready.items()))
    rows = [
        _pressure("MemoryPressure", pressure.memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "memory"),
        _pressure("DiskPressure", pressure.disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk"),
        _pressure("PIDPressure", pressure.pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PID"),
        ("Ready", "False", "KubeletNotReady", faults)
        if faults
        else ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
    before = {c["type"]: c for c in old}
    out = []
    for kind, value, reason, message in rows:
        previous = before.get(kind) or {}
        since = previous.get("lastTransitionTime") if previous.get("status") == value else None
        out.append(
            {
                "type": kind,
                "status": value,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": rfc3339(now),
                "lastTransitionTime": since or rfc3339(now),
            }
        )
    return out


def _pressure(kind: str, short: bool, bad: str, good: str, what: str) -> tuple[str, str, str, str]:
    if short:
        return kind, "True", bad, f"kubelet has {'disk pressure' if what == 'disk' else 'insufficient ' + what + ' available'}"
    return kind, "False", good, f"kubelet has {'no disk pressure' if what == 'disk' else 'sufficient ' + what + ' available'}"


def _images(images: Sequence[Image]) -> list[Object]:
    largest = sorted(images, key=lambda i: -i.size)[:_MAX_IMAGES]
    return [{"names": [*i.digests[:5], *i.tags[:5]], "sizeBytes": i.size} for i in largest if i.digests or i.tags]
