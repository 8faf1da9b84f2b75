"""What is said of a policy's expressions by the types of the kinds it matches."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.api.catalog import builtin_catalog
from k1s.api.cel.kind_types import builtin_type, custom_type
from k1s.api.cel.types import Type
from k1s.api.validation.policy_types import expression_warnings

DEPLOYMENTS = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["*"]}
FOOS = {"apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["foos"], "operations": ["*"]}
SCHEMA = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}


def resolve(group: str, version: str, plural: str) -> tuple[str, Type] | None:
    if plural == "foos":
        return "Foo", custom_type("Foo", SCHEMA)
    found = builtin_catalog().by_plural(group, version, plural)
    return None if found is None else (found.kind, builtin_type(group, version, found.kind))


def warnings(*validations: dict[str, Any], rule: dict[str, Any] = DEPLOYMENTS, **spec: Any) -> list[tuple[str, str]]:
    whole = {"matchConstraints": {"resourceRules": [rule]}, "validations": list(validations), **spec}
    return [(w["fieldRef"], w["warning"]) for w in expression_warnings({"spec": whole}, resolve, None)]


def test_as_the_conformance_suite_asks() -> None:
    rule = {"expression": "object.spec.replicas > '1'", "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas"}
    (first, second) = warnings(rule)
    assert first[0] == "spec.validations[0].expression" and second[0] == "spec.validations[0].messageExpression"
    assert first[1].startswith("apps/v1, Kind=Deployment: ")
    assert "found no matching overload for '_>_' applied to '(int, string)'" in first[1]
    assert "found no matching overload for '_+_' applied to '(string, int)'" in second[1]


@pytest.mark.parametrize(
    "expression",
    [
        "object.spec.template.spec.containers.all(c, c.image.startsWith('x') && c.ports.exists(p, p.containerPort > 1))",
        "object.metadata.creationTimestamp < timestamp('2026-01-01T00:00:00Z') && object.metadata.labels['a'] == 'b'",
        "object.spec.strategy.rollingUpdate.maxSurge == 1 && request.userInfo.username == 'a' && variables.n > 1",
        "authorizer.requestResource.check('x').allowed() && namespaceObject.metadata.name == 'x' && params.any.thing == 1",
    ],
)
def test_what_is_right(expression: str) -> None:
    more = {"variables": [{"name": "n", "expression": "object.spec.replicas"}], "paramKind": {"apiVersion": "v1", "kind": "X"}}
    assert warnings({"expression": expression}, **more) == []


def test_variables_and_custom_kinds_have_types() -> None:
    more = {"variables": [{"name": "n", "expression": "object.spec.size"}]}
    (found,) = warnings({"expression": "variables.n == 'x' || object.spec.typo || variables.m"}, rule=FOOS, **more)
    assert found[1].startswith("example.com/v1, Kind=Foo: ")
    for words in ("applied to '(int, string)'", "undefined field 'typo'", "undefined field 'm'"):
        assert words in found[1]
    assert warnings({"expression": "object.spec.size > 1 && object.metadata.name == 'a'"}, rule=FOOS) == []


def test_wildcards_are_not_checked() -> None:
    assert warnings({"expression": "object.nope"}, rule={**DEPLOYMENTS, "resources": ["*"]}) == []
