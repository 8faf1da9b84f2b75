"""The one reconcile loop.

Owns: Controller: changes of watched objects become keys in a work queue, N workers call `reconcile(key)`; errors are backed
off per key and logged once per reason. Called by: server/controllers/app, the agent, addons.
Never does: know what a reconcile does.

Metrics as upstream's workqueue_* family, one set per registry (QueueMetrics), labelled by the controller's name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from k1s.api.errors import ApiError
from k1s.base.clock import Clock
from k1s.base.metrics import Registry
from k1s.client.interface import Informer, Object
from k1s.client.rest import current_cause
from k1s.client.workqueue import WorkQueue

log = logging.getLogger("k1s.controller")

# Which keys a change wakes: (old, new) as in interface.ChangeHandler.
KeysOf = Callable[[Object | None, Object | None], Iterable[str]]
Reconcile = Callable[[str], Awaitable[float | None]]

# A refusal can name hundreds of fields.
_MAX_REASON = 400
# What usually passes by itself is told only if it does not.
_QUIET_TRIES = 5
_SECONDS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)


class QueueMetrics:
    """The workqueue_* metrics; make one per Registry and share it."""

    def __init__(self, registry: Registry) -> None:
        self.adds = registry.counter("workqueue_adds_total", "Keys added to the work queue.", ["name"])
        self.retries = registry.counter("workqueue_retries_total", "Keys added again after a failure.", ["name"])
        self.depth = registry.gauge("workqueue_depth", "Keys that wait in the work queue.", ["name"])
        self.wait = registry.histogram(
            "workqueue_queue_duration_seconds", "How long a key waited in the work queue.", ["name"], _SECONDS
        )
        self.work = registry.histogram("workqueue_work_duration_seconds", "How long a reconcile took.", ["name"], _SECONDS)


class Controller:
    """`reconcile(key)` makes the world look as `key` wants it. It returns None, or the seconds after which to come again."""

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        clock: Clock,
        workers: int = 2,
        metrics: QueueMetrics | None = None,
        queue: WorkQueue | None = None,
    ) -> None:
        self.name, self._reconcile, self._workers, self._metrics = name, reconcile, workers, metrics
        self.queue = queue or WorkQueue(clock)
        self._clock = clock
        self._watches: list[tuple[Informer, KeysOf]] = []
        # Keys that are failing now -> the kind of failure last logged.
        self._failing: dict[str, str] = {}

    def watch(self, informer: Informer, keys: KeysOf) -> None:
        """Before `run`: a change of an object of `informer` wakes `keys(old, new)`."""
        self._watches.append((informer, keys))

    async def attach(self, informer: Informer, keys: KeysOf) -> None:
        """While running: watch one more resource."""
        await informer.synced()
        informer.add_handler(self._handler(keys))

    def add(self, key: str, delay: float = 0.0) -> None:
        self.queue.add_after(key, delay, current_cause.get())

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Until cancelled. `ready` is called when every watched cache is full and the workers start."""
        for informer, _ in self._watches:
            await informer.synced()
        for informer, keys in self._watches:
            informer.add_handler(self._handler(keys))
        ready()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self.name}-{number}")
        finally:
            self.queue.close()

    def _handler(self, keys: KeysOf) -> Callable[[Object | None, Object | None], None]:
        def changed(old: Object | None, new: Object | None) -> None:
            obj = new if new is not None else old
            try:
                woken = tuple(keys(old, new))
            except Exception as error:
                # Handlers run while the cache takes the change in: a defect of one controller must not stop it for all.
                name = ((obj or {}).get("metadata") or {}).get("name")
                log.error("%s: defect in the keys of %s %s", self.name, (obj or {}).get("kind"), name, exc_info=error)
                return
            if woken:
                cause = _revision(obj) if obj is not None else 0
                for key in woken:
                    self.queue.add(key, cause)
                if self._metrics is not None:
                    self._metrics.adds.add(self.name, value=len(woken))
                    self._metrics.depth.set(self.name, value=len(self.queue))

        return changed

    async def _work(self) -> None:
        while True:
            key, cause, waited = await self.queue.get()
            started = self._clock.monotonic()
            token = current_cause.set(cause)
            try:
                await self._once(key, cause)
            finally:
                current_cause.reset(token)
                self.queue.done(key)
            if self._metrics is not None:
                self._metrics.wait.observe(self.name, value=waited)
                self._metrics.work.observe(self.name, value=self._clock.monotonic() - started)
                self._metrics.depth.set(self.name, value=len(self.queue))

    async def _once(self, key: str, cause: int) -> None:
        try:
            delay = await self._reconcile(key)
        except ApiError as error:
            # A conflict, or a 404 for what has just gone, says that the cache was behind; the next try has newer data.
            quiet = error.code in (404, 409)
            # Messages may name objects that differ from try to try; code and reason do not.
            self._failed(key, cause, f"{error.code} {error.reason}", str(error), quiet=quiet)
        except Exception as error:
            # One object that trips over a defect must not take the control plane down: its key alone is held back,
            # the defect is logged with its trace, and the next try may do better.
            if self._failed(key, cause, type(error).__name__, f"{type(error).__name__}: {error}"):
                log.error("%s %s: defect", self.name, key, exc_info=error)
        else:
            self.queue.forget(key)
            self._failing.pop(key, None)
            if delay is not None:
                self.queue.add_after(key, delay)

    def _failed(self, key: str, cause: int, kind: str, reason: str, *, quiet: bool = False) -> bool:
        """Plan the next try; True if a failure of this kind was logged for the first time since the last success."""
        self.queue.retry(key, cause)
        if self._metrics is not None:
            self._metrics.retries.add(self.name)
        if self._failing.get(key) == kind or (quiet and self.queue.failures(key) < _QUIET_TRIES):
            return False
        self._failing[key] = kind
        reason = reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]}..."
        log.warning("%s %s: %s (trying again)", self.name, key, reason)
        return True


def _revision(obj: Object) -> int:
    version = (obj.get("metadata") or {}).get("resourceVersion") or "0"
    return int(version) if version.isdigit() else 0
