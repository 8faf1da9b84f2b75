"""Ending containers and whole pods.

Owns: preStop, SIGTERM, SIGKILL after the grace period; all containers at once, sidecars after the others in reverse order.
Called by: worker. Never does: decide that something must end.
Source: pkg/kubelet/kuberuntime/kuberuntime_container.go (killContainer), kuberuntime_termination_order.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from k1s.agent.containers import hooks
from k1s.agent.pods.model import Object, Observed, find_container, init_containers, is_sidecar
from k1s.agent.pods.start import field_path
from k1s.cri.runtime import ContainerStatus

if TYPE_CHECKING:
    from k1s.agent.context import AgentContext

log = logging.getLogger("k1s.agent.pods")
_LEAST = 2  # seconds a container gets for SIGTERM, however long its preStop hook took


def grace_period(pod: Object) -> int:
    """Seconds the pod gets: what its deletion says, else its spec."""
    meta, spec = pod["metadata"], pod["spec"]
    value = meta.get("deletionGracePeriodSeconds") if meta.get("deletionTimestamp") else None
    if value is None:
        value = spec.get("terminationGracePeriodSeconds")
    return 30 if value is None else int(value)


def probe_grace(pod: Object, container: Object, reason: str) -> int:
    """A probe may have a grace period of its own for the restart it causes."""
    probe = container.get(f"{reason}Probe") or {}
    value = probe.get("terminationGracePeriodSeconds")
    return int(value) if value is not None else grace_period(pod)


async def kill_container(
    agent: AgentContext, pod: Object, status: ContainerStatus, *, grace: int, message: str = "", host: str = ""
) -> None:
    """Raises RuntimeFailure."""
    try:
        kind, container = find_container(pod, status.name)
        path = field_path(pod, kind, status.name)
    except KeyError:
        container, path = {"name": status.name}, ""
    agent.events.event(pod, "Normal", "Killing", message or f"Stopping container {status.name}", field_path=path)
    begun = agent.clock.monotonic()
    handler = (container.get("lifecycle") or {}).get("preStop")
    if handler and grace > 0:
        try:
            async with asyncio.timeout(grace):
                await hooks.run(handler, container, status.id, host=host, runtime=agent.runtime, clock=agent.clock)
        except TimeoutError:
            log.info("preStop hook of %s did not end within %d s", status.name, grace)
        except hooks.HookFailed as error:
            agent.events.event(pod, "Warning", "FailedPreStopHook", f"PreStopHook failed: {error}", field_path=path)
    rest = grace - int(agent.clock.monotonic() - begun)
    # A grace of zero means: at once. Otherwise even a slow hook leaves a moment for SIGTERM.
    await agent.runtime.stop_container(status.id, max(rest, _LEAST) if grace > 0 else 0)


async def kill_pod(agent: AgentContext, pod: Object, observed: Observed, *, grace: int) -> None:
    """Everything of the pod is stopped afterwards. Raises RuntimeFailure."""
    box = observed.sandbox
    host = box.ips[0] if box is not None and box.ips else agent.node_ip
    alive = [c for c in observed.containers if c.state in ("running", "unknown")]
    order = [c["name"] for c in init_containers(pod) if is_sidecar(c)]
    sidecars = sorted((c for c in alive if c.name in order), key=lambda c: -order.index(c.name))
    others = [c for c in alive if c.name not in order]
    begun = agent.clock.monotonic()
    await _together([kill_container(agent, pod, c, grace=grace, host=host) for c in others])
    for sidecar in sidecars:
        rest = max(grace - int(agent.clock.monotonic() - begun), _LEAST) if grace > 0 else 0
        await kill_container(agent, pod, sidecar, grace=rest, host=host)
    for sandbox in observed.sandboxes:
        if sandbox.ready:
            await agent.runtime.stop_pod_sandbox(sandbox.id)


async def _together(works: list[Coroutine[Any, Any, None]]) -> None:
    """All of them to their end, then the first failure."""
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def remove_pod(agent: AgentContext, observed: Observed) -> None:
    """The runtime forgets the pod: containers (with their writable layers) and sandboxes. Raises RuntimeFailure."""
    for container in observed.containers:
        await agent.runtime.remove_container(container.id)
    for sandbox in observed.sandboxes:
        await agent.runtime.stop_pod_sandbox(sandbox.id)
        await agent.runtime.remove_pod_sandbox(sandbox.id)
