"""One pod's life on this node: look, plan, do, report, until it is gone.

Owns: the loop, what is remembered between two looks (waits, crash backoff, probes), and the way from running to terminated.
Called by: manager (one worker per pod). Never does: plan (plan.py), compute a status (status.py), poll: it sleeps until a runtime
event, a change of the pod or of what it refers to, a probe's result, or a deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from k1s.agent.containers import gc, logs
from k1s.agent.containers.probes import Probes
from k1s.agent.pods import ending, status
from k1s.agent.pods.model import (
    Facts,
    Object,
    Observed,
    all_containers,
    pod_ref,
    pod_uid,
    reported_health,
)
from k1s.agent.pods.observe import Observer
from k1s.agent.pods.plan import Finish, StartContainer, plan
from k1s.agent.pods.registry import PodEntry
from k1s.agent.pods.report import StatusReporter
from k1s.agent.pods.resize import Resizer
from k1s.agent.pods.start import PodStarter
from k1s.agent.pods.status import Ending, NodeFacts
from k1s.agent.pods.steps import Steps
from k1s.agent.volumes import manager as volumes
from k1s.agent.volumes.interface import VolumeFault
from k1s.base.backoff import Backoff, KeyedBackoff
from k1s.base.clock import parse_rfc3339
from k1s.cri.errors import RuntimeFailure

if TYPE_CHECKING:
    from k1s.agent.context import AgentContext

log = logging.getLogger("k1s.agent.pods")
_RETRY = Backoff(initial=0.5, maximum=30.0)


class PodWorker:
    """`update`, `removed`, `wake`, `exited` may be called at any time; `run` ends when the pod is gone from node and API."""

    def __init__(
        self,
        agent: AgentContext,
        entry: PodEntry,
        reporter: StatusReporter,
        neighbours: Callable[[PodWorker], list[Object]],
        refusal: Ending | None = None,
    ) -> None:
        """`neighbours` gives the other pods that hold resources here; `refusal`: why the node does not take this one."""
        self._neighbours = neighbours
        self.agent, self.entry, self.reporter = agent, entry, reporter
        self.ending = refusal  # why it is over although its containers did not end by themselves
        self.gone = False  # the API has no such pod any more
        self.stopped = False  # its containers have ended for good: what it held is free before anybody is told
        self.finished = (entry.pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        self.starter = PodStarter(agent, entry.pod)
        self.probes = Probes(agent.runtime, agent.events, agent.clock, self.wake, known=reported_health(entry.pod))
        self._observer = Observer(pod_uid(entry.pod), agent.runtime, agent.clock, self.starter.paths.termination_log)
        self._resizer = Resizer(agent, entry.pod)
        self.steps = Steps(agent, entry, self.starter)
        self._retries = KeyedBackoff(_RETRY)
        self._changed = asyncio.Event()
        self._refresh_due = False
        self._refresh_task: asyncio.Task[None] | None = None

    @property
    def pod(self) -> Object:
        return self.entry.pod

    def wake(self) -> None:
        self._changed.set()

    def update(self, pod: Object) -> None:
        before, now = self.pod["metadata"], pod["metadata"]
        self.entry.pod = pod
        if any(before.get(field) != now.get(field) for field in ("generation", "labels", "annotations")):
            self._configure_again()
        self.wake()

    def removed(self) -> None:
        """The API object is gone: whatever still runs must end."""
        self.gone = True
        self.wake()

    def exited(self, identity: str) -> None:
        """A runtime event says that one of its containers or sandboxes has ended."""
        self._observer.expect_exit(identity)
        self.wake()

    def reference_changed(self) -> None:
        """Something its volumes or environment refer to has changed: what waited for it may try again."""
        self._refresh_due = True
        self._configure_again()
        self.wake()

    def _configure_again(self) -> None:
        for name in [n for n, w in self.steps.waits.items() if n == "" or w.reason == "CreateContainerConfigError"]:
            del self.steps.waits[name]

    def images_appeared(self) -> None:
        for name in [
            n for n, w in self.steps.waits.items() if w.reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull")
        ]:
            del self.steps.waits[name]
        self.wake()

    def network_changed(self) -> None:
        """The network part became ready, or not: a pod that waits for its sandbox may try again."""
        if "" in self.steps.waits:
            del self.steps.waits[""]
            self.wake()

    def server_back(self) -> None:
        """A server answers again: what failed for want of one (a token, a claim) may try again."""
        self.network_changed()

    def allocated(self) -> Object:
        """The pod with the resources it holds on this node."""
        return self._resizer.allocated(self.pod, self.entry.observed)

    def evict(self, reason: str, message: str) -> None:
        self.ending = self.ending or Ending(reason, message)
        self.wake()

    @property
    def must_end(self) -> bool:
        return self.gone or self.finished or self.ending is not None or bool(self.pod["metadata"].get("deletionTimestamp"))

    async def run(self) -> None:
        """Until the pod is gone. Cancelled, it leaves everything running: the next agent goes on with it."""
        try:
            while not self.must_end:
                await self._turn()
            await ending.run(self)
        finally:
            self.probes.close()
            if self._refresh_task is not None:
                self._refresh_task.cancel()

    async def _turn(self) -> None:
        """Look once, do one step or rest."""
        self._changed.clear()
        try:
            observed = await self.look()
        except RuntimeFailure as error:
            delay = self._retries.next("look")
            log.warning("%s: the runtime does not answer: %s", pod_ref(self.pod), error)
            await self.rest(self.agent.clock.now() + delay)
            return
        self._retries.forget("look")
        self._check_deadline()
        if self.must_end:
            return
        if await self._resize(observed):
            return
        now = self.agent.clock.now()
        decision = plan(self.pod, observed, self.facts(observed), now)
        step = decision.step
        if isinstance(step, StartContainer) and self.steps.crash_loops(step, observed, now):
            return
        self.report(observed)
        if step is None:
            await self._collect(observed)
            await self.rest(self._wake_at(decision.wake_at))
        elif isinstance(step, Finish):
            self.finished = True
        else:
            await self.during(self.steps.do(step, observed), until=lambda: self.must_end)

    async def _resize(self, observed: Observed) -> bool:
        """Give running containers the resources of the spec; True if one was ended for it."""
        changed = self._resizer.changes(self.pod, observed)
        if not changed:
            return False
        try:
            step = await self._resizer.apply(self.pod, changed, self._neighbours(self))
        except RuntimeFailure as error:
            self.agent.events.event(self.pod, "Warning", "ResizeError", f"resize failed: {error}")
            return False
        if step is not None:
            await self.during(self.steps.kill(step, observed), until=lambda: self.must_end)
        return step is not None

    async def _collect(self, observed: Observed) -> None:
        """Remove instances that nobody asks for any more. A failure is met again at the next look."""
        containers, sandboxes = gc.superfluous(observed)
        try:
            for status in containers:
                await self.agent.runtime.remove_container(status.id)
                if not self.agent.pretend:
                    logs.remove_of(status)
            for sandbox_id in sandboxes:
                await self.agent.runtime.remove_pod_sandbox(sandbox_id)
        except RuntimeFailure as error:
            log.warning("%s: removing dead containers: %s", pod_ref(self.pod), error)

    async def look(self) -> Observed:
        """Observe, and bring what depends on it up to date. Raises RuntimeFailure."""
        observed = await self._observer.observe()
        self.entry.observed = observed
        box = observed.sandbox
        host = box.ips[0] if box is not None and box.ips else self.agent.node_ip
        self.probes.sync(self.pod, observed, host, held=frozenset(self.starter.hooks_running))
        if self._refresh_due and observed.alive and not self.must_end:
            self._refresh_due = False
            self._refresh(box.ips if box is not None else ())
        return observed

    def facts(self, observed: Observed) -> Facts:
        started, ready = set(), set()
        for _, container in all_containers(self.pod):
            newest = observed.newest(container["name"])
            if newest is not None and newest.state == "running":
                if self.probes.started(container, newest):
                    started.add(newest.id)
                if self.probes.ready(container, newest):
                    ready.add(newest.id)
        unhealthy = self.probes.unhealthy()
        return Facts(frozenset(started), frozenset(ready), unhealthy, dict(self.steps.waits), self._resizer.applied())

    def report(self, observed: Observed, *, terminating: bool = False) -> Object:
        """Compute the status and hand it to the reporter."""
        node, pending = NodeFacts(self.agent.node_ips), self._resizer.pending
        self.entry.status = status.build(
            self.pod,
            observed,
            self.facts(observed),
            self.agent.clock.now(),
            node,
            old=self.reporter.last(self.pod),
            terminating=terminating,
            ending=self.ending,
            resize_pending=(pending.reason, pending.message) if pending is not None else None,
        )
        if not self.gone:
            self.reporter.report(self.pod, self.entry.status)
        return self.entry.status

    async def rest(self, until: float | None) -> None:
        """Sleep until something changes, or `until`."""
        if until is None:
            await self._changed.wait()
            return
        await self._first_of(self._changed.wait(), self.agent.clock.sleep(max(until - self.agent.clock.now(), 0.0)))

    async def next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def during(self, work: Coroutine[Any, Any, None], *, until: Callable[[], bool]) -> None:
        """Do `work`; meanwhile report what changes, and give the work up when `until()` says so."""
        task = asyncio.create_task(work, name=f"step-{self.entry.name}")
        try:
            while not task.done():
                waiter = asyncio.create_task(self._changed.wait(), name="step-wait")
                await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
                if task.done():
                    break
                self._changed.clear()
                if until():
                    break
                try:
                    self.report(await self.look(), terminating=self.must_end)
                except RuntimeFailure as error:
                    log.debug("%s: %s", pod_ref(self.pod), error)  # the step itself meets the same failure and reports it
        finally:
            if not task.done():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            task.result()

    @staticmethod
    async def _first_of(*works: Coroutine[Any, Any, Any]) -> None:
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _wake_at(self, planned: float | None) -> float | None:
        """The earliest of the plan's moment, the pod's deadline, a token's renewal, and a look at a status that lags."""
        again = self._observer.again_in
        lagging = self.agent.clock.now() + again if again is not None else None
        moments = [planned, self._deadline(), self.agent.tokens.next_refresh(pod_uid(self.pod)), lagging]
        due = min((m for m in moments if m is not None), default=None)
        token = moments[2]
        if token is not None and token == due:
            self._refresh_due = True
        return due

    def _deadline(self) -> float | None:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        begun = self.reporter.last(self.pod).get("startTime")
        return parse_rfc3339(begun) + seconds if seconds is not None and begun else None

    def _check_deadline(self) -> None:
        deadline = self._deadline()
        if deadline is not None and self.agent.clock.now() >= deadline and self.ending is None:
            message = "Pod was active on the node longer than the specified deadline"
            self.agent.events.event(self.pod, "Normal", "DeadlineExceeded", message)
            self.ending = Ending("DeadlineExceeded", message)

    def _refresh(self, ips: tuple[str, ...]) -> None:
        """Bring live volumes up to date beside whatever else goes on; one at a time."""
        if self._refresh_task is not None and not self._refresh_task.done():
            self._refresh_due = True
            return
        if volumes.has_live(self.pod) and not self.agent.pretend:
            self._refresh_task = asyncio.create_task(self._refresh_now(ips), name=f"volumes-{self.entry.name}")

    async def _refresh_now(self, ips: tuple[str, ...]) -> None:
        try:
            await volumes.refresh(self.agent, self.pod, self.starter.paths, ips)
        except VolumeFault as error:
            # The files stay as they were; the next change of what they are made from tries again.
            self.agent.events.event(self.pod, "Warning", "FailedMount", str(error))
