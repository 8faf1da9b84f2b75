"""The kubelet's two shapes of usage, from made-up samples and from this machine."""

from __future__ import annotations

from pathlib import Path

from k1s.agent.resources import stats
from k1s.cri.runtime import ContainerStats

NODE = stats.NodeUsage(5_000_000_000, 60, 100, 1000, 400, 50, 20, 1_600_000_000.0)
NOW = 1_700_000_000.0


def _sample(identity: str, container: str, pod: str, cpu: int, memory: int) -> ContainerStats:
    labels = {
        "io.kubernetes.pod.name": pod,
        "io.kubernetes.pod.namespace": "ns",
        "io.kubernetes.pod.uid": f"uid-{pod}",
        "io.kubernetes.container.name": container,
    }
    return ContainerStats(identity, container, labels, NOW - 1, cpu, memory, memory + 1, memory - 1, 7, 1, 2048, 3)


SAMPLES = [
    _sample("1", "a", "p", 1_500_000_000, 10),
    _sample("2", "b", "p", 500_000_000, 20),
    _sample("3", "a", "q", 0, 5),
    ContainerStats("5", "a", _sample("5", "a", "over", 0, 0).labels, 0.0, 0, 0, 0, 0, 0, 0, 0, 0),
    ContainerStats("4", "alien", {}, NOW, 1, 1, 1, 1, 1, 1, 1, 1),
]


def test_summary() -> None:
    got = stats.build_summary("n1", SAMPLES, NODE, NOW, {"1": NOW - 50, "2": NOW - 60})
    assert got["node"]["memory"]["workingSetBytes"] == 40 and got["node"]["fs"]["usedBytes"] == 600
    first, second = got["pods"]
    assert first["podRef"] == {"name": "p", "namespace": "ns", "uid": "uid-p"}
    assert first["cpu"]["usageCoreNanoSeconds"] == 2_000_000_000 and first["memory"]["workingSetBytes"] == 30
    assert first["startTime"] == "2023-11-14T22:12:20Z"
    assert [c["name"] for c in first["containers"]] == ["a", "b"] and second["podRef"]["name"] == "q"
    assert first["ephemeral-storage"]["usedBytes"] == 4096


def test_resource_metrics() -> None:
    lines = stats.build_metrics(SAMPLES, NODE, NOW, {"1": NOW - 50}).decode().splitlines()
    assert 'container_cpu_usage_seconds_total{container="a",namespace="ns",pod="p"} 1.5 1699999999000' in lines
    assert 'pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 2 1699999999000' in lines
    assert 'pod_memory_working_set_bytes{namespace="ns",pod="q"} 5 1699999999000' in lines
    assert "node_cpu_usage_seconds_total 5 1700000000000" in lines
    assert 'container_start_time_seconds{container="a",namespace="ns",pod="p"} 1.69999995e+09 1699999999000' in lines
    assert not any("alien" in line for line in lines) and "resource_scrape_error 0 1700000000000" in lines


def test_this_machine() -> None:
    usage = stats.node_usage(Path("/"))
    assert usage.cpu_nanoseconds > 0 and 0 < usage.working_set < usage.memory_total and usage.booted_at > 1e9
    assert 0 <= usage.disk_free <= usage.disk_total
