"""Unknown and duplicate fields: what is refused, what is warned of, in which words and order, by every way to write."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.conftest import CMS, DEPLOYMENTS, Answer, Api, config_map, deployment
from tests.unit.apiserver.crd_rig import WIDGETS, define

JSON, YAML = "application/json", "application/yaml"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"

FAULTY_JSON = b"""
{
  "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "nginx"}},
  "spec": {
    "unknown1": "val1",
    "unknownDupe": "valDupe",
    "unknownDupe": "valDupe2",
    "paused": true,
    "paused": false,
    "selector": {"matchLabels": {"app": "nginx"}},
    "template": {
      "metadata": {"labels": {"app": "nginx"}},
      "spec": {"containers": [{
        "name": "nginx", "image": "nginx", "unknownNested": "val1", "imagePullPolicy": "Always", "imagePullPolicy": "Never"
      }]}
    }
  }
}
"""
JSON_COMPLAINTS = [
    'unknown field "spec.unknown1"',
    'unknown field "spec.unknownDupe"',
    'duplicate field "spec.paused"',
    'unknown field "spec.template.spec.containers[0].unknownNested"',
    'duplicate field "spec.template.spec.containers[0].imagePullPolicy"',
]
FAULTY_YAML = b"""apiVersion: apps/v1
kind: Deployment
metadata:
  name: d
  labels:
    app: nginx
spec:
  unknown1: val1
  unknownDupe: valDupe
  unknownDupe: valDupe2
  paused: true
  paused: false
  selector:
    matchLabels:
      app: nginx
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
      - name: nginx
        image: nginx:latest
        unknownNested: val1
        imagePullPolicy: Always
        imagePullPolicy: Never"""
YAML_LINES = [
    'line 10: key "unknownDupe" already set in map',
    'line 12: key "paused" already set in map',
    'line 26: key "imagePullPolicy" already set in map',
]
SORTED_UNKNOWN = [
    'unknown field "spec.template.spec.containers[0].unknownNested"',
    'unknown field "spec.unknown1"',
    'unknown field "spec.unknownDupe"',
]
YAML_ERROR = "strict decoding error: yaml: unmarshal errors:\n  " + "\n  ".join(YAML_LINES) + ", " + ", ".join(SORTED_UNKNOWN)
AS = 'Deployment in version "v1" cannot be handled as a Deployment: '


def warned(answer: Answer) -> list[str]:
    return [value.removeprefix('299 - "').removesuffix('"').replace('\\"', '"') for value in answer.warnings]


BODIES = [
    ("JSON", FAULTY_JSON, JSON, "strict decoding error: " + ", ".join(JSON_COMPLAINTS), JSON_COMPLAINTS),
    ("YAML", FAULTY_YAML, YAML, YAML_ERROR, [*YAML_LINES, *SORTED_UNKNOWN]),
]


@pytest.mark.parametrize(("body", "type", "error", "warnings"), [b[1:] for b in BODIES], ids=[b[0] for b in BODIES])
@pytest.mark.parametrize("verb", ["POST", "PUT"])
async def test_bodies(api: Api, verb: str, body: bytes, type: str, error: str, warnings: list[str]) -> None:
    target = DEPLOYMENTS if verb == "POST" else f"{DEPLOYMENTS}/d"
    if verb == "PUT":
        await api.ok("POST", f"{DEPLOYMENTS}?fieldValidation=Ignore", body, type=type)
    strict = await api(verb, f"{target}?fieldValidation=Strict", body, type=type)
    assert (strict.status, strict.json["message"]) == (400, AS + error)
    assert not strict.warnings
    for mode in ("", "?fieldValidation=Warn"):
        told = await api(verb, f"{target}{mode or '?'}&dryRun=All", body, type=type)
        assert told.status in (200, 201) and warned(told) == warnings
    silent = await api(verb, f"{target}?fieldValidation=Ignore", body, type=type)
    assert silent.status in (200, 201) and not silent.warnings


MERGED = b"""{"spec": {"unknown1": "val1", "unknownDupe": "valDupe", "unknownDupe": "valDupe2", "paused": true, "paused": false,
  "template": {"spec": {"containers": [{"name": "c", "image": "i", "unknownNested": "val1",
                                        "imagePullPolicy": "Always", "imagePullPolicy": "Never"}]}}}}"""
MERGE_COMPLAINTS = [
    'duplicate field "spec.unknownDupe"',
    'duplicate field "spec.paused"',
    'duplicate field "spec.template.spec.containers[0].imagePullPolicy"',
    *SORTED_UNKNOWN,
]
OPERATIONS = b"""[
  {"op": "add", "path": "/spec/unknown1", "value": "val1", "foo": "bar"},
  {"op": "add", "path": "/spec/unknown2", "path": "/spec/unknown3", "value": "val1"},
  {"op": "add", "path": "/spec/unknownDupe", "value": "valDupe"},
  {"op": "add", "path": "/spec/unknownDupe", "value": "valDupe2"},
  {"op": "add", "path": "/spec/template/spec/containers/0/unknownNested", "value": "val1"}
]"""
JSON_PATCH_COMPLAINTS = [
    'json patch unknown field "[0].foo"',
    'json patch duplicate field "[1].path"',
    'unknown field "spec.template.spec.containers[0].unknownNested"',
    'unknown field "spec.unknown1"',
    'unknown field "spec.unknown3"',
    'unknown field "spec.unknownDupe"',
]
KNOWN_TWICE = b'{"spec": {"paused": true, "paused": false}}'
PATCHES = [
    (MERGE, MERGED, MERGE_COMPLAINTS),
    (STRATEGIC, MERGED, MERGE_COMPLAINTS),
    (JSON_PATCH, OPERATIONS, JSON_PATCH_COMPLAINTS),
    (MERGE, KNOWN_TWICE, ['duplicate field "spec.paused"']),
    (STRATEGIC, KNOWN_TWICE, ['duplicate field "spec.paused"']),
]


@pytest.mark.parametrize(("type", "body", "complaints"), PATCHES)
async def test_patches(api: Api, type: str, body: bytes, complaints: list[str]) -> None:
    await api.ok("POST", DEPLOYMENTS, deployment("d"))
    strict = await api("PATCH", f"{DEPLOYMENTS}/d?fieldValidation=Strict", body, type=type)
    assert (strict.status, strict.json["reason"]) == (422, "Invalid")
    (cause,) = strict.json["details"]["causes"]
    assert cause["field"] == "patch" and cause["message"].endswith(": strict decoding error: " + ", ".join(complaints))
    assert strict.json["message"].startswith(' "" is invalid: patch: Invalid value: "')
    told = await api("PATCH", f"{DEPLOYMENTS}/d", body, type=type)
    assert told.status == 200 and warned(told) == complaints
    silent = await api("PATCH", f"{DEPLOYMENTS}/d?fieldValidation=Ignore", body, type=type)
    assert silent.status == 200 and not silent.warnings


APPLIED = b"""{
  "apiVersion": "apps/v1",
  "kind": "Deployment",
  "metadata": {"name": "d", "labels": {"app": "nginx"}},
  "spec": {
\t"paused": false,
\t"paused": true,
    "selector": {"matchLabels": {"app": "nginx"}},
    "template": {
      "metadata": {"labels": {"app": "nginx"}},
      "spec": {"containers": [{
        "name": "nginx", "image": "nginx:latest",
        "imagePullPolicy": "Never",
        "imagePullPolicy": "Always"
      }]}
    }
  }
}"""
APPLY_LINES = ['line 7: key "paused" already set in map', 'line 14: key "imagePullPolicy" already set in map']


async def test_apply(api: Api) -> None:
    target = f"{DEPLOYMENTS}/d?fieldManager=m"
    for _ in ("create", "update"):
        strict = await api("PATCH", f"{target}&fieldValidation=Strict", APPLIED, type=APPLY)
        lines = "\n  ".join(APPLY_LINES)
        text = f"error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n  {lines}"
        assert (strict.status, strict.json["message"]) == (400, text)
        silent = await api("PATCH", f"{target}&fieldValidation=Ignore&dryRun=All", APPLIED, type=APPLY)
        assert silent.status in (200, 201) and not silent.warnings
        told = await api("PATCH", target, APPLIED, type=APPLY)
        assert told.status in (200, 201) and warned(told) == APPLY_LINES
        assert told.json["spec"]["paused"] is True


async def test_apply_of_unknown_fields_fails_whatever_was_asked(api: Api) -> None:
    body = FAULTY_JSON.replace(b'"unknown1": "val1",', b"").replace(b'"unknownNested": "val1",', b"")
    for mode in ("Strict", "Warn", "Ignore"):
        answer = await api("PATCH", f"{DEPLOYMENTS}/d?fieldManager=m&fieldValidation={mode}", body, type=APPLY)
        assert answer.status == 400
        assert answer.json["message"] == (
            "failed to create typed patch object (/d; apps/v1, Kind=Deployment): .spec.unknownDupe: field not declared in schema"
        )


WIDGET_JSON = b"""{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "odd": 1}, "spec": {
  "unknown1": "val1", "unknownDupe": "valDupe", "unknownDupe": "valDupe2", "size": 1, "size": 2,
  "ports": [{"port": 1, "protocol": "TCP", "host": "a", "host": "b", "unknownNested": "val"}]}}"""
WIDGET_YAML = b"""
apiVersion: example.com/v1
kind: Widget
metadata: {name: w, odd: 1}
spec:
  unknown1: val1
  unknownDupe: valDupe
  unknownDupe: valDupe2
  size: 1
  size: 2
  ports:
  - port: 1
    protocol: TCP
    host: a
    host: b
    unknownNested: val"""
WIDGET_UNKNOWN = [
    'unknown field "metadata.odd"',
    'unknown field "spec.ports[0].unknownNested"',
    'unknown field "spec.unknown1"',
    'unknown field "spec.unknownDupe"',
]
WIDGET_TWICE = ['duplicate field "spec.unknownDupe"', 'duplicate field "spec.size"', 'duplicate field "spec.ports[0].host"']
WIDGET_LINES = [
    'line 8: key "unknownDupe" already set in map',
    'line 10: key "size" already set in map',
    'line 15: key "host" already set in map',
]


@pytest.mark.parametrize(
    ("body", "type", "complaints"),
    [(WIDGET_JSON, JSON, [*WIDGET_TWICE, *WIDGET_UNKNOWN]), (WIDGET_YAML, YAML, [*WIDGET_LINES, *WIDGET_UNKNOWN])],
)
async def test_custom_resources(api: Api, body: bytes, type: str, complaints: list[str]) -> None:
    await define(api)
    strict = await api("POST", f"{WIDGETS}?fieldValidation=Strict", body, type=type)
    assert strict.status == 400
    assert all(text in strict.json["message"] for text in complaints) and "strict decoding error: " in strict.json["message"]
    told = await api("POST", WIDGETS, body, type=type)
    assert told.status == 201 and warned(told) == complaints
    assert told.json["spec"] == {"size": 2, "color": "blue", "ports": [{"port": 1, "protocol": "TCP", "host": "b"}]}


async def test_custom_resources_that_keep_what_nobody_knows(api: Api) -> None:
    await define(api, preserve=True)
    told = await api("POST", WIDGETS, WIDGET_JSON)
    nested = ['unknown field "metadata.odd"', 'unknown field "spec.ports[0].unknownNested"']
    assert told.status == 201 and warned(told) == [*WIDGET_TWICE, *nested]
    body = WIDGET_YAML.replace(b", odd: 1", b"").replace(b"    unknownNested: val", b"")
    strict = await api("PATCH", f"{WIDGETS}/w?fieldManager=m&force=1&fieldValidation=Strict", body, type=APPLY)
    assert strict.status == 400 and 'line 10: key "size" already set in map' in strict.json["message"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"unknownField": "x"}, ".unknownField: field not declared in schema"),
        ({"metadata": {"name": "w", "odd": 1}}, ".metadata.odd: field not declared in schema"),
        ({"spec": {"odd": 1}}, ".spec.odd: field not declared in schema"),
        ({"spec": {"template": {"metadata": {"odd": 1}}}}, ".spec.template.metadata.odd: field not declared in schema"),
    ],
)
async def test_apply_of_custom_resources(api: Api, change: dict[str, Any], fault: str) -> None:
    await define(api)
    body = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, **change}
    answer = await api("PATCH", f"{WIDGETS}/w?fieldManager=m&fieldValidation=Strict", body, type=APPLY)
    assert answer.status == 400 and answer.json["message"].endswith(fault)


async def test_words_of_bodies_that_cannot_be_read(api: Api) -> None:
    cases = [
        (b"", JSON, "unexpected end of JSON input (<empty>)"),
        (b'{"a"', JSON, 'unexpected end of JSON input ({"a")'),
        (b"[1,2]", JSON, 'Kind string "json:\\"kind,omitempty\\"" } (5b312c325d)'),
        (b"a: [", YAML, "yaml: line 2: did not find expected node content (613a205b)"),
    ]
    for body, type, end in cases:
        answer = await api("POST", CMS, body, type=type)
        message = answer.json["message"]
        assert answer.status == 400, (body, message)
        assert message.startswith("the object provided is unrecognized (must be of type ConfigMap): ")
        assert message.endswith(end), message
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    assert "exceeded max depth" in (await api("POST", CMS, deep)).json["message"]
    assert (await api("POST", CMS, b'{"metadata":{"name":"a"},"data":{"a":"\xff"}}')).json["data"] == {"a": "�"}
    assert (await api("POST", CMS, config_map("b"))).status == 201


async def test_many_warnings_are_cut(api: Api) -> None:
    body = {"metadata": {"name": "a"}, **{f"{'x' * 300}{number}": 1 for number in range(100)}}
    found = warned(await api("POST", CMS, body))
    assert len(found) == 17 and all(len(text) == 256 for text in found)
