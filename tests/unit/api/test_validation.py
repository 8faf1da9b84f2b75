"""Golden pairs of validation: tests/golden/validation/NAME.input.yaml -> NAME.output.yaml; K1S_REWRITE_GOLDEN=1 rewrites.

An input is a list of {kind, group, base, cases}. Each case is a merge patch on the (defaulted) base, under `create`, `update`
or `status`: what it is validated as; `old` patches the base first. The output maps each case to its messages; the base itself
must be valid.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from k1s.api.catalog import Resource, builtin, builtin_catalog
from k1s.api.clone import clone
from k1s.api.defaults.table import apply_defaults
from k1s.api.patch.merge import apply_merge_patch
from k1s.api.validation import cron
from k1s.api.validation.rules import same
from k1s.api.validation.table import (
    validate_create,
    validate_status_update,
    validate_subresource_update,
    validate_update,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "validation"
Object = dict[str, Any]


def defaulted(resource: Resource, obj: Object) -> Object:
    out = clone(obj)
    apply_defaults(resource, out)
    return out


def base_of(block: Object, resource: Resource) -> Object:
    metadata = {"name": "test", **({"namespace": "default"} if resource.namespaced else {})}
    head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    return apply_merge_patch(head, block.get("base") or {})


def messages(resource: Resource, base: Object, case: Object) -> list[str]:
    old = defaulted(resource, apply_merge_patch(base, case.get("old") or {}))
    verb = next(key for key in case if key != "old")
    new = defaulted(resource, apply_merge_patch(old, case[verb]))
    if verb == "create":
        errors = validate_create(resource, new)
    elif verb == "update":
        errors = validate_update(resource, new, old)
    elif verb == "status":
        errors = validate_status_update(resource, new, old)
    else:
        errors = validate_subresource_update(resource, verb, new, old)
    return [str(error) for error in errors]


@pytest.mark.parametrize("source", sorted(GOLDEN.glob("*.input.yaml")), ids=lambda p: p.name.split(".")[0])
def test_golden(source: Path) -> None:
    got: dict[str, list[str]] = {}
    for block in yaml.safe_load(source.read_text()):
        resource = builtin(block["kind"], block.get("group"))
        base = base_of(block, resource)
        assert [str(e) for e in validate_create(resource, defaulted(resource, base))] == [], "the base must be valid"
        for name, case in block["cases"].items():
            got[f"{block['kind']}: {name}"] = messages(resource, base, case)
    target = source.with_name(source.name.replace(".input.", ".output."))
    if os.environ.get("K1S_REWRITE_GOLDEN"):
        target.write_text(yaml.safe_dump(got, sort_keys=False, width=200, allow_unicode=True))
    assert got == yaml.safe_load(target.read_text())


def test_there_are_goldens() -> None:
    assert len(list(GOLDEN.glob("*.input.yaml"))) >= 8


def test_every_kind_survives_an_empty_object() -> None:
    for resource in builtin_catalog():
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "x"}}
        apply_defaults(resource, obj)
        validate_create(resource, obj)
        validate_update(resource, obj, clone(obj))
        validate_status_update(resource, obj, clone(obj))


@pytest.mark.parametrize(
    "text",
    ["* * * * *", "*/5 0-3 1,15 * mon-fri", "@hourly", "@every 1h30m", "0 0 ? * SUN", "5/15 * * jan,Feb *", "TZ=UTC 0 0 * * *"],
)
def test_good_schedules(text: str) -> None:
    assert cron.check(text) == ""


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("a * * * *", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("@never", "unrecognized descriptor: @never"),
        ("@every fast", 'failed to parse duration @every fast: time: invalid duration "fast"'),
    ],
)
def test_bad_schedules(text: str, wrong: str) -> None:
    assert cron.check(text) == wrong


def test_semantic_equality() -> None:
    assert same({"a": 1, "b": {}}, {"a": 1})
    assert same({"a": []}, {"a": None})
    assert same({"on": False}, {})
    assert not same({"a": 0}, {"a": 1})
    assert not same([1, 2], [2, 1])
