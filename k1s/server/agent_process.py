"""The agent beside the server: one supervised child process.

Owns: starting it, adopting one that outlived a killed server, restarting it when it dies, ending it with the server.
Called by: server/app. Never does: talk to it; the agent is a client like any other.

The agent runs in a session of its own, so a killed server takes nothing with it. Its process is watched through a pidfd.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from k1s.base.backoff import Backoff
from k1s.base.clock import Clock
from k1s.base.files import read_if_exists, write_atomic
from k1s.base.pid_file import start_time

log = logging.getLogger("k1s.server.agent")

STOP_SECONDS = 15.0
# An agent that lived this long had no trouble starting: its next death is a new story.
_STEADY_SECONDS = 60.0
_RESTART = Backoff(initial=0.2, maximum=30.0)
# What the server was told, of which its agent must not hear: it joins this server, with the token in its file.
_SERVERS_OWN = frozenset(("K1S_URL", "K1S_TOKEN", "K1S_TOKEN_FILE"))


class AgentProcess:
    """`argv` is the whole command; `pid_file` remembers the child across servers."""

    def __init__(self, argv: Sequence[str], pid_file: Path, clock: Clock) -> None:
        self._argv = list(argv)
        self._pid_file = pid_file
        self._clock = clock

    async def run(self, ready: Callable[[], None]) -> None:
        """Keep an agent running; on cancellation end it and return once it has gone."""
        failures = 0
        while True:
            began = self._clock.monotonic()
            child = self._adopt() or self._spawn()
            ready()
            try:
                await child.wait()
            except asyncio.CancelledError:
                await child.stop()
                self._pid_file.unlink(missing_ok=True)
                raise
            self._pid_file.unlink(missing_ok=True)
            failures = 1 if self._clock.monotonic() - began > _STEADY_SECONDS else failures + 1
            delay = _RESTART.delay(failures)
            log.warning("the agent ended (%s); restarting it in %.1f s", child.outcome(), delay)
            await self._clock.sleep(delay)

    def _adopt(self) -> _Child | None:
        """An agent that is running already with the same command; one with another command is told to end."""
        content = read_if_exists(self._pid_file)
        if content is None:
            return None
        try:
            saved = json.loads(content)
            pid, started, argv = int(saved["pid"]), saved["started"], saved["argv"]
        except (ValueError, KeyError, TypeError):
            self._pid_file.unlink(missing_ok=True)
            return None
        if start_time(pid) != started:
            return None
        if argv != self._argv:
            log.info("the running agent has other options; replacing it")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            return None
        try:
            child = _Child(pid, None)
        except ProcessLookupError:
            return None  # it ended just now
        log.info("found the agent running (pid %d)", pid)
        return child

    def _spawn(self) -> _Child:
        environment = {name: value for name, value in os.environ.items() if name not in _SERVERS_OWN}
        process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, start_new_session=True, env=environment)
        note = {"pid": process.pid, "started": start_time(process.pid), "argv": self._argv}
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._pid_file, json.dumps(note).encode())
        return _Child(process.pid, process)


class _Child:
    """A process that is ours or was our predecessor's."""

    def __init__(self, pid: int, process: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self._process = process
        self._pidfd = os.pidfd_open(pid)

    async def wait(self) -> None:
        """Return when it has ended."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ended.done():
                ended.set_result(None)

        loop.add_reader(self._pidfd, wake)
        try:
            await ended
        finally:
            loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._process is not None:
            self._process.wait()

    async def stop(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.wait()
        except TimeoutError:
            log.warning("the agent did not end within %.0f s; killing it", STOP_SECONDS)
            self._signal(signal.SIGKILL)
            await self.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and was not ours to be kept as a zombie
            signal.pidfd_send_signal(self._pidfd, number)

    def outcome(self) -> str:
        if self._process is None:
            return "exit code unknown"
        code = self._process.returncode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
