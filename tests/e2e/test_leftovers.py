"""Nothing of k1s is left on the host after it was stopped: links, tables, mounts, cgroups, processes, files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Cluster, eventually, run
from .small_pods import create, pod, ready


@pytest.fixture
def own(tools: Path) -> Iterator[Cluster]:
    made = Cluster(f"k1s-rest-{os.getpid()}")
    try:
        made.create_network()
        yield made
    finally:
        made.remove()


def network_of(cluster: Cluster) -> tuple[set[str], str, str]:
    links = {line.split(": ")[1].split("@")[0] for line in run(*cluster.inside("ip", "-o", "link")).stdout.splitlines()}
    rules = run(*cluster.inside("nft", "list", "ruleset")).stdout
    return links, rules, run(*cluster.inside("ip", "route")).stdout


def mounts_of(cluster: Cluster) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(cluster.home) in line]


def cgroups_of(cluster: Cluster) -> list[str]:
    """In every hierarchy: what hangs below this k1s's own group (another k1s of this machine has another)."""
    root = "k1s-" + hashlib.sha256(str(cluster.run_dir).encode()).hexdigest()[:8]
    return [base for base, _, _ in os.walk("/sys/fs/cgroup") if f"/{root}" in base]


def cgroups_of_nobody() -> set[str]:
    """What the runtime makes for a container that was given no parent."""
    return {base for base, _, _ in os.walk("/sys/fs/cgroup") if "/k8s.io/" in base}


def processes_of(cluster: Cluster) -> list[str]:
    found = []
    namespace = os.stat(f"/run/netns/{cluster.netns}").st_ino if Path(f"/run/netns/{cluster.netns}").exists() else 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            inside = bool(namespace) and os.stat(entry / "ns/net").st_ino == namespace
        except OSError:
            continue  # ended meanwhile
        if inside or str(cluster.home) in words:
            found.append(f"{entry.name} {words}")
    return found


def names_of_namespaces() -> set[str]:
    base = Path("/run/netns")
    return {entry.name for entry in base.iterdir()} if base.is_dir() else set()


def test_nothing_is_left_after_stopping(own: Cluster) -> None:
    before = network_of(own)
    others = cgroups_of_nobody()
    other_namespaces = names_of_namespaces()
    own.start()
    port = {"containerPort": 8080, "hostPort": 8099}
    memory = [{"name": "m", "emptyDir": {"medium": "Memory"}}, {"name": "d", "emptyDir": {}}]
    create(
        own, "default",
        pod("one", "sleep 3600", main={"ports": [port], "volumeMounts": [{"name": "m", "mountPath": "/m"},
                                                                         {"name": "d", "mountPath": "/d", "subPath": "a"}]},
            volumes=memory),
        pod("two", "sleep 3600"), pod("gone", "true"),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}},
    )  # fmt: skip
    ready(own, "default", "one", "two")
    uids = {p["metadata"]["uid"] for p in own.get("pods")["items"]}
    # The test sees what it looks for while it is there.
    assert network_of(own)[0] > before[0] and network_of(own)[1] != before[1]
    assert mounts_of(own) and len(cgroups_of(own)) > 10 and len(processes_of(own)) >= 4
    own.stop()
    eventually(lambda: not processes_of(own), 15, "no process")
    assert not mounts_of(own)
    assert not cgroups_of(own) and cgroups_of_nobody() == others
    links, rules, routes = network_of(own)
    assert (links, routes) == (before[0], before[2])
    assert rules == before[1], rules
    mine = {name for name in names_of_namespaces() - other_namespaces if any(uid in name for uid in uids)}
    assert not mine
    own.remove()
    assert not own.home.exists() and own.netns not in names_of_namespaces()


def test_deleted_pods_leave_nothing_on_a_running_node(own: Cluster) -> None:
    own.start()
    links, mounts = network_of(own)[0], set(mounts_of(own))
    create(own, "default", *[pod(f"p-{n}", "sleep 3600", meta={"labels": {"a": "b"}}) for n in range(5)])
    ready(own, "default", *[f"p-{n}" for n in range(5)])
    uids = {p["metadata"]["uid"] for p in own.get("pods")["items"]}
    own.kubectl("delete", "pods", "-l", "a=b")
    eventually(lambda: not [c for c in cgroups_of(own) if any(uid in c for uid in uids)], 10, "no cgroup")
    assert network_of(own)[0] == links
    assert {m.split(" ", 1)[1] for m in mounts_of(own)} - {m.split(" ", 1)[1] for m in mounts} == set()
    for base in (own.home / "pods", own.data / "agent" / "pods"):
        assert not base.is_dir() or not list(base.iterdir()), list(base.iterdir())
