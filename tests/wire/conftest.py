"""A real API server on loopback over TLS, in a thread of its own, and the real kubectl against it."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from k1s.base import http_server, pki
from k1s.base.http import Request
from k1s.server.apiserver.app import ApiServer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.storage.memory import MemoryStore

if TYPE_CHECKING:
    from tests.wire.whole_server import WholeServer

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("K1S_TOOLS") or ROOT / ".tools")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that k1s runs with: it treats sockets and TLS in its own way."""
    return {"uvloop": uvloop.new_event_loop}


def _kubectl() -> str:
    for candidate in (os.environ.get("K1S_KUBECTL", ""), str(TOOLS / "bin" / "kubectl")):
        if candidate and shutil.which(candidate):
            return candidate
    pytest.fail(f"{TOOLS} lacks kubectl: run 'packaging/prepare.sh test'")


class Everybody:
    """Authentication and authorization are tested elsewhere."""

    async def authenticate(self, request: Request) -> UserInfo:
        return UserInfo("admin", ("system:masters", "system:authenticated"))

    async def authorize(self, user: UserInfo, info: RequestInfo) -> None:
        return None


class Wire:
    """`kubectl(...)` runs it and returns its output; `connect()` opens a raw HTTPS connection."""

    def __init__(self, home: Path) -> None:
        now = time.time()
        ca = pki.create_ca("test-ca", now)
        key = pki.new_key()
        leaf = pki.issue(ca, key, pki.Subject("k1s", sans=("127.0.0.1", "localhost")), usage="server", now=now)
        for name, data in (("ca.pem", ca.certificate), ("server.pem", leaf), ("server.key", key)):
            (home / name).write_bytes(data)
        self.home, self.port = home, 0
        self._program = _kubectl()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._main()), daemon=True)

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        store = MemoryStore()
        await store.open()
        server = ApiServer(store, authenticator=Everybody(), authorizer=Everybody())
        ready = asyncio.Event()
        running = asyncio.create_task(server.run(ready.set))
        await ready.wait()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.home / "server.pem", self.home / "server.key")
        listener = await http_server.listen(server.handle, host="127.0.0.1", port=0, tls=context)
        self.port = listener.port
        await self.extend(server)
        self._started.set()
        try:
            await running
        except asyncio.CancelledError:
            running.cancel()
        await self.retract()
        await listener.close(0.2)
        await store.close()

    async def extend(self, server: ApiServer) -> None:
        """More that is to run, in tests that need it."""

    async def retract(self) -> None:
        """The end of what `extend` began."""

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(20)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "t", "cluster": {"server": self.url, "certificate-authority": str(self.home / "ca.pem")}}],
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
            "users": [{"name": "t", "user": {"token": "t"}}],
            "current-context": "t",
        }
        import yaml

        (self.home / "config").write_text(yaml.safe_dump(config))

    def stop(self) -> None:
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def command(self, *arguments: str) -> list[str]:
        return [self._program, "--kubeconfig", str(self.home / "config"), "--cache-dir", str(self.home / "cache"), *arguments]

    def kubectl(self, *arguments: str, input: str | None = None, fails: bool = False) -> str:
        result = subprocess.run(self.command(*arguments), input=input, capture_output=True, text=True, timeout=60)
        if (result.returncode != 0) is not fails:
            raise AssertionError(f"kubectl {' '.join(arguments)} -> {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout + result.stderr

    def connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.home / "ca.pem"))
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=10)


@pytest.fixture(scope="session")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    wire = Wire(tmp_path_factory.mktemp("wire"))
    wire.start()
    try:
        yield wire
    finally:
        wire.stop()


@pytest.fixture
def namespace(wire: Wire, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("_", "-").replace("test-", "t-")[:60]
    wire.kubectl("create", "namespace", name)
    return name


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    """One for the session: tests use names and namespaces of their own."""
    from tests.wire.whole_server import WholeServer

    made = WholeServer(tmp_path_factory.mktemp("server"))
    try:
        made.start()
        yield made
    finally:
        made.stop()
