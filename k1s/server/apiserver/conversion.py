"""Custom resources from one version to another: by a new apiVersion only, or by the definition's conversion webhook.

Owns: Conversion, the ConversionReview and the checks of what comes back, ConvertedWatch.
Called by: app (and through it every handler), handlers/watch. Never does: keep converted objects.
Objects of one request are converted in one call. Bound: CALL_SECONDS for a call.
Source: apiextensions-apiserver/pkg/apiserver/conversion.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.api.prune import prune
from k1s.api.schema import schema_for
from k1s.server.apiserver.admission.webhooks.caller import Caller, CallFailed
from k1s.server.apiserver.entries import frame

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

CALL_SECONDS = 30.0
_VERSIONS = ("v1", "v1beta1")
_KIND = "ConversionReview"


class Conversion:
    """`webhook(resource)` gives spec.conversion.webhook of the resource's definition, or None."""

    def __init__(self, server: ApiServer, webhook: Callable[[Resource], Object | None]) -> None:
        self._server, self._webhook = server, webhook
        self._caller: Caller | None = None

    def calls(self, resource: Resource) -> bool:
        """Whether other versions of the resource than the stored one cost a call."""
        return resource.custom and self._webhook(resource) is not None

    async def to(self, target: Resource, objects: Sequence[Object]) -> list[Object]:
        """The objects, each in whatever version, in that of `target`. Raises ApiError 500."""
        out = list(objects)
        wanted = target.api_version
        other = [index for index, obj in enumerate(out) if obj.get("apiVersion") != wanted]
        if not other:
            return out
        webhook = self._webhook(target)
        if webhook is None:
            for index in other:
                out[index] = {**out[index], "apiVersion": wanted}
            return out
        given = [out[index] for index in other]
        converted = await self._call(webhook, target, given)
        schema = schema_for(target)
        for number, (index, obj) in enumerate(zip(other, converted, strict=True)):
            fault = _fault(given[number], obj, wanted)
            if fault:
                where = f" at index {number}" if len(given) > 1 else ""
                raise _failure(f"{_head(given[0])} returned invalid converted object{where}: {fault}")
            obj["metadata"] = _metadata(given[number]["metadata"], obj["metadata"])
            prune(obj, schema)
            # First what entries.py expects first.
            out[index] = {"apiVersion": wanted, "kind": obj["kind"], "metadata": obj["metadata"], **obj}
        return out

    async def _call(self, webhook: Object, target: Resource, given: list[Object]) -> list[Object]:
        if self._caller is None:
            self._caller = Caller(self._server.informers, self._server.dialer.connect)
        version = next((v for v in webhook.get("conversionReviewVersions") or () if v in _VERSIONS), "v1")
        uid = str(uuid.uuid4())
        review = {
            "kind": _KIND,
            "apiVersion": f"apiextensions.k8s.io/{version}",
            "request": {"uid": uid, "desiredAPIVersion": target.api_version, "objects": given},
        }
        try:
            body = await self._caller.post(webhook.get("clientConfig") or {}, orjson.dumps(review), CALL_SECONDS)
            converted = _read(body, review, uid)
        except (CallFailed, ValueError) as error:
            raise _failure(f"{_head(given[0])} failed: {error}") from error
        if len(converted) != len(given):
            raise _failure(f"{_head(given[0])} returned {len(converted)} objects, expected {len(given)}")
        return converted


def _head(obj: Object) -> str:
    return f"conversion webhook for {obj.get('apiVersion')}, Kind={obj.get('kind')}"


def _failure(message: str) -> ApiError:
    return ApiError(500, "", message)


def _read(body: bytes, review: Object, uid: str) -> list[Object]:
    """The converted objects. Raises ValueError."""
    answer = orjson.loads(body)
    response = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(response, dict):
        raise ValueError("no response provided")
    if (answer.get("apiVersion"), answer.get("kind")) != (review["apiVersion"], _KIND):
        got = f"{answer.get('apiVersion')}, Kind={answer.get('kind')}"
        raise ValueError(f"expected webhook response of {review['apiVersion']}, Kind={_KIND}, got {got}")
    if response.get("uid") != uid:
        raise ValueError(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result") or {}
    if result.get("status") != "Success":
        raise ValueError(result.get("message") or f"response.result.status was '{result.get('status') or ''}', not 'Success'")
    found = response.get("convertedObjects") or []
    if not isinstance(found, list) or not all(isinstance(obj, dict) for obj in found):
        raise ValueError("response.convertedObjects is not a list of objects")
    return found


def _fault(given: Object, got: Object, wanted: str) -> str:
    if got.get("apiVersion") != wanted:
        return f"invalid groupVersion (expected {wanted}, received {got.get('apiVersion') or ''})"
    if got.get("kind") != given.get("kind"):
        return f"invalid kind (expected {given.get('kind')}, received {got.get('kind') or ''})"
    before, after = given["metadata"], got.get("metadata")
    if not isinstance(after, dict):
        return "missing metadata"
    for key, said in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        if (before.get(key) or "") != (after.get(key) or ""):
            return f"must have the same {said}: {before.get(key) or ''} != {after.get(key) or ''}"
    return ""


def _metadata(before: Object, after: Object) -> Object:
    """Of the metadata only labels and annotations are the webhook's to change."""
    out = {key: value for key, value in before.items() if key not in ("labels", "annotations")}
    for key in ("labels", "annotations"):
        value = after.get(key)
        if value:
            if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
                raise _failure(f"conversion webhook returned invalid metadata: metadata.{key} is not a map of strings")
            out[key] = value
    return out


class ConvertedWatch:
    """A watch of stored objects, each chunk of events converted in one call; `render` makes the line of an event."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        convert: Callable[[Sequence[Object]], Awaitable[list[Object]]],
        render: Callable[[str, bytes], bytes],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._events, self._convert, self._render, self._close = events, convert, render, close
        self._failed = False

    def __aiter__(self) -> ConvertedWatch:
        return self

    async def __anext__(self) -> bytes:
        if self._failed:
            raise StopAsyncIteration
        chunk = await anext(self._events)
        events = [orjson.loads(line) for line in chunk.splitlines()]
        own = [index for index, event in enumerate(events) if event["type"] not in ("BOOKMARK", "ERROR")]
        try:
            converted = await self._convert([events[index]["object"] for index in own])
        except ApiError as error:
            # The client starts over; by then the webhook may be back.
            self._failed = True
            return frame("ERROR", orjson.dumps(error.status()))
        for index, obj in zip(own, converted, strict=True):
            events[index]["object"] = obj
        return b"".join([self._line(event["type"], event["object"]) for event in events])

    def _line(self, type_: str, obj: Object) -> bytes:
        raw = orjson.dumps(obj)
        return frame(type_, raw) if type_ == "ERROR" else self._render(type_, raw)

    async def aclose(self) -> None:
        await self._close()
