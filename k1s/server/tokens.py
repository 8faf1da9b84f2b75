"""The secrets that let a machine join: the node token of the data directory, and tokens made with `k1s token create`.

Owns: JoinTokens, the files node-token and token of the server's directory, rotating them. Called by: server/app, server/join,
cli/token. Never does: hand out certificates (server/join); encrypt anything: a token is for joining, and lost without harm.

The files are read at each use (joins are rare), so a rotated token is good, and its predecessor of no use, from that moment on.
Secrets are compared by their hashes in constant time; an unknown id costs a comparison, too.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from pathlib import Path

from k1s.api import bootstrap_token
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.base import pki
from k1s.base.clock import Clock, rfc3339
from k1s.base.files import read_if_exists, write_atomic
from k1s.client.interface import InformerFactory
from k1s.server.apiserver.attributes import UserInfo
from k1s.server.config import ServerConfig

log = logging.getLogger("k1s.server.tokens")

_NODE_TOKEN_USER = UserInfo("system:node-token", (bootstrap_token.GROUP,))
# Hashes of secrets that were rotated away: an option that still names one must not bring it back.
_ROTATED = "rotated-tokens"
_ROTATED_KEPT = 64
# Nothing slows guesses down; of random letters and digits this is enough.
_SHORTEST = 12


class JoinTokens:
    """`check` says who a token speaks for. `load_tokens` must have made the files."""

    def __init__(self, config: ServerConfig, informers: InformerFactory, clock: Clock) -> None:
        self._files = (config.node_token_file, server_token_file(config.server_dir))
        self._secrets = informers.informer(builtin("Secret"))
        self._clock = clock

    def check(self, given: str) -> UserInfo:
        """`given`: what stands after the CA's hash in a token. Raises ApiError 401 that says what to do."""
        parts = bootstrap_token.split(given)
        if parts is not None:
            return self._check_bootstrap(*parts)
        digest = _digest(secret_of(given))
        good = [hmac.compare_digest(digest, _digest(_stored(file) or secrets.token_hex())) for file in self._files]
        if not any(good):
            raise _refused(
                "the token is wrong, or was rotated; the file node-token in the server's data directory has the present one"
            )
        return _NODE_TOKEN_USER

    def _check_bootstrap(self, identity: str, secret: str) -> UserInfo:
        found = self._secrets.get(bootstrap_token.secret_name(identity), bootstrap_token.NAMESPACE)
        known = bootstrap_token.field(found, "token-secret") if found is not None else ""
        same = hmac.compare_digest(_digest(secret), _digest(known or secrets.token_hex()))
        if not same or found is None or not bootstrap_token.may_authenticate(found):
            raise _refused(
                f'no token "{identity}" with this secret: deleted, expired or mistyped? On the server run: k1s token create'
            )
        left = bootstrap_token.seconds_left(found, self._clock.now())
        if left is not None and left <= 0:
            # Only who has the secret is told.
            when = bootstrap_token.field(found, "expiration")
            raise _refused(
                f'the token "{identity}" expired at {when} (it is {rfc3339(self._clock.now())}). On the server: k1s token create'
            )
        return UserInfo(bootstrap_token.USER_PREFIX + identity, (bootstrap_token.GROUP,))


def server_token_file(server_dir: Path) -> Path:
    return server_dir / "token"


def secret_of(token: str) -> str:
    """What is secret in a token: the part after the CA hash and the user."""
    _, separator, rest = token.strip().partition("::")
    text = rest if separator else token.strip()
    user, colon, secret = text.partition(":")
    return secret if colon and user in ("node", "server") else text


def load_tokens(config: ServerConfig, server_ca: bytes) -> str:
    """Make the token files at first start; `--token` gives the secret. Returns the node token. Files are 0600."""
    given = config.token or (Path(config.token_file).read_text().strip() if config.token_file else "")
    if given and _is_rotated(config.server_dir, secret_of(given)):
        log.warning(
            "--token names a token that was rotated away: the one in %s holds; take the option out", config.node_token_file
        )
        given = ""
    if given and len(secret_of(given)) < _SHORTEST:
        log.warning(
            "--token is shorter than %d characters: who guesses it joins machines; without the option a random one is made",
            _SHORTEST,
        )
    out = ""
    for user, path in (("server", server_token_file(config.server_dir)), ("node", config.node_token_file)):
        secret = secret_of(given) if given else _stored(path) or secrets.token_hex(16)
        out = _write(path, server_ca, user, secret)
    return out


def rotate(server_dir: Path, node_token_file: Path, server_ca: bytes) -> str:
    """A new node token; the old one is of no use from now on. Returns the new one, whole. Raises OSError."""
    old = _stored(node_token_file)
    _note_rotated(server_dir, old)
    server_file = server_token_file(server_dir)
    if old and hmac.compare_digest(_digest(_stored(server_file)), _digest(old)):
        # One secret was given for both: it must not live on in the other file.
        _write(server_file, server_ca, "server", secrets.token_hex(16))
    return _write(node_token_file, server_ca, "node", secrets.token_hex(16))


def whole(server_ca: bytes, rest: str) -> str:
    """A token as machines are given it."""
    return f"K10{pki.ca_hash(server_ca)}::{rest}"


def _write(path: Path, server_ca: bytes, user: str, secret: str) -> str:
    token = whole(server_ca, f"{user}:{secret}")
    content = f"{token}\n".encode()
    if read_if_exists(path) != content:
        write_atomic(path, content)
    return token


def _stored(path: Path) -> str:
    content = read_if_exists(path)
    return secret_of(content.decode()) if content else ""


def _is_rotated(server_dir: Path, secret: str) -> bool:
    return _digest(secret).hex() in (read_if_exists(server_dir / _ROTATED) or b"").decode().split()


def _note_rotated(server_dir: Path, secret: str) -> None:
    if not secret:
        return
    known = (read_if_exists(server_dir / _ROTATED) or b"").decode().split()
    lines = [*known, _digest(secret).hex()][-_ROTATED_KEPT:]
    write_atomic(server_dir / _ROTATED, "".join(f"{line}\n" for line in lines).encode())


def _digest(secret: str) -> bytes:
    # What strangers send in a header need not be text.
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


def _refused(message: str) -> ApiError:
    return ApiError(401, "Unauthorized", message)
