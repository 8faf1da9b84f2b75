"""GET /containerLogs/NS/POD/CONTAINER: which file that is, and when following it ends.

Owns: finding the container's instance and upstream's refusals. Called by: serving/app. Never does: read the file (serving/logs).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from k1s.agent.context import AgentContext
from k1s.agent.pods.registry import PodEntry
from k1s.agent.serving.exits import Exits
from k1s.agent.serving.logs import LogOptions, read_log
from k1s.api import errors
from k1s.base.http import Answer, Request, Stream
from k1s.cri.runtime import ContainerStatus


class PodLogs:
    """Answers log requests."""

    def __init__(self, agent: AgentContext, exits: Exits) -> None:
        self._agent, self._exits = agent, exits

    async def answer(self, request: Request, entry: PodEntry, container: str) -> Answer:
        options = LogOptions.from_request(request, self._agent.clock.now())
        status = entry.container(container, previous=options.previous)
        if status is None or (status.state == "created" and not options.previous):
            raise errors.bad_request(_refusal(entry, container, options.previous))
        path = self._path(entry, status)
        if not path.exists():
            raise errors.not_found("logs", "", f"{container} in pod {entry.name}: the log file was removed")
        return Stream(self._stream(path, options, status), content_type="text/plain")

    def _path(self, entry: PodEntry, status: ContainerStatus) -> Path:
        if status.log_path:
            return Path(status.log_path)
        directory = Path(entry.log_directory(self._agent.config.pod_log_dir))
        return directory / status.name / f"{status.attempt}.log"

    async def _stream(self, path: Path, options: LogOptions, status: ContainerStatus) -> AsyncIterator[bytes]:
        ended = asyncio.Event()
        follows = options.follow and status.state == "running"
        watcher = asyncio.create_task(self._watch(status.id, ended), name="log-end") if follows else None
        if not follows:
            ended.set()
        try:
            async for chunk in read_log(path, options, lambda: not ended.is_set(), ended):
                yield chunk
        finally:
            if watcher is not None:
                watcher.cancel()
                await asyncio.wait({watcher})

    async def _watch(self, container_id: str, ended: asyncio.Event) -> None:
        try:
            await self._exits.wait(container_id)
        finally:
            ended.set()


def _refusal(entry: PodEntry, container: str, previous: bool) -> str:
    if previous:
        return f'previous terminated container "{container}" in pod "{entry.name}" not found'
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    for kind in kinds:
        for status in entry.status.get(kind) or []:
            waiting = (status.get("state") or {}).get("waiting")
            if status.get("name") == container and waiting:
                reason = waiting.get("reason") or "unknown"
                if reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"):
                    detail = waiting.get("message") or reason
                    problem = "trying and failing to pull image" if "mage" in reason else detail
                    return f'container "{container}" in pod "{entry.name}" is waiting to start: {problem}'
                return f'container "{container}" in pod "{entry.name}" is waiting to start: {reason}'
    return f'container "{container}" in pod "{entry.name}" is waiting to start: ContainerCreating'
