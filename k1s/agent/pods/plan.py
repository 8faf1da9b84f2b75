"""The next step for a pod: pure.

Owns: plan(pod, observed, facts, now) -> Plan, the whole of kubelet's computePodActions. Called by: worker.
Never does: I/O; termination of the whole pod (terminate.py). Golden-tested in tests/golden/agent/plan.

Order: sandbox > ephemeral containers > init containers one by one (sidecars stay) > containers in their order. One step is
given at a time; the worker looks again before the next, so that a step never rests on what an earlier one changed.
Source: pkg/kubelet/kuberuntime/kuberuntime_manager.go, kuberuntime_container.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from k1s.agent.pods.model import (
    HASH,
    ContainerKind,
    Facts,
    Object,
    Observed,
    container_hash,
    containers,
    ephemeral_containers,
    init_containers,
    is_sidecar,
    restart_count,
    restarts_after,
    wants_host_network,
)
from k1s.cri.runtime import ContainerStatus

# A container often ends because its sandbox does, which shows a moment later: it is not started anew in a dying sandbox.
SETTLE = 0.25


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    """Make sandbox number `attempt`; what is left of older ones is stopped first."""

    attempt: int


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Create and start the container of that name."""

    name: str
    kind: ContainerKind
    restart_count: int = 0


@dataclass(frozen=True, slots=True)
class KillContainer:
    """Stop one container; the pod goes on."""

    id: str
    name: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to run: stop the sandbox, the pod is over."""


Step = CreateSandbox | StartContainer | KillContainer | Finish


@dataclass(frozen=True, slots=True)
class Plan:
    """`step` None: nothing to do now; look again at `wake_at` (None: when something happens)."""

    step: Step | None = None
    wake_at: float | None = None


def plan(pod: Object, observed: Observed, facts: Facts, now: float) -> Plan:
    """What to do next for a pod that shall run."""
    sandbox_attempt = _needs_sandbox(pod, observed)
    if sandbox_attempt is not None:
        return _with_sandbox(pod, observed, facts, now, sandbox_attempt)
    waiting: list[float] = []
    for container in ephemeral_containers(pod):
        if observed.newest(container["name"]) is None:
            step = _start(container, "ephemeral", observed, facts, now, waiting)
            if step is not None:
                return Plan(step)
    initialized, step = _init_step(pod, observed, facts, now, waiting)
    if step is not None or not initialized:
        return Plan(step, min(waiting, default=None))
    return _regular_step(pod, observed, facts, now, waiting)


def _needs_sandbox(pod: Object, observed: Observed) -> int | None:
    """The attempt of the sandbox to be made; None if there is a good one."""
    sandbox = observed.sandbox
    if sandbox is None:
        return 0
    ready = [s for s in observed.sandboxes if s.ready]
    if len(ready) > 1 or not sandbox.ready:
        return sandbox.attempt + 1
    if not wants_host_network(pod) and not sandbox.ips:
        return sandbox.attempt + 1
    return None


def _with_sandbox(pod: Object, observed: Observed, facts: Facts, now: float, attempt: int) -> Plan:
    """A new sandbox, unless there is nothing left to run in it."""
    if attempt and observed.containers and not _anything_left(pod, observed):
        return Plan(Finish())
    wait = facts.waits.get("")
    if wait is not None and wait.until > now:
        return Plan(None, wait.until)
    return Plan(CreateSandbox(attempt))


def _anything_left(pod: Object, observed: Observed) -> bool:
    for container in init_containers(pod):
        status = observed.newest(container["name"])
        if not is_sidecar(container) and status is not None and status.state == "exited" and status.exit_code != 0:
            if not restarts_after(pod, container, status.exit_code, kind="init"):
                return False
    for container in containers(pod):
        status = observed.newest(container["name"])
        if status is None or status.state != "exited" or restarts_after(pod, container, status.exit_code):
            return True
    return False


def _init_step(pod: Object, observed: Observed, facts: Facts, now: float, waiting: list[float]) -> tuple[bool, Step | None]:
    """(whether the containers may run, next step for the init containers)."""
    inits = init_containers(pod)
    if not inits:
        return True, None
    # Once a regular container has run, the pod is initialized: only sidecars are looked after then.
    if _has_run(pod, observed):
        for container in inits:
            if is_sidecar(container):
                step = _keep(pod, container, "sidecar", observed, facts, now, waiting)
                if step is not None:
                    return True, step
        return True, None
    for container in inits:
        if is_sidecar(container):
            status = observed.newest(container["name"])
            step = _keep(pod, container, "sidecar", observed, facts, now, waiting)
            if step is not None:
                return False, step
            if status is None or status.state != "running" or status.id not in facts.started:
                return False, None
            continue
        done, step = _run_to_end(pod, container, observed, facts, now, waiting)
        if not done:
            return False, step
    return True, None


def _has_run(pod: Object, observed: Observed) -> bool:
    sandbox = observed.sandbox
    since = sandbox.created_at if sandbox is not None else 0.0
    statuses = [observed.newest(c["name"]) for c in containers(pod)]
    return any(s is not None and s.created_at >= since for s in statuses)


def _run_to_end(
    pod: Object, container: Object, observed: Observed, facts: Facts, now: float, waiting: list[float]
) -> tuple[bool, Step | None]:
    """An ordinary init container: (whether it has succeeded in this sandbox, next step for it)."""
    status = _of_this_sandbox(observed, container["name"])
    if status is None:
        return False, _start(container, "init", observed, facts, now, waiting)
    if status.state == "running":
        if status.annotations.get(HASH, "") not in ("", container_hash(container)):
            message = f"Init container {container['name']} definition changed"
            return False, KillContainer(status.id, container["name"], "Changed", message)
        return False, None
    if status.state == "exited" and status.exit_code == 0:
        return True, None
    if status.state == "exited" and not restarts_after(pod, container, status.exit_code, kind="init"):
        return False, Finish()
    if status.state == "unknown":
        message = f"Init container is in {status.state!r} state, try killing it before restart"
        return False, KillContainer(status.id, container["name"], "Unknown", message)
    return False, _start(container, "init", observed, facts, now, waiting)


def _of_this_sandbox(observed: Observed, name: str) -> ContainerStatus | None:
    """Init containers run again in a new sandbox, so what ran in an older one does not count."""
    status, sandbox = observed.newest(name), observed.sandbox
    if status is None or (sandbox is not None and status.created_at < sandbox.created_at):
        return None
    return status


def _regular_step(pod: Object, observed: Observed, facts: Facts, now: float, waiting: list[float]) -> Plan:
    ended = 0
    for container in containers(pod):
        status = observed.newest(container["name"])
        if status is not None and status.state == "exited" and not restarts_after(pod, container, status.exit_code):
            ended += 1
            continue
        step = _keep(pod, container, "regular", observed, facts, now, waiting)
        if step is not None:
            return Plan(step)
    if ended == len(containers(pod)):
        return Plan(Finish())
    return Plan(None, min(waiting, default=None))


def _keep(
    pod: Object, container: Object, kind: ContainerKind, observed: Observed, facts: Facts, now: float, waiting: list[float]
) -> Step | None:
    """What keeps a container running that shall run."""
    name = container["name"]
    status = observed.newest(name)
    if status is None or status.state in ("exited", "created"):
        return _start(container, kind, observed, facts, now, waiting)
    if status.state == "unknown":
        return KillContainer(
            status.id, name, "Unknown", f"Container {name} is in an unknown state, try killing it before restart"
        )
    failed = facts.unhealthy.get(status.id)
    changed = status.annotations.get(HASH, "") not in ("", container_hash(container))
    if not changed and failed is None:
        return None
    what = "Init container" if kind == "sidecar" else "Container"
    message = f"{what} {name} definition changed" if changed else f"{what} {name} failed {failed} probe"
    if changed or kind == "sidecar" or restarts_after(pod, container, 137):
        message += ", will be restarted"
    return KillContainer(status.id, name, "Changed" if changed else str(failed), message)


def _start(
    container: Object, kind: ContainerKind, observed: Observed, facts: Facts, now: float, waiting: list[float]
) -> Step | None:
    """A start, unless the container has to wait (crash loop, image pull, bad configuration)."""
    name = container["name"]
    wait = facts.waits.get(name)
    if wait is not None and wait.until > now:
        waiting.append(wait.until)
        return None
    newest = observed.newest(name)
    if newest is not None and newest.state == "exited" and now < newest.finished_at + SETTLE:
        waiting.append(newest.finished_at + SETTLE)
        return None
    return StartContainer(name, kind, _next_count(newest))


def _next_count(newest: ContainerStatus | None) -> int:
    if newest is None:
        return 0
    # One that was made but never started (the agent died in between) is made again, under its own number.
    return restart_count(newest) + (newest.state != "created")
