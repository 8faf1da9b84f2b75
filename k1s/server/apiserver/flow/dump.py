"""/debug/api_priority_and_fairness: what stands where right now, as text.

Owns: the pages. Called by: flow/app (paths). Never does: authorize (RBAC on non-resource URLs does).
Source: apiserver/pkg/util/flowcontrol/dump.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k1s.base.http import Request, Response
from k1s.server.apiserver.flow.pool import Pool

_ROOT = "/debug/api_priority_and_fairness/"
_LEVELS = (
    "PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, "
    "DispatchedRequests, RejectedRequests, TimedoutRequests, CancelledRequests"
)


def pages(pool: Pool) -> dict[str, Callable[[Request], Any]]:
    async def levels(_: Request) -> Response:
        return _text([_LEVELS, *(_level(pool, name) for name in sorted(pool.levels))])

    return {f"{_ROOT}dump_priority_levels": levels}


def _level(pool: Pool, name: str) -> str:
    level = pool.levels[name]
    if level.exempt:
        return ", ".join([name, *["<none>"] * 9])
    quiescing = not level.nominal and not level.maximum
    values = (
        level.active_queues,
        _bool(level.idle),
        _bool(quiescing),
        level.waiting,
        level.executing,
        level.dispatched,
        level.rejected,
        level.timed_out,
        0,
    )
    return ", ".join([name, *map(str, values)])


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _text(lines: list[str]) -> Response:
    return Response(200, "".join(f"{line}\n" for line in lines).encode(), "text/plain; charset=utf-8")
