"""The scheduler: woken by events, it takes one pending pod after the other and binds it to a node.

Owns: the loop, what wakes whom, binding. Called by: server/app. Never does: poll; a pod that fits nowhere waits for an event
that one of the plugins which refused it asked for. Bindings run beside the loop, at most MAX_BINDINGS at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.clock import Clock, rfc3339
from k1s.client.events import EventRecorder
from k1s.client.interface import STRATEGIC_MERGE_PATCH, Client, Informer, InformerFactory, Object
from k1s.server.scheduler import cycle, preemption
from k1s.server.scheduler.plugin import EventKind
from k1s.server.scheduler.profile import PLUGINS, SCHEDULER_NAME
from k1s.server.scheduler.queue import QueuedPod, SchedulingQueue
from k1s.server.scheduler.snapshot import PodInfo, Snapshot, Storage
from k1s.server.scheduler.storage import InformerStorage

log = logging.getLogger("k1s.scheduler")

MAX_BINDINGS = 32
_WAKES: dict[str, frozenset[EventKind]] = {plugin.name: plugin.wakes_on for plugin in PLUGINS}


async def run(client: Client, informers: InformerFactory, clock: Clock, ready: Callable[[], None]) -> None:
    """Schedule until cancelled; `ready` is called once all nodes and pods are known."""
    events = EventRecorder(client, SCHEDULER_NAME, clock=clock)
    budgets = informers.informer(builtin("PodDisruptionBudget"))
    namespaces = informers.informer(builtin("Namespace"))
    await budgets.synced()
    await namespaces.synced()
    storage = InformerStorage(informers)
    await storage.synced()
    scheduler = Scheduler(client, clock, events, budgets, storage)
    nodes, pods = informers.informer(builtin("Node")), informers.informer(builtin("Pod"))
    await nodes.synced()
    await pods.synced()
    namespaces.add_handler(scheduler.namespace_changed)
    storage.add_handler(scheduler.storage_changed)
    nodes.add_handler(scheduler.node_changed)
    pods.add_handler(scheduler.pod_changed)
    ready()
    async with asyncio.TaskGroup() as group:
        group.create_task(events.run(), name="scheduler-events")
        group.create_task(scheduler.loop(group), name="scheduler-loop")


@dataclass(slots=True)
class _Decision:
    queued: QueuedPod
    info: PodInfo
    node: str


class Scheduler:
    """The state of one scheduler; handlers may be called from any task of the loop."""

    def __init__(
        self, client: Client, clock: Clock, events: EventRecorder, budgets: Informer, storage: Storage | None = None
    ) -> None:
        self._client, self._clock, self._events, self._budgets = client, clock, events, budgets
        self._queue, self._snapshot = SchedulingQueue(), Snapshot(storage)
        self._wake = asyncio.Event()
        self._bindings = asyncio.Semaphore(MAX_BINDINGS)
        self._pods = builtin("Pod")

    def namespace_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._snapshot.namespaces[meta.name(new)] = meta.labels(new)
        elif old is not None:
            self._snapshot.namespaces.pop(meta.name(old), None)

    def storage_changed(self, old: Object | None, new: Object | None) -> None:
        self._happened("storage-changed")

    def node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._snapshot.remove_node(meta.name(old))
            return
        self._snapshot.set_node(new)
        if old is None:
            self._happened("node-added")
        elif _matters(old, new):
            self._happened("node-updated")

    def pod_changed(self, old: Object | None, new: Object | None) -> None:
        pod = new or old
        if pod is None:
            return
        uid = meta.uid(pod)
        if new is None:
            self._queue.remove(uid)
            self._snapshot.remove_pod(uid)
            self._snapshot.withdraw(uid)
            if pod["spec"].get("nodeName"):
                self._happened("pod-removed")
            return
        if new["spec"].get("nodeName"):
            self._queue.remove(uid)
            self._snapshot.withdraw(uid)
            self._snapshot.set_pod(new)
            finished = new.get("status", {}).get("phase") in ("Succeeded", "Failed")
            was_finished = old is not None and old.get("status", {}).get("phase") in ("Succeeded", "Failed")
            if finished and not was_finished:
                self._happened("pod-removed")
            elif old is None or not old["spec"].get("nodeName"):
                self._happened("pod-added")
            elif meta.labels(old) != meta.labels(new) or old["spec"] != new["spec"]:
                self._happened("pod-updated")
        elif self._ours(new):
            promised = new.get("status", {}).get("nominatedNodeName")
            if promised and old is None:
                self._snapshot.nominate(PodInfo.of(new), promised)
            if self._queue.set(new, self._clock.monotonic()):
                self._wake.set()
        else:
            self._queue.remove(uid)
            self._snapshot.withdraw(uid)

    def _ours(self, pod: Object) -> bool:
        return (
            pod["spec"].get("schedulerName") in (None, "", SCHEDULER_NAME)
            and not meta.is_deleting(pod)
            and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        )

    def _happened(self, kind: EventKind) -> None:
        def helps(queued: QueuedPod) -> bool:
            return any(kind in _WAKES.get(name, frozenset()) for name in queued.failed_by)

        if self._queue.wake(helps, self._clock.monotonic()):
            self._wake.set()

    async def loop(self, group: asyncio.TaskGroup) -> None:
        """Take pods until cancelled."""
        while True:
            self._wake.clear()
            while (queued := self._queue.pop(self._clock.monotonic())) is not None:
                decision = await self._decide(queued)
                if decision is not None:
                    await self._bindings.acquire()
                    group.create_task(self._bind(decision), name=f"bind-{queued.key}")
            await self._sleep()

    async def _sleep(self) -> None:
        """Until something happens, or the next backoff ends."""
        due = self._queue.next_release()
        if due is None:
            await self._wake.wait()
            return
        waiter = asyncio.ensure_future(self._wake.wait())
        timer = asyncio.ensure_future(self._clock.sleep(max(due - self._clock.monotonic(), 0.001)))
        try:
            await asyncio.wait({waiter, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            timer.cancel()

    async def _decide(self, queued: QueuedPod) -> _Decision | None:
        info = PodInfo.of(queued.pod)
        outcome = cycle.schedule(info, self._snapshot, PLUGINS)
        if isinstance(outcome, cycle.Placed):
            self._snapshot.assume(info, outcome.node)
            return _Decision(queued, info, outcome.node)
        self._queue.failed(queued, outcome.failed_by, self._clock.monotonic())
        if outcome.gated:
            await self._tell(queued.pod, "SchedulingGated", outcome.message)
            return None
        nominated = await self._preempt(info, queued, outcome)
        message = outcome.reasons if nominated else outcome.message
        self._events.event(queued.pod, "Warning", "FailedScheduling", message)
        await self._tell(queued.pod, "Unschedulable", message, nominated)
        return None

    async def _preempt(self, info: PodInfo, queued: QueuedPod, outcome: cycle.Unfit) -> str:
        """Make room by ending less important pods; the node where that happens, or ""."""
        snapshot = self._snapshot
        if not outcome.hopeful or not preemption.eligible(info, snapshot):
            return snapshot.nomination(info.uid) or ""
        budgets = list(self._budgets.list())
        candidate = preemption.choose(info, outcome.hopeful, snapshot, PLUGINS, budgets)
        if candidate is None:
            snapshot.withdraw(info.uid)
            return ""
        snapshot.nominate(info, candidate.node)
        await asyncio.gather(*(self._evict(victim, queued, candidate.node) for victim in candidate.victims))
        return candidate.node

    async def _evict(self, victim: PodInfo, queued: QueuedPod, node: str) -> None:
        name, namespace = meta.name(dict(victim.pod)), meta.namespace(dict(victim.pod))
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{SCHEDULER_NAME}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": rfc3339(self._clock.now()),
        }
        patch = {"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}}
        try:
            if not meta.is_deleting(dict(victim.pod)):
                await self._client.patch(
                    self._pods, name, namespace, patch, content_type=STRATEGIC_MERGE_PATCH, subresource="status"
                )
                await self._client.delete(self._pods, name, namespace, uid=victim.uid)
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            return
        self._events.event(dict(victim.pod), "Normal", "Preempted", f"Preempted by pod {queued.uid} on node {node}")

    async def _tell(self, pod: Object, reason: str, message: str, nominated: str = "") -> None:
        """Write the PodScheduled condition and the promised node, if they say something new."""
        now = rfc3339(self._clock.now())
        current = meta.condition(pod, "PodScheduled")
        promised = pod.get("status", {}).get("nominatedNodeName") or ""
        if current and (current.get("reason"), current.get("message"), promised) == (reason, message, nominated):
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": now,
        }
        if current and current.get("status") == "False":
            condition["lastTransitionTime"] = current.get("lastTransitionTime") or now
        status: Object = {"conditions": [condition]}
        if nominated != promised:
            status["nominatedNodeName"] = nominated or None
        patch = {"metadata": {"uid": meta.uid(pod)}, "status": status}
        try:
            await self._client.patch(
                self._pods, meta.name(pod), meta.namespace(pod), patch, content_type=STRATEGIC_MERGE_PATCH, subresource="status"
            )
        except ApiError as error:
            # Gone or changed meanwhile: its own event brings it back if it is still ours.
            if error.code not in (404, 409):
                raise

    async def _bind(self, decision: _Decision) -> None:
        pod, node = decision.queued.pod, decision.node
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta.name(pod), "namespace": meta.namespace(pod), "uid": meta.uid(pod)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._client.create(
                self._pods,
                binding,
                meta.namespace(pod),
                subresource="binding",
                name=meta.name(pod),
                cause=int(meta.resource_version(pod) or 0),
            )
        except ApiError as error:
            self._snapshot.forget(decision.info.uid)
            if error.code == 404:
                self._queue.remove(decision.info.uid)
                return
            log.warning("binding %s to %s: %s", decision.queued.key, node, error.message)
            self._events.event(pod, "Warning", "FailedScheduling", f"binding rejected: {error.message}")
            self._queue.failed(decision.queued, frozenset(), self._clock.monotonic(), retry=True)
            self._wake.set()
            return
        finally:
            self._bindings.release()
        self._events.event(pod, "Normal", "Scheduled", f"Successfully assigned {decision.queued.key} to {node}")


def _matters(old: Object, new: Object) -> bool:
    """Whether a node changed in what plugins look at; heartbeats do not wake anybody."""
    one, two = old.get("status", {}), new.get("status", {})
    return (
        old.get("spec") != new.get("spec")
        or meta.labels(old) != meta.labels(new)
        or one.get("allocatable") != two.get("allocatable")
    )
