"""One thread for one connection.

Owns: the hop from the event loop to a blocking call and back. Called by: sql/backend. Never does: run two calls at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from k1s.storage.errors import Closed

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Calls run in the order they were made; the thread starts with the first one."""

    def __init__(self, name: str) -> None:
        self._stopped = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises Closed after `stop`, else what the function raises."""
        if self._stopped:
            raise Closed("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def stop(self) -> None:
        """After the last call; waits for it."""
        self._stopped = True
        self._pool.shutdown(wait=True)
