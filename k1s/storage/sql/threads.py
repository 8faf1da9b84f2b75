"""One thread for one connection.

Owns: the hop from the event loop to a blocking call and back. Called by: sql/backend, and its parts. Never does: run two calls
at once. A ThreadPoolExecutor of one thread would do the same at twice the price of a hop, which one-by-one writes feel.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, ParamSpec, TypeVar

from k1s.storage.errors import Closed

P = ParamSpec("P")
T = TypeVar("T")


class _Call(NamedTuple):
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]


class Worker:
    """Calls run in the order they were made. Their number is bounded by the callers, each of which waits for its own."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises Closed after `stop`, else what the function raises."""
        if self._stopped:
            raise Closed("the store is closed")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._calls.put(_Call(lambda: function(*args, **kwargs), loop, done))
        return await done

    def stop(self) -> None:
        """After the last call; waits for it."""
        self._stopped = True
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            result, fault = None, None
            try:
                result = call.function()
            except Exception as error:  # noqa: BLE001  (raised where the call was made)
                fault = error
            call.loop.call_soon_threadsafe(_settle, call.done, result, fault)


def _settle(done: asyncio.Future[Any], result: object, fault: Exception | None) -> None:
    if done.done():
        return  # nobody waits any more
    if fault is not None:
        done.set_exception(fault)
    else:
        done.set_result(result)
