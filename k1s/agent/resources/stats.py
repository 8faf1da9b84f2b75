"""What node, pods and containers use: the kubelet's Summary and its resource metrics.

Owns: one question to the runtime and two reads of /proc per request, put into both shapes. Called by: serving (/stats/summary,
/metrics/resource). Never does: sample in the background: who asks pays.
Source: k8s.io/kubelet/pkg/apis/stats/v1alpha1, pkg/kubelet/metrics/collectors/resource_metrics.go.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k1s.agent.pods.model import CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID
from k1s.base.clock import rfc3339
from k1s.cri.runtime import ContainerStats

if TYPE_CHECKING:
    from k1s.agent.context import AgentContext

Object = dict[str, Any]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """The whole machine: cpu in nanoseconds since it started, memory in bytes."""

    cpu_nanoseconds: int
    memory_available: int
    memory_total: int
    disk_total: int
    disk_free: int
    inodes_total: int
    inodes_free: int
    booted_at: float

    @property
    def working_set(self) -> int:
        return self.memory_total - self.memory_available


def node_usage(directory: Path) -> NodeUsage:
    """`directory` names the file system that counts."""
    cpu, booted = 0, 0.0
    for line in Path("/proc/stat").read_text().splitlines():
        words = line.split()
        if words[0] == "cpu":
            busy = sum(int(words[i]) for i in (1, 2, 3, 6, 7, 8))  # all but idle and iowait
            cpu = busy * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        elif words[0] == "btime":
            booted = float(words[1])
    memory = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        memory[name] = int(rest.split()[0]) * 1024
    disk = os.statvfs(directory if directory.exists() else "/")
    return NodeUsage(
        cpu, memory["MemAvailable"], memory["MemTotal"], disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize,
        disk.f_files, disk.f_favail, booted,
    )  # fmt: skip


async def summary(agent: AgentContext) -> Object:
    """/stats/summary. Raises RuntimeFailure."""
    stats = await agent.runtime.container_stats()
    return build_summary(agent.node_name, stats, node_usage(agent.config.data_dir), agent.clock.now(), _started(agent))


async def resource_metrics(agent: AgentContext) -> bytes:
    """/metrics/resource. Raises RuntimeFailure."""
    stats = await agent.runtime.container_stats()
    return build_metrics(stats, node_usage(agent.config.data_dir), agent.clock.now(), _started(agent))


def _started(agent: AgentContext) -> dict[str, float]:
    """Container id -> when it was started."""
    return {c.id: c.started_at for entry in agent.pods for c in entry.observed.containers if c.state == "running"}


def build_summary(
    node_name: str, stats: Iterable[ContainerStats], node: NodeUsage, now: float, started: dict[str, float]
) -> Object:
    """The Summary: pure."""
    filesystem = {
        "time": rfc3339(now),
        "availableBytes": node.disk_free,
        "capacityBytes": node.disk_total,
        "usedBytes": node.disk_total - node.disk_free,
        "inodesFree": node.inodes_free,
        "inodes": node.inodes_total,
        "inodesUsed": node.inodes_total - node.inodes_free,
    }
    return {
        "node": {
            "nodeName": node_name,
            "startTime": rfc3339(node.booted_at),
            "cpu": {"time": rfc3339(now), "usageCoreNanoSeconds": node.cpu_nanoseconds},
            "memory": {
                "time": rfc3339(now),
                "availableBytes": node.memory_available,
                "usageBytes": node.working_set,
                "workingSetBytes": node.working_set,
            },
            "fs": filesystem,
            "runtime": {"imageFs": filesystem},
        },
        "pods": [_pod(members, started) for members in _by_pod(stats).values()],
    }


def _pod(members: list[ContainerStats], started: dict[str, float]) -> Object:
    labels = members[0].labels
    at = max(s.timestamp for s in members)
    return {
        "podRef": {"name": labels[POD_NAME], "namespace": labels[POD_NAMESPACE], "uid": labels[POD_UID]},
        "startTime": rfc3339(min((started[s.id] for s in members if s.id in started), default=at)),
        "containers": [_container(s, started) for s in members],
        "cpu": {"time": rfc3339(at), "usageCoreNanoSeconds": sum(s.cpu_nanoseconds for s in members)},
        "memory": {
            "time": rfc3339(at),
            "usageBytes": sum(s.memory_usage for s in members),
            "workingSetBytes": sum(s.working_set for s in members),
            "rssBytes": sum(s.rss for s in members),
            "pageFaults": sum(s.page_faults for s in members),
            "majorPageFaults": sum(s.major_page_faults for s in members),
        },
        "ephemeral-storage": {
            "time": rfc3339(at),
            "usedBytes": sum(s.writable_bytes for s in members),
            "inodesUsed": sum(s.writable_inodes for s in members),
        },
    }


def _container(stats: ContainerStats, started: dict[str, float]) -> Object:
    at = rfc3339(stats.timestamp)
    return {
        "name": stats.labels[CONTAINER_NAME],
        "startTime": rfc3339(started.get(stats.id, stats.timestamp)),
        "cpu": {"time": at, "usageCoreNanoSeconds": stats.cpu_nanoseconds},
        "memory": {
            "time": at,
            "usageBytes": stats.memory_usage,
            "workingSetBytes": stats.working_set,
            "rssBytes": stats.rss,
            "pageFaults": stats.page_faults,
            "majorPageFaults": stats.major_page_faults,
        },
        "rootfs": {"time": at, "usedBytes": stats.writable_bytes, "inodesUsed": stats.writable_inodes},
    }


def _by_pod(stats: Iterable[ContainerStats]) -> dict[str, list[ContainerStats]]:
    out: dict[str, list[ContainerStats]] = {}
    for item in stats:
        # A container that does not run has no sample, only a name.
        if item.timestamp > 0 and item.labels.get(POD_UID) and item.labels.get(CONTAINER_NAME):
            out.setdefault(item.labels[POD_UID], []).append(item)
    return out


def build_metrics(stats: Iterable[ContainerStats], node: NodeUsage, now: float, started: dict[str, float]) -> bytes:
    """The text a metrics-server scrapes: pure. Every sample carries its own time in milliseconds."""
    pods = _by_pod(stats)
    containers = [s for members in pods.values() for s in members]
    rows: list[tuple[str, str, list[tuple[str, float, float]]]] = [
        ("container_cpu_usage_seconds_total", "counter", [(_of(s), s.cpu_nanoseconds / 1e9, s.timestamp) for s in containers]),
        ("container_memory_working_set_bytes", "gauge", [(_of(s), s.working_set, s.timestamp) for s in containers]),
        ("container_start_time_seconds", "gauge", [(_of(s), started[s.id], s.timestamp) for s in containers if s.id in started]),
        ("node_cpu_usage_seconds_total", "counter", [("", node.cpu_nanoseconds / 1e9, now)]),
        ("node_memory_working_set_bytes", "gauge", [("", node.working_set, now)]),
        ("pod_cpu_usage_seconds_total", "counter", [_sum(m, sum(s.cpu_nanoseconds for s in m) / 1e9) for m in pods.values()]),
        ("pod_memory_working_set_bytes", "gauge", [_sum(m, sum(s.working_set for s in m)) for m in pods.values()]),
        ("resource_scrape_error", "gauge", [("", 0, now)]),
    ]
    out: list[str] = []
    for name, kind, samples in rows:
        out += [f"# HELP {name} [STABLE] {_HELP[name]}", f"# TYPE {name} {kind}"]
        out += [f"{name}{labels} {value:.9g} {int(at * 1000)}" for labels, value, at in samples]
    return ("\n".join(out) + "\n").encode()


_HELP = {
    "container_cpu_usage_seconds_total": "Cumulative cpu time consumed by the container in core-seconds",
    "container_memory_working_set_bytes": "Current working set of the container in bytes",
    "container_start_time_seconds": "Start time of the container since unix epoch in seconds",
    "node_cpu_usage_seconds_total": "Cumulative cpu time consumed by the node in core-seconds",
    "node_memory_working_set_bytes": "Current working set of the node in bytes",
    "pod_cpu_usage_seconds_total": "Cumulative cpu time consumed by the pod in core-seconds",
    "pod_memory_working_set_bytes": "Current working set of the pod in bytes",
    "resource_scrape_error": "1 if there was an error while getting container metrics, 0 otherwise",
}


def _of(s: ContainerStats) -> str:
    labels = s.labels
    return f'{{container="{labels[CONTAINER_NAME]}",namespace="{labels[POD_NAMESPACE]}",pod="{labels[POD_NAME]}"}}'


def _sum(members: list[ContainerStats], value: float) -> tuple[str, float, float]:
    labels = members[0].labels
    return f'{{namespace="{labels[POD_NAMESPACE]}",pod="{labels[POD_NAME]}"}}', value, max(s.timestamp for s in members)
