"""The OpenAPI v2 document as gnostic's protobuf (openapi.v2.Document), which kubectl asks for.

Owns: encode_document. Called by: openapi, in its thread. Never does: make the document.
Field numbers are those of gnostic's OpenAPIv2.proto; fields that Kubernetes documents do not use are not here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

Object = Mapping[str, Any]

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

_STRINGS, _NUMBERS, _FLAGS = "string", "double", "flag"
_INTEGERS, _ANY = "integer", "any"
# JSON key -> (field number, how it is written); the rest of a schema is in _schema.
_SCHEMA: dict[str, tuple[int, str]] = {
    "$ref": (1, _STRINGS),
    "format": (2, _STRINGS),
    "title": (3, _STRINGS),
    "description": (4, _STRINGS),
    "default": (5, _ANY),
    "multipleOf": (6, _NUMBERS),
    "maximum": (7, _NUMBERS),
    "exclusiveMaximum": (8, _FLAGS),
    "minimum": (9, _NUMBERS),
    "exclusiveMinimum": (10, _FLAGS),
    "maxLength": (11, _INTEGERS),
    "minLength": (12, _INTEGERS),
    "pattern": (13, _STRINGS),
    "maxItems": (14, _INTEGERS),
    "minItems": (15, _INTEGERS),
    "uniqueItems": (16, _FLAGS),
    "maxProperties": (17, _INTEGERS),
    "minProperties": (18, _INTEGERS),
    "example": (30, _ANY),
}
_EXTENSION = 31
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}
# Query and path parameters are messages of their own, with other numbers.
_QUERY: dict[str, tuple[int, str]] = {
    "required": (1, _FLAGS),
    "in": (2, _STRINGS),
    "description": (3, _STRINGS),
    "name": (4, _STRINGS),
    "type": (6, _STRINGS),
    "uniqueItems": (20, _FLAGS),
}
_PATH = {**_QUERY, "type": (5, _STRINGS), "uniqueItems": (19, _FLAGS)}


def encode_document(document: Object) -> bytes:
    info = document["info"]
    out = _text(1, document["swagger"])
    out += _bytes(2, _text(1, info["title"]) + _text(2, info["version"]))
    out += _bytes(8, b"".join(_named(2, path, _path_item(item)) for path, item in document["paths"].items()))
    out += _bytes(9, _named_schemas(document["definitions"]))
    return out


def _path_item(item: Object) -> bytes:
    return b"".join(_bytes(_METHODS[method], _operation(item[method])) for method in _METHODS if method in item)


def _operation(operation: Object) -> bytes:
    out = b"".join(_text(1, tag) for tag in operation.get("tags") or ())
    out += _text(3, operation.get("description", "")) + _text(5, operation.get("operationId", ""))
    out += b"".join(_text(6, kind) for kind in operation.get("produces") or ())
    out += b"".join(_text(7, kind) for kind in operation.get("consumes") or ())
    out += b"".join(_bytes(8, _bytes(1, _parameter(p))) for p in operation.get("parameters") or ())
    out += _bytes(9, b"".join(_named(1, code, _bytes(1, _response(r))) for code, r in operation["responses"].items()))
    return out + _extensions(13, operation)


def _parameter(parameter: Object) -> bytes:
    where = parameter["in"]
    if where == "body":
        body = _text(2, parameter["name"]) + _text(3, where) + _flag(4, parameter.get("required", False))
        return _bytes(1, body + _bytes(5, _schema(parameter["schema"])))
    table, number = (_PATH, 4) if where == "path" else (_QUERY, 3)
    return _bytes(2, _bytes(number, _fields(parameter, table)))


def _response(response: Object) -> bytes:
    schema = response.get("schema")
    return _text(1, response.get("description", "")) + (_bytes(2, _bytes(1, _schema(schema))) if schema else b"")


def _schema(schema: Object) -> bytes:
    out = [_fields(schema, _SCHEMA)]
    out += [_text(19, name) for name in schema.get("required") or ()]
    out += [_bytes(20, _any(value)) for value in schema.get("enum") or ()]
    values = schema.get("additionalProperties")
    if isinstance(values, bool):
        out.append(_bytes(21, _varint_field(2, int(values))))
    elif values is not None:
        out.append(_bytes(21, _bytes(1, _schema(values))))
    if schema.get("type"):
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        out.append(_bytes(22, b"".join(_text(1, kind) for kind in types)))
    if isinstance(schema.get("items"), Mapping):
        out.append(_bytes(23, _bytes(1, _schema(schema["items"]))))
    out += [_bytes(24, _schema(part)) for part in schema.get("allOf") or ()]
    if schema.get("properties"):
        out.append(_bytes(25, _named_schemas(schema["properties"])))
    out.append(_extensions(_EXTENSION, schema))
    return b"".join(out)


def _named_schemas(schemas: Object) -> bytes:
    return b"".join(_named(1, name, _schema(schema)) for name, schema in schemas.items())


def _extensions(number: int, node: Object) -> bytes:
    return b"".join(_named(number, key, _any(value)) for key, value in node.items() if key.startswith("x-"))


def _any(value: Any) -> bytes:
    """gnostic keeps free values as YAML, and JSON is YAML."""
    return _bytes(2, orjson.dumps(value) + b"\n")


def _fields(node: Object, table: Mapping[str, tuple[int, str]]) -> bytes:
    return b"".join(_WRITERS[table[key][1]](table[key][0], node[key]) for key in table if node.get(key) is not None)


def _named(number: int, name: str, value: bytes) -> bytes:
    return _bytes(number, _text(1, name) + _bytes(2, value))


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode()) if text else b""


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _flag(number: int, value: bool) -> bytes:
    return _varint_field(number, 1) if value else b""


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value & 0xFFFFFFFFFFFFFFFF)


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _varint(value: int) -> bytes:
    out: list[int] = []
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


_WRITERS: dict[str, Callable[[int, Any], bytes]] = {
    _STRINGS: _text,
    _NUMBERS: _double,
    _FLAGS: _flag,
    _INTEGERS: _varint_field,
    _ANY: lambda number, value: _bytes(number, _any(value)),
}


def asked_for(media_types: Iterable[str]) -> bool:
    return any(kind in _ASKED for kind in media_types)


# The "@" of the first is no media type at all (Go refuses it in an answer), but it is what clients ask for.
_ASKED = ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", MEDIA_TYPE)
