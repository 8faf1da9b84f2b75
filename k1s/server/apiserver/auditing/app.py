"""The audit log: around the API server's handler, and told by it who asks.

Owns: Audit, `open_audit`. Called by: server/app; apiserver/app tells `authenticated` through Request.context["audit"].
Never does: note calls from inside (their writes carry their cause in the store), make a request wait for the disk.
Source: apiserver/pkg/endpoints/filters/audit.go. Off unless a log file is named.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from k1s.api.catalog import Catalog
from k1s.api.errors import ApiError
from k1s.base.clock import Clock
from k1s.base.http import Answer, Handler, RawUpgrade, Request, Response, Stream, WebSocketUpgrade
from k1s.base.metrics import Registry
from k1s.server.apiserver import request_info
from k1s.server.apiserver.attributes import ANONYMOUS, RequestInfo, UserInfo
from k1s.server.apiserver.audit_id import audit_id
from k1s.server.apiserver.auditing.file import LogFile
from k1s.server.apiserver.auditing.policy import (
    COMPLETE,
    DEFAULT,
    METADATA,
    NONE,
    RECEIVED,
    REQUEST,
    REQUEST_RESPONSE,
    STARTED,
    Policy,
    PolicyError,
    Verdict,
    parse,
)
from k1s.server.apiserver.auditing.record import Noted, Record

# Why a user may (what the authorizers say), for the annotation.
Reason = Callable[[UserInfo, RequestInfo], str]


class Audit:
    """`wrap` the handler. Without a policy of a person's own, refusals are noted besides what DEFAULT says."""

    def __init__(
        self, file: LogFile, catalog: Catalog, clock: Clock, policy: Policy | None = None, reason: Reason | None = None
    ) -> None:
        self.file, self._catalog, self._clock = file, catalog, clock
        self._policy, self._own = policy or DEFAULT, policy is not None
        self._reason = reason
        self.events = 0

    def register(self, metrics: Registry) -> None:
        """apiserver_audit_*."""
        for name, text, read in (
            ("apiserver_audit_event_total", "Audit events.", lambda: float(self.events)),
            ("apiserver_audit_error_total", "Audit events that were lost.", lambda: float(self.file.lost)),
        ):
            metrics.gauge(name, text, read=read).kind = "counter"

    def wrap(self, handler: Handler) -> Handler:
        async def audited(request: Request) -> Answer:
            if "user" in request.context:
                return await handler(request)
            record = self._record(request)
            return self._answered(record, await handler(request))

        return audited

    async def close(self) -> None:
        await self.file.close()

    def authenticated(self, record: Record, user: UserInfo) -> None:
        """Who asks is known: so is how much is noted."""
        record.user = user
        record.verdict = verdict = self._policy.verdict(user, record.info)
        if verdict.level in (REQUEST, REQUEST_RESPONSE):
            record.noted = Noted(record.request.body)
            record.request.body = record.noted
        self._note(record, RECEIVED)

    def _record(self, request: Request) -> Record:
        try:
            info = request_info.parse(request, self._catalog)
        except ApiError:
            info = RequestInfo(False, request.path, request.method.lower())
        record = Record(request, info, self._clock.now())
        audit_id(request)
        request.context["audit"] = lambda user: self.authenticated(record, user)
        return record

    def _answered(self, record: Record, answer: Answer) -> Answer:
        code = answer.status if isinstance(answer, Response | Stream) else 101
        if record.verdict is None:
            # Nobody was authenticated: upstream notes such a failure as anonymous, without asking what for.
            record.verdict = self._policy.verdict(ANONYMOUS, record.info)
        if not self._own and record.verdict.level == NONE and code in (401, 403):
            record.verdict = Verdict(METADATA, frozenset((RECEIVED, STARTED)))
        if isinstance(answer, Stream):
            self._note(record, STARTED, answer)
            before = answer.ended

            def ended() -> None:
                if before is not None:
                    before()
                self._note(record, COMPLETE, answer)

            answer.ended = ended
        elif isinstance(answer, Response):
            self._note(record, COMPLETE, answer)
        else:
            self._note(record, STARTED, answer)
            return replace(answer, serve=self._served(record, answer))
        return answer

    def _served(self, record: Record, answer: RawUpgrade | WebSocketUpgrade) -> Callable[[Any], Awaitable[None]]:
        async def serve(connection: Any) -> None:
            try:
                await answer.serve(connection)
            finally:
                self._note(record, COMPLETE, answer)

        return serve

    def _note(self, record: Record, stage: str, answer: Answer | None = None) -> None:
        verdict = record.verdict
        if verdict is None or verdict.level == NONE or stage in verdict.omit_stages:
            return
        user = record.request.context.get("user")
        reason = self._reason(user, record.info) if self._reason is not None and isinstance(user, UserInfo) and answer else ""
        event = record.event(stage, self._clock.now(), answer, reason)
        self.events += 1
        self.file.write(_line(event))


def _line(event: dict[str, Any]) -> bytes:
    """What a client sends must not keep its request out of the log: bytes that are no text, a body nested too deep."""
    try:
        return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        bodies = ("requestObject", "responseObject")
        kept = {key: value for key, value in event.items() if key not in bodies}
        if len(kept) < len(event):
            kept["annotations"] = {**kept.get("annotations", {}), "audit.k8s.io/truncated": "true"}
        return json.dumps(kept, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def open_policy(path: str) -> Policy | None:
    """The policy in a file; None without one. Raises PolicyError."""
    if not path:
        return None
    import yaml

    try:
        return parse(yaml.safe_load(Path(path).read_text()), path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PolicyError(f"{path}: {' '.join(str(error).split())}") from None
