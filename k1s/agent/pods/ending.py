"""The end of a pod on this node: from the decision to nothing left.

Owns: terminating (stop all, in its grace period), terminated (final status, volumes, cgroup), deleted (records, logs, the API
object). Called by: worker. Never does: decide that a pod must end.

  must_end -> stop containers and sandbox -> report the final phase -> release volumes and cgroup
           -> wait for the deletion, if there is none yet -> remove containers, sandboxes, logs -> DELETE with grace 0 and uid
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from k1s.agent.pods.model import Observed, pod_ref, pod_uid
from k1s.agent.pods.terminate import grace_period, kill_pod, remove_pod
from k1s.agent.volumes import manager as volumes
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff
from k1s.client.servers import loudness
from k1s.cri.errors import RuntimeFailure

if TYPE_CHECKING:
    from k1s.agent.pods.worker import PodWorker

log = logging.getLogger("k1s.agent.pods")
_RETRY = Backoff(initial=0.2, maximum=10.0)


async def run(worker: PodWorker) -> None:
    """Returns when the pod is gone from the node and from the API."""
    observed = await _stop(worker)
    worker.stopped = True
    worker.probes.close()
    already_told = worker.finished and not observed.containers and not observed.sandboxes
    if not already_told or worker.pod["metadata"].get("deletionTimestamp"):
        worker.report(observed, terminating=True)
    await _until_done(worker, _release)
    while not worker.gone and not worker.pod["metadata"].get("deletionTimestamp"):
        await worker.next_change()
        if not worker.gone:
            worker.report(worker.entry.observed, terminating=True)
    await worker.reporter.flush(pod_uid(worker.pod))
    await _until_done(worker, _erase)
    if not worker.gone:
        await _delete(worker)
    worker.reporter.forget(pod_uid(worker.pod))


async def _stop(worker: PodWorker) -> Observed:
    """Everything stopped; what was then observed."""
    failures = 0
    worker.probes.stop_liveness()
    while True:
        try:
            observed = await worker.look()
            if not observed.alive:
                return observed
            worker.report(observed, terminating=True)
            await _kill(worker, observed)
            failures = 0
        except RuntimeFailure as error:
            failures += 1
            worker.agent.events.event(worker.pod, "Warning", "FailedKillPod", f"error killing pod: {error}")
            await worker.agent.clock.sleep(_RETRY.delay(failures))


async def _kill(worker: PodWorker, observed: Observed) -> None:
    grace = _grace(worker)
    # A second delete may shorten the grace period: then stopping begins anew, with less time.
    await worker.during(kill_pod(worker.agent, worker.pod, observed, grace=grace), until=lambda: _grace(worker) < grace)


def _grace(worker: PodWorker) -> int:
    if worker.finished:
        return min(grace_period(worker.pod), 30)
    seconds = grace_period(worker.pod)
    # Gone from the API without a word, or forced: a moment for SIGTERM all the same, as kubelet grants.
    return max(seconds, 1) if not worker.gone else max(min(seconds, 30), 1)


async def _release(worker: PodWorker) -> None:
    """Volumes and cgroup; records stay for `kubectl logs`."""
    agent, uid = worker.agent, pod_uid(worker.pod)
    agent.objects.release(uid)
    agent.tokens.forget(uid)
    agent.images.forget(uid)
    worker.starter.forget_volumes()
    if agent.pretend:
        return
    await volumes.tear_down(worker.starter.paths)
    if agent.cgroups is not None:
        await asyncio.to_thread(agent.cgroups.remove_pod, uid)


async def _erase(worker: PodWorker) -> None:
    """Containers, sandboxes and logs."""
    observed = await worker.look()
    await remove_pod(worker.agent, observed)
    if not worker.agent.pretend:
        await asyncio.to_thread(shutil.rmtree, worker.starter.paths.logs, True)


async def _until_done(worker: PodWorker, act: Callable[[PodWorker], Awaitable[None]]) -> None:
    failures = 0
    while True:
        try:
            await act(worker)
            return
        except (RuntimeFailure, OSError) as error:
            failures += 1
            log.warning("%s: cleaning up: %s", pod_ref(worker.pod), error)
            await worker.agent.clock.sleep(_RETRY.delay(failures))


async def _delete(worker: PodWorker) -> None:
    meta = worker.pod["metadata"]
    failures = 0
    while not worker.gone:
        try:
            await worker.agent.client.delete(
                builtin("Pod"), meta["name"], meta["namespace"], uid=meta["uid"], grace_period_seconds=0
            )
            return
        except ApiError as error:
            if error.code in (404, 409):
                return
            failures += 1
            log.log(loudness(error), "%s: deleting the API object: %s", pod_ref(worker.pod), error)
            await worker.agent.client.pause(_RETRY.delay(failures))
