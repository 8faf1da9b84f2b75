"""A full disk and a damaged database: said clearly, nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT, TOOLS, eventually, run


class Server:
    """A control plane without a node, on a port of its own."""

    def __init__(self, home: Path, data: Path) -> None:
        self.home, self.data = home, data
        self.kubeconfig = home / "kubeconfig"
        self.process: subprocess.Popen[bytes] | None = None
        self.env = {k: v for k, v in os.environ.items() if k != "KUBECONFIG"} | {"KUBECONFIG": str(self.kubeconfig)}

    def command(self) -> list[str]:
        flags = [
            "--data-dir",
            self.data,
            "--run-dir",
            self.home / "run",
            "--write-kubeconfig",
            self.kubeconfig,
            "--disable-agent",
        ]
        return [
            sys.executable,
            "-m",
            "k1s.cli.main",
            "server",
            *map(str, flags),
            "--bind-address=127.0.0.1",
            "--https-listen-port=16553",
        ]

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=ROOT)
        eventually(lambda: self.kubectl("get", "ns", "default", check=False).returncode == 0, 30)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def kubectl(self, *arguments: str, check: bool = True, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return run(TOOLS / "bin" / "kubectl", *arguments, check=check, env=self.env, input=input)


@pytest.fixture
def home(tools: Path) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="k1s-damage-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


def config_map(name: str, size: int) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"fill": "x" * size}})


def test_full_disk_refuses_writes_serves_reads_and_recovers(home: Path) -> None:
    data = home / "data"
    data.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", data)
    server = Server(home, data)
    try:
        server.start()
        written = []
        refusal = None
        for number in range(60):
            result = server.kubectl("create", "-f", "-", check=False, input=config_map(f"cm-{number}", 700_000))
            if result.returncode != 0:
                refusal = result.stderr
                break
            written.append(f"cm-{number}")
        assert refusal is not None and len(written) > 5
        assert "full" in refusal or "space" in refusal, refusal
        names = server.kubectl("get", "configmaps", "-o", "name").stdout
        assert all(f"configmap/{name}\n" in names for name in written)
        run("mount", "-o", "remount,size=64m", data)
        eventually(lambda: server.kubectl("create", "configmap", "after", "--from-literal=a=1", check=False).returncode == 0, 20)
        server.stop()
        server.start()
        names = server.kubectl("get", "configmaps", "-o", "name").stdout
        assert all(f"configmap/{name}\n" in names for name in [*written, "after"])
    finally:
        server.stop()
        run("umount", data)


def test_truncated_database_is_refused_and_left_alone(home: Path) -> None:
    server = Server(home, home / "data")
    server.start()
    for number in range(20):
        server.kubectl("create", "-f", "-", input=config_map(f"cm-{number}", 20_000))
    server.stop()
    database = home / "data" / "server" / "db" / "state.db"
    whole = database.read_bytes()
    database.write_bytes(whole[: len(whole) // 2])
    result = subprocess.run(server.command(), capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    line = next(line for line in result.stderr.splitlines() if line.startswith("k1s server:"))
    assert str(database) in line
    assert database.read_bytes() == whole[: len(whole) // 2]
    database.write_bytes(whole)
    server.start()
    assert server.kubectl("get", "configmaps", "-o", "name").stdout.count("cm-") == 20
    server.stop()
