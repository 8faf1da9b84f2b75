"""A custom resource's values as CEL sees them through its schema: names escaped, times and numbers typed, the rest hidden.

Owns: bound(), escaped(). Called by: validation/custom_rules. Never does: evaluate or change the object.
Source: apiserver/pkg/cel/common/values.go, apiserver/pkg/cel/escaping.go.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from collections.abc import Callable
from typing import Any

from k1s.api.cel.scalars import Duration, Timestamp

Object = dict[str, Any]

_NAME = re.compile(r"[A-Za-z_./-][A-Za-z0-9_./-]*")
_LITERALS = ("true", "false", "null", "in", "as", "let", "if", "else", "for", "while", "loop", "break", "continue", "return")
_RESERVED = frozenset((*_LITERALS, "const", "function", "import", "package", "namespace", "var", "void"))
_PARTS = re.compile(r"__|\.|-|/")
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_MEANT = {text: mark for mark, text in _ESCAPES.items()}
_ESCAPED = re.compile("|".join(_MEANT))
_METADATA = ("name", "generateName")


def escaped(name: str) -> str:
    """The name of a property in expressions; empty if none can stand for it."""
    if not _NAME.fullmatch(name):
        return ""
    if name in _RESERVED:
        return f"__{name}__"
    return _PARTS.sub(lambda match: _ESCAPES[match.group()], name)


def unescaped(name: str) -> str:
    """The property that a name in an expression stands for."""
    if name.startswith("__") and name.endswith("__") and name[2:-2] in _RESERVED:
        return name[2:-2]
    return _ESCAPED.sub(lambda match: _MEANT[match.group()], name)


def bound(value: Any, schema: Object, *, root: bool = False) -> Any:
    """The value for a variable. `root`: the whole object, of which metadata shows only its names."""
    if value is None or schema.get("x-kubernetes-int-or-string"):
        return value
    kind = schema.get("type")
    if kind == "object" and isinstance(value, dict):
        return _object(value, schema, root or bool(schema.get("x-kubernetes-embedded-resource")))
    if kind == "array" and isinstance(value, list):
        items = schema.get("items") or {}
        return [bound(item, items) for item in value]
    if kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind == "string" and isinstance(value, str):
        convert = _FORMATS.get(schema.get("format") or "")
        return convert(value) if convert is not None else value
    return value


def _object(value: Object, schema: Object, resource: bool) -> Object:
    properties = schema.get("properties")
    more = schema.get("additionalProperties")
    if not properties and not resource:
        return {key: bound(item, more) for key, item in value.items()} if isinstance(more, dict) else value
    out: Object = {}
    for key, child in (properties or {}).items():
        name = escaped(key)
        if name and key in value:
            out[name] = bound(value[key], child or {})
    if resource:
        out |= {key: value[key] for key in ("apiVersion", "kind") if key in value}
        metadata = value.get("metadata") or {}
        out["metadata"] = {key: metadata[key] for key in _METADATA if key in metadata}
    return out


def _bytes(text: str) -> Any:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text


def _timestamp(text: str) -> Any:
    try:
        return Timestamp.parse(text.upper())
    except ValueError:
        return text


def _date(text: str) -> Any:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return text
    return _timestamp(f"{text}T00:00:00Z")


def _duration(text: str) -> Any:
    try:
        return Duration.parse(text)
    except ValueError:
        return text


_FORMATS: dict[str, Callable[[str], Any]] = {
    "byte": _bytes,
    "date-time": _timestamp,
    "date": _date,
    "duration": _duration,
}
