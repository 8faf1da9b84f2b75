"""An in-memory Runtime for demos and scale tests: `k1s agent --fake-runtime`.

Owns: sandboxes, containers and images that exist only as records, and how a pretended process ends (fake_process.py).
Called by: agent/app, tests. Never does: run anything, touch the disk or the network.
It is held to the same contract suite as the real one (tests/contract/test_cri.py).
Bounds: one queue of 1024 events per subscriber; a subscriber that falls behind loses them and gets a `resync`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from k1s.base.clock import REAL_CLOCK, Clock
from k1s.cri.errors import AlreadyExists, DeadlineExceeded, InvalidArgument, NotFound, PullFailed, RuntimeFailure, Unimplemented
from k1s.cri.fake_process import Process, parse
from k1s.cri.runtime import (
    Condition,
    Config,
    Container,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    Image,
    RegistryAuth,
    RuntimeEvent,
    Sandbox,
    Version,
)

_QUEUE = 1024
_NO_LABELS: Mapping[str, str] = {}


@dataclasses.dataclass(slots=True)
class _Record:
    """One pretended container: what it is, how it does, and the task that will end it."""

    container: Container
    status: ContainerStatus
    process: Process
    ending: asyncio.Task[None] | None = None


class FakeRuntime:
    """Everything succeeds at once, unless the names or commands say otherwise. `pullable` says which images a pull finds."""

    def __init__(self, *, clock: Clock = REAL_CLOCK, pullable: Callable[[str], bool] = lambda image: True) -> None:
        self._clock, self._pullable = clock, pullable
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, _Record] = {}
        self._images: dict[str, Image] = {}
        self._subscribers: list[asyncio.Queue[RuntimeEvent]] = []
        self._serial = itertools.count(1)

    async def close(self) -> None:
        for record in self._containers.values():
            if record.ending is not None:
                record.ending.cancel()

    async def version(self) -> Version:
        return Version("fake", "1.0.0", "v1")

    async def status(self) -> tuple[Condition, ...]:
        return (Condition("RuntimeReady", True), Condition("NetworkReady", True))

    async def run_pod_sandbox(self, config: Config, runtime_handler: str = "") -> str:
        if runtime_handler:
            raise RuntimeFailure(f'no runtime for "{runtime_handler}" is configured')
        meta = config["metadata"]
        attempt = int(meta.get("attempt", 0))
        for other in self._sandboxes.values():
            if (other.name, other.namespace, other.uid, other.attempt) == (meta["name"], meta["namespace"], meta["uid"], attempt):
                raise AlreadyExists(f"sandbox {meta['name']} attempt {attempt} exists")
        options = config.get("linux", {}).get("security_context", {}).get("namespace_options", {})
        on_host = options.get("network") == "NODE"
        number = next(self._serial)
        sandbox = Sandbox(
            id=_identity("sandbox", number),
            name=meta["name"],
            namespace=meta["namespace"],
            uid=meta["uid"],
            attempt=attempt,
            ready=True,
            created_at=self._clock.now(),
            labels=dict(config.get("labels", {})),
            annotations=dict(config.get("annotations", {})),
            ips=() if on_host else (f"10.244.{number // 250 % 250}.{number % 250 + 2}",),
            host_network=on_host,
            pid=0,
        )
        self._sandboxes[sandbox.id] = sandbox
        self._emit(RuntimeEvent("started", sandbox.id, 0, self._clock.now()))
        return sandbox.id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for record in list(self._containers.values()):
            if record.container.sandbox_id == sandbox_id:
                self.finish(record.container.id, 137)
        if sandbox.ready:
            self._sandboxes[sandbox_id] = dataclasses.replace(sandbox, ready=False)
            self._emit(RuntimeEvent("exited", sandbox_id, 137, self._clock.now()))

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        if sandbox_id not in self._sandboxes:
            return
        await self.stop_pod_sandbox(sandbox_id)
        for container_id in [c for c, r in self._containers.items() if r.container.sandbox_id == sandbox_id]:
            del self._containers[container_id]
        del self._sandboxes[sandbox_id]

    async def pod_sandbox_status(self, sandbox_id: str) -> Sandbox:
        if sandbox_id not in self._sandboxes:
            raise NotFound(f"sandbox {sandbox_id} not found")
        return self._sandboxes[sandbox_id]

    async def list_pod_sandboxes(self, labels: Mapping[str, str] = _NO_LABELS) -> list[Sandbox]:
        bare: dict[str, Any] = {"ips": (), "host_network": False, "netns": "", "pid": 0}
        return [dataclasses.replace(s, **bare) for s in self._sandboxes.values() if _selected(s.labels, labels)]

    async def create_container(self, sandbox_id: str, config: Config, sandbox_config: Config) -> str:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.ready:
            raise NotFound(f"sandbox {sandbox_id} is not running")
        name, attempt = config["metadata"]["name"], int(config["metadata"].get("attempt", 0))
        for record in self._containers.values():
            c = record.container
            if (c.sandbox_id, c.name, c.attempt) == (sandbox_id, name, attempt):
                raise AlreadyExists(f"container {name} attempt {attempt} exists")
        image = await self.image_status(config["image"]["image"])
        if image is None:
            raise NotFound(f"image {config['image']['image']} not found")
        container_id = _identity("container", next(self._serial))
        common: dict[str, Any] = {
            "id": container_id,
            "name": name,
            "attempt": attempt,
            "state": "created",
            "created_at": self._clock.now(),
            "image": config["image"].get("user_specified_image") or config["image"]["image"],
            "image_ref": image.id,
            "labels": dict(config.get("labels", {})),
            "annotations": dict(config.get("annotations", {})),
        }
        process = parse([*config.get("command", []), *config.get("args", [])])
        self._containers[container_id] = _Record(
            Container(sandbox_id=sandbox_id, **common), ContainerStatus(log_path=config.get("log_path", ""), **common), process
        )
        return container_id

    async def start_container(self, container_id: str) -> None:
        record = self._record(container_id)
        if record.container.state != "created":
            raise InvalidArgument(f"container {container_id} is in state {record.container.state}")
        if record.process.error:
            self._change(record, "exited", finished_at=self._clock.now(), exit_code=128, reason="StartError")
            raise RuntimeFailure(record.process.error)
        self._change(record, "running", started_at=self._clock.now())
        self._emit(RuntimeEvent("started", container_id, 0, self._clock.now()))
        if record.process.seconds is not None:
            record.ending = asyncio.create_task(self._end_later(container_id, record.process), name=f"fake-{container_id[:12]}")

    async def _end_later(self, container_id: str, process: Process) -> None:
        await self._clock.sleep(process.seconds or 0.0)
        self.finish(container_id, process.exit_code)

    def finish(self, container_id: str, exit_code: int) -> None:
        """The pretended process ends now (also for tests: a crash)."""
        record = self._containers.get(container_id)
        if record is None or record.container.state not in ("running", "created"):
            return
        if record.ending is not None and record.ending is not asyncio.current_task():
            record.ending.cancel()
        reason = "Completed" if exit_code == 0 else "Error"
        self._change(record, "exited", finished_at=self._clock.now(), exit_code=exit_code, reason=reason)
        self._emit(RuntimeEvent("exited", container_id, exit_code, self._clock.now()))

    async def stop_container(self, container_id: str, grace_seconds: int) -> None:
        self.finish(container_id, 137 if grace_seconds == 0 else 143)

    async def remove_container(self, container_id: str) -> None:
        self.finish(container_id, 137)
        self._containers.pop(container_id, None)

    async def container_status(self, container_id: str) -> ContainerStatus:
        return self._record(container_id).status

    async def list_containers(self, labels: Mapping[str, str] = _NO_LABELS) -> list[Container]:
        return [r.container for r in self._containers.values() if _selected(r.container.labels, labels)]

    async def update_container_resources(self, container_id: str, resources: Config) -> None:
        self._record(container_id)

    async def container_stats(self, labels: Mapping[str, str] = _NO_LABELS) -> list[ContainerStats]:
        now = self._clock.now()
        running = [c for c in await self.list_containers(labels) if c.state == "running"]
        return [ContainerStats(c.id, c.name, c.labels, now, 0, 0, 0, 0, 0, 0, 0, 0) for c in running]

    async def reopen_container_log(self, container_id: str) -> None:
        self._record(container_id)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        if self._record(container_id).container.state != "running":
            raise RuntimeFailure(f"container {container_id} is not running")
        process = parse(list(command))
        if process.error:
            raise RuntimeFailure(process.error)
        seconds = process.seconds or 0.0
        if timeout_seconds and seconds > timeout_seconds:
            await self._clock.sleep(timeout_seconds)
            raise DeadlineExceeded(f"command timed out after {timeout_seconds} s")
        if seconds:
            await self._clock.sleep(seconds)
        return ExecResult(process.exit_code, process.output, b"")

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        raise Unimplemented("the fake runtime has no streams")

    async def attach(self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        raise Unimplemented("the fake runtime has no streams")

    async def image_status(self, image: str) -> Image | None:
        found = self._images.get(image) or self._images.get(_full_name(image))
        return found or next((i for i in self._images.values() if i.id == image), None)

    async def list_images(self) -> list[Image]:
        return list({image.id: image for image in self._images.values()}.values())

    async def pull_image(self, image: str, auth: RegistryAuth | None = None, sandbox_config: Config | None = None) -> str:
        if not self._pullable(image):
            raise PullFailed(f'failed to resolve reference "{_full_name(image)}": not found')
        return self.add_image(image)

    def add_image(self, image: str) -> str:
        """An image appears, as if imported; returns its id."""
        name = _full_name(image)
        record = Image(id="sha256:" + hashlib.sha256(name.encode()).hexdigest(), tags=(name,), size=1024 * 1024, uid=0)
        self._images[name] = record
        return record.id

    async def remove_image(self, image: str) -> None:
        found = await self.image_status(image)
        if found is not None:
            self._images = {name: i for name, i in self._images.items() if i.id != found.id}

    async def import_images(self, tar: str) -> list[str]:
        from k1s.cri.archive import image_names

        names = await asyncio.to_thread(image_names, tar)
        for name in names:
            self.add_image(name)
        return names

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue(_QUEUE)
        self._subscribers.append(queue)
        try:
            yield RuntimeEvent("resync")
            while True:
                yield await queue.get()
        finally:
            self._subscribers.remove(queue)

    def _emit(self, event: RuntimeEvent) -> None:
        for queue in self._subscribers:
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(RuntimeEvent("resync"))
            else:
                queue.put_nowait(event)

    def _record(self, container_id: str) -> _Record:
        record = self._containers.get(container_id)
        if record is None:
            raise NotFound(f"container {container_id} not found")
        return record

    def _change(self, record: _Record, state: Any, **changes: Any) -> None:
        record.container = dataclasses.replace(record.container, state=state)
        record.status = dataclasses.replace(record.status, state=state, **changes)


def _identity(kind: str, number: int) -> str:
    return hashlib.sha256(f"{kind}-{number}".encode()).hexdigest()


def _selected(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())


def _full_name(image: str) -> str:
    """Docker's short names in full, as containerd stores them."""
    name, at, digest = image.partition("@")
    head, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif "." not in head and ":" not in head and head != "localhost":
        name = f"docker.io/{name}"
    if not at and ":" not in name.rsplit("/", 1)[-1]:
        name += ":latest"
    return f"{name}@{digest}" if at else name
