"""The `continue` token of a paged list.

Owns: Token: the revision all pages are read at, the last key, and when the first page was read.
Called by: handlers/list. Never does: I/O. A token is not a secret: whoever changes it only lists what he may list anyway.
"""

from __future__ import annotations

import base64
import binascii
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


def read_token(text: str, prefix: str, version: str, match: str) -> Token:
    """Raises ApiError 400."""
    if version and version != "0":
        raise bad_request("specifying resource version is not allowed when using continue")
    try:
        data = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        token = Token(int(data["rv"]), str(data["start"]).removesuffix("\0"), float(data.get("t") or 0))
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise bad_request(f"continue key is not valid: {text[:200]!r}") from None
    if token.revision == 0 or not token.after or ".." in token.after:
        raise bad_request("continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    return token
