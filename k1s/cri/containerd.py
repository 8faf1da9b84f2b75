"""The Runtime over CRI v1 on a unix socket.

Owns: the gRPC channel, dict -> protobuf -> dataclass. Called by: the agent through cri.runtime.Runtime.
Never does: start or configure containerd (agent/containerd.py), keep state, retry.
Works with any CRI v1 runtime, except `events` and `import_images`, which speak containerd's own services.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any

from k1s.cri import channel, events, images
from k1s.cri.errors import NotFound, RuntimeFailure
from k1s.cri.runtime import (
    Condition,
    Config,
    Container,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    Image,
    RegistryAuth,
    RuntimeEvent,
    Sandbox,
    Version,
)

_NO_LABELS: Mapping[str, str] = {}
_STATES: tuple[ContainerState, ...] = ("created", "running", "exited", "unknown")
_NODE = 2  # NamespaceMode.NODE
_QUICK = 60.0  # seconds after which a runtime that should answer at once counts as hung
_SANDBOX = 240.0  # runtimeRequestTimeout x 2, as kubelet grants RunPodSandbox
_PULL = 1800.0


class ContainerdRuntime:
    """One CRI endpoint. `socket` is a path; `ctr` the binary that imports archives."""

    def __init__(self, socket: str, *, ctr: str = "ctr", snapshotter: str = "") -> None:
        self._socket, self._ctr, self._snapshotter = socket, ctr, snapshotter
        self._channel = channel.open_channel(socket)
        self._api = channel.cri_messages()
        services = self._api.DESCRIPTOR.services_by_name
        self._runtime = channel.Service(self._channel, services["RuntimeService"])
        self._images = channel.Service(self._channel, services["ImageService"])

    async def close(self) -> None:
        self._channel.close()

    async def version(self) -> Version:
        answer = await self._runtime.Version(self._api.VersionRequest(version="v1"), timeout=_QUICK)
        return Version(answer.runtime_name, answer.runtime_version, answer.runtime_api_version)

    async def status(self) -> tuple[Condition, ...]:
        answer = await self._runtime.Status(self._api.StatusRequest(), timeout=_QUICK)
        return tuple(Condition(c.type, c.status, c.reason, c.message) for c in answer.status.conditions)

    async def run_pod_sandbox(self, config: Config, runtime_handler: str = "") -> str:
        request = self._api.RunPodSandboxRequest(config=config, runtime_handler=runtime_handler)
        return str((await self._runtime.RunPodSandbox(request, timeout=_SANDBOX)).pod_sandbox_id)

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        request = self._api.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)
        await _gone_is_fine(self._runtime.StopPodSandbox(request, timeout=_SANDBOX))

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        request = self._api.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)
        await _gone_is_fine(self._runtime.RemovePodSandbox(request, timeout=_SANDBOX))

    async def pod_sandbox_status(self, sandbox_id: str) -> Sandbox:
        request = self._api.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        answer = await self._runtime.PodSandboxStatus(request, timeout=_QUICK)
        status = answer.status
        ips = [status.network.ip, *(extra.ip for extra in status.network.additional_ips)]
        netns, pid = _sandbox_info(answer.info)
        return Sandbox(
            **_sandbox_fields(status),
            ips=tuple(ip for ip in ips if ip),
            host_network=status.linux.namespaces.options.network == _NODE,
            netns=netns,
            pid=pid,
        )

    async def list_pod_sandboxes(self, labels: Mapping[str, str] = _NO_LABELS) -> list[Sandbox]:
        request = self._api.ListPodSandboxRequest(filter={"label_selector": dict(labels)})
        answer = await self._runtime.ListPodSandbox(request, timeout=_QUICK)
        return [Sandbox(**_sandbox_fields(item)) for item in answer.items]

    async def create_container(self, sandbox_id: str, config: Config, sandbox_config: Config) -> str:
        request = self._api.CreateContainerRequest(pod_sandbox_id=sandbox_id, config=config, sandbox_config=sandbox_config)
        return str((await self._runtime.CreateContainer(request, timeout=_SANDBOX)).container_id)

    async def start_container(self, container_id: str) -> None:
        request = self._api.StartContainerRequest(container_id=container_id)
        await self._runtime.StartContainer(request, timeout=_SANDBOX)

    async def stop_container(self, container_id: str, grace_seconds: int) -> None:
        request = self._api.StopContainerRequest(container_id=container_id, timeout=grace_seconds)
        await _gone_is_fine(self._runtime.StopContainer(request, timeout=_SANDBOX + grace_seconds))

    async def remove_container(self, container_id: str) -> None:
        request = self._api.RemoveContainerRequest(container_id=container_id)
        await _gone_is_fine(self._runtime.RemoveContainer(request, timeout=_QUICK))

    async def container_status(self, container_id: str) -> ContainerStatus:
        request = self._api.ContainerStatusRequest(container_id=container_id)
        answer = await self._runtime.ContainerStatus(request, timeout=_QUICK)
        s = answer.status
        return ContainerStatus(
            id=s.id,
            name=s.metadata.name,
            attempt=s.metadata.attempt,
            state=_STATES[s.state],
            created_at=s.created_at / 1e9,
            started_at=s.started_at / 1e9,
            finished_at=s.finished_at / 1e9,
            exit_code=s.exit_code,
            image=s.image.image,
            image_ref=s.image_ref,
            reason=s.reason,
            message=s.message,
            log_path=s.log_path,
            labels=dict(s.labels),
            annotations=dict(s.annotations),
        )

    async def list_containers(self, labels: Mapping[str, str] = _NO_LABELS) -> list[Container]:
        request = self._api.ListContainersRequest(filter={"label_selector": dict(labels)})
        answer = await self._runtime.ListContainers(request, timeout=_QUICK)
        return [
            Container(
                id=c.id,
                sandbox_id=c.pod_sandbox_id,
                name=c.metadata.name,
                attempt=c.metadata.attempt,
                image=c.image.image,
                image_ref=c.image_ref,
                state=_STATES[c.state],
                created_at=c.created_at / 1e9,
                labels=dict(c.labels),
                annotations=dict(c.annotations),
            )
            for c in answer.containers
        ]

    async def update_container_resources(self, container_id: str, resources: Config) -> None:
        request = self._api.UpdateContainerResourcesRequest(container_id=container_id, linux=resources)
        await self._runtime.UpdateContainerResources(request, timeout=_QUICK)

    async def container_stats(self, labels: Mapping[str, str] = _NO_LABELS) -> list[ContainerStats]:
        request = self._api.ListContainerStatsRequest(filter={"label_selector": dict(labels)})
        answer = await self._runtime.ListContainerStats(request, timeout=_QUICK)
        return [_stats(s) for s in answer.stats]

    async def reopen_container_log(self, container_id: str) -> None:
        request = self._api.ReopenContainerLogRequest(container_id=container_id)
        await self._runtime.ReopenContainerLog(request, timeout=_QUICK)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_seconds: float) -> ExecResult:
        seconds = max(int(timeout_seconds), 1) if timeout_seconds else 0
        request = self._api.ExecSyncRequest(container_id=container_id, cmd=command, timeout=seconds)
        # The runtime ends the command at its own timeout; the channel's is a net below it.
        limit = timeout_seconds + 10 if timeout_seconds else None
        answer = await self._runtime.ExecSync(request, timeout=limit)
        return ExecResult(answer.exit_code, answer.stdout, answer.stderr)

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        request = self._api.ExecRequest(
            container_id=container_id, cmd=command, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr
        )
        return str((await self._runtime.Exec(request, timeout=_QUICK)).url)

    async def attach(self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        request = self._api.AttachRequest(container_id=container_id, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr)
        return str((await self._runtime.Attach(request, timeout=_QUICK)).url)

    async def image_status(self, image: str) -> Image | None:
        request = self._api.ImageStatusRequest(image={"image": image})
        answer = await self._images.ImageStatus(request, timeout=_QUICK)
        return _image(answer.image) if answer.HasField("image") and answer.image.id else None

    async def list_images(self) -> list[Image]:
        answer = await self._images.ListImages(self._api.ListImagesRequest(), timeout=_QUICK)
        return [_image(i) for i in answer.images]

    async def pull_image(self, image: str, auth: RegistryAuth | None = None, sandbox_config: Config | None = None) -> str:
        request = self._api.PullImageRequest(image={"image": image}, sandbox_config=sandbox_config)
        if auth is not None:
            for name in ("username", "password", "auth", "identity_token", "registry_token", "server_address"):
                setattr(request.auth, name, getattr(auth, name))
        return str((await self._images.PullImage(request, timeout=_PULL)).image_ref)

    async def remove_image(self, image: str) -> None:
        request = self._api.RemoveImageRequest(image={"image": image})
        await _gone_is_fine(self._images.RemoveImage(request, timeout=_QUICK))

    async def import_images(self, tar: str) -> list[str]:
        return await images.import_archive(tar, ctr=self._ctr, socket=self._socket, snapshotter=self._snapshotter)

    def events(self) -> AsyncIterator[RuntimeEvent]:
        return events.subscribe(self._channel)


async def _gone_is_fine(call: Awaitable[Any]) -> None:
    try:
        await call
    except NotFound:
        pass


def _sandbox_fields(item: Any) -> dict[str, Any]:
    return {
        "id": item.id,
        "name": item.metadata.name,
        "namespace": item.metadata.namespace,
        "uid": item.metadata.uid,
        "attempt": item.metadata.attempt,
        "ready": item.state == 0,
        "created_at": item.created_at / 1e9,
        "labels": dict(item.labels),
        "annotations": dict(item.annotations),
    }


def _info(info: Mapping[str, str]) -> dict[str, Any]:
    """The runtime's verbose answer: JSON under "info" with containerd and cri-o."""
    text = info.get("info", "")
    if not text:
        return {}
    try:
        decoded = json.loads(text)
    except ValueError as error:
        raise RuntimeFailure(f"the runtime's verbose status is not JSON: {error}") from error
    return decoded if isinstance(decoded, dict) else {}


def _sandbox_info(info: Mapping[str, str]) -> tuple[str, int]:
    """Path of the network namespace and pid of the sandbox's first process."""
    details = _info(info)
    spec = details.get("runtimeSpec") or {}
    spaces = (spec.get("linux") or {}).get("namespaces") or []
    netns = next((n.get("path", "") for n in spaces if n.get("type") == "network"), "")
    return netns, int(details.get("pid") or 0)


def _image(item: Any) -> Image:
    return Image(
        id=item.id,
        tags=tuple(item.repo_tags),
        digests=tuple(item.repo_digests),
        size=item.size,
        uid=item.uid.value if item.HasField("uid") else None,
        username=item.username,
        pinned=item.pinned,
    )


def _stats(item: Any) -> ContainerStats:
    return ContainerStats(
        id=item.attributes.id,
        name=item.attributes.metadata.name,
        labels=dict(item.attributes.labels),
        timestamp=item.cpu.timestamp / 1e9,
        cpu_nanoseconds=item.cpu.usage_core_nano_seconds.value,
        working_set=item.memory.working_set_bytes.value,
        memory_usage=item.memory.usage_bytes.value,
        rss=item.memory.rss_bytes.value,
        page_faults=item.memory.page_faults.value,
        major_page_faults=item.memory.major_page_faults.value,
        writable_bytes=item.writable_layer.used_bytes.value,
        writable_inodes=item.writable_layer.inodes_used.value,
    )
