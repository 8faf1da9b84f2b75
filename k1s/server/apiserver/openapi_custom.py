"""What OpenAPI says of custom resources: their schema, with the fields that every object has, and their list.

Owns: custom_definitions(), definition_name(). Called by: openapi. Never does: keep documents.
In v2, which knows neither alternatives nor null, and whose readers take what is not named for forbidden, some is left out.
Source: apiextensions-apiserver/pkg/controller/openapi/{builder,v2}.
"""

from __future__ import annotations

from typing import Any

from k1s.api import definitions
from k1s.api.catalog import Resource

Object = dict[str, Any]

V3, V2 = "#/components/schemas/", "#/definitions/"
_PRESERVE, _EMBEDDED = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"
_MORE = "More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
_API_VERSION = (
    "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas "
    f"to the latest internal value, and may reject unrecognized values. {_MORE}#resources"
)
_KIND = (
    "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint "
    f"the client submits requests to. Cannot be updated. In CamelCase. {_MORE}#types-kinds"
)
_METADATA = f"Standard object's metadata. {_MORE}#metadata"
_LIST_METADATA = f"Standard list metadata. {_MORE}#types-kinds"
_OWN_VERSION = f"apiVersion defines the versioned schema of this representation of an object. {_MORE}#resources"
_OWN_KIND = f"kind is a string value representing the type of this object. In CamelCase. {_MORE}#types-kinds"
_LIST_META = f"{definitions.META_V1}.ListMeta"
_JUNCTORS = ("allOf", "anyOf", "oneOf", "not")


def definition_name(resource: Resource, suffix: str = "") -> str:
    """com.example.v1.Foo for Foo of example.com."""
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind + suffix])


def custom_definitions(resource: Resource, schema: Object, *, v2: bool) -> dict[str, Object]:
    """By name: the type, and its list."""
    prefix = V2 if v2 else V3
    item = _kind(schema, prefix, v2=v2)
    items = {
        "type": "array",
        "items": _reference(definition_name(resource), prefix),
        "description": f"List of {resource.plural}. {_MORE}",
    }
    listed: Object = {
        "description": f"{resource.list_kind} is a list of {resource.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {**_type_meta(), "items": items, "metadata": _reference(_LIST_META, prefix, _LIST_METADATA)},
    }
    for found, kind in ((item, resource.kind), (listed, resource.list_kind)):
        found["x-kubernetes-group-version-kind"] = [{"group": resource.group, "version": resource.version, "kind": kind}]
        if resource.selectable and not v2:
            found["x-kubernetes-selectable-fields"] = [{"fieldPath": path} for path in resource.selectable]
    return {definition_name(resource): item, definition_name(resource, "List"): listed}


def _kind(schema: Object, prefix: str, *, v2: bool) -> Object:
    # Where anything may stand, naming some fields would forbid the others to kubectl.
    if not schema or (v2 and schema.get(_PRESERVE)):
        return {"type": "object"}
    out = _swagger(schema) if v2 else dict(schema)
    out = _embedded(out, prefix, v2=v2)
    out["properties"] = {
        **(out.get("properties") or {}),
        **_type_meta(),
        "metadata": _reference(definitions.OBJECT_META, prefix, _METADATA),
    }
    return out


def _type_meta() -> Object:
    return {
        "apiVersion": {"type": "string", "description": _API_VERSION},
        "kind": {"type": "string", "description": _KIND},
    }


def _reference(name: str, prefix: str, description: str = "") -> Object:
    if prefix == V2:
        return {"$ref": prefix + name, **({"description": description} if description else {})}
    # In v3 nothing may stand beside a $ref.
    return {"allOf": [{"$ref": prefix + name}], "description": description} if description else {"$ref": prefix + name}


def _swagger(schema: Object) -> Object:
    """A structural schema in what OpenAPI v2, and kubectl's reading of it, can say."""
    out = {key: value for key, value in schema.items() if key not in _JUNCTORS and key != "nullable"}
    if schema.get("nullable"):
        for key in ("type", "items", "properties"):
            out.pop(key, None)
    if schema.get(_PRESERVE):
        out.pop("items", None)
        out.pop("properties", None)
        if out.get("type") == "object":
            del out["type"]
    if out.get("type") == "array" and out.get("items") is None:
        del out["type"]
    properties, more = out.get("properties"), out.get("additionalProperties")
    null = {key for key, child in (properties or {}).items() if (child or {}).get("nullable")}
    needed = [key for key in out.get("required") or () if key not in null]
    if isinstance(more, dict) and more.get("nullable"):
        needed = []
    out.pop("required", None)
    if needed:
        out["required"] = needed
    if properties is not None:
        out["properties"] = {key: _swagger(child or {}) for key, child in properties.items()}
    if isinstance(more, dict):
        out["additionalProperties"] = _swagger(more)
    if isinstance(out.get("items"), dict):
        out["items"] = _swagger(out["items"])
    return out


def _embedded(schema: Object, prefix: str, *, v2: bool) -> Object:
    """With the fields of the resources that are embedded in it."""
    out = dict(schema)
    if isinstance(out.get("properties"), dict):
        out["properties"] = {key: _embedded(child or {}, prefix, v2=v2) for key, child in out["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _embedded(out[key], prefix, v2=v2)
    if out.get(_EMBEDDED) and not (v2 and out.get(_PRESERVE)):
        own = {
            "apiVersion": {"type": "string", "description": _OWN_VERSION},
            "kind": {"type": "string", "description": _OWN_KIND},
            "metadata": _reference(definitions.OBJECT_META, prefix, _METADATA),
        }
        out["properties"] = {**(out.get("properties") or {}), **own}
        needed = list(out.get("required") or ())
        out["required"] = needed + [key for key in ("kind", "apiVersion") if key not in needed]
    return out
