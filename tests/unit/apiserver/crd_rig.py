"""A custom resource for tests of writes: widgets.example.com, with every kind of list, defaults, status and scale."""

from __future__ import annotations

from typing import Any

from tests.unit.apiserver.conftest import Api

Object = dict[str, Any]

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"

_PORT: Object = {
    "type": "object",
    "required": ["port"],
    "properties": {
        "port": {"type": "integer"},
        "protocol": {"type": "string", "default": "TCP"},
        "host": {"type": "string"},
    },
}
_SPEC: Object = {
    "type": "object",
    "properties": {
        "size": {"type": "integer"},
        "color": {"type": "string", "default": "blue"},
        "replicas": {"type": "integer"},
        "ports": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": _PORT,
        },
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "steps": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        "options": {"type": "object", "additionalProperties": {"type": "string"}},
        "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "template": {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "properties": {"metadata": {"type": "object"}, "spec": {"type": "object"}},
        },
        "maybe": {"type": "string", "nullable": True},
    },
}


def version(name: str = "v1", *, storage: bool = True, spec: Object | None = None, preserve: bool = False) -> Object:
    spec = dict(_SPEC if spec is None else spec)
    if preserve:
        spec["x-kubernetes-preserve-unknown-fields"] = True
    status: Object = {
        "type": "object",
        "properties": {"phase": {"type": "string"}, "replicas": {"type": "integer"}, "selector": {"type": "string"}},
    }
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    }


async def define(api: Api, *versions: Object, preserve: bool = False) -> None:
    spec = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": list(versions) or [version(preserve=preserve)],
    }
    await api.ok("POST", CRDS, {"metadata": {"name": "widgets.example.com"}, "spec": spec})


def widget(name: str = "w", **spec: Any) -> Object:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}
