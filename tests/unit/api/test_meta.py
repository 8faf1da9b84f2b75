"""The accessors, above all the conditions."""

from __future__ import annotations

from typing import Any

from k1s.api import meta
from k1s.api.catalog import builtin

Object = dict[str, Any]


def test_nothing_is_there() -> None:
    for obj in ({}, {"metadata": None}, {"metadata": {}}):
        assert (meta.name(obj), meta.namespace(obj), meta.uid(obj), meta.key(obj)) == ("", "", "", "")
        assert not meta.labels(obj) and not meta.owner_references(obj) and meta.controller_of(obj) is None
        assert not meta.is_deleting(obj) and meta.condition(obj, "Ready") is None


def test_keys() -> None:
    assert meta.key({"metadata": {"name": "a", "namespace": "n"}}) == "n/a"
    assert meta.split_key("n/a") == ("n", "a")
    assert meta.split_key("a") == ("", "a")


def test_owners() -> None:
    owner = {"metadata": {"name": "o", "uid": "1"}}
    reference = meta.owner_reference(owner, builtin("ReplicaSet"))
    assert reference == {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "o",
        "uid": "1",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    pod = {"metadata": {"ownerReferences": [{"uid": "2"}, reference]}}
    assert meta.controller_of(pod) == reference and meta.controlled_by(pod, owner)
    assert "controller" not in meta.owner_reference(owner, builtin("ReplicaSet"), controller=False)


def test_conditions() -> None:
    conditions: list[Object] = []
    assert meta.set_condition(conditions, {"type": "Ready", "status": "False", "reason": "A"}, "t1")
    assert not meta.set_condition(conditions, {"type": "Ready", "status": "False", "reason": "A"}, "t2")
    assert meta.set_condition(conditions, {"type": "Ready", "status": "False", "reason": "B"}, "t2")
    assert conditions == [{"type": "Ready", "status": "False", "reason": "B", "lastTransitionTime": "t1"}]
    assert meta.set_condition(conditions, {"type": "Ready", "status": "True"}, "t3")
    assert conditions[0]["lastTransitionTime"] == "t3"
    assert meta.is_true({"status": {"conditions": conditions}}, "Ready")
    assert meta.remove_condition(conditions, "Ready") and not meta.remove_condition(conditions, "Ready")
