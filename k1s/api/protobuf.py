"""Request bodies in Kubernetes' protobuf form, as the JSON-like objects everything else works on.

Owns: decode_protobuf. Called by: the apiserver, for Content-Type application/vnd.kubernetes.protobuf (what client-go and kubectl
send for built-in kinds). Never does: encode (protobuf_encode.py, for the few clients that take nothing else).
The field numbers come from protobuf_fields.txt.gz (packaging/protobuf_fields.py makes it), read when the first such body comes.

A line of the table: message, then per field `number label code`; label ends with ? if a zero value is left out, < means that
the fields are the owner's; code: * pointer, [ list, { map, + a list wrapped in a message, @ message, and one letter per scalar.
"""

from __future__ import annotations

import base64
import gzip
import struct
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import orjson

from k1s.api.errors import bad_request

Object = dict[str, Any]

MAGIC = b"k8s\x00"
# Nested deeper than any real object; a body beyond that is an attack.
_MAX_DEPTH = 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    label: str
    omit_zero: bool
    code: str


class _Malformed(ValueError):
    pass


@cache
def _lines() -> dict[str, str]:
    data = gzip.decompress((resources.files("k1s.api") / "protobuf_fields.txt.gz").read_bytes()).decode()
    return dict(line.partition("\t")[::2] for line in data.splitlines())


@cache
def message_fields(message: str) -> dict[int, Field]:
    out = {}
    for part in filter(None, _lines().get(message, "").split("\t")):
        number, label, code = part.split(" ")
        out[int(number)] = Field(label.removesuffix("?"), label.endswith("?"), code)
    return out


@cache
def left_out(definition: str) -> frozenset[str]:
    """Of a type, by its name in OpenAPI, the fields of plain values that Go leaves out of JSON when they are zero."""
    group, version, kind = definition.split(".")[-3:]
    return _left_out(f"{group}/{version}.{kind}")


def _left_out(message: str) -> frozenset[str]:
    out: set[str] = set()
    for field in message_fields(message).values():
        if field.label == "<":
            out |= _left_out(field.code.lstrip("*@"))
        elif field.omit_zero and field.code in ("s", "b", "i", "f"):
            out.add(field.label)
    return frozenset(out)


def message_of(group: str, version: str, kind: str) -> str:
    """`core/v1.Pod`; "" if there is none."""
    package = (group or "core").partition(".")[0]
    for name in (f"{package}/{version}.{kind}", f"meta/v1.{kind}"):
        if name in _lines():
            return name
    return ""


def decode_protobuf(body: bytes) -> Object:
    """The object in a body. Raises ApiError 400."""
    if body[:4] != MAGIC:
        raise bad_request("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        api_version = kind = ""
        raw = b""
        for number, _, value in _items(body[4:]):
            if number == 1 and isinstance(value, bytes):
                for inner, _, text in _items(value):
                    if inner == 1 and isinstance(text, bytes):
                        api_version = text.decode()
                    elif inner == 2 and isinstance(text, bytes):
                        kind = text.decode()
            elif number == 2 and isinstance(value, bytes):
                raw = value
        group, _, version = api_version.rpartition("/")
        message = message_of(group, version, kind)
        if not message:
            raise bad_request(f'no kind "{kind}" is registered for version "{api_version}"')
        return {"apiVersion": api_version, "kind": kind, **_message(raw, message, 0)}
    except (_Malformed, UnicodeDecodeError, struct.error, orjson.JSONDecodeError, OverflowError, OSError) as error:
        raise bad_request(f"the protobuf message cannot be decoded: {error}") from None


def _items(data: bytes) -> list[tuple[int, int, int | bytes]]:
    """(field number, wire type, value) of a message; varints as unsigned, fixed ones as bytes."""
    out: list[tuple[int, int, int | bytes]] = []
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _varint(data, at)
        else:
            if wire == _BYTES:
                size, at = _varint(data, at)
            elif wire == _FIXED64:
                size = 8
            elif wire == _FIXED32:
                size = 4
            else:
                raise _Malformed(f"wire type {wire}")
            if at + size > end:
                raise _Malformed("unexpected EOF")
            value = data[at : at + size]
            at += size
        out.append((number, wire, value))
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _Malformed("unexpected EOF")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7


def _message(data: bytes, name: str, depth: int) -> Object:
    if depth > _MAX_DEPTH:
        raise _Malformed("nested too deeply")
    fields = message_fields(name)
    out: Object = {}
    for number, _, value in _items(data):
        field = fields.get(number)
        if field is None:
            continue  # a newer client's field: as an unknown field that nobody asked to be warned of
        _put(out, field, value, depth)
    return out


def _put(out: Object, field: Field, value: int | bytes, depth: int) -> None:
    label, omit_zero, code = field
    if label == "<":
        out.update(_value(code.lstrip("*"), value, depth))
    elif code[0] == "[":
        out.setdefault(label, []).append(_value(code[1:], value, depth))
    elif code[0] == "{":
        key, item = _entry(code[1:], value, depth)
        out.setdefault(label, {})[key] = item
    elif code[0] == "*":
        out[label] = _value(code[1:], value, depth)
    else:
        decoded = _value(code, value, depth)
        if decoded is None or (omit_zero and decoded in ("", 0, [], 0.0)):
            return
        out[label] = decoded


def _entry(code: str, value: int | bytes, depth: int) -> tuple[str, Any]:
    """One entry of a map: key in field 1, value in field 2."""
    key = ""
    item: Any = None
    for number, _, part in _items(_bytes(value)):
        if number == 1:
            key = _bytes(part).decode()
        elif number == 2:
            item = _value(code, part, depth)
    return key, _value(code, b"", depth) if item is None and code[0] not in "ibf" else item


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _Malformed("a number where bytes are expected")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise _Malformed("bytes where a number is expected")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _value(code: str, value: int | bytes, depth: int) -> Any:
    kind = code[0]
    if kind == "s":
        return _bytes(value).decode()
    if kind == "i":
        return _number(value)
    if kind == "b":
        return bool(_number(value))
    if kind == "@":
        return _message(_bytes(value), code[1:], depth + 1)
    if kind == "y":
        return base64.b64encode(_bytes(value)).decode()
    if kind == "f":
        return struct.unpack("<d", _bytes(value))[0]
    if kind == "+":
        return [_value(code[1:], item, depth) for number, _, item in _items(_bytes(value)) if number == 1]
    if kind == "{":
        return dict([_entry(code[1:], value, depth)])
    if kind == "*":
        return _value(code[1:], value, depth)
    return _special(kind, _bytes(value), depth)


def _special(kind: str, data: bytes, depth: int) -> Any:
    """Types whose JSON is not an object with the message's fields."""
    parts = {number: value for number, _, value in _items(data)}
    if kind == "Q":
        return _bytes(parts.get(1, b"0")).decode() or "0"
    if kind == "O":
        return _bytes(parts.get(3, b"")).decode() if parts.get(1) == 1 else _number(parts.get(2, 0))
    if kind in "TU":
        if not parts:
            return None
        moment = datetime.fromtimestamp(_number(parts.get(1, 0)), UTC)
        fraction = "" if kind == "T" else f".{_number(parts.get(2, 0)) // 1000:06d}"
        return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
    if kind == "D":
        return f"{_number(parts.get(1, 0)) / 1e9:g}s"
    if kind in "RF":
        raw = _bytes(parts.get(1, b""))
        return orjson.loads(raw) if raw else None
    schema = "@apiextensions/v1.JSONSchemaProps"
    if kind == "A":
        many = [_value(schema, v, depth) for number, _, v in _items(data) if number == 2]
        return many or _value(schema, parts.get(1, b""), depth)
    if kind == "B":
        return _value(schema, parts[2], depth) if 2 in parts else bool(_number(parts.get(1, 0)))
    if kind == "S":
        names = [_bytes(v).decode() for number, _, v in _items(data) if number == 2]
        return _value(schema, parts[1], depth) if 1 in parts else names
    raise _Malformed(f"unknown type {kind}")
