"""Liveness, readiness and startup probes.

Owns: one task per probe of a running container, thresholds, and the results the worker asks for. Called by: pods/worker.
Never does: kill a container (plan does), poll: each task sleeps until its next check.
Bounds: at most three tasks per running container. Source: pkg/kubelet/prober.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from k1s.agent.containers.http_get import ActionFailed, http_get, port_number, tcp_connect
from k1s.agent.pods.model import Object, Observed, all_containers
from k1s.base.clock import Clock
from k1s.client.events import EventRecorder
from k1s.cri import grpc_health
from k1s.cri.errors import DeadlineExceeded, RuntimeFailure
from k1s.cri.runtime import ContainerStatus, Runtime
from k1s.version import KUBERNETES_MAJOR, KUBERNETES_MINOR

Kind = Literal["liveness", "readiness", "startup"]
_FIELDS: tuple[tuple[Kind, str], ...] = (
    ("startup", "startupProbe"),
    ("liveness", "livenessProbe"),
    ("readiness", "readinessProbe"),
)
USER_AGENT = f"kube-probe/{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}"
_OUTPUT_LIMIT = 10 * 1024


@dataclass(slots=True)
class _Watch:
    """The probes of one running container."""

    tasks: dict[Kind, asyncio.Task[None]] = field(default_factory=dict)
    results: dict[Kind, bool] = field(default_factory=dict)
    begun: asyncio.Event = field(default_factory=asyncio.Event)


class Probes:
    """All probes of one pod. `changed` is called when a result turns."""

    def __init__(
        self,
        runtime: Runtime,
        events: EventRecorder,
        clock: Clock,
        changed: Callable[[], None],
        *,
        known: Mapping[str, tuple[bool, bool]] | None = None,
    ) -> None:
        """`known`: container id -> (started, ready) as reported before this agent; it holds until a probe says otherwise."""
        self._known = dict(known or {})
        self._runtime, self._events, self._clock, self._changed = runtime, events, clock, changed
        self._watches: dict[str, _Watch] = {}
        self._pod: Object = {}
        self._host = ""

    def sync(self, pod: Object, observed: Observed, host: str, *, held: frozenset[str] = frozenset()) -> None:
        """Probe exactly the containers that run; those in `held` are not begun yet (their postStart hook still runs)."""
        self._pod, self._host = pod, host
        running = {c.id: c for c in observed.containers if c.state == "running" and c.id not in held}
        for container_id in [i for i in self._watches if i not in running]:
            self._end(container_id)
        for kind, container in all_containers(pod):
            if kind in ("init", "ephemeral"):
                continue
            status = observed.newest(container["name"])
            if status is not None and status.id in running and status.id not in self._watches:
                self._begin(container, status)

    def stop_liveness(self) -> None:
        """A pod that ends is not killed for being ill; readiness goes on being told."""
        for watch in self._watches.values():
            for kind in ("liveness", "startup"):
                task = watch.tasks.pop(kind, None)
                if task is not None:
                    task.cancel()

    def close(self) -> None:
        for container_id in list(self._watches):
            self._end(container_id)

    def started(self, container: Object, status: ContainerStatus) -> bool:
        watch = self._watches.get(status.id)
        if watch is None:
            return False
        return not container.get("startupProbe") or watch.results.get("startup") is True

    def ready(self, container: Object, status: ContainerStatus) -> bool:
        watch = self._watches.get(status.id)
        if watch is None or not self.started(container, status):
            return False
        return not container.get("readinessProbe") or watch.results.get("readiness") is True

    def unhealthy(self) -> dict[str, str]:
        """Container id -> the probe that failed."""
        out: dict[str, str] = {}
        for container_id, watch in self._watches.items():
            for kind in ("startup", "liveness"):
                if watch.results.get(kind) is False:
                    out[container_id] = kind
        return out

    def _begin(self, container: Object, status: ContainerStatus) -> None:
        watch = self._watches[status.id] = _Watch()
        started, ready = self._known.pop(status.id, (False, False))
        if started and container.get("startupProbe"):
            watch.results["startup"] = True
            watch.begun.set()
        if ready:
            watch.results["readiness"] = True
        if not container.get("startupProbe"):
            watch.begun.set()
        for kind, name in _FIELDS:
            if container.get(name) and not (kind == "startup" and watch.begun.is_set()):
                work = self._run(kind, container[name], container, status, watch)
                watch.tasks[kind] = asyncio.create_task(work, name=f"probe-{kind}-{container['name']}")

    def _end(self, container_id: str) -> None:
        for task in self._watches.pop(container_id).tasks.values():
            task.cancel()

    async def _run(self, kind: Kind, probe: Object, container: Object, status: ContainerStatus, watch: _Watch) -> None:
        period = float(probe.get("periodSeconds") or 10)
        if kind != "startup":
            await watch.begun.wait()
        delay = float(probe.get("initialDelaySeconds") or 0) - (self._clock.now() - status.started_at)
        await self._clock.sleep(max(delay, 0.0))
        streak, last = 0, None
        while True:
            fault = await self._check(probe, container, status)
            good = fault is None
            streak = streak + 1 if good is last else 1
            last = good
            if fault is not None:
                what = f"{kind.capitalize()} probe failed: {fault}"
                path = f"spec.containers{{{container['name']}}}"
                self._events.event(self._pod, "Warning", "Unhealthy", what, field_path=path)
            limit = int(probe.get("successThreshold") or 1) if good else int(probe.get("failureThreshold") or 3)
            if streak >= limit and watch.results.get(kind) is not good:
                watch.results[kind] = good
                self._changed()
            if kind == "startup" and watch.results.get(kind):
                watch.begun.set()
                return
            if kind != "readiness" and watch.results.get(kind) is False:
                return  # the container is about to be killed
            await self._clock.sleep(period)

    async def _check(self, probe: Object, container: Object, status: ContainerStatus) -> str | None:
        """None for success, else what went wrong."""
        timeout = float(probe.get("timeoutSeconds") or 1)
        try:
            if probe.get("exec"):
                return await self._exec(probe["exec"].get("command") or [], status.id, timeout)
            if probe.get("httpGet"):
                await http_get(probe["httpGet"], container, self._host, timeout, USER_AGENT)
            elif probe.get("tcpSocket"):
                await tcp_connect(probe["tcpSocket"], container, self._host, timeout)
            elif probe.get("grpc"):
                return await self._grpc(probe["grpc"], container, timeout)
        except ActionFailed as error:
            return str(error)
        return None

    async def _exec(self, command: list[str], container_id: str, timeout: float) -> str | None:
        try:
            result = await self._runtime.exec_sync(container_id, command, timeout)
        except DeadlineExceeded:
            return f'command timed out: "{" ".join(command)}" timed out after {timeout:g}s'
        except RuntimeFailure as error:
            return str(error)
        if result.exit_code == 0:
            return None
        return (result.stdout + result.stderr)[:_OUTPUT_LIMIT].decode(errors="replace").strip()

    async def _grpc(self, action: Object, container: Object, timeout: float) -> str | None:
        port = port_number(container, action["port"])
        try:
            status = await grpc_health.check(self._host, port, action.get("service") or "", timeout)
        except DeadlineExceeded:
            return f'timeout: failed to connect service "{self._host}:{port}" within {timeout:g}s: context deadline exceeded'
        except RuntimeFailure as error:
            return f"error: health rpc probe failed: {error}"
        return None if status == "SERVING" else f'service unhealthy (responded with "{status}")'
