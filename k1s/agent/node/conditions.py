"""The Node's status, told when it changes and at least every five minutes.

Owns: when to look and when to write. Called by: app.py as a part. Never does: compute it (info.py).
Wakes: a part's readiness changes, images come in, the lease's tick finds pressure changed, five minutes are over.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k1s.agent.context import AgentContext
from k1s.agent.node import info
from k1s.agent.node.info import Pressure
from k1s.agent.pods.model import Object
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base.backoff import Backoff
from k1s.client.interface import STRATEGIC_MERGE_PATCH
from k1s.cri.errors import RuntimeFailure

log = logging.getLogger("k1s.agent.node")

AT_LEAST_EVERY = 300.0
_RETRY = Backoff(initial=0.2, maximum=10.0, jitter=0.2)
# kubelet's default hard thresholds.
_LEAST_MEMORY = 100 * 1024 * 1024
_LEAST_DISK_SHARE, _LEAST_INODES_SHARE = 0.10, 0.05
_LEAST_PIDS = 1000


async def run(agent: AgentContext, ready: Callable[[], None]) -> None:
    changed = asyncio.Event()
    last_pressure = Pressure()

    def tick() -> None:
        nonlocal last_pressure
        pressure = read_pressure(agent.config.data_dir)
        if pressure != last_pressure:
            last_pressure = pressure
            changed.set()

    agent.readiness_handlers.append(changed.set)
    agent.heartbeat_handlers.append(tick)
    agent.images.on_appeared(changed.set)
    told: Object = {}
    failures = 0
    tick()
    while True:
        changed.clear()
        try:
            told = await _tell(agent, told, last_pressure)
            failures = 0
            ready()
        except (ApiError, RuntimeFailure) as error:
            failures += 1
            log.warning("node %s: status not told: %s", agent.node_name, error)
            await agent.clock.sleep(_RETRY.delay(failures))
            continue
        await _either(changed.wait(), agent.clock.sleep(AT_LEAST_EVERY))


async def _tell(agent: AgentContext, told: Object, pressure: Pressure) -> Object:
    """Write what differs; conditions go along whole, so that their heartbeat moves. Returns the status as told."""
    if not told:
        told = (await agent.client.get(builtin("Node"), agent.node_name)).get("status") or {}
    conditions = await agent.runtime.status()
    not_ready = dict(agent.not_ready)
    for condition in conditions:
        if condition.type == "RuntimeReady" and not condition.status:
            not_ready["container runtime"] = condition.message or condition.reason
    status = info.status(
        agent.node_name,
        agent.node_ip,
        agent.config,
        agent.machine,
        await agent.runtime.version(),
        await agent.runtime.list_images(),
        not_ready=not_ready,
        pressure=pressure,
        now=agent.clock.now(),
        old=told,
    )
    patch: dict[str, Any] = {key: value for key, value in status.items() if told.get(key) != value}
    if patch.get("addresses") and told.get("addresses"):
        # Merged by type: the old address of a type is replaced, so nothing is left over.
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


async def _either(first: Any, second: Any) -> None:
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
