"""What a container runtime is to k1s: the CRI verbs on plain values.

Owns: the Runtime protocol and the frozen values it hands out. Implemented by: containerd.py (gRPC) and fake.py (memory).
Called by: the agent. Never does: I/O; show protobuf to anyone; know what a pod is.

Configurations go in as dicts in CRI's own JSON shape with proto field names (PodSandboxConfig, ContainerConfig):
enums by name ("POD", "CONTAINER_RUNNING"), so that golden files can hold them. Answers come out as frozen dataclasses.
Times are seconds since the epoch, 0.0 where CRI has none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Config = dict[str, Any]
ContainerState = Literal["created", "running", "exited", "unknown"]
EventKind = Literal["started", "exited", "oom", "deleted", "resync"]
_NO_LABELS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Version:
    """Who the runtime is: ("containerd", "1.6.20", "v1")."""

    name: str
    version: str
    api_version: str


@dataclass(frozen=True, slots=True)
class Condition:
    """RuntimeReady or NetworkReady, with CRI's reason and message when it is not."""

    type: str
    status: bool
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod sandbox. `ips`, `netns` and `pid` are known only in what `pod_sandbox_status` returns."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    ready: bool
    created_at: float
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    ips: tuple[str, ...] = ()
    host_network: bool = False
    netns: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Container:
    """A container as lists give it."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    image: str
    image_ref: str
    state: ContainerState
    created_at: float
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """A container with how it runs or ended. `reason` is the runtime's: Completed, Error, OOMKilled, ..."""

    id: str
    name: str
    attempt: int
    state: ContainerState
    created_at: float
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    image: str = ""
    image_ref: str = ""
    reason: str = ""
    message: str = ""
    log_path: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the runtime's store. `uid` is the user it runs as when that is a number, else `username`."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size: int = 0
    uid: int | None = None
    username: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """Credentials for one pull; never logged."""

    username: str = ""
    password: str = field(default="", repr=False)
    auth: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    server_address: str = ""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command run to its end in a container gave."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """One sample of a container. Times in seconds, sizes in bytes, cpu in nanoseconds used since it started."""

    id: str
    name: str
    labels: Mapping[str, str]
    timestamp: float
    cpu_nanoseconds: int
    working_set: int
    memory_usage: int
    rss: int
    page_faults: int
    major_page_faults: int
    writable_bytes: int
    writable_inodes: int


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """Something happened to the container or sandbox `id`. `resync` (no id): events may have been missed, list again."""

    kind: EventKind
    id: str = ""
    exit_code: int = 0
    at: float = 0.0


class Runtime(Protocol):
    """The verbs. Every failure is a cri.errors.RuntimeFailure; stop and remove of what is gone succeed."""

    async def version(self) -> Version: ...
    async def status(self) -> tuple[Condition, ...]: ...

    async def run_pod_sandbox(self, config: Config, runtime_handler: str = "") -> str: ...
    async def stop_pod_sandbox(self, sandbox_id: str) -> None: ...
    async def remove_pod_sandbox(self, sandbox_id: str) -> None: ...
    async def pod_sandbox_status(self, sandbox_id: str) -> Sandbox: ...
    async def list_pod_sandboxes(self, labels: Mapping[str, str] = _NO_LABELS) -> list[Sandbox]: ...

    async def create_container(self, sandbox_id: str, config: Config, sandbox_config: Config) -> str: ...
    async def start_container(self, container_id: str) -> None: ...
    async def stop_container(self, container_id: str, grace_seconds: int) -> None: ...
    async def remove_container(self, container_id: str) -> None: ...
    async def container_status(self, container_id: str) -> ContainerStatus: ...
    async def list_containers(self, labels: Mapping[str, str] = _NO_LABELS) -> list[Container]: ...
    async def update_container_resources(self, container_id: str, resources: Config) -> None: ...
    async def container_stats(self, labels: Mapping[str, str] = _NO_LABELS) -> list[ContainerStats]: ...
    async def reopen_container_log(self, container_id: str) -> None: ...

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        """Run to the end; raises DeadlineExceeded past `timeout_seconds` (0: no limit)."""

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        """The URL at which the runtime streams the command."""

    async def attach(self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        """The URL at which the runtime streams the container's own streams."""

    async def image_status(self, image: str) -> Image | None: ...
    async def list_images(self) -> list[Image]: ...
    async def pull_image(self, image: str, auth: RegistryAuth | None = None, sandbox_config: Config | None = None) -> str:
        """Fetch and unpack; returns the image's reference."""

    async def remove_image(self, image: str) -> None: ...
    async def import_images(self, tar: str) -> list[str]:
        """Load an OCI or docker archive; returns the names it held."""

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """Endless; begins with a `resync` and gives one again after every gap."""

    async def close(self) -> None: ...
