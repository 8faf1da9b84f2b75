"""The rows of a cluster that does nothing: memory, CPU, bytes to disk.

Called by: __main__. Never does: make the cluster idle; it waits until start-up work has settled.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench import processes

SETTLE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Idle:
    rss_mib: float
    pss_mib: float
    cpu_percent: float
    kilobytes_per_second: float
    seconds: float
    each: str


def measure(pids: list[int], seconds: float) -> Idle:
    time.sleep(SETTLE_SECONDS)
    before, began = [processes.use([pid]) for pid in pids], time.monotonic()
    time.sleep(seconds)
    after, spent = [processes.use([pid]) for pid in pids], time.monotonic() - began
    rss, pss = processes.memory_mib(pids)
    each = ", ".join(
        f"pid {pid}: {processes.memory_mib([pid])[0]:.0f} MiB, {100 * (b.cpu_seconds - a.cpu_seconds) / spent:.2f} %"
        for pid, a, b in zip(pids, before, after, strict=True)
    )
    return Idle(
        rss_mib=rss,
        pss_mib=pss,
        cpu_percent=100 * sum(b.cpu_seconds - a.cpu_seconds for a, b in zip(before, after, strict=True)) / spent,
        kilobytes_per_second=sum(b.written - a.written for a, b in zip(before, after, strict=True)) / spent / 1000,
        seconds=spent,
        each=each,
    )
