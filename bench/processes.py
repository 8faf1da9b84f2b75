"""What a set of processes costs, out of /proc: memory, CPU time, bytes sent to the disk.

Called by: idle, plane. Never does: start or end a process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Use:
    """Sums over the processes. `written` is bytes sent towards the disk (write_bytes), not bytes given to write()."""

    cpu_seconds: float
    written: int


def memory_mib(pids: list[int]) -> tuple[float, float]:
    """Resident and proportional set size, summed."""
    rss = pss = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Rss":
                rss += int(value.split()[0])
            elif name == "Pss":
                pss += int(value.split()[0])
    return rss / 1024, pss / 1024


def use(pids: list[int]) -> Use:
    cpu, written = 0.0, 0
    for pid in pids:
        # The name in parentheses may hold blanks, so count from its end: utime and stime are fields 14 and 15.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu += (int(fields[11]) + int(fields[12])) / _TICK
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                written += int(line.split()[1])
    return Use(cpu, written)


def family(pid: int) -> list[int]:
    """The process and those descendants that run the same program (the agent, but not containerd)."""
    program = os.readlink(f"/proc/{pid}/exe")
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "exe") == program:
                    stat = (entry / "stat").read_text().rpartition(")")[2].split()
                    parents[int(entry.name)] = int(stat[1])
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended meanwhile, is a kernel thread, or not ours
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found
