"""Golden pairs of warnings: tests/golden/warnings/NAME.input.yaml -> NAME.output.yaml; K1S_REWRITE_GOLDEN=1 rewrites.

The format is that of tests/unit/api/test_validation.py: each case is a merge patch on the defaulted base, under
`create`, `update` or `status`. What is warned of must be valid.
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
from k1s.api.validation.table import validate_create
from k1s.api.warnings.addresses import for_cidr, for_ip
from k1s.api.warnings.table import on_create, on_status_update, on_update

GOLDEN = Path(__file__).parents[2] / "golden" / "warnings"
Object = dict[str, Any]


def defaulted(resource: Resource, obj: Object) -> Object:
    out = clone(obj)
    apply_defaults(resource, out)
    return out


def warned(resource: Resource, base: Object, case: Object) -> list[str]:
    old = defaulted(resource, apply_merge_patch(base, case.get("old") or {}))
    verb = next(key for key in case if key != "old")
    new = defaulted(resource, apply_merge_patch(old, case[verb]))
    if verb == "create":
        assert [str(e) for e in validate_create(resource, new)] == [], "what is warned of must be valid"
        return on_create(resource, new)
    return on_update(resource, new, old) if verb == "update" else on_status_update(resource, new, old)


@pytest.mark.parametrize("source", sorted(GOLDEN.glob("*.input.yaml")), ids=lambda p: p.name.split(".")[0])
def test_golden(source: Path) -> None:
    got: dict[str, list[str]] = {}
    for block in yaml.safe_load(source.read_text()):
        resource = builtin(block["kind"], block.get("group"))
        metadata = {"name": "test", **({"namespace": "default"} if resource.namespaced else {})}
        base = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
        base = apply_merge_patch(base, block.get("base") or {})
        assert on_create(resource, defaulted(resource, base)) == [], "there is nothing to say about the base"
        for name, case in block["cases"].items():
            got[f"{block['kind']}: {name}"] = warned(resource, base, case)
    target = source.with_name(source.name.replace(".input.", ".output."))
    if os.environ.get("K1S_REWRITE_GOLDEN"):
        target.write_text(yaml.safe_dump(got, sort_keys=False, width=200, allow_unicode=True))
    assert got == yaml.safe_load(target.read_text())


def test_no_kind_stumbles_over_an_empty_object() -> None:
    for resource in builtin_catalog():
        obj: Object = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "x"}}
        apply_defaults(resource, obj)
        on_create(resource, obj)
        on_update(resource, obj, clone(obj))
        on_status_update(resource, obj, clone(obj))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("10.0.0.1", ""),
        ("fd00::1", ""),
        ("FD00::1", 'f: IPv6 address "FD00::1" should be in RFC 5952 canonical format ("fd00::1")'),
        (
            "::ffff:10.0.0.1",
            'f: non-standard IP address "::ffff:10.0.0.1" will be considered invalid in a future Kubernetes release: '
            'use "10.0.0.1"',
        ),
        ("nonsense", ""),
        (None, ""),
    ],
)
def test_addresses(value: str | None, text: str) -> None:
    assert for_ip("f", value) == ([text] if text else [])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("10.0.0.0/8", ""),
        ("10.0.0.1/8", 'f: CIDR value "10.0.0.1/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/32"?)'),
        ("FD00::/64", 'f: IPv6 CIDR value "FD00::/64" should be in RFC 5952 canonical format ("fd00::/64")'),
        (
            "::ffff:10.0.0.0/104",
            'f: non-standard CIDR value "::ffff:10.0.0.0/104" will be considered invalid in a future Kubernetes release: '
            'use "10.0.0.0/8"',
        ),
        ("nonsense", ""),
    ],
)
def test_blocks(value: str, text: str) -> None:
    assert for_cidr("f", value) == ([text] if text else [])
