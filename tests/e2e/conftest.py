"""One k1s for the end-to-end tests: a real server and agent in a network namespace of their own.

`Cluster` starts, kills and asks it; the session's cluster is shared, tests use namespaces of their own in it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("K1S_TOOLS") or ROOT / ".tools")
NODE_ADDRESS = "192.0.2.10"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(300))


def run(*command: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, **options)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}\n-> {result.returncode}\n{result.stdout}{result.stderr}")
    return result


def eventually(probe: Callable[[], Any], seconds: float = 30.0, what: str = "") -> Any:
    """Call `probe` until it gives something true. Tests look from outside, so they have to ask again."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while True:
        try:
            last = probe()
            if last:
                return last
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or probe}; last: {last}")
        time.sleep(0.1)


class Cluster:
    """A server with its agent. All its files are below `home`, all its links in the namespace `netns`."""

    images = ("pause.tar", "busybox.tar")

    def __init__(self, name: str, *, node: str = "node-1", address: str = NODE_ADDRESS) -> None:
        self.netns, self.node, self.address = name, node, address
        # Unix socket paths must stay short.
        self.home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp"))
        self.data, self.run_dir = self.home / "data", self.home / "run"
        self.kubeconfig = self.home / "k1s.yaml"
        self.log = self.home / "k1s.log"
        self.server: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "KUBECONFIG")}
        return {**env, "K1S_BIN_DIR": str(TOOLS / "bin"), "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}

    def inside(self, *command: str | Path) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.netns}", *map(str, command)]

    def create_network(self) -> None:
        run("ip", "netns", "add", self.netns)
        for command in (
            ["link", "set", "lo", "up"],
            ["link", "add", "uplink0", "type", "bridge"],
            ["addr", "add", f"{self.address}/24", "dev", "uplink0"],
            ["link", "set", "uplink0", "up"],
            ["route", "add", "default", "via", "192.0.2.1"],
        ):
            run("ip", "-n", self.netns, *command)

    def prepare_files(self) -> Path:
        """The images to import; returns the resolver configuration."""
        images = self.data / "agent" / "images"
        images.mkdir(parents=True, exist_ok=True)
        for name in self.images:
            image = TOOLS / "images" / name
            if image.exists() and not (images / name).exists():
                shutil.copy(image, images / name)
        resolv = self.home / "resolv.conf"
        resolv.write_text("nameserver 192.0.2.53\n")
        return resolv

    def node_flags(self) -> list[str | Path]:
        return [
            "--data-dir", self.data, "--run-dir", self.run_dir, "--pod-log-dir", self.home / "pods",
            "--node-name", self.node, "--resolv-conf", self.prepare_files(),
        ]  # fmt: skip

    def start(self, *flags: str, wait: bool = True) -> None:
        """A server with its agent. Packaged add-ons are off: the tests of them start their own."""
        disable = [] if any(flag == "--disable" for flag in flags) else ["--disable", "traefik"]
        self.spawn("server", "--write-kubeconfig", self.kubeconfig, *self.node_flags(), *disable, *flags)
        if wait:
            self.wait_ready()

    def spawn(self, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        """`k1s ARGUMENTS` in the background; its output goes to `log`."""
        command = self.inside(sys.executable, "-m", "k1s.cli.main", *arguments)
        with self.log.open("ab") as log:
            self.server = subprocess.Popen(
                command, stdout=log, stderr=log, env={**self.env, **(env or {})}, start_new_session=True, cwd=self.home
            )

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.server is not None
            if self.server.poll() is not None:
                raise RuntimeError(f"the server ended:\n{self.tail()}")
            result = self.kubectl("wait", "--for=condition=Ready", f"node/{self.node}", "--timeout=20s", check=False)
            return result.returncode == 0

        try:
            eventually(ready, 40, "node Ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from error

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def kubectl(self, *arguments: str, check: bool = True, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return run(*self.inside(TOOLS / "bin" / "kubectl", *arguments), check=check, env=self.env, input=input, cwd=ROOT)

    def helm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(*self.inside(TOOLS / "bin" / "helm", *arguments), env=self.env, cwd=ROOT)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def pid_of(self, part: str) -> int:
        """The process id of `server`, `agent` or `containerd`."""
        if part == "server":
            assert self.server is not None
            return self.server.pid
        wanted = {"agent": ["k1s.cli.main", "agent"], "containerd": ["containerd", "--config"]}[part]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                text = b" ".join(words).decode(errors="replace")
                if all(word in text for word in wanted) and str(self.home) in text and "shim" not in text:
                    return int(entry.name)
        raise AssertionError(f"no {part} is running")

    def stop(self) -> None:
        """What `make down` does."""
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            self.server.wait(20)
        run(
            *self.inside(sys.executable, "-m", "k1s.cli.main", "stop", "--data-dir", self.data, "--run-dir", self.run_dir),
            env=self.env, check=False,
        )  # fmt: skip

    def remove(self) -> None:
        self.stop()
        run("ip", "netns", "del", self.netns, check=False)
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture(scope="session")
def tools() -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not (TOOLS / "bin" / "kubectl").exists():
        pytest.fail(f"{TOOLS} lacks kubectl: run 'packaging/prepare.sh test'")
    return TOOLS


@pytest.fixture(scope="session")
def cluster(tools: Path) -> Iterator[Cluster]:
    made = Cluster(f"k1s-e2e-{os.getpid()}")
    try:
        made.create_network()
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, deleted afterwards."""
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "").lower()[:50].strip("-")
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("config", "set-context", "--current", f"--namespace={name}")
    yield name
    cluster.kubectl("config", "set-context", "--current", "--namespace=default")
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def hosts(tools: Path) -> Iterator[Any]:
    """Three hosts, one server (hosts.Hosts); shared by the tests of the session, which leave it whole and Ready."""
    from .hosts import cluster_of

    with cluster_of(f"k1h{os.getpid() % 100000}") as made:
        yield made
