"""Golden pairs of defaulting: tests/golden/defaults/NAME.input.yaml -> NAME.output.yaml; K1S_REWRITE_GOLDEN=1 rewrites."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from k1s.api.catalog import builtin_catalog
from k1s.api.clone import clone
from k1s.api.defaults import resources
from k1s.api.defaults.containers import pull_policy
from k1s.api.defaults.table import apply_defaults

GOLDEN = Path(__file__).parents[2] / "golden" / "defaults"
CATALOG = builtin_catalog()


def defaulted(obj: dict[str, Any]) -> dict[str, Any]:
    resource = CATALOG.by_api_version(obj["apiVersion"], obj["kind"])
    assert resource is not None, obj["kind"]
    apply_defaults(resource, obj)
    return obj


def dump(documents: list[Any]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False, width=130)


@pytest.mark.parametrize("source", sorted(GOLDEN.glob("*.input.yaml")), ids=lambda p: p.name.split(".")[0])
def test_golden(source: Path) -> None:
    got = [defaulted(obj) for obj in yaml.safe_load_all(source.read_text())]
    target = source.with_name(source.name.replace(".input.", ".output."))
    if os.environ.get("K1S_REWRITE_GOLDEN"):
        target.write_text(dump(got))
    assert got == list(yaml.safe_load_all(target.read_text()))


@pytest.mark.parametrize("source", sorted(GOLDEN.glob("*.output.yaml")), ids=lambda p: p.name.split(".")[0])
def test_defaulting_again_changes_nothing(source: Path) -> None:
    for obj in yaml.safe_load_all(source.read_text()):
        assert defaulted(clone(obj)) == obj


def test_there_are_goldens() -> None:
    assert len(list(GOLDEN.glob("*.input.yaml"))) >= 8


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.25", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:abc", "IfNotPresent"),
        ("nginx:latest@sha256:abc", "Always"),
        ("", "Always"),
    ],
)
def test_pull_policy(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_every_kind_takes_an_empty_object() -> None:
    for resource in CATALOG:
        apply_defaults(resource, {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "x"}})


def test_texts_of_any_length_are_not_kept_as_quantities() -> None:
    before = resources._canonical.cache_info().currsize
    for number in range(5):
        text = f"{number}" * 1000 + "?"
        assert resources.canonical(text) is text
    assert resources._canonical.cache_info().currsize == before
