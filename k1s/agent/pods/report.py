"""Pod statuses on their way to the API.

Owns: the newest status of each pod, at most one PATCH in flight per pod, retries. Called by: worker.
Never does: compute a status.
Bounds: one pending status per pod (a newer one replaces it); PARALLEL patches at once; retries back off to 10 s.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from k1s.agent.pods.model import Object, pod_uid
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff
from k1s.base.clock import Clock
from k1s.client.interface import STRATEGIC_MERGE_PATCH, Client
from k1s.client.servers import loudness

log = logging.getLogger("k1s.agent.report")

PARALLEL = 8
_RETRY = Backoff(initial=0.2, maximum=10.0, jitter=0.2)
# Fields of the status that are ours: absent in a new status means to be removed.
_OURS = (
    "containerStatuses",
    "ephemeralContainerStatuses",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
    "startTime",
)


class StatusReporter:
    """One for the agent. `last(uid)` is what the API was told, the base of the next patch."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._told: dict[str, Object] = {}
        # The resourceVersion that our last PATCH made: what the informer shows of before says nothing about others.
        self._versions: dict[str, int] = {}
        self._pending: dict[str, tuple[Object, Object]] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(PARALLEL)
        self._resource = builtin("Pod")

    def last(self, pod: Object) -> Object:
        """The newest status reported or about to be; the API's own for a pod we have not reported on yet."""
        uid = pod_uid(pod)
        if uid in self._pending:
            return self._pending[uid][1]
        return self._told.get(uid) or pod.get("status") or {}

    def report(self, pod: Object, status: Object) -> None:
        """Send `status` soon, unless it is what was told already."""
        uid = pod_uid(pod)
        if not build_patch(self.last(pod), status):
            return
        self._pending[uid] = (pod, status)
        if uid not in self._busy:
            self._busy[uid] = asyncio.create_task(self._send(uid), name=f"report-{pod['metadata']['name']}")

    def seen(self, pod: Object) -> None:
        """The API shows the pod like this. Where somebody overruled us (the node was taken for dead), we tell it again."""
        uid, status = pod_uid(pod), pod.get("status") or {}
        told = self._told.get(uid)
        if told is not None and uid not in self._busy and _version(pod) > self._versions[uid] and overruled(told, status):
            self._told[uid] = status

    async def flush(self, uid: str) -> None:
        """Return once everything reported for the pod was sent (or the pod is gone)."""
        task = self._busy.get(uid)
        if task is not None:
            await asyncio.shield(task)

    def forget(self, uid: str) -> None:
        task = self._busy.pop(uid, None)
        if task is not None:
            task.cancel()
        self._pending.pop(uid, None)
        self._told.pop(uid, None)
        self._versions.pop(uid, None)

    async def close(self) -> None:
        for task in list(self._busy.values()):
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def _send(self, uid: str) -> None:
        failures = 0
        try:
            while uid in self._pending:
                pod, status = self._pending[uid]
                base: Object = self._told.get(uid) or pod.get("status") or {}
                patch = build_patch(base, status)
                answer = pod
                try:
                    if patch:
                        async with self._slots:
                            answer = await self._patch(pod, patch)
                except ApiError as error:
                    if error.code in (404, 409):
                        self._pending.pop(uid, None)  # deleted, or another pod of that name by now
                        return
                    failures += 1
                    meta = pod["metadata"]
                    log.log(loudness(error), "status of pod %s/%s: %s", meta["namespace"], meta["name"], error)
                    await self._client.pause(_RETRY.delay(failures))
                    continue
                failures = 0
                # Somebody may have overruled us just before: then the next look finds the difference.
                actual = answer.get("status") or {}
                self._told[uid] = actual if patch and overruled(status, actual) else status
                self._versions[uid] = max(_version(answer), self._versions.get(uid, 0))
                if self._pending.get(uid, (None, None))[1] is status:
                    del self._pending[uid]
        finally:
            self._busy.pop(uid, None)

    async def _patch(self, pod: Object, patch: Object) -> Object:
        meta = pod["metadata"]
        return await self._client.patch(
            self._resource,
            meta["name"],
            meta["namespace"],
            {"metadata": {"uid": meta["uid"]}, "status": patch},
            content_type=STRATEGIC_MERGE_PATCH,
            subresource="status",
        )


def overruled(told: Object, actual: Object) -> bool:
    """Whether the API says something else about the phase or one of our conditions than it was told."""
    if told.get("phase") != actual.get("phase"):
        return True
    shown = {c["type"]: c.get("status") for c in actual.get("conditions") or []}
    return any(shown.get(c["type"]) != c.get("status") for c in told.get("conditions") or [])


def _version(pod: Object) -> int:
    version = str(pod["metadata"].get("resourceVersion") or "0")
    return int(version) if version.isdigit() else 0


def build_patch(old: Object, new: Object) -> dict[str, Any]:
    """What of status changes, as a strategic merge patch: conditions by type, lists of addresses replaced."""
    patch: dict[str, Any] = {}
    for name in _OURS:
        if name in new:
            if old.get(name) != new[name]:
                patch[name] = new[name]
        elif old.get(name):
            patch[name] = None
    for name in ("podIPs", "hostIPs"):  # merged by ip upstream: an address that is gone must be replaced away
        if patch.get(name) and old.get(name):
            patch[name] = [*patch[name], {"$patch": "replace"}]
    before = {c["type"]: c for c in old.get("conditions") or []}
    changed = [_with_removals(before.get(c["type"]), c) for c in new.get("conditions") or [] if _differ(before.get(c["type"]), c)]
    if changed:
        patch["conditions"] = changed
    return patch


def _with_removals(old: Object | None, new: Object) -> Object:
    """Conditions are merged field by field: a reason that holds no longer must be taken out by name."""
    return {**{name: None for name in ("reason", "message") if (old or {}).get(name) and not new.get(name)}, **new}


def _differ(old: Object | None, new: Object) -> bool:
    return _plain(old) != _plain(new)


def _plain(condition: Object | None) -> Object | None:
    if condition is None:
        return None
    return {name: value for name, value in condition.items() if value is not None and value != ""}
