"""Golden pairs of printers: tests/golden/printers/NAME.input.yaml (objects) -> NAME.output.yaml; K1S_REWRITE_GOLDEN=1 rewrites.

The output has one map of column to cell for each object; columns of -o wide stand under "wide". "Now" is 2026-01-02T00:00:00Z.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from k1s.api.catalog import builtin_catalog
from k1s.api.printers.columns import human_duration
from k1s.api.printers.custom import custom_printer
from k1s.api.printers.jsonpath import compile_path
from k1s.api.table import cells, columns, row_conditions

GOLDEN = Path(__file__).parents[2] / "golden" / "printers"
CATALOG = builtin_catalog()
NOW = 1767312000.0
HOUR, DAY = 3600, 86400


def printed(obj: dict[str, Any]) -> dict[str, Any]:
    resource = CATALOG.by_api_version(obj["apiVersion"], obj["kind"])
    assert resource is not None, obj["kind"]
    row = dict(zip((c["name"] for c in columns(resource)), cells(resource, obj, NOW), strict=True))
    wide = {c["name"]: row.pop(c["name"]) for c in columns(resource) if c["priority"]}
    return {"kind": obj["kind"], **row, **({"wide": wide} if wide else {})}


@pytest.mark.parametrize("source", sorted(GOLDEN.glob("*.input.yaml")), ids=lambda p: p.name.split(".")[0])
def test_golden(source: Path) -> None:
    got = [printed(obj) for obj in yaml.safe_load_all(source.read_text())]
    target = source.with_name(source.name.replace(".input.", ".output."))
    if os.environ.get("K1S_REWRITE_GOLDEN"):
        target.write_text(yaml.safe_dump(got, sort_keys=False, width=130))
    assert got == yaml.safe_load(target.read_text())


def test_there_are_goldens() -> None:
    assert len(list(GOLDEN.glob("*.input.yaml"))) >= 4


def test_every_kind_prints_an_empty_object_in_as_many_cells_as_columns() -> None:
    for resource in CATALOG:
        found = columns(resource)
        assert len(cells(resource, {"metadata": {"name": "x"}}, NOW)) == len(found), resource.kind
        for column in found:
            assert set(column) == {"name", "type", "format", "description", "priority"}
        assert any(c["format"] == "name" for c in found), resource.kind


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + 60, "3h1m"),
        (8 * HOUR + 60, "8h"),
        (47 * HOUR, "47h"),
        (48 * HOUR, "2d"),
        (3 * DAY + 4 * HOUR, "3d4h"),
        (8 * DAY + HOUR, "8d"),
        (729 * DAY, "729d"),
        (730 * DAY, "2y"),
        (800 * DAY, "2y70d"),
        (3000 * DAY, "8y"),
    ],
)
def test_human_duration(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_finished_pods_are_completed_rows() -> None:
    pods = CATALOG.by_plural("", "v1", "pods")
    assert pods is not None
    assert row_conditions(pods, {"status": {"phase": "Succeeded"}})[0]["reason"] == "Succeeded"
    assert row_conditions(pods, {"status": {"phase": "Running"}}) == []


OBJECT = {
    "metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a.b/c": "d"}},
    "spec": {"size": 3, "ratio": 0.5, "on": True, "list": [{"n": "a", "v": 1}, {"n": "b", "v": 2}]},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Stalled", "status": "False"}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.size", [3]),
        ("{.spec.size}", [3]),
        (".spec.list[*].n", ["a", "b"]),
        (".spec.list[1].v", [2]),
        (".spec.list[-1].v", [2]),
        (".spec.list[5].v", []),
        (".metadata.labels['a.b/c']", ["d"]),
        (r".metadata.labels.a\.b/c", ["d"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type=='Stalled')].status", ["False"]),
        (".spec.list[?(@.v > 1)].n", ["b"]),
        (".spec.nothing.here", []),
    ],
)
def test_json_paths(path: str, found: list[Any]) -> None:
    assert compile_path(path)(OBJECT) == found


@pytest.mark.parametrize("path", [".a[", "..a", ".a[?(@.b=c)]", ".a[0:2]"])
def test_json_paths_beyond_us_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_path(path)


def test_custom_columns() -> None:
    def column(kind: str, path: str) -> dict[str, Any]:
        return {"name": path, "type": kind, "jsonPath": path}

    kinds = [("integer", ".spec.size"), ("number", ".spec.ratio"), ("boolean", ".spec.on"), ("string", ".spec.list[*].n")]
    kinds += [("date", ".metadata.creationTimestamp"), ("string", ".spec.list[0]"), ("string", ".gone"), ("integer", ".spec.on")]
    printer = custom_printer([column(kind, path) for kind, path in kinds])
    assert printer.cells(OBJECT, NOW) == ["x", 3, 0.5, True, "a b", "24h", '{"n":"a","v":1}', None, None]
    assert [c["name"] for c in custom_printer(None).columns] == ["Name", "Age"]
