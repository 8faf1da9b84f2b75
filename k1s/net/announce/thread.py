"""The announcer in a thread with an event loop of its own.

Owns: starting, reaching and ending it. Called by: agent/network/announce. Never does: anything of its work (announcer).
Why a thread: an agent that is busy must not look dead. Planning all rules of thousands of Services holds its loop for longer
than other nodes wait for a heartbeat, on a small board.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from k1s.net.announce.announcer import Announcer


class AnnouncerThread:
    """`run` it; the other methods may be called before that and meanwhile, from the loop that runs it."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending = False

    def offer(self, addresses: Collection[str], every: Collection[str], nodes: Collection[str]) -> None:
        self._call(lambda: self._announcer.offer(addresses, every, nodes))

    def set_key(self, key: bytes) -> None:
        self._call(lambda: self._announcer.set_key(key))

    @property
    def held(self) -> dict[str, str]:
        return self._announcer.held

    async def run(self, ready: Callable[[], None]) -> None:
        """Until cancelled; raises what the announcer raises. Returns when the thread has ended."""
        here = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="k1s-announce") as thread:
            ended = here.run_in_executor(thread, lambda: asyncio.run(self._body(lambda: here.call_soon_threadsafe(ready))))
            try:
                await asyncio.shield(ended)
            finally:
                # Either this sees the loop, or the thread, which comes to it later, sees that it is to end.
                self._ending = True
                if self._loop is not None and self._task is not None and not ended.done():
                    self._loop.call_soon_threadsafe(self._task.cancel)
                await asyncio.wait([ended])

    async def _body(self, ready: Callable[[], object]) -> None:
        self._task = asyncio.ensure_future(self._announcer.run())
        self._loop = asyncio.get_running_loop()
        if self._ending:
            self._task.cancel()
        ready()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    def _call(self, change: Callable[[], None]) -> None:
        if self._loop is None:
            change()
        else:
            self._loop.call_soon_threadsafe(change)
