"""Leader election on one Lease: one leads, the next takes over, a lost lease ends the work."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from k1s.api.errors import already_exists, conflict, not_found, service_unavailable
from k1s.base.clock import VirtualClock
from k1s.client.leader import LostLeadership, lead

Object = dict[str, Any]


class OneLease:
    """The calls that `lead` makes, on a single Lease."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.revision = 0
        self.away: set[str] = set()

    def client(self, name: str) -> Any:
        return OneClient(self, name)


class OneClient:
    def __init__(self, server: OneLease, name: str) -> None:
        self.server, self.name = server, name

    def _check(self) -> None:
        if self.name in self.server.away:
            raise service_unavailable("away")

    async def get(self, resource: Any, name: str, namespace: str) -> Object:
        self._check()
        if self.server.lease is None:
            raise not_found("leases", "", name)
        return self.server.lease

    async def create(self, resource: Any, obj: Object) -> Object:
        self._check()
        if self.server.lease is not None:
            raise already_exists("leases", "", "l")
        return self._put(obj)

    async def update(self, resource: Any, obj: Object) -> Object:
        self._check()
        if self.server.lease is None or obj["metadata"]["resourceVersion"] != self.server.lease["metadata"]["resourceVersion"]:
            raise conflict("leases", "", "l")
        return self._put(obj)

    def _put(self, obj: Object) -> Object:
        self.server.revision += 1
        self.server.lease = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.server.revision)}}
        return self.server.lease


def start(server: OneLease, clock: VirtualClock, name: str, running: list[str]) -> asyncio.Task[None]:
    async def work() -> None:
        running.append(name)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            running.remove(name)

    return asyncio.create_task(lead(server.client(name), clock, name="l", namespace="n", identity=name, run=work))


async def stop(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_leads_and_hands_over_when_it_stops() -> None:
    server, clock, running = OneLease(), VirtualClock(), []
    first = start(server, clock, "a", running)
    await clock.advance(1)
    second = start(server, clock, "b", running)
    await clock.advance(100)
    assert running == ["a"]
    await stop(first)
    await clock.advance(3)
    assert running == ["b"]
    assert server.lease is not None and server.lease["spec"]["leaseTransitions"] == 1
    await stop(second)


async def test_a_leader_that_cannot_renew_stops_before_the_next_one_starts() -> None:
    server, clock, running = OneLease(), VirtualClock(), []
    first = start(server, clock, "a", running)
    await clock.advance(1)
    second = start(server, clock, "b", running)
    await clock.advance(5)
    server.away.add("a")
    seen = []
    for _ in range(30):
        await clock.advance(1)
        seen.append(list(running))
    assert ["a", "b"] not in seen and ["b", "a"] not in seen and seen[-1] == ["b"]
    with pytest.raises(LostLeadership):
        await first
    await stop(second)
