"""x-kubernetes-validations: refused when they are wrong, enforced when they are right, worded as upstream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from k1s.api.validation.custom_rules import validate_rules
from k1s.api.validation.rule_check import Budget, check_expressions, check_texts
from k1s.api.validation.rule_tree import compile_rules
from k1s.api.validation.schema_nodes import schema_nodes
from tests.unit.apiserver.conftest import Api

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TABS = "/apis/example.com/v1/namespaces/default/tabs"
MERGE = "application/merge-patch+json"
Object = dict[str, Any]
# Of a definition of one version, in upstream's internal type.
AT = "spec.validation.openAPIV3Schema"


def rules(*texts: str | Object) -> list[Object]:
    return [{"rule": text} if isinstance(text, str) else text for text in texts]


def definition(spec: Object) -> Object:
    root = {
        "type": "object",
        "properties": {"spec": spec, "status": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        "x-kubernetes-validations": rules({"rule": "!self.metadata.name.startsWith('bad')", "message": "no bad names"}),
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": root},
        "subresources": {"status": {}},
    }
    names = {"plural": "tabs", "kind": "Tab"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "tabs.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }


SPEC: Object = {
    "type": "object",
    "required": ["replicas"],
    "properties": {
        "replicas": {"type": "integer"},
        "max": {"type": "integer"},
        "namespace": {"type": "string", "x-kubernetes-validations": rules("self == oldSelf")},
        "ports": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "port": {"type": "integer"}},
                "x-kubernetes-validations": rules(
                    {"rule": "self.port >= oldSelf.port", "messageExpression": "'port of ' + self.name + ' may not fall'"}
                ),
            },
        },
        "limits": {
            "type": "object",
            "maxProperties": 10,
            "additionalProperties": {
                "type": "string",
                "maxLength": 20,
                "x-kubernetes-validations": rules("isQuantity(self) && quantity(self).isLessThan(quantity('10Gi'))"),
            },
        },
    },
    "x-kubernetes-validations": rules(
        {
            "rule": "!has(self.max) || self.replicas <= self.max",
            "message": "too many",
            "reason": "FieldValueForbidden",
            "fieldPath": ".replicas",
        }
    ),
}


async def _served(api: Api) -> None:
    await api.ok("POST", CRDS, definition(SPEC))
    for _ in range(100):
        if (await api("GET", TABS)).status == 200:
            return
        await asyncio.sleep(0)
    raise AssertionError("not served")


def tab(name: str = "a", **spec: Any) -> Object:
    return {"apiVersion": "example.com/v1", "kind": "Tab", "metadata": {"name": name}, "spec": {"replicas": 1, **spec}}


async def test_rules_at_every_level(api: Api) -> None:
    await _served(api)
    await api.ok("POST", TABS, tab(max=2, limits={"memory": "1Gi"}))
    answer = await api("POST", TABS, tab("bad", replicas=3, max=2, limits={"memory": "10Gi"}))
    assert answer.status == 422
    causes = {(c["field"], c["reason"], c["message"]) for c in answer.json["details"]["causes"]}
    assert causes == {
        ("<nil>", "FieldValueInvalid", "Invalid value: no bad names"),
        ("spec.replicas", "FieldValueForbidden", "Forbidden: too many"),
        (
            "spec.limits[memory]",
            "FieldValueInvalid",
            "Invalid value: \"10Gi\": failed rule: isQuantity(self) && quantity(self).isLessThan(quantity('10Gi'))",
        ),
    }


async def test_transition_rules(api: Api) -> None:
    await _served(api)
    await api.ok("POST", TABS, tab(namespace="x", ports=[{"name": "a", "port": 5}, {"name": "b", "port": 7}]))
    # The items are told apart by their name, not by their place.
    await api.ok("PATCH", f"{TABS}/a", {"spec": {"ports": [{"name": "b", "port": 7}, {"name": "a", "port": 6}]}}, type=MERGE)
    fallen = {"spec": {"ports": [{"name": "b", "port": 5}, {"name": "c", "port": 1}]}}
    answer = await api("PATCH", f"{TABS}/a", fallen, type=MERGE)
    assert answer.status == 422
    assert [c["message"] for c in answer.json["details"]["causes"]] == ["Invalid value: port of b may not fall"]
    assert answer.json["details"]["causes"][0]["field"] == "spec.ports[0]"
    answer = await api("PATCH", f"{TABS}/a", {"spec": {"namespace": "y"}}, type=MERGE)
    assert 'spec.namespace: Invalid value: "y": failed rule: self == oldSelf' in answer.json["message"]
    await api.ok("PATCH", f"{TABS}/a", {"spec": {"namespace": None}}, type=MERGE)


async def test_shape_comes_first(api: Api) -> None:
    await _served(api)
    body = tab(max=0)
    del body["spec"]["replicas"]
    message = (await api("POST", TABS, body)).json["message"]
    assert "spec.replicas: Required value" in message and "some validation rules were not checked" in message


async def test_a_status_is_checked_too(api: Api) -> None:
    await _served(api)
    await api.ok("POST", TABS, tab())
    await api.ok("PATCH", f"{TABS}/a/status", {"status": {"n": 1}}, type=MERGE)


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"x-kubernetes-validations": rules("nope > 1")}, "rule", "undeclared reference to 'nope'"),
        ({"x-kubernetes-validations": rules("self.a >")}, "rule", "Syntax error"),
        ({"x-kubernetes-validations": rules("1 + 1")}, "rule", "cel expression must evaluate to a bool"),
        ({"x-kubernetes-validations": rules("")}, "rule", "rule is not specified"),
        ({"x-kubernetes-validations": rules({"rule": "true", "reason": "Odd"})}, "reason", 'Unsupported value: "Odd"'),
        ({"x-kubernetes-validations": rules({"rule": "true", "fieldPath": ".nope"})}, "fieldPath", "must be a valid path"),
        ({"x-kubernetes-validations": rules({"rule": "true", "message": "a\nb"})}, "message", "line breaks"),
        ({"x-kubernetes-validations": rules({"rule": "true", "messageExpression": "1"})}, "messageExpression", "string"),
        ({"x-kubernetes-validations": rules({"rule": "true", "optionalOldSelf": True})}, "optionalOldSelf", "not used"),
    ],
)
async def test_wrong_rules_refuse_the_definition(api: Api, spec: Object, field: str, words: str) -> None:
    answer = await api("POST", CRDS, definition({"type": "object", **spec}))
    assert answer.status == 422
    (cause,) = answer.json["details"]["causes"]
    assert cause["field"] == f"{AT}.properties[spec].x-kubernetes-validations[0].{field}" and words in cause["message"]


async def test_no_old_value_where_items_cannot_be_told_apart(api: Api) -> None:
    items = {"type": "string", "maxLength": 9, "x-kubernetes-validations": rules("self == oldSelf")}
    answer = await api("POST", CRDS, definition({"type": "object", "properties": {"l": {"type": "array", "items": items}}}))
    within = f"{AT}.properties[spec].properties[l]"
    (cause,) = answer.json["details"]["causes"]
    assert cause["message"].endswith(f"oldSelf cannot be used on the uncorrelatable portion of the schema within {within}")


def check(schema: Object, new: Any, old: Any = None) -> list[str]:
    tree = compile_rules({"type": "object", "properties": {"v": schema}})
    assert tree is not None
    return [f"{e.field}: {e.detail}" for e in validate_rules(tree, {"v": new}, None if old is None else {"v": old})]


def test_what_did_not_change_is_not_asked_again() -> None:
    schema = {"type": "integer", "x-kubernetes-validations": rules("self > 5")}
    assert check(schema, 1) == ["v: failed rule: self > 5"]
    assert check(schema, 1, 1) == []
    assert check(schema, 2, 1) == ["v: failed rule: self > 5"]


def test_an_optional_old_value() -> None:
    rule = {"rule": "oldSelf.hasValue() ? oldSelf.value() <= self : self == 1", "optionalOldSelf": True}
    schema = {"type": "integer", "x-kubernetes-validations": [rule]}
    assert check(schema, 1) == [] and check(schema, 2, 1) == []
    assert len(check(schema, 2)) == 1 and len(check(schema, 1, 2)) == 1


def test_values_are_typed_by_the_schema() -> None:
    texts = (
        "self.at < timestamp('2030-01-01T00:00:00Z')",
        "self.wait == duration('90s')",
        "self.ratio / 2.0 == 1.0",
        "self.__namespace__ == 'n' && self.a__dash__b == 1 && self.x__dot__y == 2",
        "self.data == b'hi'",
        "!has(self.hidden)",
        "type(self.port) == int && self.port == 80",
    )
    schema = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {
            "at": {"type": "string", "format": "date-time"},
            "wait": {"type": "string", "format": "duration"},
            "ratio": {"type": "number"},
            "namespace": {"type": "string"},
            "a-b": {"type": "integer"},
            "x.y": {"type": "integer"},
            "data": {"type": "string", "format": "byte"},
            "port": {"x-kubernetes-int-or-string": True},
        },
        "x-kubernetes-validations": rules(*texts),
    }
    value = {"at": "2026-01-01T00:00:00Z", "wait": "1m30s", "ratio": 2, "namespace": "n", "a-b": 1, "x.y": 2}
    assert check(schema, {**value, "data": "aGk=", "port": 80, "hidden": 1}) == []


def test_errors_in_rules() -> None:
    def said(text: str, value: Any) -> str:
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-validations": rules(text)}
        return check(schema, value)[0]

    assert said("self.x > 1", {}) == "v: no such key: x evaluating rule: self.x > 1"
    assert said("1 / self.x == 1", {"x": 0}) == "v: division by zero evaluating rule: 1 / self.x == 1"
    assert said("self.x > 1", {"x": "a"}).startswith("v: 'no such overload': call arguments did not match")
    huge = {"x": [1] * 250_000}
    assert "no further validation rules will be run due to call cost" in said("self.x.all(i, i > 0)", huge)


def test_an_object_cannot_cost_more_than_its_budget() -> None:
    loop = rules("self.all(a, self.all(b, a == b))")
    schema = {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": loop}}
    assert check(schema, [[1] * 50] * 100) == []
    (said,) = check(schema, [[1] * 50] * 400)
    assert said.endswith("validation failed due to running out of cost budget, no further validation rules will be run")


NESTED: Object = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "few": {"type": "array", "maxItems": 100, "items": {"type": "object", "properties": {"a-b": {"type": "integer"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "integer"}}}},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def faults(rule: str, **more: Any) -> list[str]:
    schema = {**NESTED, "x-kubernetes-validations": [{"rule": rule, **more}]}
    return [e.detail for e in [*check_texts("at", schema), *check_expressions("at", schema, Budget(), True, "", 1.0)]]


@pytest.mark.parametrize(
    "rule",
    [
        "self.n > 1 && self.metadata.name != '' && self.kind == 'X'",
        "self.few.all(f, f.a__dash__b > 1) && self.few.filter(f, f.a__dash__b > 1).map(f, f.a__dash__b).exists(n, n > 1)",
        "self.map.all(k, self.map[k].x > 1) && self.map.foo.x == 1 && self.?n.orValue(1) == 1",
        "has(self.n) && oldSelf.n == self.n && self.few[0].a__dash__b == 1",
        "self.few.all(f, self.few.all(g, f == g))",
        "self.tags.all(t, t.startsWith('a'))",
    ],
)
def test_rules_that_fit_their_schema(rule: str) -> None:
    assert faults(rule) == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            "self.n > 1 && self.typo > 1",
            "<input>:1:19: undefined field 'typo'\n | self.n > 1 && self.typo > 1\n | ..................^",
        ),
        ("has(self.typo)", "undefined field 'typo'"),
        ("self.few.all(f, f.typo > 1)", "undefined field 'typo'"),
        ("self.few.filter(f, true)[0].typo > 1", "undefined field 'typo'"),
        ("self.map['a'].typo == 1", "undefined field 'typo'"),
        ("self.?typo.hasValue()", "undefined field 'typo'"),
        ("oldSelf.typo == 1", "undefined field 'typo'"),
        ("self.any.what == 1", "undefined field 'what'"),
        ("self.n == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.tags.all(t, t > 1)", "found no matching overload for '_>_' applied to '(string, int)'"),
        ("self.metadata.labels.a == 'b'", "undefined field 'labels'"),
        ("self.n.x == 1", "type 'int' does not support field selection"),
        ("self.tags.all(t, self.tags.all(u, t == u))", "estimated rule cost exceeds budget by factor of more than 100x"),
    ],
)
def test_rules_that_do_not(rule: str, words: str) -> None:
    (fault,) = faults(rule)
    assert words in fault


def test_messages_are_held_against_the_schema_too() -> None:
    (fault,) = faults("self.n > 1", messageExpression="'n is ' + string(self.m)")
    assert "undefined field 'm'" in fault


def test_a_rule_in_a_list_in_a_list_is_fine_without_loops() -> None:
    leaf = {"type": "integer", "x-kubernetes-validations": rules("self > 0")}
    schema: Object = {"type": "array", "items": {"type": "array", "items": leaf}}
    assert schema_nodes("at", {"type": "object", "properties": {"v": schema}}, Budget()) == []
    leaf["x-kubernetes-validations"] = rules("[1, 2, 3, 4, 5, 6, 7, 8, 9].all(x, x > self)")
    errs = schema_nodes("at", {"type": "object", "properties": {"v": schema}}, Budget())
    assert [e.type for e in errs] == ["FieldValueForbidden"]


async def _redefine(api: Api, spec: Object) -> None:
    current = await api.ok("GET", f"{CRDS}/tabs.example.com")
    current["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = spec
    await api.ok("PUT", f"{CRDS}/tabs.example.com", current)
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_schema_that_became_stricter_spares_what_does_not_change(api: Api) -> None:
    await _served(api)
    await api.ok("POST", TABS, tab(replicas=50, ports=[{"name": "a", "port": 5}, {"name": "b", "port": 7}]))
    port = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}
    port["properties"]["port"]["maximum"] = 1
    ports = {**SPEC["properties"]["ports"], "items": port}
    properties = {"replicas": {"type": "integer", "maximum": 9}, "max": {"type": "integer"}, "ports": ports}
    await _redefine(api, {"type": "object", "properties": properties})
    await api.ok("PATCH", f"{TABS}/a", {"metadata": {"labels": {"x": "y"}}}, type=MERGE)
    await api.ok("PATCH", f"{TABS}/a", {"spec": {"max": 60, "ports": [{"name": "b", "port": 7}]}}, type=MERGE)
    answer = await api("PATCH", f"{TABS}/a", {"spec": {"replicas": 51, "ports": [{"name": "b", "port": 8}]}}, type=MERGE)
    assert {c["field"] for c in answer.json["details"]["causes"]} == {"spec.replicas", "spec.ports[0].port"}
    assert (await api("POST", TABS, tab("b", replicas=50))).status == 422


async def test_rules_of_upstreams_conformance_suite(api: Api) -> None:
    numbers: Object = {"type": "array", "maxItems": 1000, "items": {"type": "integer"}}
    spec = {
        "type": "object",
        "x-kubernetes-validations": rules(
            "self.x + self.y > 0",
            "self.firstArray.isSorted() && self.secondArray.isSorted()"
            " && ((self.firstArray.sum() + self.secondArray.sum()) % 2 == 0)",
            "self.largeArray.all(x, self.largeArray.all(y, y == x))",
        ),
        "properties": {
            **{name: {"type": "integer"} for name in ("x", "y", "replicas")},
            "firstArray": numbers,
            "secondArray": numbers,
            "largeArray": {**numbers, "maxItems": 725},
        },
    }
    await _served(api)
    await _redefine(api, spec)
    await api.ok("POST", TABS, tab("good", x=1, y=0, firstArray=[3, 4], secondArray=[5, 10], largeArray=[2, 2]))
    assert "failed rule" in (await api("POST", TABS, tab("b", x=0, y=0))).json["message"]
    assert "call cost exceeds limit" in (await api("POST", TABS, tab("c", largeArray=[20] * 725))).json["message"]
    expensive = {"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": rules("self.all(s, s == 'a')")}
    for wrong, words in (
        ({"type": "object", "x-kubernetes-validations": rules("self = 42")}, "Syntax error"),
        ({"type": "object", "properties": {"x": {"type": "array", "items": expensive}}}, "exceeds budget"),
    ):
        body = definition(wrong)
        body["metadata"]["name"], body["spec"]["names"] = "tubs.example.com", {"plural": "tubs", "kind": "Tub"}
        answer = await api("POST", CRDS, body)
        assert answer.status == 422 and words in answer.json["message"]
