"""What runs for long: watches, and connections into pods. How many there are, and how many one user may have.

Owns: LongRunning. Called by: apiserver/app. Never does: end one (the listener and the watch timers do).
They hold no seat of priority and fairness (a seat is for a moment), so they have bounds of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from k1s.api.errors import too_many_requests
from k1s.base.http import Answer, RawUpgrade, Stream, WebSocketUpgrade
from k1s.server.apiserver.attributes import RequestInfo, UserInfo

# Of one user at the same time. An agent watches once per object that its pods refer to.
MAX_WATCHES = 8192
# exec, attach, port-forward, followed logs, proxied streams.
MAX_STREAMS = 256
# Seconds a watcher may take to accept what it is sent; then it is cut off, and resumes from what it saw.
WATCH_PATIENCE = 60.0


class LongRunning:
    """`running`: labels of request_metrics -> how many."""

    def __init__(self, max_watches: int = MAX_WATCHES, max_streams: int = MAX_STREAMS) -> None:
        self._most = {True: max_watches, False: max_streams}
        self._users: dict[tuple[str, bool], int] = {}
        self.running: dict[tuple[str, ...], int] = {}

    def check(self, info: RequestInfo, user: UserInfo) -> None:
        """Raises ApiError 429 when the user has as many as it may."""
        watch = info.verb == "watch"
        if self._users.get((user.name, watch), 0) >= self._most[watch]:
            raise too_many_requests(
                f"too many {'watches' if watch else 'streams'} of user {user.name!r}, please try again later."
            )

    @contextmanager
    def asking(self, info: RequestInfo, user: UserInfo) -> Iterator[None]:
        """While it has no answer: a pod may keep its caller waiting for ever, and that holds connections as well."""
        key = (user.name, info.verb == "watch")
        self._users[key] = self._users.get(key, 0) + 1
        try:
            yield
        finally:
            self._leave(key)

    def follow(self, answer: Answer, info: RequestInfo, user: UserInfo, labels: tuple[str, ...]) -> Answer:
        """The same answer, counted until it ends."""
        if isinstance(answer, Stream):
            if info.verb == "watch":
                answer.patience = WATCH_PATIENCE
            answer.ended = self._begin(info, user, labels)
        elif isinstance(answer, WebSocketUpgrade | RawUpgrade):
            return replace(answer, serve=self._counted(answer.serve, info, user, labels))
        return answer

    def _counted(
        self, serve: Callable[[Any], Awaitable[None]], info: RequestInfo, user: UserInfo, labels: tuple[str, ...]
    ) -> Callable[[Any], Awaitable[None]]:
        async def counted(connection: Any) -> None:
            ended = self._begin(info, user, labels)
            try:
                await serve(connection)
            finally:
                ended()

        return counted

    def _begin(self, info: RequestInfo, user: UserInfo, labels: tuple[str, ...]) -> Callable[[], None]:
        key = (user.name, info.verb == "watch")
        self._users[key] = self._users.get(key, 0) + 1
        self.running[labels] = self.running.get(labels, 0) + 1
        done = False

        def ended() -> None:
            nonlocal done
            if done:
                return
            done = True
            self.running[labels] -= 1
            self._leave(key)

        return ended

    def _leave(self, key: tuple[str, bool]) -> None:
        left = self._users[key] - 1
        if left:
            self._users[key] = left
        else:
            del self._users[key]
