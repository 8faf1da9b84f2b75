"""One request as audit events.

Owns: Record: what is known of it so far, and its event at a stage; Noted, a body that is kept as it is read.
Called by: auditing/app. Never does: decide the level (policy), write. Credentials are in headers, which no event has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from k1s.base.clock import rfc3339_micro
from k1s.base.http import Answer, BodyReader, Request, Response, Stream
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.auditing.policy import COMPLETE, REQUEST, REQUEST_RESPONSE, Verdict
from k1s.server.apiserver.impersonation import IMPERSONATOR

_LONGEST_AGENT = 1024


class Noted:
    """A body whose bytes are kept once they are read."""

    def __init__(self, body: BodyReader) -> None:
        self._body = body
        self.data = b""

    async def read(self, limit: int) -> bytes:
        self.data = await self._body.read(limit)
        return self.data

    def chunks(self) -> AsyncIterator[bytes]:
        return self._body.chunks()


class Record:
    """`verdict` and `user` are set once authentication has told who asks."""

    def __init__(self, request: Request, info: RequestInfo, began: float) -> None:
        self.request, self.info, self.began = request, info, began
        self.verdict: Verdict | None = None
        self.user: UserInfo | None = None
        self.noted: Noted | None = None

    def event(self, stage: str, now: float, answer: Answer | None = None, reason: str = "") -> dict[str, Any]:
        assert self.verdict is not None
        request, info, verdict = self.request, self.info, self.verdict
        context = request.context
        user = context.get(IMPERSONATOR) or context.get("user") or self.user
        event: dict[str, Any] = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": verdict.level,
            "auditID": context.get("audit_id", ""),
            "stage": stage,
            "requestURI": request.raw_path or request.path,
            "verb": info.verb,
            "user": _user(user) if isinstance(user, UserInfo) else {},
        }
        if IMPERSONATOR in context:
            event["impersonatedUser"] = _user(context["user"])
        event["sourceIPs"] = [request.remote] if request.remote else []
        event["userAgent"] = request.headers.get("user-agent", "")[:_LONGEST_AGENT]
        if info.is_resource:
            event["objectRef"] = self._reference()
        if answer is not None:
            code = answer.status if isinstance(answer, Response | Stream) else 101
            event["responseStatus"] = _status(answer, code)
            self._bodies(event, verdict, answer, stage)
            notes = dict(context.get("annotations") or ())
            if context.get("user") is not None:
                notes["authorization.k8s.io/decision"] = "forbid" if code == 403 else "allow"
                notes["authorization.k8s.io/reason"] = reason
            event["annotations"] = notes
        event["requestReceivedTimestamp"] = rfc3339_micro(self.began)
        event["stageTimestamp"] = rfc3339_micro(now)
        return event

    def _bodies(self, event: dict[str, Any], verdict: Verdict, answer: Answer, stage: str) -> None:
        omit = verdict.omit_managed_fields
        if verdict.level in (REQUEST, REQUEST_RESPONSE) and self.noted is not None and self.noted.data:
            sent = _decoded(self.noted.data, omit)
            if sent is not None:
                event["requestObject"] = sent
        if verdict.level == REQUEST_RESPONSE and isinstance(answer, Response) and stage == COMPLETE:
            if answer.content_type.startswith("application/json"):
                told = _decoded(answer.body, omit)
                if told is not None:
                    event["responseObject"] = told

    def _reference(self) -> dict[str, str]:
        info = self.info
        pairs = {
            "resource": info.plural,
            "namespace": info.namespace,
            "name": info.name,
            "apiGroup": info.group,
            "apiVersion": info.version,
            "subresource": info.subresource,
        }
        return {key: value for key, value in pairs.items() if value}


def _status(answer: Answer, code: int) -> dict[str, Any]:
    """Of a refusal the whole Status but its details, as upstream."""
    if code >= 400 and isinstance(answer, Response):
        told = _decoded(answer.body, False)
        if isinstance(told, dict) and told.get("kind") == "Status":
            kept = {key: told[key] for key in ("status", "message", "reason", "details") if key in told}
            return {"metadata": {}, **kept, "code": code}
    return {"metadata": {}, "code": code}


def _decoded(data: bytes, omit_managed_fields: bool) -> Any:
    """None for what is no JSON (YAML, protobuf, compressed answers)."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if omit_managed_fields and isinstance(value, dict):
        for obj in (value, *(value.get("items") or ())):
            if isinstance(obj, dict) and isinstance(obj.get("metadata"), dict):
                obj["metadata"].pop("managedFields", None)
    return value


def _user(user: UserInfo) -> dict[str, Any]:
    out: dict[str, Any] = {"username": user.name}
    if user.uid:
        out["uid"] = user.uid
    out["groups"] = list(user.groups)
    if user.extra:
        out["extra"] = {key: list(values) for key, values in user.extra.items()}
    return out
