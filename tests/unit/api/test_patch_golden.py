"""Every pair in tests/golden/patch: `doc` patched by `patch` (type strategic, merge or json) is the output, or its refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from k1s.api.catalog import builtin
from k1s.api.clone import clone
from k1s.api.errors import ApiError
from k1s.api.patch.json import apply_json_patch
from k1s.api.patch.merge import apply_merge_patch
from k1s.api.patch.strategic import apply_strategic_patch
from k1s.api.schema import schema_for

GOLDEN = Path(__file__).parents[2] / "golden" / "patch"
CASES = [
    pytest.param(case, document, id=f"{path.name.removesuffix('.input.yaml')}:{case['name']}")
    for path in sorted(GOLDEN.glob("*.input.yaml"))
    for case, document in zip(
        yaml.safe_load_all(path.read_text()),
        yaml.safe_load_all(path.with_name(path.name.replace(".input.", ".output.")).read_text()),
        strict=True,
    )
]


def patched(case: dict[str, Any]) -> Any:
    doc = clone(case["doc"])
    try:
        if case["type"] == "json":
            out = apply_json_patch(doc, case["patch"])
        elif case["type"] == "merge":
            out = apply_merge_patch(doc, case["patch"])
        else:
            out = apply_strategic_patch(doc, case["patch"], schema_for(builtin(case["kind"])))
    except ApiError as error:
        return {"refused": {"code": error.code, "message": getattr(error, "detail", error.message)}}
    assert doc == case["doc"], "the original must not change"
    return {"result": out}


@pytest.mark.parametrize("case, expected", CASES)
def test_golden(case: dict[str, Any], expected: dict[str, Any]) -> None:
    assert expected.pop("name") == case["name"], "input and output files list the same cases in the same order"
    assert patched(case) == expected


def test_there_are_cases() -> None:
    assert len(CASES) > 30
