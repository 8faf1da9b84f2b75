"""Whether this node takes a pod at all: pure.

Owns: the last check, after the scheduler's: count, resources, host ports, node selector. Called by: pods/manager.
Never does: I/O. A pod that is refused fails with the reason kubelet gives. Source: pkg/kubelet/lifecycle/predicate.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k1s.agent.pods.status import Ending
from k1s.agent.resources.qos import pod_requests

Object = dict[str, Any]


# Sysctls that are namespaced and cannot hurt the node or other pods. Source: pkg/kubelet/sysctl/safe_sysctls.go.
SAFE_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    )
)


_ANY = ("0.0.0.0", "::")


def refusal(pod: Object, others: Iterable[Object], allocatable: Mapping[str, int], labels: Mapping[str, str]) -> Ending | None:
    """Why the pod cannot run beside `others` (pods already taken, not over); None if it can."""
    present = list(others)
    forbidden = [s["name"] for s in (pod["spec"].get("securityContext") or {}).get("sysctls") or [] if not _safe(s["name"])]
    if forbidden:
        return Ending("SysctlForbidden", f'Pod was rejected: forbidden sysctl: "{forbidden[0]}" not allowlisted')
    for name, value in (pod["spec"].get("nodeSelector") or {}).items():
        if labels and labels.get(name) != value:
            return _rejected("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")
    if len(present) + 1 > allocatable["pods"]:
        return _short("pods", 1, len(present), allocatable["pods"])
    used: dict[str, int] = {}
    for other in present:
        for name, value in pod_requests(other).items():
            used[name] = used.get(name, 0) + value
    for name, value in pod_requests(pod).items():
        capacity = allocatable.get(name, 0)
        if "/" in name and name not in allocatable:
            continue  # somebody else's resource, which the scheduler has counted
        if value and used.get(name, 0) + value > capacity:
            return _short(name, value, used.get(name, 0), capacity)
    taken = [port for other in present for port in _host_ports(other)]
    if any(_clash(port, other) for port in _host_ports(pod) for other in taken):
        return _rejected("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports")
    return None


def _safe(name: str) -> bool:
    return name.replace("/", ".") in SAFE_SYSCTLS


def _short(resource: str, requested: int, used: int, capacity: int) -> Ending:
    text = f"Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
    return _rejected(f"OutOf{resource}", text)


def _rejected(reason: str, message: str) -> Ending:
    return Ending(reason, f"Pod was rejected: {message}")


def _clash(one: tuple[str, int, str], two: tuple[str, int, str]) -> bool:
    """Same protocol and port, on the same address or where one of them takes all."""
    return one[:2] == two[:2] and (one[2] == two[2] or "" in (one[2], two[2]))


def _host_ports(pod: Object) -> list[tuple[str, int, str]]:
    """(protocol, port, address; "" stands for all)."""
    out = []
    for container in pod["spec"].get("containers") or []:
        for port in container.get("ports") or []:
            if port.get("hostPort"):
                address = port.get("hostIP") or ""
                out.append((port.get("protocol") or "TCP", int(port["hostPort"]), "" if address in _ANY else address))
    return out
