"""The API's verbs on plain dicts, over any transport.

Owns: RestClient (implements interface.Client), its retry policy, and `current_cause`: the revision that made the running
reconcile start, which every write of it records. Called by: controllers, scheduler, agent, addons.
Never does: cache, or try again after a conflict (the caller must look again first).
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import orjson

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.base.clock import REAL_CLOCK, Clock
from k1s.client.interface import MERGE_PATCH, Object
from k1s.client.transport import Query, Reply, Transport
from k1s.client.watch import events

# Retries of answers that carry Retry-After (429, 503): at most so many, waiting at most so long each.
MAX_RETRIES = 5
MAX_RETRY_DELAY = 30.0

current_cause: ContextVar[int] = ContextVar("k1s_cause", default=0)


class RestClient:
    """`component` is what the API sees as user agent `k1s/<component>` and as field manager."""

    def __init__(self, transport: Transport, component: str = "k1s", *, clock: Clock = REAL_CLOCK) -> None:
        self.transport, self.component, self._clock = transport, component, clock
        self._agent = ("User-Agent", f"k1s/{component}")

    def named(self, component: str) -> RestClient:
        """The same connection under another name."""
        return RestClient(self.transport, component, clock=self._clock)

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        return await self._json("GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> builtins.list[Object]:
        items, _ = await self.list_at(resource, namespace, label_selector=label_selector, field_selector=field_selector)
        return items

    async def list_at(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> tuple[builtins.list[Object], str]:
        """The items, each with apiVersion and kind, and the list's resourceVersion."""
        query = _query(resourceVersion=resource_version, labelSelector=label_selector, fieldSelector=field_selector)
        answer = await self._json("GET", resource.path(namespace), query)
        items: builtins.list[Object] = answer.get("items") or []
        for item in items:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return items, (answer.get("metadata") or {}).get("resourceVersion", "")

    async def create(
        self, resource: Resource, obj: Object, namespace: str = "", *, subresource: str = "", name: str = "", cause: int = 0
    ) -> Object:
        path = resource.path(namespace or _namespace(obj), name if subresource else "", subresource)
        body = obj if subresource else {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        return await self._json("POST", path, _query(fieldManager=self.component), body, cause=cause)

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "", cause: int = 0) -> Object:
        path = resource.path(_namespace(obj), obj["metadata"]["name"], subresource)
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        return await self._json("PUT", path, _query(fieldManager=self.component), body, cause=cause)

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        patch: Any,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        strict: bool = False,
        cause: int = 0,
    ) -> Object:
        """`strict`: fields that the kind does not have are refused, as kubectl asks for."""
        query = _query(
            fieldManager=field_manager or self.component,
            force="true" if force else "",
            fieldValidation="Strict" if strict else "",
        )
        path = resource.path(namespace, name, subresource)
        return await self._json("PATCH", path, query, patch, content_type=content_type, cause=cause)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        propagation: str = "",
        uid: str = "",
        resource_version: str = "",
        grace_period_seconds: int | None = None,
        cause: int = 0,
    ) -> Object:
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        preconditions = {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v}
        if preconditions:
            options["preconditions"] = preconditions
        if propagation:
            options["propagationPolicy"] = propagation
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        return await self._json("DELETE", resource.path(namespace, name), (), options, cause=cause)

    async def delete_collection(self, resource: Resource, namespace: str = "", *, label_selector: str = "") -> None:
        await self._json("DELETE", resource.path(namespace), _query(labelSelector=label_selector))

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 0,
        initial_events: bool = False,
    ) -> AsyncGenerator[tuple[str, Object], None]:
        query = _query(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            labelSelector=label_selector,
            fieldSelector=field_selector,
            timeoutSeconds=str(timeout_seconds) if timeout_seconds else "",
            sendInitialEvents="true" if initial_events else "",
            resourceVersionMatch="NotOlderThan" if initial_events else "",
        )
        reply = await self._send("GET", resource.path(namespace), query, stream=True)
        try:
            async with aclosing(events(reply.chunks())) as pairs:
                async for pair in pairs:
                    yield pair
        finally:
            await reply.close()

    async def raw(self, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        reply = await self._send(method, path, (), body, content_type)
        return await reply.read()

    async def lines(self, method: str, path: str) -> AsyncGenerator[bytes, None]:
        """The lines of an answer that comes bit by bit. Raises ApiError."""
        reply = await self._send(method, path, stream=True)
        try:
            rest = b""
            async for chunk in reply.chunks():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield line
        finally:
            await reply.close()

    async def pause(self, seconds: float) -> None:
        """Wait before another try: so long, or until servers that were away are back."""
        await self.transport.pause(self._clock, seconds)

    async def close(self) -> None:
        await self.transport.close()

    async def _json(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: Any = None,
        *,
        content_type: str = "application/json",
        cause: int = 0,
    ) -> Object:
        data = orjson.dumps(body) if body is not None else b""
        reply = await self._send(method, path, query, data, content_type, cause=cause)
        answer: Object = orjson.loads(await reply.read() or b"{}")
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: bytes = b"",
        content_type: str = "application/json",
        *,
        cause: int = 0,
        stream: bool = False,
    ) -> Reply:
        """Send, and send again while the server asks for patience; raises ApiError for every other answer >= 400."""
        headers: Sequence[tuple[str, str]] = (self._agent, ("Accept", "application/json"))
        if body:
            headers = (*headers, ("Content-Type", content_type))
        cause = cause or current_cause.get()
        attempt = 0
        while True:
            reply = await self.transport.request(method, path, query, headers, body, cause=cause, stream=stream)
            if reply.status < 400:
                return reply
            error = _error(reply.status, await reply.read())
            delay = _retry_after(reply)
            if delay is None or attempt >= MAX_RETRIES:
                raise error
            attempt += 1
            await self._clock.sleep(delay)


def _query(**pairs: str) -> builtins.list[tuple[str, str]]:
    return [(key, value) for key, value in pairs.items() if value]


def _namespace(obj: Object) -> str:
    return (obj.get("metadata") or {}).get("namespace") or ""


def _error(status: int, body: bytes) -> ApiError:
    """The server's Status, or one made up when something that is not an API server answered."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if isinstance(answer, dict) and answer.get("kind") == "Status":
        return ApiError.from_status({"code": status, **answer})
    if status == 429:  # priority and fairness says so in plain text
        return ApiError(
            429, "TooManyRequests", "the server has received too many requests and has asked us to try again later", None
        )
    text = body[:200].decode("utf-8", "replace").strip()
    return ApiError(status, "", f"the server answered {status}: {text}" if text else f"the server answered {status}")


def _retry_after(reply: Reply) -> float | None:
    if reply.status not in (429, 503):
        return None
    value = reply.headers.get("Retry-After", "")
    return min(float(value), MAX_RETRY_DELAY) if value.isdigit() else None
