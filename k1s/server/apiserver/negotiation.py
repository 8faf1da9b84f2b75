"""Which form of an answer the client wants, and in which form its body came.

Owns: Media, accepted() and body_form(). Called by: handlers, discovery, openapi. Never does: encode (answers.py).
Answers are JSON or YAML: protobuf, which client-go asks for first, is passed over for what it accepts next, and made only for
who accepts nothing else. Bodies may be protobuf too, since client-go sends that without asking.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from k1s.api.errors import ApiError, not_acceptable, unsupported_media_type
from k1s.base.http import Request

JSON, YAML = "application/json", "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


META, DISCOVERY = "meta.k8s.io", "apidiscovery.k8s.io"
TABLE, PARTIAL, PARTIAL_LIST = "Table", "PartialObjectMetadata", "PartialObjectMetadataList"
# Versions of meta.k8s.io that have them.
_META_VERSIONS = ("v1", "v1beta1")


class Media(NamedTuple):
    """`as_`: Table, PartialObjectMetadata, PartialObjectMetadataList, APIGroupDiscoveryList or "" for the object itself."""

    yaml: bool = False
    as_: str = ""
    group: str = ""
    version: str = ""
    pretty: bool = False
    protobuf: bool = False

    @property
    def content_type(self) -> str:
        if self.protobuf:
            return PROTOBUF
        return YAML if self.yaml else JSON

    @property
    def api_version(self) -> str:
        """Of the kind in `as_`."""
        return f"{self.group}/{self.version}"


PLAIN = Media()
_READERS = ("curl", "Wget", "Mozilla/5.0")
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


def accepted(request: Request, *transforms: str, stream: bool = False, protobuf: bool = False) -> Media:
    """The best form that the client takes; `transforms` are the `as=` kinds that the caller can make. Raises ApiError 406.

    `stream`: for a watch, which is never YAML. `protobuf`: the caller can make that, too.
    Source: apiserver/pkg/endpoints/handlers/negotiation.
    """
    accept = request.headers.get("Accept", "")
    if not accept or accept == JSON or accept == "*/*":
        media = PLAIN
    else:
        media = _negotiate(accept[:4096], transforms, stream, protobuf)
    if not media.pretty and not media.yaml and not stream and pretty(request):
        media = media._replace(pretty=True)
    return media


def pretty(request: Request) -> bool:
    """Whether a human reads it: ?pretty says, else the program that asks."""
    if request.query:
        said = request.param("pretty")
        if said:
            return said in _TRUE
    return request.headers.get("User-Agent", "").startswith(_READERS)


class _Clause(NamedTuple):
    order: tuple[float, bool, bool, int]
    kind: str
    values: dict[str, str]


def _clauses(accept: str) -> list[_Clause]:
    """What the client takes, best first: by weight, then the one that says more."""
    out = []
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
            kind = kind.lower()
            out.append(_Clause((-weight, kind.startswith("*/"), kind.endswith("/*"), position), kind, values))
    return sorted(out, key=lambda clause: clause.order)


@lru_cache(maxsize=256)
def _negotiate(accept: str, transforms: tuple[str, ...], stream: bool, protobuf: bool) -> Media:
    clauses = _clauses(accept)
    for _, kind, values in clauses:
        if kind in (JSON, "application/*", "*/*"):
            yaml = False
        elif kind == YAML:
            yaml = True
        else:
            continue
        if values.get("stream") and (yaml or values["stream"] != "watch"):
            continue
        if yaml and stream:
            break  # chosen, and then it turns out that it has no streams
        as_, version, pretty = values.get("as", ""), values.get("v", ""), values.get("pretty") == "1" and not (yaml or stream)
        if not as_:
            return Media(yaml, pretty=pretty)
        if values.get("g") == META and version in _META_VERSIONS:
            if as_ in transforms:
                return Media(yaml, as_, META, version, pretty)
            if as_ == PARTIAL and PARTIAL_LIST in transforms:
                raise _other_shape(f"you requested {PARTIAL}, but the requested object is a list")
            if as_ == PARTIAL_LIST and PARTIAL in transforms and not stream:
                raise _other_shape(f"you requested {PARTIAL_LIST}, but the requested object is not a list")
        elif as_ in transforms and (values.get("g"), version) == (DISCOVERY, "v2"):
            return Media(yaml, as_, DISCOVERY, version, pretty)
    if protobuf:
        # Only for who takes nothing else: our JSON is ready, protobuf has to be made.
        for _, kind, values in clauses:
            as_, version = values.get("as", ""), values.get("v", "")
            if kind == PROTOBUF and values.get("stream", "watch") == "watch":
                if not as_:
                    return Media(protobuf=True)
                if as_ in transforms and as_ != TABLE and values.get("g") == META and version in _META_VERSIONS:
                    return Media(False, as_, META, version, protobuf=True)
    if stream:
        raise not_acceptable((f"{JSON};stream=watch", f"{PROTOBUF};stream=watch")[: 1 + protobuf])
    raise not_acceptable((JSON, YAML, PROTOBUF)[: 2 + protobuf])


def _other_shape(why: str) -> ApiError:
    return ApiError(406, "NotAcceptable", why)


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
    accept = request.headers.get("Accept-Encoding", "")
    if accept == "gzip":
        return True
    return "gzip" in accept and _lists_gzip(accept[:4096])


@lru_cache(maxsize=64)
def _lists_gzip(accept: str) -> bool:
    for clause in accept.split(","):
        coding, *parameters = (part.strip().lower() for part in clause.split(";"))
        if coding != "gzip":
            continue
        weight = next((p.partition("=")[2].strip() for p in parameters if p.partition("=")[0].strip() == "q"), "1")
        try:
            return float(weight) > 0
        except ValueError:
            return False
    return False
