"""GET of a collection: consistent, in pages, selected, as list or Table.

Owns: handle, select. Called by: registry, handlers/delete and /watch (select). Never does: decode for a plain list of everything.
Pages after the first show the collection as it was when the first was read; their token expires (410) after TOKEN_SECONDS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from k1s.api.catalog import Resource
from k1s.api.errors import FieldError, bad_request, invalid
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
    truthy_pretty,
)
from k1s.server.apiserver.attributes import RequestInfo, UserInfo
from k1s.server.apiserver.continuation import Token, expired_token, read_token
from k1s.server.apiserver.entries import Entry, splice
from k1s.server.apiserver.negotiation import PLAIN, Media, accepted, takes_gzip
from k1s.server.apiserver.selection import Selection, parse

if TYPE_CHECKING:
    from k1s.server.apiserver.app import ApiServer

Object = dict[str, Any]


def select(resource: Resource, info: RequestInfo, namespace: str) -> Selection:
    """The request's selection; a name in the path (old watches of one object) counts as one."""
    name = info.name if "metadata.name" not in info.field_selector else ""
    return parse(resource, namespace, info.label_selector, info.field_selector, name)


def selected(server: ApiServer, resource: Resource, selection: Selection) -> list[Entry]:
    entries = server.hub.cache(resource).entries(selection.namespace)
    if selection.everything:
        return entries
    return [entry for entry in entries if selection.matches(entry)]


async def handle(request: Request, info: RequestInfo, user: UserInfo, server: ApiServer) -> Answer:
    resource = info.resource
    assert resource is not None
    media = accepted(request, TABLE, PARTIAL_LIST)
    selection = select(resource, info, info.namespace if resource.namespaced else "")
    version, match, limit, token_text = _page_options(request)
    token: Token | None = None
    if token_text:
        token = read_token(token_text, resource.storage_prefix, version, match)
    at = 0
    if token is None:
        if match == "Exact":
            await server.reach(int(version))
            at = int(version)
        elif version and version != "0":
            await server.reach(int(version))
    if version == "0":
        limit = 0
    else:
        await server.objects.fresh()
    if token is not None:
        at = token.revision
    slot = None
    if media == PLAIN and not request.query and selection.everything and not server.conversion.calls(resource):
        # The same bytes as long as nothing of this resource has changed; an older resourceVersion is then as good.
        cache = server.hub.cache(resource)
        zipped = takes_gzip(request)
        slot = (resource.api_version, resource.plural, selection.namespace, cache.revision, cache.ring_start, zipped)
        body = server.lists.get(slot)
        if body is not None:
            return Response(200, body, headers=_GZIP_HEADERS if zipped else [])
    entries, revision = await _entries(server, resource, selection, at, token)
    meta: Object = {"resourceVersion": str(revision)}
    if limit and len(entries) > limit:
        meta["continue"] = Token(revision, entries[limit - 1].key, server.clock.now()).encode()
        if selection.everything:
            meta["remainingItemCount"] = len(entries) - limit
        entries = entries[:limit]
    return await _answer(request, server, resource, media, entries, meta, slot)


def _page_options(request: Request) -> tuple[str, str, int, str]:
    """resourceVersion, resourceVersionMatch, limit, continue. Raises ApiError 400, 422."""
    if not request.query:
        return "", "", 0, ""
    version, match, token = request.param("resourceVersion"), request.param("resourceVersionMatch"), request.param("continue")
    limit = request.param("limit") or "0"
    if not limit.removeprefix("-").isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{limit}": invalid syntax')
    errors = []
    if match:
        if not version:
            errors.append(_forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if token:
            errors.append(_forbidden("resourceVersionMatch is forbidden when continue is provided"))
        if match not in ("Exact", "NotOlderThan"):
            supported = 'supported values: "Exact", "NotOlderThan", ""'
            errors.append(FieldError("FieldValueNotSupported", "resourceVersionMatch", supported, match))
        if match == "Exact" and version == "0":
            errors.append(_forbidden('resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if request.param("sendInitialEvents"):
        errors.append(FieldError("FieldValueForbidden", "sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if errors:
        raise invalid("ListOptions", "meta.k8s.io", "", errors)
    check_version(version)
    return version, match, max(int(limit), 0), token


def check_version(version: str) -> None:
    if version and not version.isdigit():
        raise bad_request(f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: parsing "{version}": invalid syntax')


def _forbidden(text: str) -> FieldError:
    return FieldError("FieldValueForbidden", "resourceVersionMatch", text)


async def _entries(
    server: ApiServer, resource: Resource, selection: Selection, at: int, token: Token | None
) -> tuple[Sequence[Entry], int]:
    """What is selected, from the cache if it can answer for the revision, and the list's revision."""
    cache = server.hub.cache(resource)
    if token is not None and token.too_old(server.clock.now(), server.hub.revision):
        raise expired_token(token, server.clock.now())
    current = at <= 0 or cache.revision <= at
    if current:
        entries = selected(server, resource, selection)
        revision = at if at > 0 else server.hub.revision
    else:
        prefix = f"{selection.namespace}/" if selection.namespace else ""
        listing = await server.objects.list_at(resource, prefix, "", 0, at)
        start = len(cache.prefix)
        found = [
            Entry(kv.key[start:], splice(kv.value, cache.head, kv.revision), kv.revision, kv.create_revision)
            for kv in listing.items
        ]
        entries = [entry for entry in found if selection.matches(entry)]
        revision = at
    if token is not None:
        entries = [entry for entry in entries if entry.key > token.after]
    return entries, revision


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
        objects = [orjson.loads(raw) for raw in await server.all_shown(resource, entries)]
        if media.as_ == TABLE:
            out = table(objects, resource, meta, server.clock.now(), include=include_object(request))
        elif media.as_ == PARTIAL_LIST:
            items = [partial(obj) for obj in objects]
            out = {"kind": PARTIAL_LIST, "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items}
        else:
            out = {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": meta, "items": objects}
        return await compressed(request, encoded(out, media))
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
    if request.query and truthy_pretty(request):
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2)
    if len(body) <= GZIP_THRESHOLD:
        return Response(200, body)
    zipped = takes_gzip(request)
    if zipped:
        body = await asyncio.to_thread(compress, [body])
    if slot is not None:
        server.lists.put(slot, body)
    return Response(200, body, headers=_GZIP_HEADERS if zipped else [])


_GZIP_HEADERS = [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
