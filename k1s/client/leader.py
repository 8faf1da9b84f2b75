"""One leader among several servers, by a Lease.

Owns: lead(): runs a coroutine only while this process holds the Lease. Called by: server/app where several servers share a
database. Never does: fence writes (as upstream, a leader that stalls longer than its lease may overlap for a moment).
Source: client-go tools/leaderelection: 15 s lease, 10 s to renew, a try every 2 s. A lease counts as stale only after this
process has seen it unchanged for its whole duration, so clocks need not agree.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.clock import Clock, rfc3339_micro
from k1s.client.interface import Client, Object

log = logging.getLogger("k1s.client.leader")

LEASE_SECONDS = 15
RENEW_SECONDS = 10.0
TRY_SECONDS = 2.0


class LostLeadership(RuntimeError):
    """The lease could not be renewed in time; what ran under it was stopped."""


@dataclass(slots=True)
class _Observed:
    """The lease as last seen, and since when it has looked like that."""

    version: str = ""
    since: float = 0.0


async def lead(
    client: Client, clock: Clock, *, name: str, namespace: str, identity: str, run: Callable[[], Awaitable[None]]
) -> None:
    """Wait to become leader, then await `run()`. Raises LostLeadership if the lease is lost; releases it at the end."""
    observed = _Observed()
    while not await _acquire(client, clock, name, namespace, identity, observed):
        await clock.sleep(TRY_SECONDS)
    log.info("%s is the leader of %s/%s", identity, namespace, name)
    work = asyncio.ensure_future(run())
    renewal = asyncio.ensure_future(_renew(client, clock, name, namespace, identity, observed))
    try:
        await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
        (work if work.done() else renewal).result()
    finally:
        for task in (work, renewal):
            task.cancel()
        await asyncio.gather(work, renewal, return_exceptions=True)
        if not (renewal.done() and not renewal.cancelled() and renewal.exception()):
            await _release(client, clock, name, namespace, identity)


async def _renew(client: Client, clock: Clock, name: str, namespace: str, identity: str, observed: _Observed) -> None:
    last = clock.monotonic()
    while True:
        await clock.sleep(TRY_SECONDS)
        if await _acquire(client, clock, name, namespace, identity, observed):
            last = clock.monotonic()
        elif clock.monotonic() - last > RENEW_SECONDS:
            raise LostLeadership(f"{identity} lost the lease {namespace}/{name}")


async def _acquire(client: Client, clock: Clock, name: str, namespace: str, identity: str, observed: _Observed) -> bool:
    """Take or renew the lease; False if another holds it or the API cannot be reached."""
    resource = builtin("Lease")
    stamp = rfc3339_micro(clock.now())
    try:
        lease = await client.get(resource, name, namespace)
    except ApiError as error:
        if error.code != 404:
            return False
        spec: Object = {"holderIdentity": identity, "leaseDurationSeconds": LEASE_SECONDS, "acquireTime": stamp,
                        "renewTime": stamp, "leaseTransitions": 0}  # fmt: skip
        try:
            await client.create(resource, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
        except ApiError:
            return False
        return True
    version, spec = lease["metadata"].get("resourceVersion", ""), dict(lease.get("spec") or {})
    if version != observed.version:
        observed.version, observed.since = version, clock.monotonic()
    holder = spec.get("holderIdentity") or ""
    duration = float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)
    if holder and holder != identity and clock.monotonic() - observed.since < duration:
        return False
    if holder != identity:
        spec.update(acquireTime=stamp, leaseTransitions=int(spec.get("leaseTransitions") or 0) + 1)
    spec.update(holderIdentity=identity, leaseDurationSeconds=LEASE_SECONDS, renewTime=stamp)
    try:
        await client.update(resource, {**lease, "spec": spec})
    except ApiError:
        return False
    return True


async def _release(client: Client, clock: Clock, name: str, namespace: str, identity: str) -> None:
    """Let the next one in without a wait; failing to is harmless, the lease then just runs out."""
    resource = builtin("Lease")
    try:
        lease = await client.get(resource, name, namespace)
        if (lease.get("spec") or {}).get("holderIdentity") == identity:
            spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": rfc3339_micro(clock.now())}
            await client.update(resource, {**lease, "spec": spec})
    except ApiError as error:
        log.info("lease %s/%s not released: %s", namespace, name, error)
