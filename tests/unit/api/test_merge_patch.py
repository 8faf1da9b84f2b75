"""Properties of merge patch and JSON patch on any JSON."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from k1s.api.patch.json import apply_json_patch
from k1s.api.patch.merge import apply_merge_patch, create_merge_patch, same

PRESENT = st.booleans() | st.integers(-5, 5) | st.text("ab/~", max_size=3)
SCALARS = st.none() | PRESENT
VALUES = st.recursive(
    PRESENT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text("abc", min_size=1, max_size=2), VALUES, max_size=4)
PATCHES = st.dictionaries(
    st.text("abc", min_size=1, max_size=2),
    st.recursive(SCALARS, lambda inner: st.dictionaries(st.text("abc", max_size=2), inner, max_size=3), max_leaves=8),
    max_size=4,
)


@given(OBJECTS, OBJECTS)
def test_the_patch_of_a_difference_gives_the_target(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert same(apply_merge_patch(old, create_merge_patch(old, new)), new)


@given(OBJECTS, PATCHES)
def test_twice_is_once(doc: dict[str, Any], patch: dict[str, Any]) -> None:
    once = apply_merge_patch(doc, patch)
    assert same(apply_merge_patch(once, patch), once)


@settings(max_examples=50)
@given(OBJECTS, st.text("abc~/", min_size=1, max_size=3), VALUES)
def test_add_then_test_then_remove(doc: dict[str, Any], key: str, value: Any) -> None:
    path = "/" + key.replace("~", "~0").replace("/", "~1")
    operations = [{"op": "add", "path": path, "value": value}, {"op": "test", "path": path, "value": value}]
    added = apply_json_patch(doc, operations)
    assert same(added, {**doc, key: value})
    removed = apply_json_patch(added, [{"op": "remove", "path": path}])
    assert same(removed, {k: v for k, v in doc.items() if k != key})
