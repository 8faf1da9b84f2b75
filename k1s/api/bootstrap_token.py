"""Join tokens that live in the cluster: Secrets of type bootstrap.kubernetes.io/token in kube-system.

Owns: the Secret's fields and the forms of a token. Called by: server/tokens, controllers/token_cleaner, cli/token.
Never does: I/O, compare secrets. Source: upstream bootstrap tokens (KEP-130, k8s.io/cluster-bootstrap/token/api).

    abcdef.0123456789abcdef                 id and secret
    K10<hash of the server's CA>::abcdef.0123456789abcdef       what a machine joins with: the hash tells it the right server
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]

NAMESPACE = "kube-system"
TYPE = "bootstrap.kubernetes.io/token"
USER_PREFIX = "system:bootstrap:"
GROUP = "system:bootstrappers"
_PREFIX = "bootstrap-token-"
_FORM = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_ID = re.compile(r"[a-z0-9]{6}")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def new_token() -> tuple[str, str]:
    """A random id and secret (83 bits)."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(22))
    return letters[:6], letters[6:]


def new_secret(identity: str, secret: str, description: str, expires: float | None) -> Object:
    """The Secret of a token; `expires` in seconds since the epoch, None: never."""
    data = {
        "token-id": identity,
        "token-secret": secret,
        "description": description,
        "expiration": datetime.fromtimestamp(int(expires), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if expires is not None else "",
        "usage-bootstrap-authentication": "true",
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(identity), "namespace": NAMESPACE},
        "type": TYPE,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items() if value},
    }


def secret_name(identity: str) -> str:
    return _PREFIX + identity


def split(text: str) -> tuple[str, str] | None:
    """(id, secret) of `id.secret`, None if it is not of that form."""
    match = _FORM.fullmatch(text)
    return (match[1], match[2]) if match else None


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def is_token(secret: Object) -> bool:
    return secret.get("type") == TYPE and secret["metadata"].get("namespace") == NAMESPACE


def field(secret: Object, key: str) -> str:
    """A field's text, "" if it is absent or no text."""
    try:
        return base64.b64decode(str((secret.get("data") or {}).get(key) or "")).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def seconds_left(secret: Object, now: float) -> float | None:
    """Until the token expires, 0 or less if it has; None if it never does. One whose time cannot be read has expired."""
    text = field(secret, "expiration")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return moment.timestamp() - now if moment.tzinfo is not None else 0.0


def may_authenticate(secret: Object) -> bool:
    """Whether the token was made for joining, and its Secret bears the name that its id demands."""
    named = secret["metadata"].get("name") == secret_name(field(secret, "token-id"))
    return is_token(secret) and named and field(secret, "usage-bootstrap-authentication") == "true"
