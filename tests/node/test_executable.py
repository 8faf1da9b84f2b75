"""dist/k1s, the one executable, on a host without Python. `make build` makes it; where it was not built these are skipped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXECUTABLE = Path(os.environ.get("K1S_EXECUTABLE") or ROOT / "dist" / "k1s")
PORT = 6443
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not EXECUTABLE.exists(), reason="dist/k1s is not built: make build"),
    pytest.mark.timeout(180),
]
# Hides every Python of this host, then runs the rest of its arguments: a stand-in for a host that has none.
HIDE = """
set -eu
mount --make-rprivate /
for found in $HIDDEN; do
    if [ -d "$found" ]; then mount -t tmpfs none "$found"; else mount --bind /dev/null "$found"; fi
done
ip link set lo up
ip link add uplink0 type bridge
ip addr add 192.0.2.10/24 dev uplink0
ip link set uplink0 up
ip route add default via 192.0.2.1
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$HOME" K1S_DATA_DIR="$DATA" "$@"
"""
# Refused by a rule in CEL, whose evaluator is a C++ library that must have come along.
POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: short-names}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}
  validations:
  - {expression: "object.metadata.name.matches('^[a-z]{1,4}$')", message: the name is too long}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: short-names}
spec: {policyName: short-names, validationActions: [Deny], matchResources: {}}
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


def _pythons() -> list[str]:
    """Directories and programs of every Python there is; not those in which this repository lies."""
    found = {Path(sys.prefix), Path(sys.base_prefix) / "lib", Path(sys.base_prefix) / "bin"}
    found |= {*Path("/usr/lib").glob("python3*"), *Path("/usr/local/lib").glob("python3*")}
    found = {path.resolve() for path in found if path.resolve() not in (Path("/usr"), Path("/usr/lib"), Path("/usr/bin"))}
    programs = {path.resolve() for path in Path("/usr/bin").glob("python3*")}
    keep = EXECUTABLE.resolve()
    return sorted(str(path) for path in found | programs if path.exists() and not keep.is_relative_to(path))


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # Short: unix sockets lie below.
    directory = Path(tempfile.mkdtemp(prefix=f"k1s-x{os.getpid()}-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


def _command(home: Path, *words: str | Path) -> tuple[list[str], dict[str, str]]:
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HIDDEN": " ".join(_pythons()), "HOME": str(home), "DATA": str(home / "data")}
    return ["unshare", "--mount", "--net", "sh", "-c", HIDE, "sh", *map(str, words)], env


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command, env = _command(home, *words)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_the_stand_in_has_no_python(run: Run) -> None:
    assert run("sh", "-c", "command -v python3 && python3 -c 'print(1)'").returncode != 0


def test_it_runs_and_unpacks_only_once(run: Run, home: Path) -> None:
    first = run(EXECUTABLE, "--version")
    assert (first.returncode, first.stderr) == (0, "") and first.stdout.startswith("k1s ")
    unpacked = home / "data" / "data"
    (directory,) = [path for path in unpacked.iterdir() if path.name != "current"]
    assert (unpacked / "current").resolve() == directory and not directory.name.startswith(".")
    inode = directory.stat().st_ino
    assert run(EXECUTABLE, "--version").stdout == first.stdout
    assert {path.name for path in unpacked.iterdir()} == {"current", directory.name} and directory.stat().st_ino == inode


def test_check_config_finds_all_programs_in_it(run: Run) -> None:
    result = run(EXECUTABLE, "check-config")
    for name in ("program containerd", "program containerd-shim-runc-v2", "program runc", "program kubectl", "libnftables"):
        assert f"ok       {name}\n" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize("link", [False, True])
def test_kubectl_by_verb_and_by_name(run: Run, home: Path, link: bool) -> None:
    if link:
        (home / "kubectl").symlink_to(EXECUTABLE)
    words = [home / "kubectl"] if link else [EXECUTABLE, "kubectl"]
    result = run(*words, "version", "--client")
    assert result.returncode == 0 and "Client Version: v1." in result.stdout, result.stderr


def test_children_do_not_see_its_libraries(run: Run, home: Path) -> None:
    plugin = home / "kubectl-showenv"
    plugin.write_text("#!/bin/sh\nenv\n")
    plugin.chmod(0o755)
    result = run("sh", "-c", f'PATH="{home}:$PATH" exec "$0" kubectl showenv', EXECUTABLE)
    assert result.returncode == 0 and "PATH=" in result.stdout, result.stderr
    assert "LD_LIBRARY_PATH" not in result.stdout


def test_a_damaged_download_is_refused(run: Run, home: Path) -> None:
    cut = home / "cut"
    with EXECUTABLE.open("rb") as whole, cut.open("wb") as half:
        half.write(whole.read(EXECUTABLE.stat().st_size // 2))
    cut.chmod(0o755)
    target = home / "cut-data"
    result = run("env", f"K1S_DATA_DIR={target}", cut, "--version")
    assert result.returncode != 0
    assert [path.name for path in (target / "data").iterdir()] == []


def test_a_server_comes_up_with_its_node(run: Run, home: Path) -> None:
    flags: list[str | Path] = ["--data-dir", home / "data", "--run-dir", home / "run", "--pod-log-dir", home / "pods"]
    kubeconfig, log = home / "k1s.yaml", home / "log"
    resolv = home / "resolv.conf"
    resolv.write_text("nameserver 192.0.2.53\n")
    more: list[str | Path] = ["--write-kubeconfig", kubeconfig, "--node-name", "n1", "--resolv-conf", resolv]
    command, env = _command(home, EXECUTABLE, "server", *flags, *more)
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)

    def inside(*words: str | Path) -> subprocess.CompletedProcess[str]:
        entered = ["nsenter", "-t", str(server.pid), "--net", "--mount", "--", *map(str, words)]
        return subprocess.run(entered, env={**env, "K1S_DATA_DIR": env["DATA"]}, capture_output=True, text=True, check=False)

    def kubectl(*words: str) -> subprocess.CompletedProcess[str]:
        return inside(EXECUTABLE, "kubectl", "--kubeconfig", kubeconfig, *words)

    try:
        deadline = time.monotonic() + 60
        while kubectl("get", "--raw", "/readyz").stdout != "ok":
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        while kubectl("get", "node", "n1").returncode != 0:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        ready = kubectl("wait", "--for=condition=Ready", "node/n1", "--timeout=60s")
        assert ready.returncode == 0, ready.stderr + log.read_text()[-3000:]
        # The image of every pod's sandbox came along.
        images = inside(EXECUTABLE, "ctr", "--address", home / "run" / "containerd" / "containerd.sock", "images", "ls", "-q")
        assert "k1s.io/pause:1" in images.stdout, images.stderr
        (home / "policy.yaml").write_text(POLICY)
        applied = kubectl("apply", "-f", str(home / "policy.yaml"))
        assert applied.returncode == 0, applied.stderr
        deadline = time.monotonic() + 20
        while "the name is too long" not in (refused := kubectl("create", "configmap", "longer", "--dry-run=server")).stderr:
            assert time.monotonic() < deadline, refused.stdout + refused.stderr
            time.sleep(0.2)
        assert kubectl("create", "configmap", "ok", "--dry-run=server").returncode == 0
        environment = _environment_of_containerd(home)
        assert b"LD_LIBRARY_PATH" not in environment
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        # It deletes the data directory, and with it the very files it runs from.
        uninstalled = run(EXECUTABLE, "uninstall", *flags, "--write-kubeconfig", kubeconfig)
    assert uninstalled.returncode == 0, uninstalled.stderr
    assert not (home / "data").exists() and not (home / "run").exists() and not kubeconfig.exists()


def _environment_of_containerd(home: Path) -> bytes:
    pid = int((home / "run" / "containerd.pid").read_text())
    return Path(f"/proc/{pid}/environ").read_bytes()
