"""What every Runtime keeps: the same suite over the fake and over a real containerd that the test starts for itself.

The real one needs root. Sandboxes use the host's network, so no CNI is needed; images are built here from Debian's busybox.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from k1s.agent.config import AgentConfig
from k1s.agent.containerd import Containerd
from k1s.agent.resources.cgroups import cgroup_root
from k1s.agent.teardown import stop_all
from k1s.base.process import find_binary
from k1s.cri.errors import DeadlineExceeded, InvalidArgument, NotFound, RuntimeFailure
from k1s.cri.fake import FakeRuntime
from k1s.cri.runtime import Container, ContainerStatus, Runtime, RuntimeEvent

ROOT = Path(__file__).parents[2]
BUSYBOX = "docker.io/library/k1s-busybox:1"
LIMIT = 20.0


def _image_builder() -> Any:
    spec = importlib.util.spec_from_file_location("k1s_images", ROOT / "packaging" / "images.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def archives() -> Any:
    """A directory with pause.tar and busybox.tar. Pause is busybox too: `sleep` holds the namespaces as well as anything."""
    busybox = find_binary("busybox")
    if busybox is None:
        pytest.skip("needs busybox (static)")
    builder = _image_builder()
    with tempfile.TemporaryDirectory(prefix="k1s-cri-") as directory:
        path = Path(directory)
        builder.build(
            path / "pause.tar",
            "k1s.io/pause:1",
            {"busybox": Path(busybox).read_bytes()},
            config={"Entrypoint": ["/busybox", "sleep", "2147483647"]},
        )
        builder.build_busybox(path / "busybox.tar", Path(busybox), BUSYBOX)
        yield path


@dataclass
class Bench:
    """A runtime with the busybox image in it, and where logs go."""

    runtime: Runtime
    logs: Path
    cgroup: str

    def sandbox(self, name: str, attempt: int = 0) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "attempt": attempt},
            "log_directory": str(self.logs / name),
            "labels": {"io.kubernetes.pod.uid": f"uid-{name}"},
            "annotations": {"a": "b"},
            "linux": {
                "cgroup_parent": f"{self.cgroup}/kubepods/podtest",
                "security_context": {"namespace_options": {"network": "NODE", "pid": "CONTAINER", "ipc": "POD"}},
            },
        }

    def container(self, name: str, *command: str, attempt: int = 0) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "attempt": attempt},
            "image": {"image": BUSYBOX},
            "command": list(command),
            "labels": {"io.kubernetes.container.name": name},
            "annotations": {"io.kubernetes.container.restartCount": str(attempt)},
            "log_path": f"{name}/{attempt}.log",
            "linux": {"resources": {"cpu_shares": 2, "oom_score_adj": 1000}, "security_context": {}},
        }

    async def start(self, sandbox_name: str, *command: str) -> tuple[str, str]:
        config = self.sandbox(sandbox_name)
        sandbox_id = await self.runtime.run_pod_sandbox(config)
        container_id = await self.runtime.create_container(sandbox_id, self.container("c", *command), config)
        await self.runtime.start_container(container_id)
        return sandbox_id, container_id

    async def until(self, container_id: str, state: str) -> ContainerStatus:
        async with asyncio.timeout(LIMIT):
            while True:
                status = await self.runtime.container_status(container_id)
                if status.state == state:
                    return status
                await asyncio.sleep(0.02)


async def _fake(archives: Path) -> AsyncIterator[Bench]:
    runtime = FakeRuntime(pullable=lambda image: False)
    await runtime.import_images(str(archives / "busybox.tar"))
    yield Bench(runtime, Path("/nonexistent"), "/k1s-test")
    await runtime.close()


async def _real(archives: Path) -> AsyncIterator[Bench]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    from k1s.cri.containerd import ContainerdRuntime

    directory = Path(tempfile.mkdtemp(prefix=f"k1s-c{os.getpid()}-", dir="/tmp"))
    config = AgentConfig(data_dir=directory / "data", run_dir=directory / "run")
    daemon = Containerd(config)
    await daemon.start_or_adopt()
    runtime = ContainerdRuntime(str(config.containerd_socket), ctr=find_binary("ctr") or "ctr")
    try:
        for tar in ("pause.tar", "busybox.tar"):
            await runtime.import_images(str(archives / tar))
        yield Bench(runtime, directory / "logs", cgroup_root(config))
    finally:
        await runtime.close()
        await stop_all(config)
        shutil.rmtree(directory)


@pytest.fixture(params=["fake", pytest.param("containerd", marks=pytest.mark.root)], scope="module")
def maker(request: pytest.FixtureRequest, archives: Path) -> Callable[[], AsyncIterator[Bench]]:
    return lambda: _fake(archives) if request.param == "fake" else _real(archives)


async def test_contract(maker: Callable[[], AsyncIterator[Bench]]) -> None:
    """One runtime for all cases: a containerd takes a second to start. Each case cleans up behind itself."""
    stream = maker()
    bench = await anext(stream)
    try:
        for case in CASES:
            async with asyncio.timeout(60):
                try:
                    await case(bench)
                except BaseException as error:
                    error.add_note(f"case {case.__name__}")
                    raise
            assert await bench.runtime.list_pod_sandboxes() == [], case.__name__
            assert await bench.runtime.list_containers() == [], case.__name__
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


async def version_and_status(bench: Bench) -> None:
    version = await bench.runtime.version()
    assert version.name and version.version and version.api_version == "v1"
    conditions = {c.type: c.status for c in await bench.runtime.status()}
    assert conditions["RuntimeReady"] is True
    assert "NetworkReady" in conditions


async def sandbox_lives_and_goes(bench: Bench) -> None:
    runtime = bench.runtime
    sandbox_id = await runtime.run_pod_sandbox(bench.sandbox("one"))
    (listed,) = await runtime.list_pod_sandboxes({"io.kubernetes.pod.uid": "uid-one"})
    assert (listed.id, listed.ready, listed.name, listed.uid, listed.attempt) == (sandbox_id, True, "one", "uid-one", 0)
    assert listed.annotations["a"] == "b"
    status = await runtime.pod_sandbox_status(sandbox_id)
    assert status.host_network and status.ips == ()
    assert await runtime.list_pod_sandboxes({"io.kubernetes.pod.uid": "other"}) == []
    with pytest.raises(RuntimeFailure):
        await runtime.run_pod_sandbox(bench.sandbox("one"))
    await runtime.stop_pod_sandbox(sandbox_id)
    await runtime.stop_pod_sandbox(sandbox_id)
    assert not (await runtime.pod_sandbox_status(sandbox_id)).ready
    await runtime.remove_pod_sandbox(sandbox_id)
    await runtime.remove_pod_sandbox(sandbox_id)
    with pytest.raises(NotFound):
        await runtime.pod_sandbox_status(sandbox_id)


async def container_exits_with_its_code(bench: Bench) -> None:
    runtime = bench.runtime
    sandbox_id, container_id = await bench.start("exits", "sh", "-c", "exit 3")
    status = await bench.until(container_id, "exited")
    assert (status.exit_code, status.reason, status.attempt, status.name) == (3, "Error", 0, "c")
    # containerd may stamp the end of a very short life before its beginning.
    assert min(status.finished_at, status.started_at) >= status.created_at > 0
    assert status.annotations["io.kubernetes.container.restartCount"] == "0"
    with pytest.raises(RuntimeFailure):
        await runtime.start_container(container_id)
    await runtime.remove_container(container_id)
    await runtime.remove_container(container_id)
    with pytest.raises(NotFound):
        await runtime.container_status(container_id)
    await runtime.remove_pod_sandbox(sandbox_id)


async def container_is_stopped(bench: Bench) -> None:
    sandbox_id, container_id = await bench.start("stops", "sleep", "1000")
    assert (await bench.until(container_id, "running")).started_at > 0
    await bench.runtime.stop_container(container_id, 0)
    assert (await bench.until(container_id, "exited")).exit_code == 137
    await bench.runtime.stop_container(container_id, 0)
    await bench.runtime.remove_pod_sandbox(sandbox_id)


async def sandbox_takes_its_containers_along(bench: Bench) -> None:
    sandbox_id, container_id = await bench.start("takes", "sleep", "1000")
    await bench.runtime.stop_pod_sandbox(sandbox_id)
    assert (await bench.until(container_id, "exited")).exit_code == 137
    await bench.runtime.remove_pod_sandbox(sandbox_id)
    with pytest.raises(NotFound):
        await bench.runtime.container_status(container_id)


async def containers_are_listed_by_label(bench: Bench) -> None:
    sandbox_id, container_id = await bench.start("lists", "sleep", "1000")
    found: list[Container] = await bench.runtime.list_containers({"io.kubernetes.container.name": "c"})
    assert [(c.id, c.sandbox_id, c.state) for c in found] == [(container_id, sandbox_id, "running")]
    assert await bench.runtime.list_containers({"io.kubernetes.container.name": "d"}) == []
    await bench.runtime.remove_pod_sandbox(sandbox_id)


async def command_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(RuntimeFailure, match="no-such-command"):
        await bench.start("missing", "no-such-command")
    (sandbox,) = await bench.runtime.list_pod_sandboxes()
    (container,) = await bench.runtime.list_containers()
    status = await bench.runtime.container_status(container.id)
    assert (status.state, status.exit_code, status.reason) == ("exited", 128, "StartError")
    await bench.runtime.remove_pod_sandbox(sandbox.id)


async def exec_runs_to_the_end(bench: Bench) -> None:
    sandbox_id, container_id = await bench.start("execs", "sleep", "1000")
    result = await bench.runtime.exec_sync(container_id, ["echo", "hello"], 5)
    assert (result.exit_code, result.stdout) == (0, b"hello\n")
    assert (await bench.runtime.exec_sync(container_id, ["sh", "-c", "exit 7"], 5)).exit_code == 7
    with pytest.raises(DeadlineExceeded):
        await bench.runtime.exec_sync(container_id, ["sleep", "30"], 1)
    with pytest.raises(RuntimeFailure):
        await bench.runtime.exec_sync(container_id, ["no-such-command"], 5)
    await bench.runtime.remove_pod_sandbox(sandbox_id)


async def events_tell_of_start_and_exit(bench: Bench) -> None:
    seen: list[RuntimeEvent] = []
    changed = asyncio.Condition()

    async def follow() -> None:
        async for event in bench.runtime.events():
            async with changed:
                seen.append(event)
                changed.notify_all()

    async def wait_for(kind: str, identity: str) -> RuntimeEvent:
        def found() -> RuntimeEvent | None:
            return next((e for e in seen if e.kind == kind and e.id == identity), None)

        async with asyncio.timeout(LIMIT), changed:
            await changed.wait_for(found)
        event = found()
        assert event is not None
        return event

    task = asyncio.create_task(follow())
    try:
        await wait_for("resync", "")
        sandbox_id, container_id = await bench.start("events", "sh", "-c", "exit 4")
        ended = await wait_for("exited", container_id)
        assert ended.exit_code == 4 and ended.at > 0
        kinds = [e.kind for e in seen if e.id == container_id]
        assert kinds.index("started") < kinds.index("exited")
        # The event comes a moment before the status; what it says must then hold.
        await bench.until(container_id, "exited")
        await bench.runtime.stop_pod_sandbox(sandbox_id)
        await wait_for("exited", sandbox_id)
        await bench.runtime.remove_pod_sandbox(sandbox_id)
    finally:
        task.cancel()


async def images_are_found_and_not_found(bench: Bench) -> None:
    runtime = bench.runtime
    image = await runtime.image_status("k1s-busybox:1")
    assert image is not None and BUSYBOX in image.tags and image.size > 0
    assert await runtime.image_status(image.id) == image
    assert image.id in [i.id for i in await runtime.list_images()]
    assert await runtime.image_status("docker.io/library/absent:1") is None
    with pytest.raises(RuntimeFailure):
        await runtime.pull_image("localhost:1/absent:1")
    config = bench.sandbox("noimage")
    sandbox_id = await runtime.run_pod_sandbox(config)
    missing = {**bench.container("c"), "image": {"image": "docker.io/library/absent:1"}}
    with pytest.raises(RuntimeFailure):
        await runtime.create_container(sandbox_id, missing, config)
    await runtime.remove_pod_sandbox(sandbox_id)
    await runtime.remove_image("docker.io/library/absent:1")


async def bad_handler_is_refused(bench: Bench) -> None:
    with pytest.raises((InvalidArgument, RuntimeFailure), match="runtime"):
        await bench.runtime.run_pod_sandbox(bench.sandbox("handler"), "no-such-handler")


CASES: tuple[Callable[[Bench], Awaitable[None]], ...] = (
    version_and_status,
    sandbox_lives_and_goes,
    container_exits_with_its_code,
    container_is_stopped,
    sandbox_takes_its_containers_along,
    containers_are_listed_by_label,
    command_that_is_not_there,
    exec_runs_to_the_end,
    events_tell_of_start_and_exit,
    images_are_found_and_not_found,
    bad_handler_is_refused,
)
