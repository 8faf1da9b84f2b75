"""Kernel settings of the network, with a memory of what they were.

Owns: writing below /proc/sys/net and the file that remembers former values. Called by: setup, teardown.
Never does: change a value that is right already, restore what somebody else has changed since.
"""

from __future__ import annotations

import json
from pathlib import Path

_ROOT = Path("/proc/sys")


def write(settings: dict[str, str], memory: Path | None = None) -> None:
    """Set each `net/...` path. With `memory`, first values are kept there for `restore`."""
    former: dict[str, list[str]] = _read_memory(memory)
    for name, value in settings.items():
        path = _ROOT / name
        now = path.read_text().strip()
        if now != value:
            former.setdefault(name, [now, value])
            if memory is not None:
                memory.parent.mkdir(parents=True, exist_ok=True)
                memory.write_text(json.dumps(former))
            path.write_text(value)


def restore(memory: Path) -> None:
    """Put back what `write` changed, where it still is what `write` set; then forget."""
    for name, (before, ours) in _read_memory(memory).items():
        path = _ROOT / name
        if path.exists() and path.read_text().strip() == ours:
            path.write_text(before)
    memory.unlink(missing_ok=True)


def _read_memory(memory: Path | None) -> dict[str, list[str]]:
    if memory is None or not memory.exists():
        return {}
    found: dict[str, list[str]] = json.loads(memory.read_text())
    return found
