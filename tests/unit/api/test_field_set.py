"""The algebra of field sets, against plain Python sets of paths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k1s.api import field_set as fs

ELEMENTS = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"'])
PATHS = st.sets(st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple), max_size=8)


def built(paths: set[fs.Path]) -> fs.FieldSet:
    out: fs.FieldSet = {}
    for path in sorted(paths, key=len):
        fs.insert(out, path)
    return out


@given(PATHS)
def test_insert_and_read_back(paths: set[fs.Path]) -> None:
    assert set(fs.paths(built(paths))) == paths
    for path in paths:
        assert fs.has(built(paths), path)
    backwards: fs.FieldSet = {}
    for path in sorted(paths, key=len, reverse=True):
        fs.insert(backwards, path)
    assert fs.ordered(backwards) == fs.ordered(built(paths))


@given(PATHS, PATHS)
def test_algebra(one: set[fs.Path], other: set[fs.Path]) -> None:
    a, b = built(one), built(other)
    before = (fs.ordered(a), fs.ordered(b))
    assert set(fs.paths(fs.union(a, b))) == one | other
    assert set(fs.paths(fs.difference(a, b))) == one - other
    assert set(fs.paths(fs.intersection(a, b))) == one & other
    below = {p for p in one if not any(p[: len(q)] == q for q in other)}
    assert set(fs.paths(fs.recursive_difference(a, b))) == below
    assert (fs.ordered(a), fs.ordered(b)) == before, "arguments are not changed"
    assert fs.difference(a, a) == {}


@pytest.mark.parametrize(
    "path, text",
    [
        (("f:spec", "f:replicas"), ".spec.replicas"),
        (("f:c", 'k:{"name":"x"}', "f:image"), '.c[name="x"].image'),
        (("f:p", 'k:{"containerPort":80,"protocol":"TCP"}'), '.p[containerPort=80,protocol="TCP"]'),
        (("f:f", 'v:"a/b"'), '.f[="a/b"]'),
        (("f:l", "i:3"), ".l[3]"),
        (("f:labels", "f:a.b/c"), ".labels.a.b/c"),
    ],
)
def test_text(path: fs.Path, text: str) -> None:
    assert fs.path_text(path) == text


def test_canonical() -> None:
    given_set: dict[str, Any] = {"f:a": {'k:{"b": 1, "a": 2}': {".": {}, "f:x": {}}, 'v: "s"': {}}}
    assert fs.canonical(given_set) == {"f:a": {'k:{"a":2,"b":1}': {".": {}, "f:x": {}}, 'v:"s"': {}}}
    for wrong in ({"x": {}}, {"k:[]": {}}, {"f:a": 1}):
        with pytest.raises(ValueError):
            fs.canonical(wrong)  # type: ignore[arg-type]
