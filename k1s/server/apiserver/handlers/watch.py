"""Watches: what is there, then every change, for as long as the client listens.

Owns: handle. Called by: registry. Never does: wait for a slow client (watcher.py drops it).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError, FieldError, bad_request, invalid
from k1s.base.http import Answer, ConnectionClosed, Request, Response, Stream, WebSocket, WebSocketUpgrade
from k1s.server.apiserver.answers import PARTIAL, TABLE, watch_renderer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.conversion import ConvertedWatch
from k1s.server.apiserver.entries import Entry, frame
from k1s.server.apiserver.handlers.list import check_version, select, selected
from k1s.server.apiserver.negotiation import accepted
from k1s.server.apiserver.request_info import truthy
from k1s.server.apiserver.watcher import Render, Watcher

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

# Seconds a watch lives when the client does not say: between this and its double, so that not all come back at once.
MIN_TIMEOUT = 1800.0


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    resource = info.resource
    assert resource is not None
    media = accepted(request, TABLE, PARTIAL)
    selection = select(resource, info, info.namespace if resource.namespaced else "")
    version, initial, bookmarks, timeout = _options(request)
    calls = server.conversion.calls(resource)
    convert = None if server.is_stored(resource) or calls else (lambda raw: server.converted(resource, raw))
    render_raw = watch_renderer(request, resource, media, server.clock.now, convert)
    render: Render | None = None
    if render_raw is not None and not calls:
        by_raw = render_raw
        render = lambda type_, entry: by_raw(type_, entry.raw)  # noqa: E731
    marks = _bookmarks(resource, None if calls else render_raw) if bookmarks else None
    cache = server.hub.cache(resource)
    from_now = version in ("", "0") or initial
    if version not in ("", "0"):
        if initial or int(version) > server.hub.revision:
            await server.reach(int(version))
    elif version != "0":
        await server.objects.fresh()
    watcher = cache.new_watcher(selection, render=render, bookmark=marks)
    revision = server.hub.revision
    try:
        cache.watch(watcher, revision if from_now else int(version))
    except ApiError as error:
        return Response(200, frame("ERROR", orjson.dumps(error.status())))
    entries: list[Entry] = []
    if from_now and initial is not False:
        entries = selected(server, resource, selection)
        watcher.last_sent = revision
    tail = marks(revision, True) if initial and marks is not None else None
    watcher.begin(entries, tail)
    server.timers.end_after(watcher, timeout if timeout > 0 else MIN_TIMEOUT * (1 + random.random()))
    chunks: AsyncIterator[bytes] = watcher
    if calls:

        async def ask(objects: Sequence[Object]) -> list[Object]:
            return await server.conversion.to(resource, objects)

        chunks = ConvertedWatch(watcher, ask, render_raw or (lambda type_, raw: frame(type_, raw)), watcher.aclose)
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return WebSocketUpgrade((), lambda socket: _serve(socket, watcher, chunks))
    return Stream(chunks)


async def _serve(socket: WebSocket, watcher: Watcher, chunks: AsyncIterator[bytes]) -> None:
    """The watch as text frames, one an event."""
    listening = asyncio.ensure_future(_until_closed(socket, watcher))
    try:
        async for chunk in chunks:
            for line in chunk.splitlines():
                await socket.send(line.decode())
        await socket.close()
    except ConnectionClosed:
        return
    finally:
        listening.cancel()
        await watcher.aclose()


async def _until_closed(socket: WebSocket, watcher: Watcher) -> None:
    """The client has nothing to say: only its going matters."""
    try:
        while True:
            await socket.receive()
    except ConnectionClosed:
        watcher.end()


def _options(request: Request) -> tuple[str, bool | None, bool, float]:
    """resourceVersion, sendInitialEvents (None: not said), allowWatchBookmarks, timeoutSeconds. Raises ApiError 400, 422."""
    version, match = request.param("resourceVersion"), request.param("resourceVersionMatch")
    check_version(version)
    said = request.param("sendInitialEvents")
    initial = None if not said else truthy(request, "sendInitialEvents")
    errors: list[FieldError] = []
    if initial is None and match:
        why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        errors.append(FieldError("FieldValueForbidden", "resourceVersionMatch", why))
    elif initial is not None and match != "NotOlderThan":
        why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        errors.append(FieldError("FieldValueForbidden", "resourceVersionMatch", why))
    if errors:
        raise invalid("ListOptions", "meta.k8s.io", "", errors)
    timeout = request.param("timeoutSeconds") or "0"
    if not timeout.removeprefix("-").isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{timeout}": invalid syntax')
    return version, initial, truthy(request, "allowWatchBookmarks"), float(timeout)


def _bookmarks(resource: Resource, render: Callable[[str, bytes], bytes] | None) -> Callable[[int, bool], bytes]:
    def bookmark(revision: int, end_of_initial: bool) -> bytes:
        meta: dict[str, object] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if end_of_initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        raw = orjson.dumps({"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta})
        return render("BOOKMARK", raw) if render is not None else frame("BOOKMARK", raw)

    return bookmark
