"""All pods of this node: who gets a worker, and who hears what.

Owns: one worker per pod, admission in order of arrival, adoption at start, removal of what nobody wants any more.
Called by: app.py as the part `pods`. Never does: anything to a single pod (worker).
Bounds: one worker per pod the API has bound here; a worker that breaks is started anew after growing delays up to a minute.

After a kill -9 of the agent every pod is found again: workers look at the runtime before they act, and the labels on containers
say whose they are. What runs without an API object is ended once the API's list is complete, never before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from k1s.agent.containerd import ContainerdPaths, bound_log
from k1s.agent.containers import logs
from k1s.agent.context import AgentContext
from k1s.agent.pods.model import POD_NAME, POD_NAMESPACE, POD_UID, Object, Observed, pod_ref, pod_uid
from k1s.agent.pods.report import StatusReporter
from k1s.agent.pods.status import Ending
from k1s.agent.pods.terminate import remove_pod
from k1s.agent.pods.worker import PodWorker
from k1s.agent.resources.admission import refusal
from k1s.agent.resources.qos import pod_requests, qos_class
from k1s.agent.volumes.objects import Key
from k1s.api.catalog import builtin
from k1s.base.backoff import Backoff
from k1s.cri.errors import RuntimeFailure

log = logging.getLogger("k1s.agent.pods")
_BROKEN = Backoff(initial=1.0, maximum=60.0)
_TERMINAL = ("Succeeded", "Failed")


async def run(agent: AgentContext, ready: Callable[[], None]) -> None:
    manager = PodManager(agent)
    await manager.run(ready)


class PodManager:
    """The part `pods`."""

    def __init__(self, agent: AgentContext) -> None:
        self._agent = agent
        self._reporter = StatusReporter(agent.client, agent.clock)
        self._workers: dict[str, PodWorker] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self, ready: Callable[[], None]) -> None:
        agent = self._agent
        if not agent.pretend:
            # The host's other users have no business in the pods' secrets, whose files are as open as the pod asks for.
            agent.config.pods_dir.mkdir(parents=True, exist_ok=True)
            agent.config.pods_dir.chmod(0o750)
        if agent.cgroups is not None:
            await asyncio.to_thread(agent.cgroups.ensure_hierarchy, milli_cpu=agent.machine.cpus * 1000)
        agent.objects.on_change(self._reference_changed)
        agent.images.on_appeared(lambda: self._each(PodWorker.images_appeared))
        agent.readiness_handlers.append(lambda: self._each(PodWorker.network_changed))
        if agent.balancer is not None:
            agent.balancer.on_back.append(lambda: self._each(PodWorker.server_back))
        agent.address_handlers.append(lambda _: self._each(PodWorker.wake))
        agent.removal_handlers.append(lambda: self._each(PodWorker.removed))
        pods = agent.informers.informer(builtin("Pod"), field_selector=f"spec.nodeName={agent.node_name}")
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._follow_runtime(), name="pods-events")
                await pods.synced()
                pods.add_handler(self._changed)
                group.create_task(self._sweep(), name="pods-sweep")
                group.create_task(self._rotate_logs(), name="pods-logs")
                ready()
        finally:
            await self._reporter.close()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        """The informer's handler."""
        pod = new if new is not None else old
        assert pod is not None
        uid = pod_uid(pod)
        # A pod of the same name with another uid: the informer may show it as a change of the first.
        if old is not None and pod_uid(old) != uid and pod_uid(old) in self._workers:
            self._workers[pod_uid(old)].removed()
        worker = self._workers.get(uid)
        if new is None:
            if worker is not None:
                worker.entry.pod = pod
                worker.removed()
        elif worker is not None:
            self._reporter.seen(new)
            worker.update(new)
        else:
            self._adopt(new)

    def _adopt(self, pod: Object) -> None:
        assert self._group is not None
        refused = self._refusal(pod)
        if refused is not None:
            self._agent.events.event(pod, "Warning", refused.reason, refused.message)
        worker = PodWorker(self._agent, self._agent.pods.put(pod), self._reporter, self._neighbours, refused)
        self._workers[pod_uid(pod)] = worker
        self._group.create_task(self._tend(worker), name=f"pod-{pod['metadata']['namespace']}/{pod['metadata']['name']}")
        self._weigh()

    def _neighbours(self, of: PodWorker | None) -> list[Object]:
        """Who holds resources here. What was deleted by force holds none: its place has been given away, as with kubelet."""
        over = (w for w in self._workers.values() if w.finished or w.stopped or w.gone or w.ending is not None)
        without = {id(of), *map(id, over)}
        return [w.allocated() for w in self._workers.values() if id(w) not in without]

    def _refusal(self, pod: Object) -> Ending | None:
        """Only for a pod that is new here: one that has been taken stays."""
        status = pod.get("status") or {}
        if status.get("startTime") or pod["metadata"].get("deletionTimestamp") or status.get("phase") in _TERMINAL:
            return None
        others = self._neighbours(None)
        node = self._agent.informers.informer(builtin("Node"), field_selector=f"metadata.name={self._agent.node_name}").get(
            self._agent.node_name
        )
        labels = (node or {}).get("metadata", {}).get("labels") or {}
        return refusal(pod, others, self._agent.allocatable, labels)

    async def _tend(self, worker: PodWorker) -> None:
        """Run a worker to its end. A fault of ours in one pod must not take the others down: it is logged and tried again."""
        failures = 0
        while True:
            try:
                await worker.run()
                break
            except Exception:
                failures += 1
                log.exception("worker of %s broke; starting it anew in %.0f s", pod_ref(worker.pod), _BROKEN.delay(failures))
                await self._agent.clock.sleep(_BROKEN.delay(failures))
        self._workers.pop(worker.entry.uid, None)
        self._agent.pods.remove(worker.entry.uid)
        self._weigh()

    def _weigh(self) -> None:
        """Burstable pods together weigh what they request."""
        if self._agent.cgroups is not None:
            pods = [w.pod for w in self._workers.values() if not w.finished]
            total = sum(pod_requests(p).get("cpu", 0) for p in pods if qos_class(p) == "Burstable")
            self._agent.cgroups.set_burstable_shares(total)

    async def _follow_runtime(self) -> None:
        async for event in self._agent.runtime.events():
            if event.kind == "resync":
                self._each(PodWorker.wake)
            elif event.kind in ("exited", "deleted"):
                # Its task is deleted right before the runtime's status says that it ended.
                await self._exited(event.id)

    async def _exited(self, identity: str) -> None:
        for worker in self._workers.values():
            observed = worker.entry.observed
            if any(c.id == identity for c in observed.containers) or any(s.id == identity for s in observed.sandboxes):
                worker.exited(identity)
                return
        # Made a moment ago, and its worker has not looked since: its labels say whose it is.
        worker_of = self._workers.get(await self._owner(identity))
        if worker_of is not None:
            worker_of.exited(identity)

    async def _owner(self, identity: str) -> str:
        """The uid of the pod a container or sandbox belongs to; "" if it is gone already."""
        try:
            return (await self._agent.runtime.container_status(identity)).labels.get(POD_UID, "")
        except RuntimeFailure:
            pass  # not a container
        try:
            return (await self._agent.runtime.pod_sandbox_status(identity)).uid
        except RuntimeFailure:
            return ""

    def _reference_changed(self, key: Key, owners: set[str]) -> None:
        for uid in owners:
            worker = self._workers.get(uid)
            if worker is not None:
                worker.reference_changed()

    def _each(self, act: Callable[[PodWorker], None]) -> None:
        for worker in list(self._workers.values()):
            act(worker)

    async def _rotate_logs(self) -> None:
        """At each heartbeat, one stat per running container, and one of the log of our own runtime."""
        own = None if self._agent.config.container_runtime_endpoint else ContainerdPaths.of(self._agent.config).log
        tick = asyncio.Event()
        self._agent.heartbeat_handlers.append(tick.set)
        while not self._agent.pretend:
            await tick.wait()
            tick.clear()
            if own is not None:
                try:
                    await asyncio.to_thread(bound_log, own)
                except OSError as error:
                    log.warning("%s: %s", own, error)
            for entry in self._agent.pods:
                for container in logs.too_large(entry.observed.containers):
                    try:
                        await logs.rotate(container, self._agent.runtime, self._agent.clock)
                    except (RuntimeFailure, OSError) as error:
                        log.warning("log of %s/%s/%s: %s", entry.namespace, entry.name, container.name, error)

    async def _sweep(self) -> None:
        """Once: end what the runtime and the kernel still have of pods that are gone."""
        agent = self._agent
        failures = 0
        while True:
            try:
                await self._remove_orphans()
                break
            except (RuntimeFailure, OSError) as error:
                failures += 1
                log.warning("removing what is left of pods that are gone: %s", error)
                await agent.clock.sleep(_BROKEN.delay(failures))

    async def _remove_orphans(self) -> None:
        agent, runtime = self._agent, self._agent.runtime
        boxes = [s for s in await runtime.list_pod_sandboxes() if s.labels.get(POD_UID) and s.uid not in self._workers]
        listed = [c for c in await runtime.list_containers() if c.labels.get(POD_UID, "") not in ("", *self._workers)]
        for uid in {s.uid for s in boxes} | {c.labels[POD_UID] for c in listed}:
            mine = [c for c in listed if c.labels[POD_UID] == uid]
            statuses = [await runtime.container_status(c.id) for c in mine]
            known = [*(c.labels for c in mine), *(s.labels for s in boxes if s.uid == uid)][0]
            log.info("ending pod %s/%s (%s): the API has it no more", known.get(POD_NAMESPACE), known.get(POD_NAME), uid)
            for status in statuses:
                if status.state == "running":
                    await runtime.stop_container(status.id, 10)
            await remove_pod(agent, Observed(tuple(s for s in boxes if s.uid == uid), tuple(statuses)))
        if not agent.pretend:
            await asyncio.to_thread(self._remove_directories)

    def _remove_directories(self) -> None:
        from k1s.agent.volumes import mounts

        agent = self._agent
        if agent.config.pods_dir.is_dir():
            for directory in agent.config.pods_dir.iterdir():
                if directory.name not in self._workers:
                    mounts.remove_tree(directory)
        if agent.cgroups is not None:
            for uid in agent.cgroups.pods() - set(self._workers):
                agent.cgroups.remove_pod(uid)
