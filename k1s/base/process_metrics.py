"""What Prometheus' client libraries say of every process: process_*.

Owns: `register`. Called by: server/app. Never does: work between two questions.
Source: prometheus.io, "Writing client libraries".
"""

from __future__ import annotations

import os
import resource
import time

from k1s.base.metrics import Gauge, Registry

_PAGE = os.sysconf("SC_PAGE_SIZE")


def register(registry: Registry) -> None:
    started = time.time() - _age()
    cpu = Gauge("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", (), _cpu)
    cpu.kind = "counter"
    registry.register(cpu)
    for name, text, read in (
        ("process_open_fds", "Number of open file descriptors.", _descriptors),
        ("process_max_fds", "Maximum number of open file descriptors.", _most_descriptors),
        ("process_resident_memory_bytes", "Resident memory size in bytes.", lambda: float(_memory()[1])),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", lambda: float(_memory()[0])),
        ("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", lambda: started),
    ):
        registry.gauge(name, text, read=read)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _descriptors() -> float:
    return float(len(os.listdir("/proc/self/fd")) - 1)


def _most_descriptors() -> float:
    return float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _memory() -> tuple[int, int]:
    """Bytes: virtual, resident."""
    with open("/proc/self/statm", "rb") as file:
        virtual, resident = file.read().split()[:2]
    return int(virtual) * _PAGE, int(resident) * _PAGE


def _age() -> float:
    """Seconds since this process began."""
    with open("/proc/self/stat", "rb") as file:
        began = int(file.read().rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began
