"""Objects of built-in kinds in Kubernetes' protobuf form, for the clients that read nothing else.

Owns: encode_protobuf, watch_frame. Called by: the apiserver's answers. Never does: decode (protobuf.py, with the field table).
Fields that are not there are left out: they read as their zero value. Source: apimachinery/pkg/runtime/serializer/protobuf.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

import orjson

from k1s.api.protobuf import MAGIC, message_fields, message_of

Object = dict[str, Any]

_VARINT, _FIXED64, _BYTES = 0, 1, 2


class _Message(NamedTuple):
    """label -> (key of the field, code), and the messages whose fields are the owner's."""

    fields: dict[str, tuple[bytes, str]]
    inlined: tuple[tuple[bytes, str], ...]


@cache
def _plan(name: str) -> _Message:
    fields: dict[str, tuple[bytes, str]] = {}
    inlined = []
    for number, field in message_fields(name).items():
        code = field.code.lstrip("*")
        wire = _VARINT if code[0] in "ib" else _FIXED64 if code[0] == "f" else _BYTES
        if code[0] == "[":
            wire = _VARINT if code[1] in "ib" else _FIXED64 if code[1] == "f" else _BYTES
        key = _varint(number << 3 | wire)
        if field.label == "<":
            inlined.append((key, code[1:]))
        else:
            fields[field.label] = (key, code)
    return _Message(fields, tuple(inlined))


def has_protobuf(group: str, version: str, kind: str) -> bool:
    return bool(message_of(group, version, kind))


def encode_protobuf(obj: Object) -> bytes:
    """An object or a list, in the envelope that says what it is. Raises ValueError for a kind that has no such form."""
    api_version, kind = obj.get("apiVersion") or "", obj.get("kind") or ""
    group, _, version = api_version.rpartition("/")
    name = message_of(group, version, kind)
    if not name:
        raise ValueError(f"{api_version} {kind} has no protobuf form")
    type_meta = _sized(b"\n", api_version.encode()) + _sized(b"\x12", kind.encode())
    return MAGIC + _sized(b"\n", type_meta) + _sized(b"\x12", _message(obj, name)) + b"\x1a\x00\x22\x00"


def watch_frame(type_: str, obj: Object) -> bytes:
    """One event of a watch: a metav1.WatchEvent after its length."""
    event = _sized(b"\n", type_.encode()) + _sized(b"\x12", _sized(b"\n", encode_protobuf(obj)))
    return struct.pack(">I", len(event)) + event


def _varint(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes((value,))
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _sized(key: bytes, data: bytes) -> bytes:
    return key + _varint(len(data)) + data


def _message(obj: Object, name: str) -> bytes:
    fields, inlined = _plan(name)
    out: list[bytes] = []
    for label, value in obj.items():
        found = fields.get(label)
        if found is not None and value is not None:
            _field(out, found[0], found[1], value)
    for key, inner in inlined:
        data = _message({label: value for label, value in obj.items() if label not in fields}, inner)
        if data:
            out.append(_sized(key, data))
    return b"".join(out)


def _field(out: list[bytes], key: bytes, code: str, value: Any) -> None:
    kind = code[0]
    if kind == "[":
        for item in value:
            _field(out, key, code[1:].lstrip("*"), item)
    elif kind == "{":
        for name in sorted(value):
            entry: list[bytes] = [_sized(b"\n", name.encode())]
            inner = code[1:].lstrip("*")
            _field(entry, _varint(2 << 3 | (_VARINT if inner[0] in "ib" else _BYTES)), inner, value[name])
            out.append(_sized(key, b"".join(entry)))
    elif kind in "ib":
        out.append(key + _varint(int(value)))
    elif kind == "f":
        out.append(key + struct.pack("<d", value))
    else:
        out.append(_sized(key, _bytes(code, value)))


def _bytes(code: str, value: Any) -> bytes:
    kind = code[0]
    if kind == "s":
        text: str = value
        return text.encode()
    if kind == "@":
        return _message(value, code[1:])
    if kind == "y":
        return base64.b64decode(value)
    if kind == "+":
        items: list[bytes] = []
        for item in value:
            _field(items, b"\n", code[1:], item)
        return b"".join(items)
    return _SPECIAL[kind](value)


def _moment(value: str) -> bytes:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    nanos = moment.microsecond * 1000
    return b"\x08" + _varint(int(moment.replace(microsecond=0).timestamp())) + (b"\x10" + _varint(nanos) if nanos else b"")


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def _duration(value: str) -> bytes:
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)(h|ms|m|us|µs|ns|s)", value))
    return b"\x08" + _varint(round(seconds * 1e9) * (-1 if value.startswith("-") else 1))


def _int_or_string(value: int | str) -> bytes:
    if isinstance(value, str):
        return b"\x08\x01" + _sized(b"\x1a", value.encode())
    return b"\x08\x00\x10" + _varint(value)


_SCHEMA = "apiextensions/v1.JSONSchemaProps"


def _schema_or_array(value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join(_sized(b"\x12", _message(item, _SCHEMA)) for item in value)
    return _sized(b"\n", _message(value, _SCHEMA))


def _schema_or_bool(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"\x08" + _varint(int(value))
    return b"\x08\x01" + _sized(b"\x12", _message(value, _SCHEMA))


def _schema_or_strings(value: Any) -> bytes:
    if isinstance(value, list):
        return b"".join(_sized(b"\x12", item.encode()) for item in value)
    return _sized(b"\n", _message(value, _SCHEMA))


def _raw(value: Any) -> bytes:
    return _sized(b"\n", orjson.dumps(value))


_SPECIAL: dict[str, Callable[[Any], bytes]] = {
    "Q": lambda value: _sized(b"\n", str(value).encode()),
    "O": _int_or_string,
    "T": _moment,
    "U": _moment,
    "D": _duration,
    "R": _raw,
    "F": _raw,
    "A": _schema_or_array,
    "B": _schema_or_bool,
    "S": _schema_or_strings,
}
