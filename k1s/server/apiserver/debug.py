"""/debug: what the server is doing right now, for administrators, with --profiling only.

Owns: `paths`. Called by: server/app. Never does: authorize (no role but cluster-admin names these paths), profile by itself.
"""

from __future__ import annotations

import asyncio
import gc
import io
import sys
import threading
import traceback
from collections import Counter

from k1s.base.http import Handler, Request, Response

_TEXT = "text/plain; charset=utf-8"
# Kinds of objects that the page on memory names.
_MOST = 40


def paths() -> dict[str, Handler]:
    return {"/debug/tasks": _tasks, "/debug/pprof/goroutine": _tasks, "/debug/threads": _threads, "/debug/memory": _memory}


async def _tasks(_: Request) -> Response:
    out = io.StringIO()
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        task.print_stack(file=out)
    return Response(200, out.getvalue().encode(), _TEXT)


async def _threads(_: Request) -> Response:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [
        f"{names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}" for ident, frame in sys._current_frames().items()
    ]
    return Response(200, "\n".join(parts).encode(), _TEXT)


async def _memory(_: Request) -> Response:
    counts = await asyncio.to_thread(lambda: Counter(type(obj).__qualname__ for obj in gc.get_objects()))
    with open("/proc/self/status") as file:
        lines = [line.rstrip() for line in file if line.startswith("Vm")]
    lines += ["", *(f"{count:>9} {name}" for name, count in counts.most_common(_MOST))]
    return Response(200, ("\n".join(lines) + "\n").encode(), _TEXT)
