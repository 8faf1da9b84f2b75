"""Custom resources against their schema: faults worded as upstream words them, defaults, structural schemas."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.api.clone import clone
from k1s.api.defaults.custom import apply_schema_defaults
from k1s.api.validation import formats
from k1s.api.validation.custom_resource import validate_schema
from k1s.api.validation.structural import structural


def faults(value: Any, schema: dict[str, Any]) -> list[str]:
    holder = {"type": "object", "properties": {"x": schema}}
    return [str(e) for e in validate_schema({"kind": "K", "metadata": {"name": "n"}, "x": value}, holder)]


@pytest.mark.parametrize(
    ("schema", "good", "bad", "fault"),
    [
        ({"type": "integer"}, 3, "a", 'x: Invalid value: "string": x in body must be of type integer: "string"'),
        ({"type": "integer"}, 3.0, 3.5, 'x: Invalid value: "number": x in body must be of type integer: "number"'),
        ({"type": "number"}, 3, True, 'x: Invalid value: "boolean": x in body must be of type number: "boolean"'),
        ({"type": "string"}, "", None, 'x: Invalid value: "null": x in body must be of type string: "null"'),
        (
            {"type": "string", "nullable": True},
            None,
            1,
            'x: Invalid value: "integer": x in body must be of type string: "integer"',
        ),
        (
            {"x-kubernetes-int-or-string": True},
            "1",
            [],
            'x: Invalid value: "array": x in body must be of type integer,string: "array"',
        ),
        ({"type": "string", "enum": ["a", "b"]}, "a", "c", 'x: Unsupported value: "c": supported values: "a", "b"'),
        ({"type": "integer", "enum": [1, 2]}, 1, 3, 'x: Unsupported value: 3: supported values: "1", "2"'),
        ({"type": "integer", "minimum": 1}, 1, 0, "x: Invalid value: 0: x in body should be greater than or equal to 1"),
        (
            {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
            2,
            1,
            "x: Invalid value: 1: x in body should be greater than 1",
        ),
        ({"type": "number", "maximum": 1}, 0.5, 1.5, "x: Invalid value: 1.5: x in body should be less than or equal to 1"),
        ({"type": "integer", "multipleOf": 3}, 9, 10, "x: Invalid value: 10: x in body should be a multiple of 3"),
        ({"type": "string", "minLength": 2}, "ab", "a", 'x: Invalid value: "a": x in body should be at least 2 chars long'),
        ({"type": "string", "maxLength": 2}, "ab", "abc", "x: Too long: may not be more than 2 bytes"),
        (
            {"type": "string", "pattern": "^[[:alpha:]]+$"},
            "ab",
            "1",
            "x: Invalid value: \"1\": x in body should match '^[[:alpha:]]+$'",
        ),
        (
            {"type": "string", "format": "date-time"},
            "2026-01-01T00:00:00Z",
            "yesterday",
            'x: Invalid value: "yesterday": x in body must be of type date-time: "yesterday"',
        ),
        (
            {"type": "integer", "format": "int32"},
            2147483647,
            2147483648,
            "x: Invalid value: 2147483648: x in body must be of type int32: 2147483648",
        ),
        (
            {"type": "array", "items": {"type": "integer"}},
            [1],
            ["a"],
            'x[0]: Invalid value: "string": x[0] in body must be of type integer: "string"',
        ),
        ({"type": "array", "maxItems": 1}, [1], [1, 2], "x: Too many: 2: must have at most 1 item"),
        ({"type": "array", "minItems": 1}, [1], [], "x: Invalid value: 0: x in body should have at least 1 items"),
        ({"type": "array", "x-kubernetes-list-type": "set"}, ["a", "b"], ["a", "a"], 'x[1]: Duplicate value: "a"'),
        (
            {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
            [{"k": 1}, {"k": 2}],
            [{"k": 1}, {"k": 1, "v": 2}],
            'x[1]: Duplicate value: {"k":1}',
        ),
        ({"type": "object", "required": ["a"]}, {"a": 1}, {}, "x.a: Required value"),
        ({"type": "object", "maxProperties": 1}, {"a": 1}, {"a": 1, "b": 2}, "x: Too many: 2: must have at most 1 item"),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"a": "b"},
            {"a": 1},
            'x.a: Invalid value: "integer": x.a in body must be of type string: "integer"',
        ),
        (
            {"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 1}]},
            1,
            5,
            'x: Invalid value: "": "x" must validate at least one schema (anyOf)',
        ),
        (
            {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"a": 1},
            {},
            'x: Invalid value: "": "x" must validate one and only one schema (oneOf). Found none valid',
        ),
        ({"type": "integer", "not": {"enum": [3]}}, 4, 3, 'x: Invalid value: "": "x" must not validate the schema (not)'),
    ],
)
def test_values(schema: dict[str, Any], good: Any, bad: Any, fault: str) -> None:
    assert faults(good, schema) == []
    assert faults(bad, schema) == [fault]


def test_all_of_names_the_part_and_the_whole() -> None:
    schema = {"type": "integer", "allOf": [{"minimum": 2}]}
    assert faults(1, schema) == [
        "x: Invalid value: 1: x in body should be greater than or equal to 2",
        'x: Invalid value: "": "x" must validate all the schemas (allOf)',
    ]


def test_type_and_metadata_are_not_looked_at() -> None:
    schema = {"type": "object", "required": ["kind", "spec"], "properties": {"metadata": {"type": "string"}}}
    assert [str(e) for e in validate_schema({"metadata": {}}, schema)] == ["spec: Required value"]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("ipv4", "10.0.0.1", "::1"),
        ("ipv6", "::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
        ("byte", "AA==", "A"),
        ("date", "2026-01-01", "2026-13-01"),
        ("duration", "1h30m", "soon"),
        ("hostname", "a.example.com", "-a"),
        ("email", "a@b", "a"),
        ("uri", "https://a/b", "no uri"),
        ("mac", "00:11:22:33:44:55", "00:11"),
    ],
)
def test_formats(name: str, good: str, bad: str) -> None:
    assert formats.matches(name, good)
    assert not formats.matches(name, bad)
    assert formats.matches("of-our-own", bad)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "metadata": {"type": "object", "default": {"name": "never"}},
        "spec": {
            "type": "object",
            "default": {},
            "properties": {
                "size": {"type": "integer", "default": 3},
                "mode": {"type": "string", "default": "a"},
                "maybe": {"type": "string", "nullable": True, "default": "b"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
                "map": {
                    "type": "object",
                    "additionalProperties": {"type": "object", "properties": {"on": {"type": "boolean", "default": True}}},
                },
            },
        },
    },
}


def test_defaults() -> None:
    obj: dict[str, Any] = {"metadata": {"name": "x"}}
    apply_schema_defaults(obj, SCHEMA)
    assert obj == {"metadata": {"name": "x"}, "spec": {"size": 3, "mode": "a", "maybe": "b"}}
    obj = {"spec": {"size": 0, "mode": None, "maybe": None, "list": [{}, {"p": "UDP"}], "map": {"k": {}}}}
    apply_schema_defaults(obj, SCHEMA)
    assert obj["spec"] == {
        "size": 0,
        "mode": "a",
        "maybe": None,
        "list": [{"p": "TCP"}, {"p": "UDP"}],
        "map": {"k": {"on": True}},
    }
    again = clone(obj)
    apply_schema_defaults(again, SCHEMA)
    assert again == obj


def test_defaults_are_not_shared() -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "default": {"l": []}}}}
    one: dict[str, Any] = {}
    other: dict[str, Any] = {}
    apply_schema_defaults(one, schema)
    one["spec"]["l"].append(1)
    apply_schema_defaults(other, schema)
    assert other == {"spec": {"l": []}}


def shape_faults(schema: dict[str, Any]) -> list[str]:
    errs: list[Any] = []
    structural(errs, "s", {"type": "object", "properties": {"x": schema}})
    return [str(e) for e in errs]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"x-kubernetes-preserve-unknown-fields": True},
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "oneOf": [{"required": ["a"]}, {"not": {"required": ["a"]}}],
        },
        {"type": "integer", "default": 3, "minimum": 1},
        {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}},
        },
    ],
)
def test_structural(schema: dict[str, Any]) -> None:
    assert shape_faults(schema) == []


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({}, "s.properties[x].type: Required value: must not be empty for specified object fields"),
        ({"type": "array"}, "s.properties[x].items: Required value: must be specified"),
        (
            {"type": "array", "items": {}},
            "s.properties[x].items.type: Required value: must not be empty for specified array items",
        ),
        ({"type": "string", "$ref": "#/x"}, "s.properties[x].$ref: Forbidden: $ref is not supported"),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
            "s.properties[x].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            {"type": "integer", "anyOf": [{"type": "integer"}]},
            "s.properties[x].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            {"type": "integer", "default": "a"},
            's.properties[x].default: Invalid value: "string": default in body must be of type integer: "string"',
        ),
        (
            {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"},
            "s.properties[x].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
    ],
)
def test_not_structural(schema: dict[str, Any], fault: str) -> None:
    assert shape_faults(schema) == [fault]
