"""Making a pod's sandbox and starting its containers.

Owns: the two acts, in kubelet's order, with kubelet's events. Called by: worker. Never does: decide what comes next (plan does).
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from k1s.agent.containers import config, env, hooks, pull_secrets, sandbox
from k1s.agent.containers.config import PROPAGATION, Mount
from k1s.agent.containers.env import ConfigFault, Sources
from k1s.agent.containers.expand import expand, missing
from k1s.agent.containers.images import ImageFault
from k1s.agent.containers.paths import PodPaths
from k1s.agent.pods.model import ContainerKind, Object, Observed, find_container, pod_uid
from k1s.agent.pods.plan import CreateSandbox, StartContainer
from k1s.agent.resources.qos import pod_limits, qos_class
from k1s.agent.volumes import manager as volumes
from k1s.agent.volumes import objects, subpath
from k1s.agent.volumes.interface import VolumeFault
from k1s.api.catalog import builtin
from k1s.cri.errors import RuntimeFailure
from k1s.cri.runtime import Image, Sandbox

if TYPE_CHECKING:
    from k1s.agent.context import AgentContext

log = logging.getLogger("k1s.agent.pods")
_RETRY = 10.0


class StartFault(Exception):
    """A container could not be started; it waits with `reason` until `until`."""

    def __init__(self, reason: str, message: str, until: float) -> None:
        super().__init__(message)
        self.reason, self.message, self.until = reason, message, until


class PodStarter:
    """Of one pod. Remembers what is prepared already."""

    def __init__(self, agent: AgentContext, pod: Object) -> None:
        meta = pod["metadata"]
        self._agent = agent
        self.paths = PodPaths.of(agent.config, meta["namespace"], meta["name"], meta["uid"])
        self._mounted: dict[str, Path] | None = None
        self._last_config: Object = {}
        self.hooks_running: set[str] = set()  # containers whose postStart hook has not ended

    async def prepare(self, pod: Object, pod_ips: tuple[str, ...] = ()) -> dict[str, Path]:
        """Directories and volumes. Raises VolumeFault."""
        if self._mounted is None:
            self._agent.objects.acquire(pod_uid(pod), objects.references(pod))
            if self._agent.pretend:
                return {}
            self._mounted = await volumes.prepare_all(self._agent, pod, self.paths, pod_ips)
        return self._mounted

    def forget_volumes(self) -> None:
        self._mounted = None

    async def create_sandbox(self, pod: Object, step: CreateSandbox, observed: Observed) -> None:
        """Raises RuntimeFailure, VolumeFault, ConfigFault."""
        runtime = self._agent.runtime
        await self.prepare(pod)
        for old in observed.sandboxes:
            if old.ready:
                await runtime.stop_pod_sandbox(old.id)
        if not self._agent.pretend:
            self.paths.logs.mkdir(parents=True, exist_ok=True)
        if self._agent.cgroups is not None:
            await asyncio.to_thread(self._agent.cgroups.ensure_pod, pod_uid(pod), qos_class(pod), pod_limits(pod))
        handler = await self._runtime_handler(pod)
        async with self._agent.starts:
            await runtime.run_pod_sandbox(self.sandbox_config(pod, step.attempt), handler)

    async def _runtime_handler(self, pod: Object) -> str:
        name = pod["spec"].get("runtimeClassName")
        if not name:
            return ""
        found = await self._agent.client.get(builtin("RuntimeClass"), name)
        return str(found.get("handler") or "")

    def sandbox_config(self, pod: Object, attempt: int) -> Object:
        settings = self._agent.config
        host = sandbox.parse_resolv_conf(_read(settings.resolv_conf))
        dns = sandbox.resolver(pod, host=host, cluster_dns=settings.cluster_dns, cluster_domain=settings.cluster_domain)
        cgroups = self._agent.cgroups
        return sandbox.sandbox_config(
            pod,
            attempt=attempt,
            log_directory=str(self.paths.logs),
            cgroup_parent=cgroups.pod_path(pod_uid(pod), qos_class(pod)) if cgroups is not None else "",
            dns=dns,
            cluster_domain=settings.cluster_domain,
        )

    async def start_container(self, pod: Object, step: StartContainer, observed: Observed, box: Sandbox) -> None:
        """Pull, create, start, postStart. Raises StartFault."""
        _, container = find_container(pod, step.name)
        path = field_path(pod, step.kind, step.name)
        box_config = self.sandbox_config(pod, box.attempt)
        old = observed.newest(step.name)
        if old is not None and old.state == "created":
            await self._agent.runtime.remove_container(old.id)
        image = await self._image(pod, container, box_config, path)
        now = self._agent.clock.now
        try:
            settings = await self._container_config(pod, container, step, observed, box, image)
        except (ConfigFault, VolumeFault, objects.ObjectUnavailable) as error:
            self._event(pod, "Warning", "Failed", f"Error: {error}", path)
            raise StartFault("CreateContainerConfigError", str(error), now() + _RETRY) from error
        try:
            container_id = await self._agent.runtime.create_container(box.id, settings, box_config)
        except RuntimeFailure as error:
            self._event(pod, "Warning", "Failed", f"Error: {error}", path)
            raise StartFault("CreateContainerError", str(error), now() + _RETRY) from error
        self._event(pod, "Normal", "Created", f"Created container: {step.name}", path)
        try:
            async with self._agent.starts:
                await self._agent.runtime.start_container(container_id)
        except RuntimeFailure as error:
            self._event(pod, "Warning", "Failed", f"Error: {error}", path)
            raise StartFault("RunContainerError", str(error), now()) from error
        self._event(pod, "Normal", "Started", f"Started container {step.name}", path)
        await self._post_start(pod, container, container_id, box, path)

    async def _post_start(self, pod: Object, container: Object, container_id: str, box: Sandbox, path: str) -> None:
        handler = (container.get("lifecycle") or {}).get("postStart")
        if not handler:
            return
        self.hooks_running.add(container_id)
        host = box.ips[0] if box.ips else self._agent.node_ip
        try:
            await hooks.run(handler, container, container_id, host=host, runtime=self._agent.runtime, clock=self._agent.clock)
        except hooks.HookFailed as error:
            self._event(pod, "Warning", "FailedPostStartHook", f"PostStartHook failed: {error}", path)
            self._event(pod, "Normal", "Killing", "FailedPostStartHook", path)
            await self._agent.runtime.stop_container(container_id, _grace(pod))
            raise StartFault("PostStartHookError", str(error), self._agent.clock.now()) from error
        finally:
            self.hooks_running.discard(container_id)

    async def _image(self, pod: Object, container: Object, box_config: Object, path: str) -> Image:
        namespace = pod["metadata"]["namespace"]
        secrets = []
        for reference in pod["spec"].get("imagePullSecrets") or []:
            found = await self._agent.objects.get("Secret", namespace, reference["name"])
            if found is None:
                message = f"Unable to retrieve some image pull secrets ({reference['name']}); "
                message += "attempting to pull the image may not succeed."
                self._event(pod, "Warning", "FailedToRetrieveImagePullSecret", message, "")
            else:
                secrets.append(found)
        auths = pull_secrets.credentials(container.get("image", ""), secrets)
        try:
            return await self._agent.images.ensure(pod, container, auths, box_config, field_path=path)
        except ImageFault as error:
            if error.reason != "InvalidImageName":
                self._event(pod, "Warning", "Failed", f"Error: {error.reason}", path)
            raise StartFault(error.reason, error.message, error.until) from error

    async def _container_config(
        self, pod: Object, container: Object, step: StartContainer, observed: Observed, box: Sandbox, image: Image
    ) -> Object:
        agent = self._agent
        ips = box.ips or agent.node_ips
        mounted = await self.prepare(pod, ips)
        await agent.informers.informer(builtin("Service")).synced()
        machine = agent.machine
        sources = Sources(
            lookup=lambda kind, name: agent.objects.peek(kind, pod["metadata"]["namespace"], name),
            services=tuple(agent.informers.informer(builtin("Service")).list()),
            host_ips=agent.node_ips,
            pod_ips=ips,
            allocatable={"cpu": machine.cpus * 1000, "memory": machine.memory, "ephemeral-storage": machine.ephemeral_storage},
        )
        for kind, namespace, name in objects.references(pod):
            await agent.objects.get(kind, namespace, name)
        variables = env.build(pod, container, sources)
        mounts = await asyncio.to_thread(self._mounts, pod, container, step.restart_count, mounted, variables, ips)
        target_name = container.get("targetContainerName")
        target = observed.newest(target_name) if target_name else None
        return config.container_config(
            pod,
            container,
            restart_count=step.restart_count,
            image=image,
            env=variables,
            mounts=mounts,
            memory_capacity=machine.memory,
            target=target.id if target is not None else "",
        )

    def _mounts(
        self,
        pod: Object,
        container: Object,
        attempt: int,
        mounted: dict[str, Path],
        variables: dict[str, str],
        ips: tuple[str, ...],
    ) -> list[Mount]:
        out: list[Mount] = []
        if self._agent.pretend:
            return out
        # What is written from the API is not the container's to change.
        fixed = {v["name"] for v in pod["spec"].get("volumes") or [] if volumes.volume_type(v) in volumes.LIVE}
        for index, mount in enumerate(container.get("volumeMounts") or []):
            source = mounted.get(mount["name"])
            if source is None:
                raise VolumeFault(f'volume "{mount["name"]}" of the pod is not there')
            out.append(
                Mount(
                    container_path=_absolute(mount["mountPath"]),
                    host_path=str(self._piece(container, mount, index, source, variables)),
                    readonly=bool(mount.get("readOnly")) or mount["name"] in fixed,
                    propagation=PROPAGATION[mount.get("mountPropagation") or "None"],
                    recursive_readonly=mount.get("recursiveReadOnly") == "Enabled",
                )
            )
        have = {mount.container_path.rstrip("/") for mount in out}
        if "/etc/hosts" not in have:
            out.append(Mount("/etc/hosts", str(self._hosts(pod, ips))))
        log_path = container.get("terminationMessagePath") or "/dev/termination-log"
        if log_path and log_path not in have:
            file = self.paths.termination_log(container["name"], attempt)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")
            # The container may run as anybody and must be able to write its last words.
            os.chmod(file, 0o666)
            out.append(Mount(log_path, str(file)))
        return out

    def _piece(self, container: Object, mount: Object, index: int, source: Path, variables: dict[str, str]) -> Path:
        piece = mount.get("subPath") or ""
        if mount.get("subPathExpr"):
            unknown = missing(mount["subPathExpr"], variables)
            if unknown:
                raise ConfigFault(f"missing value for {unknown[0]!r} in subPathExpr")
            piece = expand(mount["subPathExpr"], variables)
        if not piece:
            return source
        return subpath.pin(source, piece, self.paths.subpaths(container["name"]) / str(index))

    def _hosts(self, pod: Object, ips: tuple[str, ...]) -> Path:
        path = self.paths.hosts
        path.parent.mkdir(parents=True, exist_ok=True)
        if pod["spec"].get("hostNetwork"):
            text = "# Kubernetes-managed hosts file (host network).\n" + _read("/etc/hosts") + sandbox.host_aliases(pod)
        else:
            text = sandbox.hosts_file(pod, ips=ips, cluster_domain=self._agent.config.cluster_domain)
        # Written in place: running containers have this very file mounted.
        path.write_text(text)
        os.chmod(path, 0o644)
        return path

    def _event(self, pod: Object, kind: str, reason: str, message: str, path: str) -> None:
        self._agent.events.event(pod, kind, reason, message, field_path=path)


def field_path(pod: Object, kind: ContainerKind, name: str) -> str:
    field_name = {"init": "initContainers", "sidecar": "initContainers", "ephemeral": "ephemeralContainers"}.get(
        kind, "containers"
    )
    return f"spec.{field_name}{{{name}}}"


def _absolute(path: str) -> str:
    return path if path.startswith("/") else "/" + path


def _grace(pod: Object) -> int:
    value = pod["spec"].get("terminationGracePeriodSeconds")
    return 30 if value is None else int(value)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except FileNotFoundError:
        return ""
