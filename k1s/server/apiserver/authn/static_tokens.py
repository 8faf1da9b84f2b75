"""Tokens that stand in a file: `token,user,uid,"group1,group2"` a line (--token-auth-file).

Owns: reading that file, comparing. Called by: authn/app. Never does: reload (upstream needs a restart, too).
Every line is compared, in constant time, whichever fits: how long an answer takes says nothing about tokens.
Source: upstream apiserver/pkg/authentication/token/tokenfile.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from k1s.server.apiserver.attributes import UserInfo
from k1s.server.apiserver.authn.app import Checked, shared_audiences
from k1s.server.apiserver.authn.jwt import NotOurs

MAX_TOKENS = 1024


class TokenFileError(ValueError):
    """A file that cannot be used; one line that never holds a token."""


class StaticTokens:
    """`audiences`: the API's own, for which such tokens are good."""

    def __init__(self, tokens: dict[str, UserInfo], audiences: Sequence[str]) -> None:
        self._tokens = [(_digest(token), user) for token, user in tokens.items()]
        self._audiences = tuple(audiences)

    def check(self, token: str, audiences: Sequence[str] = ()) -> Checked:
        digest, found = _digest(token), None
        for known, user in self._tokens:
            if hmac.compare_digest(digest, known):
                found = user
        if found is None:
            raise NotOurs
        return found, shared_audiences(audiences, self._audiences)


def read(path: Path) -> dict[str, UserInfo]:
    """Token -> user. Raises TokenFileError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(f"{path}: cannot be read: {type(error).__name__}") from error
    out: dict[str, UserInfo] = {}
    for number, row in enumerate(csv.reader(text.splitlines(), skipinitialspace=True), 1):
        if not row or not "".join(row).strip():
            continue
        if len(row) < 3:
            raise TokenFileError(f"{path}: line {number}: token file must have at least 3 columns (token, user name, user uid)")
        token, name, uid = (column.strip() for column in row[:3])
        if not token or token in out:
            continue  # as upstream: an empty token is no token, of two alike the first one counts
        groups = tuple(group.strip() for group in row[3].split(",") if group.strip()) if len(row) > 3 else ()
        out[token] = UserInfo(name, groups, uid)
        if len(out) > MAX_TOKENS:
            raise TokenFileError(f"{path}: more than {MAX_TOKENS} tokens")
    return out


def _digest(token: str) -> bytes:
    # What strangers send in a header need not be text.
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
