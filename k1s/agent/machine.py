"""What this machine is: read once from /proc, /sys and /etc.

Owns: Machine: capacity and what stands in nodeInfo. Called by: app.py, node/register. Never does: change anything; guess load.
"""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass, field
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "riscv64": "riscv64"}


@dataclass(frozen=True, slots=True)
class Machine:
    """Sizes in bytes."""

    hostname: str
    cpus: int
    memory: int
    ephemeral_storage: int
    hugepages: dict[str, int] = field(default_factory=dict)
    architecture: str = "amd64"
    kernel: str = ""
    os_image: str = ""
    machine_id: str = ""
    boot_id: str = ""
    system_uuid: str = ""


def inspect(data_dir: Path) -> Machine:
    """The machine, with the storage of the file system that holds `data_dir`."""
    directory = data_dir
    while not directory.exists():
        directory = directory.parent
    disk = os.statvfs(directory)
    return Machine(
        hostname=socket.gethostname().lower(),
        cpus=len(os.sched_getaffinity(0)),
        memory=_memory_total(),
        ephemeral_storage=disk.f_blocks * disk.f_frsize,
        hugepages=_hugepages(),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        kernel=platform.release(),
        os_image=_os_image(),
        machine_id=_first("/etc/machine-id", "/var/lib/dbus/machine-id"),
        boot_id=_first("/proc/sys/kernel/random/boot_id"),
        system_uuid=_first("/sys/class/dmi/id/product_uuid", "/proc/device-tree/serial-number", "/etc/machine-id"),
    )


def _memory_total() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemTotal")


def _hugepages() -> dict[str, int]:
    """resource name -> bytes, for each page size the kernel knows."""
    out: dict[str, int] = {}
    root = Path("/sys/kernel/mm/hugepages")
    if not root.is_dir():
        return out
    for entry in sorted(root.iterdir()):
        kib = int(entry.name.removeprefix("hugepages-").removesuffix("kB"))
        size = f"{kib // 1048576}Gi" if kib % 1048576 == 0 else f"{kib // 1024}Mi" if kib % 1024 == 0 else f"{kib}Ki"
        out[f"hugepages-{size}"] = int((entry / "nr_hugepages").read_text()) * kib * 1024
    return out


def _os_image() -> str:
    try:
        for line in Path("/etc/os-release").read_text().splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip().strip('"')
    except OSError:
        pass  # a system without os-release is just Linux
    return "Linux"


def _first(*paths: str) -> str:
    for path in paths:
        try:
            text = Path(path).read_text(errors="replace").strip().strip("\0")
        except OSError:
            continue
        if text:
            return text
    return ""
