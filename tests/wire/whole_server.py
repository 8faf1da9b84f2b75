"""`k1s server --disable-agent` as a process of its own on loopback: every filter on, a real database, real certificates."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.wire.conftest import TOOLS

Object = dict[str, Any]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _decoded(content: bytes) -> Any:
    """A body of JSON; a watch's, with a document per line, stays as it is."""
    try:
        return json.loads(content)
    except json.JSONDecodeError:
        return content


class WholeServer:
    """`start`, `kill` (-9), `stop`; `call` asks as the administrator, or with what `headers` say and no certificate."""

    def __init__(self, home: Path, *flags: str) -> None:
        self.home, self.flags = home, flags
        self.port = free_port()
        self.kubeconfig = home / "k1s.yaml"
        self.log = home / "k1s.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "KUBECONFIG")}
        return {**env, "K1S_BIN_DIR": str(TOOLS / "bin"), "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        command: list[str] = [sys.executable, "-m", "k1s.cli.main", "server", "--disable-agent", "--disable", "traefik"]
        command += ["--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--https-listen-port", str(self.port)]
        command += ["--data-dir", str(self.data), "--run-dir", str(self.home / "run")]
        command += ["--write-kubeconfig", str(self.kubeconfig), *self.flags]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self.env, cwd=self.home)
        deadline = time.monotonic() + 40
        while True:
            if self._process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.tail()}")
            try:
                if self.kubeconfig.exists() and self.call("GET", "/readyz")[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"not ready:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    # Asking

    def credentials(self) -> tuple[str, Path, Path, Path]:
        """(URL, CA, certificate, key), the last three as files."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        files = []
        for name, text in (
            ("ca.pem", cluster["certificate-authority-data"]),
            ("admin.pem", user["client-certificate-data"]),
            ("admin.key", user["client-key-data"]),
        ):
            file = self.home / name
            file.write_bytes(base64.b64decode(text))
            file.chmod(0o600)
            files.append(file)
        return cluster["server"], files[0], files[1], files[2]

    def tls(self, *, admin: bool = True) -> ssl.SSLContext:
        _, authority, certificate, key = self.credentials()
        context = ssl.create_default_context(cafile=str(authority))
        if admin:
            context.load_cert_chain(certificate, key)
        return context

    def connect(self, *, admin: bool = True, seconds: float = 30.0) -> http.client.HTTPSConnection:
        address = urlsplit(yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
        return http.client.HTTPSConnection(
            address.hostname or "127.0.0.1", address.port, context=self.tls(admin=admin), timeout=seconds
        )

    def call(
        self,
        method: str,
        path: str,
        body: bytes | str | Object | None = None,
        headers: dict[str, str] | None = None,
        *,
        admin: bool = True,
    ) -> tuple[int, dict[str, str], Any]:
        """(code, headers with lower-case names, the body: decoded where it is JSON, else bytes)."""
        data = json.dumps(body) if isinstance(body, dict) else body
        connection = self.connect(admin=admin)
        try:
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            content = answer.read()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return (
                answer.status,
                found,
                _decoded(content) if found.get("content-type", "").startswith("application/json") else content,
            )
        finally:
            connection.close()

    def kubectl(
        self, *arguments: str, program: str = "kubectl", input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        command = [str(TOOLS / "bin" / program), "--cache-dir", str(self.home / f"cache-{program}"), *arguments]
        result = subprocess.run(command, input=input, capture_output=True, text=True, timeout=90, env=self.env, cwd=self.home)
        if check and result.returncode != 0:
            raise AssertionError(f"{program} {' '.join(arguments)} -> {result.returncode}\n{result.stdout}{result.stderr}")
        return result
