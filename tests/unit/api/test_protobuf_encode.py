"""Protobuf there and back: what is written is what was meant, for every built-in kind that is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from k1s.api.catalog import builtin_catalog
from k1s.api.protobuf import decode_protobuf
from k1s.api.protobuf_encode import encode_protobuf, has_protobuf, watch_frame

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "defaults"
META = {
    "name": "a",
    "namespace": "b",
    "uid": "u",
    "resourceVersion": "12",
    "generation": 3,
    "creationTimestamp": "2026-11-22T04:05:06Z",
    "labels": {"x": "y", "a": ""},
    "finalizers": ["f"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "o", "controller": True}],
    "managedFields": [
        {
            "manager": "m",
            "operation": "Update",
            "apiVersion": "v1",
            "time": "2026-11-22T04:05:06Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {".": {}}},
        }
    ],
}
OBJECTS: list[dict[str, Any]] = [
    {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"k": "AAH/"}, "immutable": False},
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {
            "priority": -5,
            "hostNetwork": True,
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "v", "configMap": {"name": "c", "optional": False, "items": [{"key": "k", "path": "p"}]}}],
            "containers": [
                {
                    "name": "c",
                    "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 300},
                    "readinessProbe": {"tcpSocket": {"port": 8080}},
                    "envFrom": [{"prefix": "P", "configMapRef": {"name": "c"}}],
                }
            ],
        },
        "status": {"phase": "Running", "startTime": "1969-12-31T23:59:59Z"},
    },
    {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "spec": {"renewTime": "2026-11-22T04:05:06.000123Z", "leaseDurationSeconds": 15},
    },
    {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {
            "group": "g",
            "scope": "Cluster",
            "names": {"plural": "p", "kind": "K"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {"a": {"type": "number", "maximum": 1.5, "default": {"x": [1]}, "enum": ["s", 1]}},
                            "additionalProperties": {"type": "string"},
                            "items": {"type": "array"},
                        }
                    },
                }
            ],
        },
    },
    {"apiVersion": "v1", "kind": "ConfigMapList", "items": [{"metadata": {"name": "a"}, "data": {"k": "v"}}]},
    {"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 404, "details": {"causes": [{"reason": "r"}]}},
]


@pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: obj["kind"])
def test_there_and_back(obj: dict[str, Any]) -> None:
    meta: dict[str, Any] = META
    if obj["kind"] in ("ConfigMapList", "Status"):
        meta = {"resourceVersion": "5", "continue": "c", "remainingItemCount": 0}
    whole = {**obj, "metadata": meta}
    assert decode_protobuf(encode_protobuf(whole)) == whole


def _said(value: Any) -> Any:
    """Without what says nothing: zero values, which a message that leaves them out has too."""
    if isinstance(value, dict):
        if "metadata" in value:  # what an object inside another one is, its place says
            value = {key: item for key, item in value.items() if key not in ("apiVersion", "kind")}
        return {key: said for key, item in value.items() if (said := _said(item)) not in (None, "", 0, False, [], {})}
    return [_said(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("file", sorted(GOLDEN.rglob("*.output.yaml")), ids=lambda file: file.name)
def test_objects_with_their_defaults(file: Path) -> None:
    for obj in yaml.safe_load_all(file.read_text()):
        if isinstance(obj, dict) and has_protobuf(*_group_version(obj.get("apiVersion", "")), obj.get("kind", "")):
            assert _said(decode_protobuf(encode_protobuf(obj))) == _said(obj)


def _group_version(api_version: str) -> tuple[str, str]:
    group, _, version = api_version.rpartition("/")
    return group, version


def test_every_stored_kind_and_its_list_have_a_form() -> None:
    for resource in builtin_catalog():
        if resource.persisted:
            for kind in (resource.kind, resource.list_kind):
                assert has_protobuf(resource.group, resource.version, kind), f"{resource.api_version} {kind}"


def test_a_frame_of_a_watch() -> None:
    frame = watch_frame("ADDED", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert frame[4:11] == b"\n\x05ADDED" and frame[11:12] == b"\x12"
    assert decode_protobuf(frame[frame.index(b"k8s\x00") :])["metadata"] == {"name": "a"}
