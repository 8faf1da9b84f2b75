"""Secrets and service accounts.

Called by: table.py. Never does: show what a secret holds.
Source: upstream pkg/registry/core/{secret,serviceaccount}/strategy.go.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any

from k1s.api.meta import Object

_ENFORCE = "kubernetes.io/enforce-mountable-secrets"
_TLS = "kubernetes.io/tls"
_BEGIN = b"-----BEGIN "


def secret(obj: Object, old: Object | None) -> list[str]:
    """A pair that no TLS server could load, as far as the PEM shows without parsing the keys."""
    data = obj.get("data") or {}
    if obj.get("type") != _TLS or (old is not None and old.get("data") == data):
        return []
    for key, what, word in (("tls.crt", "certificate", b"CERTIFICATE"), ("tls.key", "key", b"PRIVATE KEY")):
        try:
            content = b64decode(data.get(key) or "")
        except (binascii.Error, ValueError):
            return []
        if _BEGIN not in content:
            return [f"tls: failed to find any PEM data in {what} input"]
        if word not in content:
            return [_wrong_block(what, content)]
    return []


def _wrong_block(what: str, content: bytes) -> str:
    kind = content.partition(_BEGIN)[2].partition(b"-----")[0].decode("ascii", "replace")[:64]
    skipped = f"{what} input after skipping PEM blocks of the following types: [{kind}]"
    if what == "certificate":
        return f'tls: failed to find "CERTIFICATE" PEM block in {skipped}'
    return f'tls: failed to find PEM block with type ending in "PRIVATE KEY" in {skipped}'


def service_account(obj: Object, old: Object | None) -> list[str]:
    if _ENFORCE not in _annotations(obj) or (old is not None and _ENFORCE in _annotations(old)):
        return []
    return [
        f"metadata.annotations[{_ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
    ]


def _annotations(obj: Object) -> dict[str, Any]:
    return (obj.get("metadata") or {}).get("annotations") or {}
