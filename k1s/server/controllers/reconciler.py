"""What every controller is made of.

Owns: Context (what a controller is given) and Reconciler (a controller's base: its caches, its queue, its loop).
Called by: controllers/app and every controller file. Never does: anything about a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from k1s.api.catalog import Catalog, Resource, builtin_catalog
from k1s.base.clock import Clock, parse_rfc3339, rfc3339
from k1s.client.controller import Controller, KeysOf, QueueMetrics
from k1s.client.events import EventRecorder
from k1s.client.interface import Client, Informer, InformerFactory, Object
from k1s.server.controllers.config import ControllerConfig

Watch = tuple[Resource, KeysOf]


@dataclass(frozen=True, slots=True)
class Context:
    """What a controller works with. `client` and `events` bear the controller's name."""

    client: Client
    informers: InformerFactory
    clock: Clock
    events: EventRecorder
    config: ControllerConfig = ControllerConfig()
    metrics: QueueMetrics | None = None
    catalog: Catalog = field(default_factory=builtin_catalog)


# A key with many parts costs time in proportion to their number, and each part's change wakes it: looking at all of them for
# every change would cost the square, and a write each time. So the changes of so many seconds per part are taken together.
PACED_SECONDS, PACED_LEAST, PACED_MOST = 0.0005, 0.05, 0.5


class Reconciler:
    """A controller: `watches()` says which changes wake which key, `reconcile(key)` does the work."""

    name: ClassVar[str]
    workers: ClassVar[int] = 2

    def __init__(self, context: Context) -> None:
        self.client, self.informers, self.clock = context.client, context.informers, context.clock
        self.events, self.config, self.catalog = context.events, context.config, context.catalog
        # Keys with several parts -> when they may be looked at again.
        self._paced: dict[str, float] = {}
        self.controller = Controller(
            self.name, self.reconcile, clock=context.clock, workers=self.workers, metrics=context.metrics
        )

    def watches(self) -> Iterable[Watch]:
        raise NotImplementedError

    async def reconcile(self, key: str) -> float | None:
        raise NotImplementedError

    async def run(self, ready: Callable[[], None]) -> None:
        for resource, keys in self.watches():
            self.controller.watch(self.informers.informer(resource), keys)
        await self.controller.run(ready)

    def cache(self, resource: Resource) -> Informer:
        return self.informers.informer(resource)

    def hold_back(self, key: str, size: int) -> float:
        """0 if `key`, which has `size` parts, may be worked on now, else the seconds to come again after."""
        now = self.clock.monotonic()
        due = self._paced.get(key, 0.0)
        if now < due:
            return due - now
        if size > 1:
            self._paced[key] = now + min(max(size * PACED_SECONDS, PACED_LEAST), PACED_MOST)
        else:
            self._paced.pop(key, None)
        return 0.0

    def stamp(self) -> str:
        """Now, as metav1.Time."""
        return rfc3339(self.clock.now())


def seconds_of(stamp: str | None, default: float = 0.0) -> float:
    """A metav1.Time as seconds; `default` if there is none."""
    return parse_rfc3339(stamp) if stamp else default


def same(left: Object | None, right: Object | None) -> bool:
    """Equal but for fields that are absent on one side and empty on the other."""
    return _dense(left) == _dense(right)


def _dense(value: object) -> object:
    if isinstance(value, dict):
        return {k: d for k, v in value.items() if (d := _dense(v)) not in (None, "", 0, False, {}, [])}
    if isinstance(value, list):
        return [_dense(item) for item in value]
    return value
