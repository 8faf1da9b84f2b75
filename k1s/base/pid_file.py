"""A file that says which process does a job, good across restarts and reused pids.

Owns: its format {"pid", "started"} and the kernel's start time as proof. Called by: server/app, server/agent_process, cli.
Never does: end a process.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from k1s.base.files import read_if_exists, write_atomic


def write(path: Path) -> None:
    """This process does the job."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"pid": os.getpid(), "started": start_time(os.getpid())}).encode())


def running(path: Path) -> int:
    """The pid of the process that the file names, 0 if there is none (any more)."""
    content = read_if_exists(path)
    try:
        saved = json.loads(content or b"{}")
        pid, started = int(saved["pid"]), saved["started"]
    except (ValueError, KeyError, TypeError):
        return 0
    return pid if started and start_time(pid) == started else 0


def start_time(pid: int) -> str:
    """The kernel's start time of a process, "" if there is none: a pid alone may have been given anew."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The command in parentheses may hold spaces; the 22nd field is the 20th after it.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
