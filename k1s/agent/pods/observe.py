"""What the runtime has of one pod, as Observed.

Owns: the lists and status calls, the last words of containers that ended, the short wait for a status that lags behind its event.
Called by: worker, manager. Never does: change anything.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from k1s.agent.pods.model import POD_UID, TERMINATION_POLICY, Observed
from k1s.base.backoff import Backoff
from k1s.base.clock import Clock
from k1s.cri.errors import NotFound
from k1s.cri.runtime import Container, ContainerStatus, Runtime, Sandbox

log = logging.getLogger("k1s.agent.pods")

_MESSAGE_LIMIT = 4096
_LOG_LIMIT, _LOG_LINES = 2048, 80
_MOST = 64
_LAG = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
# Many ends at once keep containerd's CRI part busy for seconds: then the loop looks again, ever more rarely.
_LAG_AGAIN = Backoff(initial=0.3, maximum=10.0)


class Observer:
    """Of one pod. A container that ended never changes, so its status is asked for once."""

    def __init__(self, uid: str, runtime: Runtime, clock: Clock, termination_log: Callable[[str, int], Path]) -> None:
        self._uid, self._runtime, self._clock = uid, runtime, clock
        self._termination_log = termination_log
        self._ended: dict[str, ContainerStatus] = {}
        self._boxes: dict[str, Sandbox] = {}
        self._expected: set[str] = set()
        self._late_looks = 0

    @property
    def again_in(self) -> float | None:
        """Seconds after which to look again, because an announced end does not show yet; None: no need."""
        return _LAG_AGAIN.delay(self._late_looks) if self._late_looks else None

    def expect_exit(self, identity: str) -> None:
        """An event said that it ended; the status may say so a moment later."""
        self._expected.add(identity)

    async def observe(self) -> Observed:
        """Raises RuntimeFailure."""
        observed = await self._once()
        for delay in _LAG if not self._late_looks else ():
            if not self._late(observed):
                break
            await self._clock.sleep(delay)
            observed = await self._once()
        late = self._late(observed)
        self._late_looks = self._late_looks + 1 if late else 0
        # What was not seen yet may have been made a moment ago: its exit is still to be expected.
        seen = {c.id for c in observed.containers} | {s.id for s in observed.sandboxes}
        self._expected = late | ({i for i in self._expected if i not in seen} if len(self._expected) < _MOST else set())
        return observed

    def _late(self, observed: Observed) -> set[str]:
        late = {c.id for c in observed.containers if c.state == "running"} & self._expected
        return late | ({s.id for s in observed.sandboxes if s.ready} & self._expected)

    async def _once(self) -> Observed:
        labels: Mapping[str, str] = {POD_UID: self._uid}
        boxes, listed = await asyncio.gather(self._runtime.list_pod_sandboxes(labels), self._runtime.list_containers(labels))
        # Newest first; an attempt decides between two of the same moment.
        boxes.sort(key=lambda s: (s.created_at, s.attempt), reverse=True)
        listed.sort(key=lambda c: (c.created_at, c.attempt), reverse=True)
        details = await asyncio.gather(*(self._box(box) for box in boxes))
        statuses = await asyncio.gather(*(self._status(container) for container in listed))
        self._ended = {s.id: s for s in statuses if s is not None and s.state == "exited"}
        return Observed(tuple(details), tuple(s for s in statuses if s is not None))

    async def _box(self, box: Sandbox) -> Sandbox:
        """With its addresses, which never change: they are asked for once."""
        if not box.ready:
            return box
        known = self._boxes.get(box.id)
        if known is None:
            try:
                known = await self._runtime.pod_sandbox_status(box.id)
            except NotFound:
                return dataclasses.replace(box, ready=False)
            if known.ready:
                self._boxes = {box.id: known}
        return known

    async def _status(self, container: Container) -> ContainerStatus | None:
        if container.id in self._ended:
            return self._ended[container.id]
        try:
            status = await self._runtime.container_status(container.id)
        except NotFound:
            return None  # removed meanwhile
        if status.state == "exited":
            return dataclasses.replace(status, message=await asyncio.to_thread(self._last_words, status))
        return status

    def _last_words(self, status: ContainerStatus) -> str:
        """terminationMessagePath's content, or the end of the log where the policy says so and it failed."""
        text = _tail(self._termination_log(status.name, status.attempt), _MESSAGE_LIMIT)
        if not text and status.annotations.get(TERMINATION_POLICY) == "FallbackToLogsOnError" and status.exit_code != 0:
            lines = _tail(Path(status.log_path), _LOG_LIMIT * 4).splitlines(keepends=True)[-_LOG_LINES:]
            text = "".join(_log_text(line) for line in lines)[-_LOG_LIMIT:]
        # The runtime's own message tells why a container could not start.
        return text or (status.message if status.reason in ("StartError", "ContainerCannotRun") else "")


def _tail(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - limit, 0))
            return file.read().decode(errors="replace")
    except OSError:
        return ""  # no such file: the container left no message


def _log_text(line: str) -> str:
    """The text of a CRI log line `time stream tag text`; tag P: the line goes on, or ended without a newline."""
    parts = line.split(" ", 3)
    if len(parts) < 4:
        return line
    return parts[3].removesuffix("\n") if parts[2] == "P" else parts[3]
