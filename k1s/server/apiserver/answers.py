"""Objects and lists as answers: plain, as Table, as metadata only, as YAML, indented, compressed.

Owns: the forms an answer can take. Called by: handlers, subresources, app (errors). Never does: decide the form (negotiation).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError, bad_request, invalid_value
from k1s.api.table import cells, columns, row_conditions
from k1s.base.http import Request, Response
from k1s.server.apiserver.entries import frame
from k1s.server.apiserver.negotiation import PARTIAL as PARTIAL
from k1s.server.apiserver.negotiation import PARTIAL_LIST as PARTIAL_LIST
from k1s.server.apiserver.negotiation import PLAIN, PROTOBUF, Media, accepted, pretty, takes_gzip
from k1s.server.apiserver.negotiation import TABLE as TABLE

Object = dict[str, Any]
Headers = Sequence[tuple[str, str]]

# Bodies above this are compressed for clients that accept it.
GZIP_THRESHOLD = 128 * 1024
_GZIP_LEVEL = 1


class PlainError(ApiError):
    """One that upstream's filters answer as text, where no Status is written yet; clients wrap it in words of their own."""


def page_not_found() -> PlainError:
    """For paths below which there is no API."""
    return PlainError(404, "NotFound", "404 page not found")


def json_answer(value: Any, status: int = 200, headers: Headers = ()) -> Response:
    return Response(status, orjson.dumps(value), headers=list(headers))


def object_answer(
    request: Request,
    resource: Resource,
    raw: bytes,
    now: float,
    *,
    media: Media = PLAIN,
    status: int = 200,
    headers: Headers = (),
) -> Response:
    """One object, given as JSON, in the form of `media`."""
    if media == PLAIN:
        if status == 200 and not headers and not request.query:
            return Response(200, raw)
        if request.query and pretty(request):
            raw = orjson.dumps(orjson.loads(raw), option=orjson.OPT_INDENT_2)
        return Response(status, raw, headers=list(headers))
    obj = orjson.loads(raw)
    if media.as_ == TABLE:
        meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        obj = table([obj], resource, meta, now, include=include_object(request), api_version=media.api_version)
    elif media.as_ == PARTIAL:
        obj = partial(obj, media.api_version)
    return encoded(obj, media, status, headers)


def encoded(obj: Object, media: Media, status: int = 200, headers: Headers = ()) -> Response:
    if media.yaml:
        return Response(status, to_yaml(obj), "application/yaml", list(headers))
    if media.protobuf:
        from k1s.api.protobuf_encode import encode_protobuf

        return Response(status, encode_protobuf(obj), PROTOBUF, list(headers))
    option = orjson.OPT_INDENT_2 if media.pretty else None
    return Response(status, orjson.dumps(obj, option=option), headers=list(headers))


def to_yaml(obj: Any) -> bytes:
    import yaml

    text: str = yaml.dump(obj, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=True, allow_unicode=True)
    return text.encode()


def error_answer(error: ApiError, extra: Headers = (), request: Request | None = None) -> Response:
    """A Status, in the form that the request takes. 429 and others that name a delay carry Retry-After."""
    if isinstance(error, PlainError):
        text = f"{error.message}\n".encode(errors="replace")
        return Response(error.code, text, "text/plain; charset=utf-8", [*extra, ("X-Content-Type-Options", "nosniff")])
    headers = list(extra)
    delay = (error.details or {}).get("retryAfterSeconds")
    if delay:
        headers.append(("Retry-After", str(delay)))
    return encoded(error.status(), _error_form(request), error.code, headers)


def _error_form(request: Request | None) -> Media:
    if request is None:
        return PLAIN
    try:
        return accepted(request, protobuf=True)
    except ApiError:  # the client takes nothing that we have: then the first fault is told, as JSON
        return PLAIN


_META_VERSION = "meta.k8s.io/v1"


def partial(obj: Object, api_version: str = _META_VERSION) -> Object:
    return {"kind": PARTIAL, "apiVersion": api_version, "metadata": obj.get("metadata") or {}}


def include_object(request: Request) -> str:
    """How much of the object goes into each row: None, Metadata or Object. Raises ApiError 400."""
    include = request.param("includeObject") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        fault = invalid_value("includeObject", include, "must be 'Metadata', 'Object', 'None', or empty")
        raise bad_request(f"Unable to convert to Table as requested: {fault}")
    return include


def table(
    objects: Iterable[Object],
    resource: Resource,
    meta: Object,
    now: float,
    *,
    include: str = "Metadata",
    head: bool = True,
    api_version: str = _META_VERSION,
) -> Object:
    """meta.k8s.io Table. Without `head` the columns are left out, as in later events of a watch."""
    rows = [row(obj, resource, now, include, api_version) for obj in objects]
    return {
        "kind": TABLE,
        "apiVersion": api_version,
        "metadata": meta,
        "columnDefinitions": columns(resource) if head else None,
        "rows": rows,
    }


def row(obj: Object, resource: Resource, now: float, include: str, api_version: str) -> Object:
    out: Object = {"cells": cells(resource, obj, now)}
    conditions = row_conditions(resource, obj)
    if conditions:
        out["conditions"] = conditions
    if include == "Metadata":
        out["object"] = partial(obj, api_version)
    elif include == "Object":
        out["object"] = obj
    else:
        out["object"] = None
    return out


def watch_renderer(
    request: Request, resource: Resource, media: Media, now: Callable[[], float], convert: Callable[[bytes], Object] | None
) -> Callable[[str, bytes], bytes] | None:
    """Turns (event type, JSON) into a watch line; None if the shared plain line will do."""
    if media.as_ == TABLE:
        include = include_object(request)
        first = [True]

        def as_table(type_: str, raw: bytes) -> bytes:
            bookmark = type_ == "BOOKMARK"
            obj = convert(raw) if convert is not None and not bookmark else orjson.loads(raw)
            head, first[0] = first[0], False
            meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            made = table((), resource, meta, now(), head=head, api_version=media.api_version)
            if bookmark:
                # There is nothing to print, but the revision and the annotations have to come through.
                made["rows"] = [{"cells": [], "object": partial(obj, media.api_version)}]
            else:
                made["rows"] = [row(obj, resource, now(), include, media.api_version)]
            return frame(type_, orjson.dumps(made))

        return as_table
    if media.protobuf:
        return _protobuf_lines(media, convert)
    if media.as_ == PARTIAL:
        return lambda type_, raw: frame(type_, orjson.dumps(partial(orjson.loads(raw), media.api_version)))
    if convert is not None:
        return lambda type_, raw: frame(type_, orjson.dumps(convert(raw) if type_ != "BOOKMARK" else orjson.loads(raw)))
    return None


def _protobuf_lines(media: Media, convert: Callable[[bytes], Object] | None) -> Callable[[str, bytes], bytes]:
    from k1s.api.protobuf_encode import watch_frame

    def as_protobuf(type_: str, raw: bytes) -> bytes:
        plain = type_ in ("BOOKMARK", "ERROR") or convert is None
        obj = orjson.loads(raw) if plain or convert is None else convert(raw)
        if media.as_ == PARTIAL and type_ != "ERROR":
            obj = partial(obj, media.api_version)
        return watch_frame(type_, obj)

    return as_protobuf


def compress(parts: Sequence[bytes]) -> bytes:
    """gzip of the concatenation of `parts`."""
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
    out = [packer.compress(part) for part in parts]
    out.append(packer.flush())
    return b"".join(out)


async def compressed(request: Request, response: Response) -> Response:
    """The response, gzipped in a thread if it is large and the client can read that."""
    if len(response.body) <= GZIP_THRESHOLD or not takes_gzip(request):
        return response
    response.body = await asyncio.to_thread(compress, [response.body])
    response.headers = [*response.headers, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
    return response
