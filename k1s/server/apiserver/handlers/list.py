"""GET of a collection: consistent, in pages, selected, as list or Table.

Owns: handle, select. Called by: registry, handlers/delete and /watch (select). Never does: decode for a plain list of everything.
Pages after the first show the collection as it was when the first was read; their token expires (410) after TOKEN_SECONDS.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError, bad_request
from k1s.base.http import Answer, Request, Response
from k1s.server.apiserver.answers import (
    GZIP_THRESHOLD,
    PARTIAL_LIST,
    TABLE,
    compress,
    compressed,
    encoded,
    include_object,
    partial,
    table,
)
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.continuation import Token, expired_token, read_token
from k1s.server.apiserver.entries import Entry, splice
from k1s.server.apiserver.negotiation import PLAIN, Media, accepted, takes_gzip
from k1s.server.apiserver.read_options import list_options
from k1s.server.apiserver.selection import Selection, parse

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]

# Objects that may be decoded and formed on the event loop.
_FEW = 50


def select(resource: Resource, info: RequestInfo, namespace: str) -> Selection:
    """The request's selection; a name in the path (old watches of one object) counts as one. Raises ApiError 400."""
    selection = parse(resource, namespace, info.label_selector, info.field_selector)
    if info.name and not info.field_selector:
        return parse(resource, namespace, info.label_selector, "", info.name)
    if info.name and selection.required("metadata.name") != info.name:
        raise bad_request("fieldSelector metadata.name doesn't match requested name")
    return selection


def selected(server: ApiServer, resource: Resource, selection: Selection) -> list[Entry]:
    return server.hub.cache(resource).selected(selection)


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    resource = info.resource
    assert resource is not None
    options = list_options(request)
    media = accepted(request, TABLE, PARTIAL_LIST, protobuf=not resource.custom)
    selection = select(resource, info, info.namespace if resource.namespaced else "")
    token = read_token(options.token, options.version) if options.token else None
    at, after = (token.revision, token.after) if token is not None else (options.exact, "")
    await server.reach(max(options.least, at))
    limit = options.limit
    if options.version == "0":
        limit = 0  # as upstream, whose cache answers these without pages
    else:
        await server.objects.fresh()
    slot = None
    if media == PLAIN and at == 0 and limit == 0 and options.least == 0 and selection.everything:
        if not server.conversion.calls(resource):
            # The same bytes as long as nothing of this resource has changed; an older resourceVersion is then as good.
            cache = server.hub.cache(resource)
            zipped = takes_gzip(request)
            slot = (resource.api_version, resource.plural, selection.namespace, cache.revision, cache.ring_start, zipped)
            body = server.lists.get(slot)
            if body is not None:
                return Response(200, body, headers=_GZIP_HEADERS if zipped else [])
    if token is not None and token.too_old(server.clock.now(), server.hub.revision):
        raise expired_token(token, server.clock.now())
    try:
        page = await _page(server, resource, selection, max(at, 0), after, limit)
    except ApiError as error:
        if token is not None and error.code == 410:
            raise expired_token(token, server.clock.now()) from error
        raise
    meta: Object = {"resourceVersion": str(page.revision)}
    if page.remaining:
        meta["continue"] = Token(page.revision, page.entries[-1].key, server.clock.now()).encode()
        if selection.everything:
            meta["remainingItemCount"] = page.remaining
    return await _answer(request, server, resource, media, page.entries, meta, slot)


class _Page(NamedTuple):
    """`remaining` is exact if everything is selected; else it says whether there is more."""

    entries: Sequence[Entry]
    revision: int
    remaining: int


async def _page(server: ApiServer, resource: Resource, selection: Selection, at: int, after: str, limit: int) -> _Page:
    """What is selected after a key, now or as it was at a revision: from memory if that reaches back so far."""
    cache = server.hub.cache(resource)
    now = at == 0 or at >= cache.revision
    entries = cache.selected(selection) if now else cache.entries_at(at, selection.namespace)
    if entries is None:
        return await _page_of_log(server, resource, selection, at, after, limit)
    if after:
        entries = entries[bisect_right(entries, after, key=lambda entry: entry.key) :]
    if not (now or selection.everything):
        found = (entry for entry in entries if selection.matches(entry))
        entries = list(islice(found, limit + 1) if limit else found)
    remaining = max(len(entries) - limit, 0) if limit else 0
    return _Page(entries[:limit] if remaining else entries, at or server.hub.revision, remaining)


async def _page_of_log(server: ApiServer, resource: Resource, selection: Selection, at: int, after: str, limit: int) -> _Page:
    """The same from the store, in pieces until there is enough. Raises ApiError 410."""
    cache = server.hub.cache(resource)
    prefix = f"{selection.namespace}/" if selection.namespace else ""
    start = len(cache.prefix)
    found: list[Entry] = []
    while True:
        listing = await server.objects.list_at(resource, prefix, after, limit, at)
        for kv in listing.items:
            entry = Entry(kv.key[start:], splice(kv.value, cache.head, kv.revision), kv.revision, kv.create_revision)
            if selection.matches(entry):
                found.append(entry)
        if not listing.remaining:
            break
        after = listing.items[-1].key[start:]
        if selection.everything or len(found) > limit:
            break
    over = max(len(found) - limit, 0) if limit else 0
    return _Page(found[:limit] if over else found, at, over + listing.remaining)


async def _answer(
    request: Request,
    server: ApiServer,
    resource: Resource,
    media: Media,
    entries: Sequence[Entry],
    meta: Object,
    slot: Hashable | None,
) -> Response:
    """`slot`: where the body may be kept for others that ask the same."""
    if media != PLAIN:
        include, now = include_object(request) if media.as_ == TABLE else "", server.clock.now()
        raws = await server.all_shown(resource, entries)
        if len(raws) > _FEW:  # slow: others get their turn meanwhile
            return await compressed(request, await asyncio.to_thread(_formed, raws, resource, media, meta, now, include))
        return await compressed(request, _formed(raws, resource, media, meta, now, include))
    head = b'{"kind":"%b","apiVersion":"%b","metadata":%b,"items":[' % (
        resource.list_kind.encode(),
        resource.api_version.encode(),
        orjson.dumps(meta),
    )
    if server.is_stored(resource):
        joined = b",".join([entry.raw for entry in entries])
    else:
        joined = b",".join(await server.all_shown(resource, entries))
    body = b"%b%b]}" % (head, joined)
    if len(body) <= GZIP_THRESHOLD:
        return Response(200, body)
    zipped = takes_gzip(request)
    if zipped:
        body = await asyncio.to_thread(compress, [body])
    if slot is not None:
        server.lists.put(slot, body)
    return Response(200, body, headers=_GZIP_HEADERS if zipped else [])


def _formed(raws: Sequence[bytes], resource: Resource, media: Media, meta: Object, now: float, include: str) -> Response:
    """The list as table, metadata only, YAML or indented."""
    objects = [orjson.loads(raw) for raw in raws]
    if media.as_ == TABLE:
        return encoded(table(objects, resource, meta, now, include=include, api_version=media.api_version), media)
    kind, version = resource.list_kind, resource.api_version
    if media.as_ == PARTIAL_LIST:
        kind, version = PARTIAL_LIST, media.api_version
        objects = [partial(obj, version) for obj in objects]
    return encoded({"kind": kind, "apiVersion": version, "metadata": meta, "items": objects}, media)


_GZIP_HEADERS = [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
