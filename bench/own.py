"""A k1s of our own to measure: a server with its agent in a network namespace and a directory that go away with it.

Owns: that namespace, directory and server process. Called by: __main__. Never does: touch the host's own network.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from bench.target import Api, Refused, Target, from_kubeconfig

ROOT = Path(__file__).resolve().parents[1]
PORT = 6443
NODE = "bench-node"
START_SECONDS = 60.0
_CLONE_NEWNET = 0x40000000


class StartFailed(Exception):
    """The server did not come up; the message holds the end of its log."""


def leave_network() -> None:
    """Move this process into a network namespace of its own, with the links a host has. It ends with its processes."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    for command in (
        "link set lo up",
        "link add uplink0 type bridge",
        "addr add 192.0.2.10/24 dev uplink0",
        "link set uplink0 up",
        "route add default via 192.0.2.1",
    ):
        subprocess.run(["ip", *command.split()], check=True)


class OwnCluster:
    """`start` gives (seconds to /readyz, seconds to node Ready)."""

    def __init__(self, command: Sequence[str], tools: Path, *, agent: bool) -> None:
        # Never /tmp, which may be in memory: what is measured is durable.
        self.home = Path(tempfile.mkdtemp(prefix="k1s-bench-", dir="/var/tmp"))
        self._command = [*command]
        self._tools = tools
        self._agent = agent
        self._kubeconfig = self.home / "k1s.yaml"
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def target(self) -> Target:
        return from_kubeconfig(self._kubeconfig, self.home)

    def start(self) -> tuple[float, float | None]:
        began, began_wall = time.monotonic(), time.time()
        self._launch()
        readyz = self._wait_readyz(began)
        if not self._agent:
            return readyz, None
        self._wait_node(began_wall)
        return readyz, time.monotonic() - began

    def end(self) -> None:
        """An orderly end of server and agent; containers and data stay."""
        if self._server is None or self._server.poll() is not None:
            return
        self._server.send_signal(signal.SIGTERM)
        try:
            self._server.wait(30)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def remove(self) -> None:
        self.end()
        if self._agent:
            subprocess.run([*self._command, "stop", *self._paths()], env=self._env(), check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def _paths(self) -> list[str]:
        return ["--data-dir", str(self.home / "data"), "--run-dir", str(self.home / "run")]

    def _env(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "KUBECONFIG")}
        env.setdefault("K1S_BIN_DIR", str(self._tools / "bin"))
        return env

    def _launch(self) -> None:
        images = self.home / "data" / "agent" / "images"
        images.mkdir(parents=True, exist_ok=True)
        for image in (self._tools / "images").glob("*.tar"):
            if not (images / image.name).exists():
                shutil.copy(image, images / image.name)
        resolv = self.home / "resolv.conf"
        resolv.write_text("nameserver 192.0.2.53\n")
        flags = ["--node-name", NODE, "--resolv-conf", str(resolv), "--pod-log-dir", str(self.home / "pods")]
        with (self.home / "k1s.log").open("ab") as log:
            self._server = subprocess.Popen(
                [*self._command, "server", *self._paths(), "--write-kubeconfig", str(self._kubeconfig), *flags]
                + ([] if self._agent else ["--disable-agent"]),
                stdout=log,
                stderr=log,
                env=self._env(),
                cwd=self.home,
                start_new_session=True,
            )

    def _wait_readyz(self, began: float) -> float:
        while time.monotonic() - began < START_SECONDS:
            self._check_alive()
            # A refused connection costs nothing; only then is it worth a TLS handshake.
            with socket.socket() as probe:
                open_port = probe.connect_ex(("127.0.0.1", PORT)) == 0
            if open_port and self._kubeconfig.exists():
                try:
                    api = Api(self.target())
                    api.call("GET", "/readyz")
                    api.close()
                    return time.monotonic() - began
                except (OSError, http.client.HTTPException, Refused):
                    pass
            time.sleep(0.01)
        raise StartFailed(f"/readyz: not within {START_SECONDS:.0f} s\n{self._tail()}")

    def _wait_node(self, since: float) -> None:
        """Ready, and told by this start's agent: the Node of an earlier start says Ready too."""
        api = Api(self.target())
        with api.watch("/api/v1/nodes", seconds=int(START_SECONDS)) as events:
            for event in events:
                self._check_alive()
                if event["type"] not in ("ADDED", "MODIFIED"):
                    continue
                for condition in event["object"].get("status", {}).get("conditions") or []:
                    beat = condition.get("lastHeartbeatTime")
                    if condition["type"] == "Ready" and condition["status"] == "True" and beat:
                        # Heartbeats have whole seconds.
                        if datetime.fromisoformat(beat.replace("Z", "+00:00")).timestamp() >= int(since):
                            return
        raise StartFailed(f"node Ready: not within {START_SECONDS:.0f} s\n{self._tail()}")

    def _check_alive(self) -> None:
        if self._server is not None and self._server.poll() is not None:
            raise StartFailed(f"the server ended with {self._server.returncode}\n{self._tail()}")

    def _tail(self) -> str:
        log = self.home / "k1s.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-30:]) if log.exists() else ""


def default_command() -> list[str]:
    return [sys.executable, "-m", "k1s.cli.main"]
