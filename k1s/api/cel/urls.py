"""url() in CEL, read as Go's net/url.ParseRequestURI. Source: apiserver/pkg/cel/library/urls.go."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from k1s.api.cel.optional import Opaque, opaque, opened


def _parse(text: str) -> SplitResult:
    try:
        parts = urlsplit(text, allow_fragments=False)
        _ = parts.port  # raises ValueError
    except ValueError:
        raise ValueError(f"URL parse error during conversion from string: parse {text!r}: invalid URI for request") from None
    odd = any(c <= " " or c == "\x7f" for c in text)
    if not text or odd or not (parts.scheme or parts.path.startswith("/")) or (parts.scheme and text.endswith(":")):
        raise ValueError(f"URL parse error during conversion from string: parse {text!r}: invalid URI for request")
    return parts


def _is(text: str) -> bool:
    try:
        _parse(text)
    except ValueError:
        return False
    return True


def _make(text: str) -> Opaque:
    _parse(text)
    return opaque("url", text)


def _parts(value: Any) -> SplitResult:
    return _parse(opened(value, "url"))


def _host(value: Any) -> str:
    return _parts(value).netloc.rpartition("@")[2]


def _hostname(value: Any) -> str:
    host = _host(value)
    if host.startswith("["):
        return host[1 : host.find("]")]
    return host.partition(":")[0]


def _port(value: Any) -> str:
    host = _host(value)
    return host.rpartition("]")[2].partition(":")[2]


FUNCTIONS = (
    ("isURL", False, ("STRING",), _is),
    ("url", False, ("STRING",), _make),
    ("getScheme", True, ("OPAQUE",), lambda value: _parts(value).scheme),
    ("getHost", True, ("OPAQUE",), _host),
    ("getHostname", True, ("OPAQUE",), _hostname),
    ("getPort", True, ("OPAQUE",), _port),
    ("getEscapedPath", True, ("OPAQUE",), lambda value: quote(_parts(value).path, safe="/%:@!$&'()*+,;=~")),
    ("getQuery", True, ("OPAQUE",), lambda value: parse_qs(_parts(value).query, keep_blank_values=True)),
)
