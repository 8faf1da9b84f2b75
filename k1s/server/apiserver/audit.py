"""Who did what, one line per request: audit.k8s.io/v1 events of level Metadata.

Owns: AuditLog. Called by: server/app, which wraps the API server's handler in it when a log file is named. Off by default.
Never does: policies, request or response bodies (Secrets would end up in the log), webhooks.

There is no queue: a line is handed to the operating system before the answer leaves. The file is rotated by size and only
so many old ones are kept; a disk that is full costs lines (counted in `lost`), never answers.
"""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path
from typing import Any

import orjson

from k1s.api.catalog import Catalog
from k1s.api.errors import ApiError
from k1s.base.clock import Clock, rfc3339_micro
from k1s.base.http import Answer, Handler, Request, Response, Stream
from k1s.server.apiserver import request_info
from k1s.server.apiserver.attributes import RequestInfo, UserInfo

log = logging.getLogger("k1s.apiserver.audit")

_READS = ("get", "list", "watch", "head", "options")


class AuditLog:
    """`reads`: log reads too; else only what changes something, and what was refused."""

    def __init__(
        self, path: Path, catalog: Catalog, clock: Clock, *, reads: bool = False, max_bytes: int = 100 << 20, keep: int = 5
    ) -> None:
        self._path, self._catalog, self._clock = path, catalog, clock
        self._reads, self._max_bytes, self._keep = reads, max_bytes, keep
        self._file = -1
        self._size = 0
        self.lost = 0

    def wrap(self, handler: Handler) -> Handler:
        """The same handler, audited. In-process callers are not: their writes carry their cause in the store."""

        async def audited(request: Request) -> Answer:
            if "user" in request.context:
                return await handler(request)
            began = self._clock.now()
            answer = await handler(request)
            self._note(request, answer, began)
            return answer

        return audited

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _note(self, request: Request, answer: Answer, began: float) -> None:
        try:
            info = request_info.parse(request, self._catalog)
        except ApiError:
            info = RequestInfo(False, request.path, request.method.lower())
        code = answer.status if isinstance(answer, Response | Stream) else 101
        if not self._reads and info.verb in _READS and code not in (401, 403):
            return
        line = orjson.dumps(self._event(request, info, code, began), option=orjson.OPT_APPEND_NEWLINE)
        try:
            self._write(line)
        except OSError as error:
            if not self.lost:
                log.error("audit lines are being lost: %s", error)
            self.lost += 1

    def _event(self, request: Request, info: RequestInfo, code: int, began: float) -> dict[str, Any]:
        user = request.context.get("user")
        event: dict[str, Any] = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": str(uuid.uuid4()),
            "stage": "ResponseComplete",
            "requestURI": request.raw_path or request.path,
            "verb": info.verb,
            "user": _user(user) if isinstance(user, UserInfo) else {},
            "sourceIPs": [request.remote] if request.remote else [],
            "userAgent": request.headers.get("user-agent", "")[:1024],
            "responseStatus": {"metadata": {}, "code": code},
            "requestReceivedTimestamp": rfc3339_micro(began),
            "stageTimestamp": rfc3339_micro(self._clock.now()),
        }
        if request.context.get("annotations"):
            event["annotations"] = dict(request.context["annotations"])
        if info.is_resource:
            reference = {
                "resource": info.plural,
                "namespace": info.namespace,
                "name": info.name,
                "apiGroup": info.group,
                "apiVersion": info.version,
                "subresource": info.subresource,
            }
            event["objectRef"] = {key: value for key, value in reference.items() if value}
        return event

    def _write(self, line: bytes) -> None:
        if self._file < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._size = os.fstat(self._file).st_size
        if self._size and self._size + len(line) > self._max_bytes:
            self._rotate()
            self._write(line)
            return
        os.write(self._file, line)
        self._size += len(line)

    def _rotate(self) -> None:
        self.close()
        for number in range(self._keep - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))


def _user(user: UserInfo) -> dict[str, Any]:
    out: dict[str, Any] = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        out["uid"] = user.uid
    if user.extra:
        out["extra"] = {key: list(values) for key, values in user.extra.items()}
    return out
