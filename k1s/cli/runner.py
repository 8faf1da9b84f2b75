"""How a long-running verb runs: one event loop, ended in order by SIGTERM or SIGINT.

Owns: the loop, the signals, the settings of garbage collector and allocator. Called by: cli/server, cli/agent.
Never does: know what runs.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Coroutine
from typing import Any

from k1s.base.process import release_free_memory

# After a burst the allocator holds a third of the process for nothing; longer than a burst's pauses.
_TIDY_SECONDS = 60.0


def run_until_signal(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop; SIGTERM and SIGINT cancel it, which is an orderly end."""
    import uvloop

    # What is loaded now stays; looking at it in every collection would cost idle CPU.
    gc.set_threshold(20_000, 20, 50)
    uvloop.run(_guarded(main))


async def _guarded(main: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    tidy = asyncio.create_task(_tidy(), name="tidy")
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            raise
    finally:
        tidy.cancel()


async def _tidy() -> None:
    while True:
        await asyncio.sleep(_TIDY_SECONDS)
        release_free_memory()
