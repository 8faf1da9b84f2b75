"""The OpenAPI document as gnostic's protobuf, read back field by field. (e2e: kubectl itself reads it.)"""

from __future__ import annotations

from typing import Any

from k1s.server.apiserver.openapi_protobuf import asked_for, encode_document


def fields(data: bytes) -> dict[int, list[Any]]:
    out: dict[int, list[Any]] = {}
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        key = varint()
        if key & 7 == 2:
            length = varint()
            out.setdefault(key >> 3, []).append(data[position : position + length])
            position += length
        elif key & 7 == 1:
            out.setdefault(key >> 3, []).append(data[position : position + 8])
            position += 8
        else:
            out.setdefault(key >> 3, []).append(varint())
    return out


DOCUMENT = {
    "swagger": "2.0",
    "info": {"title": "Kubernetes", "version": "v1"},
    "paths": {
        "/api/v1/things/{name}": {
            "patch": {
                "operationId": "p",
                "consumes": ["application/json"],
                "parameters": [
                    {"in": "query", "name": "dryRun", "type": "string", "uniqueItems": True},
                    {"in": "path", "name": "name", "required": True, "type": "string"},
                    {"in": "body", "name": "body", "required": True, "schema": {"$ref": "#/definitions/Thing"}},
                ],
                "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/Thing"}}},
                "x-kubernetes-action": "patch",
            }
        }
    },
    "definitions": {
        "Thing": {
            "description": "x" * 300,
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"type": "array", "items": {"type": "string"}}, "b": {"additionalProperties": {"minimum": -1}}},
            "x-kubernetes-group-version-kind": [{"group": "", "kind": "Thing", "version": "v1"}],
        }
    },
}


def test_document_is_what_gnostic_reads() -> None:
    document = fields(encode_document(DOCUMENT))
    assert document[1] == [b"2.0"] and fields(document[2][0]) == {1: [b"Kubernetes"], 2: [b"v1"]}
    path = fields(fields(document[8][0])[2][0])
    assert path[1] == [b"/api/v1/things/{name}"]
    operation = fields(fields(path[2][0])[8][0])
    assert operation[5] == [b"p"] and operation[7] == [b"application/json"]
    query, name, body = (fields(fields(parameter)[1][0]) for parameter in operation[8])
    assert fields(fields(query[2][0])[3][0]) == {2: [b"query"], 4: [b"dryRun"], 6: [b"string"], 20: [1]}
    assert fields(fields(name[2][0])[4][0])[4] == [b"name"]
    assert fields(fields(body[1][0])[5][0]) == {1: [b"#/definitions/Thing"]}
    assert fields(operation[13][0])[1] == [b"x-kubernetes-action"]
    assert fields(fields(operation[13][0])[2][0])[2] == [b'"patch"\n']
    thing = fields(fields(fields(document[9][0])[1][0])[2][0])
    assert thing[4] == [b"x" * 300] and thing[19] == [b"a"] and fields(thing[22][0])[1] == [b"object"]
    assert fields(thing[31][0])[1] == [b"x-kubernetes-group-version-kind"]
    properties = [fields(p) for p in fields(thing[25][0])[1]]
    assert [p[1] for p in properties] == [[b"a"], [b"b"]]
    values = fields(fields(fields(properties[1][2][0])[21][0])[1][0])
    assert values[9] == [b"\x00\x00\x00\x00\x00\x00\xf0\xbf"]


def test_both_names_of_the_media_type_are_known() -> None:
    assert asked_for(["application/json", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"])
    assert asked_for(["application/com.github.proto-openapi.spec.v2.v1.0+protobuf"])
    assert not asked_for(["application/json"])
