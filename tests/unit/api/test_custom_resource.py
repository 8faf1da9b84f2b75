"""Custom resources against their schema: faults worded as upstream words them, defaults, structural schemas."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.api.clone import clone
from k1s.api.defaults.custom import apply_schema_defaults
from k1s.api.validation import formats
from k1s.api.validation.custom_lists import validate_lists
from k1s.api.validation.custom_meta import embedded_faults, scale_faults
from k1s.api.validation.custom_resource import validate_schema
from k1s.api.validation.schema_defaults import schema_defaults
from k1s.api.validation.schema_nodes import schema_nodes
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
            '<nil>: Invalid value: "": Checked value must be of type integer with format int32 in x',
        ),
        (
            {"type": "array", "items": {"type": "integer"}},
            [1],
            ["a"],
            'x[0]: Invalid value: "string": x[0] in body must be of type integer: "string"',
        ),
        ({"type": "array", "maxItems": 1}, [1], [1, 2], "x: Too many: 2: must have at most 1 item"),
        ({"type": "array", "minItems": 1}, [1], [], "x: Invalid value: 0: x in body should have at least 1 items"),
        ({"type": "object", "required": ["a"]}, {"a": 1}, {}, "x.a: Required value"),
        ({"type": "object", "maxProperties": 1}, {"a": 1}, {"a": 1, "b": 2}, "x: Too many: 2: must have at most 1 item"),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"a": "b"},
            {"a": 1},
            'x.a: Invalid value: "integer": x.a in body must be of type string: "integer"',
        ),
        (
            {"type": "integer", "not": {"enum": [3]}},
            4,
            3,
            '<nil>: Invalid value: "": "x" must not validate the schema (not)',
        ),
        ({"type": "string", "enum": ["b", "a"]}, "a", "c", 'x: Unsupported value: "c": supported values: "b", "a"'),
        (
            {"type": "string", "format": "k8s-short-name"},
            "a-b",
            "A",
            'x: Invalid value: "A": x in body must be of type k8s-short-name: "A"',
        ),
    ],
)
def test_values(schema: dict[str, Any], good: Any, bad: Any, fault: str) -> None:
    assert faults(good, schema) == []
    assert faults(bad, schema) == [fault]


def test_junctors_name_the_part_and_the_whole() -> None:
    assert faults(1, {"type": "integer", "allOf": [{"minimum": 2}]}) == [
        "x: Invalid value: 1: x in body should be greater than or equal to 2",
        '<nil>: Invalid value: "": "x" must validate all the schemas (allOf). None validated',
    ]
    assert faults(5, {"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 1}]}) == [
        '<nil>: Invalid value: "": "x" must validate at least one schema (anyOf)',
        "x: Invalid value: 5: x in body should be greater than or equal to 10",
    ]
    assert faults({}, {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}) == [
        '<nil>: Invalid value: "": "x" must validate one and only one schema (oneOf). Found none valid',
        "x.a: Required value",
    ]


def test_patterns_take_no_longer_than_the_text() -> None:
    assert faults("a" * 5000 + "b", {"type": "string", "pattern": "^(a+)+$"})[0].endswith("should match '^(a+)+$'")


def test_lists_hold_nothing_twice() -> None:
    items = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
    schema = {"type": "object", "properties": {"s": {"type": "array", "x-kubernetes-list-type": "set"}, "m": items}}
    bad = {"s": ["a", "a", "a"], "m": [{"k": 1}, {"k": 1, "v": 2}]}
    assert [str(e) for e in validate_lists(bad, schema)] == ['s[1]: Duplicate value: "a"', 'm[1]: Duplicate value: {"k":1}']
    assert validate_lists(bad, schema, bad) == [] and validate_lists({"s": ["a"], "m": [{"k": 1}, {"k": 2}]}, schema) == []


def test_embedded_resources_and_scale() -> None:
    schema = {"type": "object", "properties": {"e": {"type": "object", "x-kubernetes-embedded-resource": True}}}
    bad = {"e": {"kind": "a b", "metadata": {"labels": {"a/b/c": "d"}}}}
    said = [str(e) for e in embedded_faults(bad, schema)]
    assert said[0] == "e.apiVersion: Required value" and said[1].startswith("e.kind: Invalid value") and len(said) == 3
    paths = {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n", "labelSelectorPath": ".status.s"}
    found = [str(e) for e in scale_faults({"spec": {"n": -1}, "status": {"n": "x", "s": "a=b"}}, paths)]
    assert found == [
        ".spec.n: Invalid value: -1: should be a non-negative integer",
        ".status.n: Invalid value: 0: .status.n accessor error: x is of the type string, expected int64",
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
    whole = {"type": "object", "properties": {"x": schema}}
    found = structural("s", whole) or schema_defaults("s", whole)
    return [str(e) for e in [*found, *schema_nodes("s", whole, None)]]


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
            's.properties[x].default: Invalid value: "string":  in body must be of type integer: "string"',
        ),
        (
            {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"},
            "s.properties[x].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}},
            's.properties[x].default: Invalid value: {"b":1}: must not have unknown fields',
        ),
        (
            {"type": "string", "pattern": "("},
            's.properties[x].pattern: Invalid value: "(": must be a valid regular expression, but isn\'t: '
            "error parsing regexp: missing closing ): `(`",
        ),
        (
            {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"},
            's.properties[x].items.x-kubernetes-map-type: Invalid value: "null": '
            "must be atomic as item of a list with x-kubernetes-list-type=set",
        ),
        (
            {"type": "object", "x-kubernetes-embedded-resource": True},
            "s.properties[x].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true "
            "without x-kubernetes-preserve-unknown-fields",
        ),
    ],
)
def test_not_structural(schema: dict[str, Any], fault: str) -> None:
    assert shape_faults(schema) == [fault]


def test_what_alternatives_speak_of_is_specified_outside() -> None:
    whole = {"type": "object", "oneOf": [{"properties": {"a": {"minimum": 1}}}]}
    (fault,) = structural("s", whole)
    assert str(fault) == "s.properties[a]: Required value: because it is defined in s.oneOf[0].properties[a]"
