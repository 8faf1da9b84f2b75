"""Objects and lists as answers: plain, as Table, as metadata only, as YAML, compressed.

Owns: the forms an answer can take. Called by: handlers, subresources, app (errors). Never does: decide the form (negotiation).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from k1s.api.catalog import Resource
from k1s.api.errors import ApiError
from k1s.api.table import cells, columns, row_conditions
from k1s.base.http import Request, Response
from k1s.server.apiserver.entries import frame
from k1s.server.apiserver.negotiation import PLAIN, Media, takes_gzip

Object = dict[str, Any]
Headers = Sequence[tuple[str, str]]

# Bodies above this are compressed for clients that accept it.
GZIP_THRESHOLD = 128 * 1024
_GZIP_LEVEL = 1
TABLE, PARTIAL, PARTIAL_LIST = "Table", "PartialObjectMetadata", "PartialObjectMetadataList"


class PlainError(ApiError):
    """One that upstream's filters answer as text, where no Status is written yet; clients wrap it in words of their own."""


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
        if truthy_pretty(request):
            raw = orjson.dumps(orjson.loads(raw), option=orjson.OPT_INDENT_2)
        return Response(status, raw, headers=list(headers))
    obj = orjson.loads(raw)
    if media.as_ == TABLE:
        meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        obj = table([obj], resource, meta, now, include=include_object(request))
    elif media.as_ == PARTIAL:
        obj = partial(obj)
    return encoded(obj, media, status, headers)


def encoded(obj: Object, media: Media, status: int = 200, headers: Headers = ()) -> Response:
    if media.yaml:
        return Response(status, to_yaml(obj), "application/yaml", list(headers))
    return Response(status, orjson.dumps(obj), headers=list(headers))


def to_yaml(obj: Any) -> bytes:
    import yaml

    text: str = yaml.dump(obj, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=True, allow_unicode=True)
    return text.encode()


def truthy_pretty(request: Request) -> bool:
    return request.param("pretty") in ("1", "true")


def error_answer(error: ApiError, extra: Headers = ()) -> Response:
    """A Status. 429 and others that name a delay carry Retry-After."""
    if isinstance(error, PlainError):
        text = f"{error.message}\n".encode(errors="replace")
        return Response(error.code, text, "text/plain; charset=utf-8", [*extra, ("X-Content-Type-Options", "nosniff")])
    status = error.status()
    headers = list(extra)
    delay = (error.details or {}).get("retryAfterSeconds")
    if delay:
        headers.append(("Retry-After", str(delay)))
    return Response(error.code, orjson.dumps(status), headers=headers)


def partial(obj: Object) -> Object:
    return {"kind": PARTIAL, "apiVersion": "meta.k8s.io/v1", "metadata": obj.get("metadata") or {}}


def include_object(request: Request) -> str:
    """How much of the object goes into each row: None, Metadata or Object. Raises ApiError 400."""
    include = request.param("includeObject") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        raise ApiError(400, "BadRequest", f'unrecognized includeObject value: "{include}"')
    return include


def table(
    objects: Iterable[Object], resource: Resource, meta: Object, now: float, *, include: str = "Metadata", head: bool = True
) -> Object:
    """meta.k8s.io/v1 Table. Without `head` the columns are left out, as in later events of a watch."""
    rows = [row(obj, resource, now, include) for obj in objects]
    return {
        "kind": TABLE,
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": columns(resource) if head else [],
        "rows": rows,
    }


def row(obj: Object, resource: Resource, now: float, include: str) -> Object:
    out: Object = {"cells": cells(resource, obj, now)}
    conditions = row_conditions(resource, obj)
    if conditions:
        out["conditions"] = conditions
    if include == "Metadata":
        out["object"] = partial(obj)
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
            obj = convert(raw) if convert is not None else orjson.loads(raw)
            head, first[0] = first[0], False
            meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            if type_ == "BOOKMARK":
                made = table([obj], resource, meta, now(), include="Object", head=head) if head else _bookmark_table(obj, meta)
            else:
                made = table([obj], resource, meta, now(), include=include, head=head)
            return frame(type_, orjson.dumps(made))

        return as_table
    if media.as_ == PARTIAL:
        return lambda type_, raw: frame(type_, orjson.dumps(partial(orjson.loads(raw))))
    if convert is not None:
        return lambda type_, raw: frame(type_, orjson.dumps(convert(raw) if type_ != "BOOKMARK" else orjson.loads(raw)))
    return None


def _bookmark_table(obj: Object, meta: Object) -> Object:
    return {
        "kind": TABLE,
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": [],
        "rows": [{"cells": [], "object": obj}],
    }


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
