"""What the aggregated API server of Flunders says of itself: discovery, old and aggregated, and OpenAPI v2 and v3."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

Object = dict[str, Any]
GROUP, VERSION, KIND, PLURAL = "wardle.example.com", "v1alpha1", "Flunder", "flunders"
API_VERSION = f"{GROUP}/{VERSION}"
BASE = f"/apis/{API_VERSION}"
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_GVK = {"group": GROUP, "version": VERSION, "kind": KIND}
_MODEL = "com.example.wardle.v1alpha1.Flunder"


def described(request: web.Request) -> web.Response | None:
    """None: there is no such document."""
    document = {
        "/apis": _groups(request),
        f"/apis/{GROUP}": {"kind": "APIGroup", "apiVersion": "v1", **_group()},
        BASE: _resources(),
        "/openapi/v3": {"paths": {BASE[1:]: {"serverRelativeURL": f"/openapi/v3{BASE}?hash=1"}}},
        f"/openapi/v3{BASE}": _openapi("components/schemas"),
        "/openapi/v2": _openapi("definitions"),
    }.get(request.path)
    if document is None:
        return None
    if document.get("kind") == "APIGroupDiscoveryList":
        return web.Response(body=json.dumps(document).encode(), headers={"Content-Type": _AGGREGATED})
    return web.json_response(document)


def _group() -> Object:
    version = {"groupVersion": API_VERSION, "version": VERSION}
    return {"name": GROUP, "versions": [version], "preferredVersion": version}


def _groups(request: web.Request) -> Object:
    if "as=APIGroupDiscoveryList" not in request.headers.get("Accept", ""):
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group()]}
    row = {
        "resource": PLURAL,
        "responseKind": _GVK,
        "scope": "Namespaced",
        "singularResource": "flunder",
        "shortNames": ["fl"],
        "verbs": VERBS,
    }
    versions = [{"version": VERSION, "resources": [row], "freshness": "Current"}]
    items = [{"metadata": {"name": GROUP}, "versions": versions}]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _resources() -> Object:
    row = {"name": PLURAL, "singularName": "flunder", "namespaced": True, "kind": KIND, "verbs": VERBS, "shortNames": ["fl"]}
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": [row]}


def _openapi(where: str) -> Object:
    """The same of both versions: v2 keeps its models at the top, v3 below components."""
    text = {"type": "string"}
    spec = {"type": "object", "properties": {"reference": {**text, "description": "The name of another Flunder."}}}
    model = {
        "type": "object",
        "description": "Flunder is what this server has.",
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": {"type": "object", "properties": {"name": text, "namespace": text}},
            "spec": {**spec, "description": "What is wanted of it."},
        },
        "x-kubernetes-group-version-kind": [_GVK],
    }
    ref = {"$ref": f"#/{where}/{_MODEL}"}
    v3 = where.startswith("components")
    answer: Object = {"description": "OK", **({"content": {"application/json": {"schema": ref}}} if v3 else {"schema": ref})}
    operations = {
        method: {
            "responses": {"200": answer},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _GVK,
        }
        for method, action in (("get", "list"), ("post", "post"))
    }
    paths = {f"{BASE}/namespaces/{{namespace}}/{PLURAL}": operations}
    out: Object = {"info": {"title": "wardle", "version": "0"}, "paths": paths}
    if v3:
        return {"openapi": "3.0.0", **out, "components": {"schemas": {_MODEL: model}}}
    return {"swagger": "2.0", **out, "definitions": {_MODEL: model}}
