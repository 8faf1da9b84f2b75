"""ConfigMaps and Secrets: keys, sizes, what the secret types need, and `immutable: true`.

Called by: table.py. Never does: show a secret's content in a message.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from typing import Any

from k1s.api import names
from k1s.api.errors import FieldError, forbidden_field, invalid_value, required, too_long
from k1s.api.meta import Object
from k1s.api.validation.rules import Errors, immutable, same

MAX_SIZE = 1024 * 1024
_FROZEN = "field is immutable when `immutable` is set"
_REDACTED = "<secret contents redacted>"
_ACCOUNT_ANNOTATION = "kubernetes.io/service-account.name"


def _key(errs: Errors, field: str, key: str) -> None:
    errs.extend(invalid_value(f"{field}[{key}]", key, message) for message in names.config_map_key(key))


def _decoded_size(text: Any) -> int:
    """Bytes of base64 text, without decoding it."""
    value = str(text)
    return len(value) * 3 // 4 - value[-2:].count("=")


def config_map(errs: Errors, obj: Object) -> None:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    size = 0
    for key, value in data.items():
        _key(errs, "data", key)
        if key in binary:
            errs.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
        size += len(value) if value.isascii() else len(value.encode())
    for key, value in binary.items():
        _key(errs, "binaryData", key)
        size += _decoded_size(value)
    if size > MAX_SIZE:
        errs.append(too_long("", MAX_SIZE))


def _frozen(errs: Errors, obj: Object, old: Object, *keys: str) -> None:
    if not old.get("immutable"):
        return
    if not obj.get("immutable"):
        errs.append(forbidden_field("immutable", _FROZEN))
    errs.extend(forbidden_field(key, _FROZEN) for key in keys if not same(obj.get(key), old.get(key)))


def config_map_update(errs: Errors, obj: Object, old: Object) -> None:
    _frozen(errs, obj, old, "data", "binaryData")
    config_map(errs, obj)


def secret(errs: Errors, obj: Object) -> None:
    data = obj.get("data") or {}
    size = 0
    for key, value in data.items():
        _key(errs, "data", key)
        size += _decoded_size(value)
    if size > MAX_SIZE:
        errs.append(too_long("data", MAX_SIZE))
    _secret_type(errs, obj, data)


def _secret_type(errs: Errors, obj: Object, data: Object) -> None:
    kind = obj.get("type")
    if kind == "kubernetes.io/service-account-token":
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        if not annotations.get(_ACCOUNT_ANNOTATION):
            errs.append(required(f"metadata.annotations[{_ACCOUNT_ANNOTATION}]"))
    elif kind == "kubernetes.io/dockercfg":
        _json_key(errs, data, ".dockercfg")
    elif kind == "kubernetes.io/dockerconfigjson":
        _json_key(errs, data, ".dockerconfigjson")
    elif kind == "kubernetes.io/basic-auth":
        if "username" not in data and "password" not in data:
            errs.extend(required(f"data[{key}]") for key in ("username", "password"))
    elif kind == "kubernetes.io/ssh-auth":
        if not data.get("ssh-privatekey"):
            errs.append(required("data[ssh-privatekey]"))
    elif kind == "kubernetes.io/tls":
        errs.extend(required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data)


def _json_key(errs: Errors, data: Object, key: str) -> None:
    if key not in data:
        errs.append(required(f"data[{key}]"))
        return
    try:
        json.loads(b64decode(data[key] or ""))
    except (binascii.Error, ValueError):
        # The parser's own message may quote what it read.
        errs.append(FieldError("FieldValueInvalid", f"data[{key}]", "must be valid JSON", _REDACTED))


def secret_update(errs: Errors, obj: Object, old: Object) -> None:
    immutable(errs, "type", obj.get("type"), old.get("type"))
    _frozen(errs, obj, old, "data")
    secret(errs, obj)
