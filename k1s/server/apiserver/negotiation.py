"""Which form of an answer the client wants, and in which form its body came.

Owns: Media, accepted() and body_form(). Called by: handlers, discovery, openapi. Never does: encode (answers.py).
Answers are JSON or YAML: protobuf, which client-go asks for first, is passed over for what it accepts next. Bodies may be
protobuf too, since client-go sends that without asking.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from k1s.api.errors import not_acceptable, unsupported_media_type
from k1s.base.http import Request

JSON, YAML = "application/json", "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class Media(NamedTuple):
    """`as_`: Table, PartialObjectMetadata, PartialObjectMetadataList, APIGroupDiscoveryList or "" for the object itself."""

    yaml: bool = False
    as_: str = ""
    group: str = ""
    version: str = ""

    @property
    def content_type(self) -> str:
        return YAML if self.yaml else JSON


PLAIN = Media()


def accepted(request: Request, *transforms: str) -> Media:
    """The first acceptable form; `transforms` are the `as=` kinds that the caller can make. Raises ApiError 406."""
    accept = request.headers.get("Accept", "")
    if not accept or accept == JSON or accept == "*/*":
        return PLAIN
    media = _negotiate(accept[:4096], transforms)
    if media is None:
        raise not_acceptable((JSON, YAML))
    return media


@lru_cache(maxsize=256)
def _negotiate(accept: str, transforms: tuple[str, ...]) -> Media | None:
    clauses = []
    for position, clause in enumerate(accept.split(",")):
        kind, *parameters = (part.strip() for part in clause.split(";"))
        values = {}
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            values[key.strip().lower()] = value.strip().strip('"')
        try:
            weight = float(values.pop("q", "1"))
        except ValueError:
            weight = 0.0
        if weight > 0:
            clauses.append((-weight, position, kind.lower(), values))
    for _, _, kind, values in sorted(clauses, key=lambda c: (c[0], c[1])):
        if kind in (JSON, "application/*", "*/*"):
            yaml = False
        elif kind in (YAML, "application/x-yaml", "text/yaml"):
            yaml = True
        else:
            continue
        as_ = values.get("as", "")
        if not as_:
            return Media(yaml)
        if as_ in transforms and values.get("v") in ("v1", "v2"):
            return Media(yaml, as_, values.get("g", ""), values.get("v", ""))
    return None


def body_form(request: Request) -> str:
    """The body's media type: JSON, YAML or PROTOBUF. Raises ApiError 415 for anything else."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("", JSON, "*/*"):
        return JSON
    if kind == PROTOBUF:
        return PROTOBUF
    if kind in (YAML, "application/x-yaml", "text/yaml"):
        return YAML
    raise unsupported_media_type((JSON, YAML, PROTOBUF))


def patch_type(request: Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("Accept-Encoding", "")
