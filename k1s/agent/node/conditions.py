"""The Node's status, told when it changes and at least every five minutes.

Owns: when to look and when to write. Called by: app.py as a part. Never does: compute it (info.py).
Wakes: a part's readiness changes, images come in, others change extended resources, the server took us for dead (Unknown), the
lease's tick finds pressure or runtime changed, five minutes are over.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k1s.agent.context import AgentContext
from k1s.agent.node import info
from k1s.agent.node.info import Pressure
from k1s.agent.pods.model import Object
from k1s.api import meta
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff
from k1s.client.interface import STRATEGIC_MERGE_PATCH
from k1s.client.servers import loudness
from k1s.cri.errors import RuntimeFailure
from k1s.cri.runtime import Version

log = logging.getLogger("k1s.agent.node")

AT_LEAST_EVERY = 300.0
PATIENCE = 5.0
_RETRY = Backoff(initial=0.2, maximum=10.0, jitter=0.2)
# kubelet's default hard thresholds.
_LEAST_MEMORY = 100 * 1024 * 1024
_LEAST_DISK_SHARE, _LEAST_INODES_SHARE = 0.10, 0.05
_LEAST_PIDS = 1000


@dataclass(frozen=True, slots=True)
class _Health:
    """What is looked at at every heartbeat; a change is told at once."""

    pressure: Pressure
    runtime_fault: str


async def run(agent: AgentContext, ready: Callable[[], None]) -> None:
    told: Object = {}
    failures = 0
    changed, beat = asyncio.Event(), asyncio.Event()
    overruled = False

    def seen(old: Object | None, new: Object | None) -> None:
        nonlocal overruled
        if new is None:
            return
        # We never say Unknown: the node controller does when it has not heard of us for a while.
        if any(condition.get("status") == "Unknown" for condition in meta.conditions(new)):
            overruled = True
            changed.set()
        elif info.extended(new.get("status") or {}):
            changed.set()

    agent.readiness_handlers.append(changed.set)
    agent.address_handlers.append(lambda _: changed.set())
    agent.heartbeat_handlers.append(beat.set)
    agent.images.on_appeared(changed.set)
    agent.informers.informer(builtin("Node"), field_selector=f"metadata.name={agent.node_name}").add_handler(seen)
    await _settle(agent, changed)
    while True:
        changed.clear()
        if overruled:
            told, overruled = {}, False
        health = await _look(agent)
        try:
            told = await _tell(agent, told, health)
            failures = 0
            ready()
        except ApiError as error:
            failures += 1
            log.log(loudness(error), "node %s: status not told: %s", agent.node_name, error)
            await agent.client.pause(_RETRY.delay(failures))
            continue
        due = agent.clock.monotonic() + AT_LEAST_EVERY
        while not changed.is_set() and agent.clock.monotonic() < due:
            await _first(changed.wait(), beat.wait())
            beat.clear()
            if not changed.is_set() and await _look(agent) != health:
                changed.set()


async def _settle(agent: AgentContext, changed: asyncio.Event) -> None:
    """Parts that are still starting are given a moment: a restart of the agent must not make its node NotReady."""
    due = agent.clock.monotonic() + PATIENCE
    while agent.not_ready and agent.clock.monotonic() < due:
        changed.clear()
        await _first(changed.wait(), agent.clock.sleep(due - agent.clock.monotonic()))


async def _look(agent: AgentContext) -> _Health:
    try:
        conditions = await agent.runtime.status()
    except RuntimeFailure as error:
        return _Health(read_pressure(agent.config.data_dir), str(error))
    # The pods' network of k1s itself says so through `not_ready`; that of another CNI plugin only the runtime knows of.
    kinds = ("RuntimeReady", "NetworkReady") if agent.config.network_backend == "none" else ("RuntimeReady",)
    faults = [c.message or c.reason for c in conditions if c.type in kinds and not c.status]
    return _Health(read_pressure(agent.config.data_dir), "; ".join(faults))


async def _tell(agent: AgentContext, told: Object, health: _Health) -> Object:
    """Write what differs; conditions go along whole, so that their heartbeat moves. Returns the status as told."""
    if not told:
        told = (await agent.client.get(builtin("Node"), agent.node_name)).get("status") or {}
    not_ready = dict(agent.not_ready)
    if health.runtime_fault:
        not_ready["container runtime"] = health.runtime_fault
    try:
        version, images = await agent.runtime.version(), await agent.runtime.list_images()
    except RuntimeFailure:
        version, images = None, []  # `health` says so already
    status = info.status(
        agent.node_name,
        agent.node_ips,
        agent.config,
        agent.machine,
        version or Version("containerd", "", "v1"),
        images,
        not_ready=not_ready,
        pressure=health.pressure,
        now=agent.clock.now(),
        old=told,
    )
    if version is None:
        # Without the runtime these are not known: they stay as they were told.
        status.update({key: told[key] for key in ("images", "nodeInfo") if key in told})
    patch: dict[str, Any] = {key: value for key, value in status.items() if told.get(key) != value}
    own = agent.informers.informer(builtin("Node"), field_selector=f"metadata.name={agent.node_name}").get(agent.node_name)
    extended = info.extended((own or {}).get("status") or {})
    if extended:
        patch["allocatable"] = {**status["allocatable"], **extended}
    if patch.get("addresses") and told.get("addresses"):
        # Merged by type, of which a node with two families has one twice: the whole list is replaced.
        patch["addresses"] = [*patch["addresses"], {"$patch": "replace"}]
    await agent.client.patch(
        builtin("Node"), agent.node_name, "", {"status": patch}, content_type=STRATEGIC_MERGE_PATCH, subresource="status"
    )
    return status


def read_pressure(data_dir: Path) -> Pressure:
    """Three reads of /proc and one statvfs."""
    memory = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            memory = int(line.split()[1]) * 1024
            break
    disk = os.statvfs(data_dir if data_dir.exists() else "/")
    threads = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    return Pressure(
        memory=memory < _LEAST_MEMORY,
        disk=disk.f_bavail < disk.f_blocks * _LEAST_DISK_SHARE
        or (disk.f_files > 0 and disk.f_favail < disk.f_files * _LEAST_INODES_SHARE),
        pids=most - threads < _LEAST_PIDS,
    )


async def _first(first: Any, second: Any) -> None:
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
