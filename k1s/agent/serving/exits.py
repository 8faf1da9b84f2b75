"""Tells when a container has ended and all it wrote is in its log.

Owns: one subscription to the runtime's events, held only while somebody waits. Called by: serving/pod_logs, serving/app (attach).
Never does: poll; after an exit event the status is asked for until the runtime agrees, a bounded number of times.
"""

from __future__ import annotations

import asyncio

from k1s.base.clock import Clock
from k1s.cri.errors import NotFound
from k1s.cri.runtime import Runtime

# The runtime publishes the exit before it has drained the output; it says "exited" afterwards.
_DRAIN_TRIES = 50
_DRAIN_SECONDS = 0.02


class Exits:
    """Shared by all followers of logs and all who are attached."""

    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime, self._clock = runtime, clock
        self._waiters: dict[asyncio.Event, str] = {}
        self._reader: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()

    async def wait(self, container_id: str) -> None:
        """Return once the container has ended (at once if it is not running)."""
        woken = asyncio.Event()
        self._waiters[woken] = container_id
        if self._reader is None:
            self._listening.clear()
            self._reader = asyncio.create_task(self._read(), name="log-exits")
        try:
            await self._listening.wait()
            while await self._running(container_id):
                await woken.wait()
                woken.clear()
                await self._drained(container_id)
        finally:
            del self._waiters[woken]
            if not self._waiters and self._reader is not None:
                self._reader.cancel()
                self._reader = None

    async def _read(self) -> None:
        async for event in self._runtime.events():
            # The first event is a resync: from here on nothing is missed.
            self._listening.set()
            for woken, container_id in self._waiters.items():
                if event.kind == "resync" or (event.kind in ("exited", "deleted") and event.id == container_id):
                    woken.set()

    async def _running(self, container_id: str) -> bool:
        try:
            return (await self._runtime.container_status(container_id)).state == "running"
        except NotFound:
            return False

    async def _drained(self, container_id: str) -> None:
        for _ in range(_DRAIN_TRIES):
            if not await self._running(container_id):
                return
            await self._clock.sleep(_DRAIN_SECONDS)
