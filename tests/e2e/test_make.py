"""The README's commands from a fresh clone on this very host: up, up again, down; and nothing of ours is left."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT, run

K1S = Path("/usr/local/bin/k1s")


def make(clone: Path, goal: str) -> str:
    env = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "KUBECONFIG", "K1S_BIN_DIR", "VIRTUAL_ENV")
    }
    result = subprocess.run(["make", goal], cwd=clone, env=env, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, f"make {goal}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def traces() -> dict[str, list[str]]:
    """What k1s could leave behind: processes, links, nft tables, mounts, cgroups of the default instance."""
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            except OSError:
                continue
            if "/run/k1s/" in words or "/var/lib/k1s" in words or words.startswith("sh packaging/supervise.sh"):
                processes.append(words)
    links = [line.split(": ")[1] for line in run("ip", "-o", "link").stdout.splitlines()]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if "/run/k1s" in line or "/var/lib/k1s" in line]
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob("*/k1s")] + [str(p) for p in Path("/sys/fs/cgroup").glob("k1s")]
    tables = [line for line in run("nft", "list", "tables").stdout.splitlines() if " k1s" in line]
    return {
        "processes": sorted(processes),
        "links": sorted(name for name in links if name.startswith("k1s")),
        "mounts": mounts,
        "cgroups": cgroups,
        "tables": tables,
    }


@pytest.fixture
def clone(tools: Path) -> Iterator[Path]:
    if Path("/run/k1s").exists() or Path("/var/lib/k1s").exists():
        pytest.skip("a k1s of this host's own is here; this test would disturb it")
    directory = Path(tempfile.mkdtemp(prefix="k1s-clone-"))
    run("git", "clone", "-q", str(ROOT), str(directory / "k1s"))
    # The clients are large and were fetched for these tests already.
    (directory / "k1s" / ".tools" / "bin").mkdir(parents=True)
    for name in ("kubectl", "helm"):
        shutil.copy(tools / "bin" / name, directory / "k1s" / ".tools" / "bin" / name)
    if (tools / "addons").exists():
        shutil.copytree(tools / "addons", directory / "k1s" / ".tools" / "addons")
    try:
        yield directory / "k1s"
    finally:
        make(directory / "k1s", "purge")
        shutil.rmtree(directory)


def test_up_and_down(clone: Path) -> None:
    before = traces()
    out = make(clone, "up")
    assert re.search(r"\sReady\s+control-plane\s", out)
    assert out.count("kubectl") >= 2
    pid = Path("/run/k1s/server.json").read_text()
    again = make(clone, "up")
    assert "Ready" in again and Path("/run/k1s/server.json").read_text() == pid
    assert "v1.37" in run(K1S, "kubectl", "get", "nodes", "-o", "wide").stdout
    assert (Path("/etc/k1s/k1s.yaml").stat().st_mode & 0o777) == 0o600
    run(K1S, "kubectl", "create", "deployment", "web", "--image=docker.io/library/busybox:1.36", "--", "sleep", "86400")
    run(K1S, "kubectl", "rollout", "status", "deploy/web", "--timeout=60s")
    make(clone, "down")
    assert traces() == before
    assert Path("/var/lib/k1s/server/db/state.db").exists() and not K1S.exists()
    # The data is back with the next start.
    make(clone, "up")
    run(K1S, "kubectl", "rollout", "status", "deploy/web", "--timeout=60s")
    make(clone, "purge")
    assert traces() == before
    assert not Path("/var/lib/k1s").exists()
