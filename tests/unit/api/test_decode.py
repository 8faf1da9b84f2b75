"""Bodies: duplicates, types in the words of Go, normal forms; YAML as Kubernetes reads it."""

from __future__ import annotations

from typing import Any

import pytest

from k1s.api import decode, strict
from k1s.api.catalog import builtin
from k1s.api.errors import ApiError
from k1s.api.json_text import parse_json
from k1s.api.prune import prune
from k1s.api.schema import schema_for, schema_for_kind, structural


def deployment(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec}


def pod(container: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [container], **more}}


def fault(obj: dict[str, Any], kind: str) -> str:
    with pytest.raises(ApiError) as caught:
        decode.check_types(obj, schema_for(builtin(kind)))
    assert (caught.value.code, caught.value.reason) == (400, "BadRequest")
    return caught.value.message


def test_no_duplicates_is_found_out_without_a_second_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(body: bytes) -> list[str]:
        raise AssertionError("second parse")

    monkeypatch.setattr(decode, "duplicate_fields", never)
    body = b'{"a":{"b":1,"c":"x\\":y"},"list":[{"k": "v"}]}\n'
    assert decode.decode_json(body) == ({"a": {"b": 1, "c": 'x":y'}, "list": [{"k": "v"}]}, [])


@pytest.mark.parametrize(
    "body, paths",
    [
        (b'{"spec":{"replicas":1,"replicas":2}}', ["spec.replicas"]),
        (b'{"spec" : {"c":[{"a":1,"a":1,"a":2}]}}', ["spec.c[0].a"]),
        (b'{"a":1,"a":"\\u0022:\\u0022:"}', ["a"]),
        (b'{"a":1,"a":"\\"\\u003a"}', ["a"]),
        (b'{"a" :1,"b":2}', []),
    ],
)
def test_duplicates(body: bytes, paths: list[str]) -> None:
    assert decode.decode_json(body)[1] == paths


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'{"a":}'])
def test_not_an_object(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        decode.decode_json(body)
    assert caught.value.code == 400
    assert "json parse error" in caught.value.message


def test_wrong_types_read_as_upstream() -> None:
    assert fault(deployment(replicas="3"), "Deployment") == (
        'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into '
        "Go struct field DeploymentSpec.spec.replicas of type int32"
    )
    assert fault(pod({"name": "c", "image": 3}), "Pod").endswith(
        "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string"
    )
    assert fault(pod({"name": "c", "ports": {}}), "Pod").endswith(
        "json: cannot unmarshal object into Go struct field Container.spec.containers.ports of type []v1.ContainerPort"
    )
    assert fault({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": 1}}, "ConfigMap").endswith(
        "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"
    )
    assert fault(deployment(replicas=1.5), "Deployment").endswith(
        "cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"
    )
    assert "number 4294967296 into" in fault(deployment(replicas=2**32), "Deployment")
    assert "cannot unmarshal bool" in fault(deployment(replicas=True), "Deployment")
    quantity = {"name": "c", "resources": {"limits": {"cpu": "1x"}}}
    assert "quantities must match the regular expression" in fault(pod(quantity), "Pod")
    secret = {"kind": "Secret", "apiVersion": "v1", "data": {"a": "not base64!"}}
    assert fault(secret, "Secret").endswith(": illegal base64 data at input byte 3")


def test_normal_forms() -> None:
    obj = pod(
        {"name": "c", "env": [], "image": None, "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {}}},
        nodeSelector={},
        volumes=[{"name": "e", "emptyDir": {}}],
        priority=None,
    )
    obj["metadata"] |= {"creationTimestamp": None, "managedFields": [], "labels": {"a": None}}
    obj["status"] = {"startTime": "2026-01-02T03:04:05.9+01:00"}
    decode.check_types(obj, schema_for(builtin("Pod")))
    assert obj["spec"] == {
        "containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}],
        "volumes": [{"name": "e", "emptyDir": {}}],
    }
    assert obj["metadata"] == {"name": "a", "labels": {"a": ""}, "managedFields": []}
    assert obj["status"] == {"startTime": "2026-01-02T02:04:05Z"}
    lease = {"kind": "Lease", "spec": {"renewTime": "2026-01-02T03:04:05.9Z"}}
    decode.check_types(lease, schema_for(builtin("Lease")))
    assert lease["spec"] == {"renewTime": "2026-01-02T03:04:05.900000Z"}


def test_required_lists_stay_when_empty() -> None:
    role = {"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "rules": [{"verbs": [], "resources": []}]}
    decode.check_types(role, schema_for(builtin("Role")))
    assert role["rules"] == [{"verbs": []}]


def test_custom_resources_keep_what_they_say() -> None:
    schema = structural({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "array"}}}}})
    obj = {"kind": "X", "apiVersion": "e/v1", "metadata": {"labels": None}, "spec": {"a": [], "b": None}}
    decode.check_types(obj, schema)
    assert obj == {"kind": "X", "apiVersion": "e/v1", "metadata": {}, "spec": {"a": [], "b": None}}
    assert prune(obj, schema) == ["spec.b"]
    obj["spec"]["a"] = "not a list: 422 by validation, not 400 by decoding"
    decode.check_types(obj, schema)
    obj["metadata"]["labels"] = 3
    with pytest.raises(ApiError, match=r"cannot unmarshal number into Go struct field ObjectMeta.labels of type map"):
        decode.check_types(obj, schema)


def test_prune() -> None:
    obj = pod({"name": "c", "imag": 1, "env": [{"name": "a", "valu": "b"}]})
    obj["metadata"]["labels"] = {"any": "thing"}
    obj["foo"] = 1
    assert prune(obj, schema_for(builtin("Pod"))) == ["spec.containers[0].imag", "spec.containers[0].env[0].valu", "foo"]
    assert obj == pod({"name": "c", "env": [{"name": "a"}]}) | {"metadata": {"name": "a", "labels": {"any": "thing"}}}


def test_prune_keeps_free_form() -> None:
    obj = {
        "kind": "ControllerRevision",
        "data": {"any": {"thing": 1}},
        "metadata": {"managedFields": [{"fieldsV1": {"f:a": {}}}]},
    }
    assert prune(obj, schema_for_kind("apps", "v1", "ControllerRevision")) == []
    crd = {
        "spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {"a": {"items": {"x": 1}, "default": {"y": 1}}}}}}]}
    }
    assert prune(crd, schema_for(builtin("CustomResourceDefinition"))) == []


YAML = b"""
a: yes
b: 2026-01-02
c: 1:30
d: 0o17
e: 017
f: 1e3
g: "yes"
h: ~
i: 0x1F
1: one
on: x
base: &base {x: 1, y: 2}
merged: {<<: *base, y: 3}
n: y
o: 1_000
v: 1.20
"""


def test_yaml() -> None:
    obj, duplicates = decode.decode_yaml(YAML)
    assert duplicates == []
    assert type(obj["f"]) is int
    assert obj == {
        "a": True,
        "b": "2026-01-02",
        "c": "1:30",
        "d": 15,
        "e": 15,
        "f": 1000,
        "g": "yes",
        "h": None,
        "i": 31,
        "1": "one",
        "true": "x",
        "base": {"x": 1, "y": 2},
        "merged": {"x": 1, "y": 3},
        "n": "y",
        "o": 1000,
        "v": 1.2,
    }


def test_numbers_that_do_not_fit() -> None:
    assert decode.decode_yaml(b"a: 18446744073709551615\nb: 18446744073709551616")[0] == {"a": 2**64 - 1, "b": float(2**64)}


def test_only_the_first_document_counts() -> None:
    assert decode.decode_yaml(b"---\na: 1\n---\nb: 2\n") == ({"a": 1}, [])


def test_yaml_duplicates_and_faults() -> None:
    assert decode.decode_yaml(b"spec:\n  a: 1\n  a: 2\n") == ({"spec": {"a": 2}}, ['line 3: key "a" already set in map'])
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    deep = b"[" * 5000 + b"]" * 5000
    for text in (
        b"a: [",
        b"- 1",
        bomb.encode(),
        b"x: .inf",
        b"x: 1e999",
        b"a: &b\n  c: *b",
        deep,
        b"a: " + deep[4700:5300],
        b"[" * 9999,
    ):
        with pytest.raises(ApiError) as caught:
            decode.decode_yaml(text)
        assert caught.value.code == 400


# A body with every kind of fault, and what Go's decoder complains of, in the order of the text.
FAULTY = b"""{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "nameX": 1},
 "spec": {"unknown": {"deep": 1}, "twice": 1, "twice": 2, "paused": true, "paused": false, "paused": true,
  "template": {"metadata": {"labels": {"a": "b", "a": "c"}},
   "spec": {"containers": [{"name": "x", "odd": 1, "image": "i", "image": "j"}]}}}}"""


def test_complaints_in_the_order_of_the_text() -> None:
    assert strict.in_document_order(FAULTY, schema_for(builtin("Deployment"))) == [
        'unknown field "metadata.nameX"',
        'unknown field "spec.unknown"',
        'unknown field "spec.twice"',
        'duplicate field "spec.paused"',
        'duplicate field "spec.template.metadata.labels.a"',
        'unknown field "spec.template.spec.containers[0].odd"',
        'duplicate field "spec.template.spec.containers[0].image"',
    ]


def test_strict_text() -> None:
    complaints = ['line 3: key "a" already set in map', 'line 5: key "b" already set in map', 'unknown field "c"']
    assert strict.strict_decoding_error(complaints) == (
        'strict decoding error: yaml: unmarshal errors:\n  line 3: key "a" already set in map\n'
        '  line 5: key "b" already set in map, unknown field "c"'
    )
    assert strict.sorted_unknown(["spec.b", "metadata.x", "a"]) == [
        'unknown field "metadata.x"',
        'unknown field "a"',
        'unknown field "spec.b"',
    ]


# As Go's decoder words what it cannot read.
BROKEN_JSON = [
    (b"", "unexpected end of JSON input"),
    (b'{"a":1', "unexpected end of JSON input"),
    (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    (b'{"a" 1}', "invalid character '1' after object key"),
    (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
    (b"[1 2]", "invalid character '2' after array element"),
    (b"{} x", "invalid character 'x' after top-level value"),
    (b'"\\q"', "invalid character 'q' in string escape code"),
    (b"NaN", "invalid character 'N' looking for beginning of value"),
    (b"[" * 3000 + b"]" * 3000, "exceeded max depth"),
    (b"[" * 400 + b"]" * 400, "exceeded max depth"),
]


@pytest.mark.parametrize(("body", "message"), BROKEN_JSON)
def test_broken_json(body: bytes, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode.decode_json(body)
    assert caught.value.message == f"couldn't get version/kind; json parse error: {message}"


def test_what_go_lets_pass() -> None:
    assert parse_json(b'{"a":"\xff\\ud800","n":99999999999999999999}') == {"a": "\ufffd\ufffd", "n": 1e20}
    assert decode.decode_json(b"null") == ({}, [])
