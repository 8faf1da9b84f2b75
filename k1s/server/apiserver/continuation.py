"""The `continue` token of a paged list.

Owns: Token: the revision all pages are read at, the last key, and when the first page was read (KEP-365).
Called by: handlers/list. Never does: I/O. A token is not a secret: whoever changes it only lists what he may list anyway.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
from dataclasses import dataclass
from typing import Any

import orjson

from k1s.api.errors import ApiError, bad_request

# As upstream, where a token lives as long as etcd keeps the revision: one compaction interval.
TOKEN_SECONDS = 300.0

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the "
    "continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with "
    "the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Token:
    """`revision` -1: go on at whatever is current."""

    revision: int
    after: str
    time: float

    def encode(self) -> str:
        data = orjson.dumps({"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.after + "\0", "t": int(self.time)})
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    def too_old(self, now: float, revision: int) -> bool:
        return self.revision >= 0 and now - self.time > TOKEN_SECONDS and revision != self.revision


class ExpiredToken(ApiError):
    """410 with a token that goes on without consistency."""

    def __init__(self, token: str) -> None:
        super().__init__(410, "Expired", _TOO_OLD)
        self._token = token

    def status(self) -> dict[str, Any]:
        out = super().status()
        out["metadata"] = {"continue": self._token}
        return out


def expired_token(token: Token, now: float) -> ExpiredToken:
    return ExpiredToken(Token(-1, token.after, now).encode())


def read_token(text: str, version: str) -> Token:
    """Raises ApiError 400."""
    try:
        token = _decoded(text)
    except ValueError as error:
        raise bad_request(f"invalid continue token: continue key is not valid{error}") from None
    if version and version != "0":
        raise bad_request("specifying resource version is not allowed when using continue")
    return token


def _decoded(text: str) -> Token:
    """Raises ValueError with what upstream says after "continue key is not valid"."""
    try:
        data = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        if not isinstance(data, dict):
            raise ValueError("json: cannot unmarshal into Go value of type storage.continueToken")
        kind, revision, start = data.get("v") or "", data.get("rv") or 0, data.get("start") or ""
        time = data.get("t") or 0
        if not (isinstance(kind, str) and type(revision) is int and isinstance(start, str) and isinstance(time, int | float)):
            raise ValueError("json: cannot unmarshal a field of type storage.continueToken")
    except (ValueError, binascii.Error) as error:
        raise ValueError(f": {error}") from None
    if kind != "meta.k8s.io/v1":
        raise ValueError(f": server does not recognize this encoded version {orjson.dumps(kind).decode()}")
    if revision == 0:
        raise ValueError(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    if not start:
        raise ValueError(": encoded start key empty (version meta.k8s.io/v1)")
    key = start if start.startswith("/") else f"/{start}"
    # No way up, out of what may be listed.
    if posixpath.normpath(key) != key:
        raise ValueError(f": {start}")
    return Token(revision, start.removesuffix("\0").removeprefix("/"), float(time))
