"""Tasks that never get lost.

Owns: `Supervisor`, a TaskGroup whose members are named, say when they are ready, and whose unexpected end is an error.
Called by: every app.py. Never does: restart a failed part silently (the process's supervisor restarts processes).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any


class UnexpectedExit(RuntimeError):
    """An eternal task returned although nobody stopped it."""


class Supervisor:
    """`async with Supervisor() as tasks:` runs named tasks; the first failure cancels the rest and is raised.

    `start(name, fn)` runs `fn(ready)` and returns when it called `ready()`; `spawn(name, coro)` does not wait.
    `stop()` ends the block in an orderly way: all tasks are cancelled and the block returns normally.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def __aenter__(self) -> Supervisor:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self.stop()
        await self._group.__aexit__(kind, error, trace)
        return None

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, None], *, eternal: bool = True) -> asyncio.Task[None]:
        """Run in the background. An eternal task that returns is an error, as is any exception."""
        task = self._group.create_task(self._guard(name, coroutine, eternal), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def start(self, name: str, run: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Run `run(ready)` in the background and return once it called `ready()`; raises what it raised before."""
        ready = asyncio.Event()

        async def body() -> None:
            await run(ready.set)

        task = self.spawn(name, body())
        waiter = asyncio.ensure_future(ready.wait())
        try:
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        if task.done() and not ready.is_set():
            await task

    def stop(self) -> None:
        """Cancel every task; the `async with` block then ends without an error."""
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()

    async def _guard(self, name: str, coroutine: Coroutine[Any, Any, None], eternal: bool) -> None:
        await coroutine
        if eternal and not self._stopping:
            raise UnexpectedExit(f"{name} ended although nobody stopped it")
