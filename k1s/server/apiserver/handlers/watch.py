"""Watches: what is there, then every change, for as long as the client listens.

Owns: handle. Called by: registry. Never does: wait for a slow client (watcher.py drops it).
Source: the API concepts page (watch, bookmarks), KEP-3157 (streamed lists), apiserver/pkg/endpoints/handlers/{get,watch}.go.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from k1s.api.catalog import Resource
from k1s.api.errors import method_not_allowed
from k1s.base.http import Answer, ConnectionClosed, Request, Stream, WebSocket, WebSocketUpgrade
from k1s.server.apiserver.answers import PARTIAL, PARTIAL_LIST, TABLE, encoded, watch_renderer
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.conversion import ConvertedWatch
from k1s.server.apiserver.entries import Entry, frame
from k1s.server.apiserver.handlers.list import select, selected
from k1s.server.apiserver.negotiation import Media, accepted
from k1s.server.apiserver.read_options import WatchOptions, revision, watch_options
from k1s.server.apiserver.resumption import Resumption
from k1s.server.apiserver.watcher import Render, Watcher

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

# Seconds a watch lives when the client does not say: between this and its double, so that not all come back at once.
MIN_TIMEOUT = 1800.0
INITIAL_EVENTS_END, LIST_BLUEPRINT = "k8s.io/initial-events-end", "kubernetes.io/initial-events-list-blueprint"


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    resource = info.resource
    assert resource is not None
    if request.method not in ("GET", "HEAD"):
        raise method_not_allowed()  # a path below /watch/ is a watch whatever the method
    options = watch_options(request)
    # Upstream's streamed lists are no tables: a client that wants one falls back to a list.
    forms = (PARTIAL,) if options.streamed_list else (TABLE, PARTIAL)
    websocket = request.headers.get("Upgrade", "").lower() == "websocket"
    media = accepted(request, *forms, stream=True, protobuf=not (resource.custom or websocket))
    selection = select(resource, info, info.namespace if resource.namespaced else "")
    calls = server.conversion.calls(resource)
    convert = None if server.is_stored(resource) or calls else (lambda raw: server.converted(resource, raw))
    render_raw = watch_renderer(request, resource, media, server.clock.now, convert)
    render: Render | None = None
    if render_raw is not None and not calls:
        by_raw = render_raw
        render = lambda type_, entry: by_raw(type_, entry.raw)  # noqa: E731
    marks = None
    if options.bookmarks:
        marks = _bookmarks(resource, media, None if calls else render_raw)
    version = revision(options.version)
    await server.reach(version)
    if not options.version:
        await server.objects.fresh()
    cache = server.hub.cache(resource)
    watcher = cache.new_watcher(selection, render=render, bookmark=marks)
    watcher.shape = f"{media}{resource.api_version}{request.param('includeObject')}"
    _begin(server, resource, watcher, options, version)
    chunks: AsyncIterator[bytes] = watcher
    if calls:

        async def ask(objects: Sequence[Object]) -> list[Object]:
            return await server.conversion.to(resource, objects)

        chunks = ConvertedWatch(watcher, ask, render_raw or (lambda type_, raw: frame(type_, raw)), watcher.aclose)
    if websocket:
        return WebSocketUpgrade((), lambda socket: _serve(socket, watcher, chunks))
    if media.protobuf and render_raw is not None:
        watcher.fault = functools.partial(render_raw, "ERROR")
        return Stream(chunks, content_type=f"{media.content_type};stream=watch")
    return Stream(chunks)


def _begin(server: ApiServer, resource: Resource, watcher: Watcher, options: WatchOptions, version: int) -> None:
    """Where the watch starts: with what is there, now, or in the past."""
    cache, now = server.hub.cache(resource), server.hub.revision
    timeout = float(options.timeout) if options.timeout else MIN_TIMEOUT * (1 + random.random())
    if options.initial or not version:
        cache.watch(watcher, now)
        entries: list[Entry] = []
        if options.initial is not False:
            entries = selected(server, resource, watcher.selection)
            watcher.last_sent = now
        marks = watcher.bookmark
        watcher.begin(entries, marks(now, True) if options.initial and marks is not None else None)
    elif version >= cache.ring_start:
        cache.watch(watcher, version)
    else:
        until = server.clock.monotonic() + timeout

        def attached() -> None:
            server.timers.end_after(watcher, until - server.clock.monotonic())

        watcher.resume(Resumption(server.objects, server.hub, resource, watcher, version, attached).piece)
        return
    server.timers.end_after(watcher, timeout)


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


def _bookmarks(resource: Resource, media: Media, render: Callable[[str, bytes], bytes] | None) -> Callable[[int, bool], bytes]:
    def bookmark(revision: int, end_of_initial: bool) -> bytes:
        meta: Object = {"resourceVersion": str(revision)}
        if end_of_initial:
            meta["annotations"] = {INITIAL_EVENTS_END: "true", LIST_BLUEPRINT: _blueprint(resource, media)}
        raw = orjson.dumps({"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta})
        return render("BOOKMARK", raw) if render is not None else frame("BOOKMARK", raw)

    return bookmark


def _blueprint(resource: Resource, media: Media) -> str:
    """The empty list that clients which stream a list fill (client-go's WatchListResult)."""
    kind, version = resource.list_kind, resource.api_version
    if media.as_ == PARTIAL:
        kind, version = PARTIAL_LIST, media.api_version
    empty: Object = {"kind": kind, "apiVersion": version, "metadata": {}, "items": []}
    return base64.b64encode(encoded(empty, media._replace(as_="")).body).decode()
