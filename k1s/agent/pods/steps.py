"""Doing one step of a pod's plan; a step that fails becomes a wait.

Owns: what the pod waits for (crash loops, image pulls, bad configuration, sandboxes), the events that say so.
Called by: worker.
Never does: choose a step (plan), look (observe), sleep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k1s.agent.containers.env import ConfigFault
from k1s.agent.pods.crash_backoff import CrashBackoff, go_duration
from k1s.agent.pods.model import Observed, Wait, find_container, pod_ref, restart_count, wants_host_network
from k1s.agent.pods.plan import CreateSandbox, KillContainer, StartContainer, Step
from k1s.agent.pods.registry import PodEntry
from k1s.agent.pods.start import PodStarter, StartFault, field_path
from k1s.agent.pods.terminate import grace_period, kill_container, probe_grace
from k1s.agent.volumes.interface import VolumeFault
from k1s.agent.volumes.objects import ObjectUnavailable
from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff, KeyedBackoff
from k1s.cri.errors import RuntimeFailure

if TYPE_CHECKING:
    from k1s.agent.context import AgentContext

_RETRY = Backoff(initial=0.5, maximum=30.0)


class Steps:
    """Of one pod. `waits`: container name ("" for the sandbox) -> why it may not be tried yet."""

    def __init__(self, agent: AgentContext, entry: PodEntry, starter: PodStarter) -> None:
        self._agent, self._entry, self._starter = agent, entry, starter
        self.waits: dict[str, Wait] = {}
        self._crashes = CrashBackoff()
        self._retries = KeyedBackoff(_RETRY)

    async def do(self, step: Step, observed: Observed) -> None:
        """One step; a failure becomes a wait."""
        if isinstance(step, CreateSandbox):
            await self._create_sandbox(step, observed)
        elif isinstance(step, StartContainer):
            await self._start(step, observed)
        elif isinstance(step, KillContainer):
            await self.kill(step, observed)

    def crash_loops(self, step: StartContainer, observed: Observed, now: float) -> bool:
        """Whether the container must wait before it runs again; its wait is noted."""
        newest = observed.newest(step.name)
        if newest is None or newest.state != "exited":
            return False
        self._crashes.adopt(step.name, restart_count(newest), newest.started_at)
        until = self._crashes.blocked_until(step.name, newest.finished_at)
        if until is not None and until > now:
            delay = go_duration(self._crashes.delay(step.name))
            path = field_path(self._entry.pod, step.kind, step.name)
            message = f"back-off {delay} restarting failed container={step.name} pod={pod_ref(self._entry.pod)}"
            told = f"Back-off restarting failed container {step.name} in pod {pod_ref(self._entry.pod)}"
            self._agent.events.event(self._entry.pod, "Warning", "BackOff", told, field_path=path)
            self.waits[step.name] = Wait(until, "CrashLoopBackOff", message)
            return True
        self._crashes.restarted(step.name, newest.finished_at, now)
        return False

    async def _create_sandbox(self, step: CreateSandbox, observed: Observed) -> None:
        if not wants_host_network(self._entry.pod) and self._agent.not_ready.get("network"):
            message = f"network is not ready: {self._agent.not_ready['network']}"
            self._failed("", "NetworkNotReady", message)
            return
        try:
            if step.attempt:
                self._agent.events.event(
                    self._entry.pod, "Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created."
                )
            await self._starter.create_sandbox(self._entry.pod, step, observed)
        except (VolumeFault, ObjectUnavailable) as error:
            self._failed("", "FailedMount", str(error))
        except (RuntimeFailure, ConfigFault, ApiError, OSError) as error:
            self._failed("", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
        else:
            self.waits.pop("", None)
            self._retries.forget("")

    async def _start(self, step: StartContainer, observed: Observed) -> None:
        assert observed.sandbox is not None
        try:
            await self._starter.start_container(self._entry.pod, step, observed, observed.sandbox)
        except StartFault as error:
            self.waits[step.name] = Wait(error.until, error.reason, error.message)
        except (ObjectUnavailable, RuntimeFailure, OSError) as error:
            message, path = str(error), field_path(self._entry.pod, step.kind, step.name)
            self._agent.events.event(self._entry.pod, "Warning", "Failed", f"Error: {message}", field_path=path)
            self.waits[step.name] = Wait(self._agent.clock.now() + self._retries.next(step.name), "CreateContainerError", message)
        else:
            self.waits.pop(step.name, None)
            self._retries.forget(step.name)

    async def kill(self, step: KillContainer, observed: Observed) -> None:
        newest = observed.newest(step.name)
        if newest is None:
            return
        _, container = find_container(self._entry.pod, step.name)
        grace = (
            probe_grace(self._entry.pod, container, step.reason)
            if step.reason in ("liveness", "startup")
            else grace_period(self._entry.pod)
        )
        box = observed.sandbox
        host = box.ips[0] if box is not None and box.ips else self._agent.node_ip
        try:
            await kill_container(self._agent, self._entry.pod, newest, grace=grace, message=step.message, host=host)
        except RuntimeFailure as error:
            self._failed(step.name, "FailedKillPod", f"error killing container: {error}")

    def _failed(self, name: str, reason: str, message: str) -> None:
        self._agent.events.event(self._entry.pod, "Warning", reason, message)
        self.waits[name] = Wait(self._agent.clock.now() + self._retries.next(name), reason, message)
