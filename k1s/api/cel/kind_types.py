"""The types of CEL for kinds: of those that are built in from their OpenAPI definitions, of custom ones from their schema.

Owns: builtin_type(), custom_type(), request_type(). Called by: validation/policy_types. Never does: know policies.
Fields get their types when they are first looked at: definitions are large, some contain themselves.
Source: apiserver/pkg/cel/openapi/resolver, pkg/admission/plugin/cel/compile.go (BuildRequestType).
"""

from __future__ import annotations

from typing import Any

from k1s.api import definitions
from k1s.api.cel.schema_types import schema_type
from k1s.api.cel.types import BOOL, DOUBLE, DYN, INT, STRING, TIMESTAMP, Type, list_of, map_of
from k1s.api.cel.values import escaped

Object = dict[str, Any]

_SCALARS = {"boolean": BOOL, "integer": INT, "number": DOUBLE, "string": STRING}
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


class _Fields(dict[str, Type]):
    """Fields of a definition by escaped name; each is made into a type when it is asked for."""

    def __init__(self, properties: dict[str, Object]) -> None:
        super().__init__()
        self._raw = {escaped(key): child for key, child in properties.items() if escaped(key)}

    def __contains__(self, name: object) -> bool:
        return name in self._raw

    def __missing__(self, name: str) -> Type:
        found = self[name] = _type(self._raw[name])
        return found


def _type(raw: Object) -> Type:
    if "$ref" in raw:
        return _definition(definitions.ref_target(raw["$ref"]))
    kind = raw.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "")
    if kind == "array":
        return list_of(_type(raw.get("items") or {}))
    if kind == "string" and raw.get("format") == "date-time":
        return TIMESTAMP
    if kind in _SCALARS:
        return _SCALARS[kind]
    if isinstance(raw.get("additionalProperties"), dict):
        return map_of(STRING, _type(raw["additionalProperties"]))
    return Type("object", (), "object", _Fields(raw.get("properties") or {})) if kind == "object" else DYN


def _definition(name: str) -> Type:
    if name == _INT_OR_STRING:
        return DYN
    if name == _QUANTITY:
        return STRING
    found = _type(definitions.definition(name))
    return Type("object", (), name.rpartition(".")[2], found.fields) if found.kind == "object" else found


def builtin_type(group: str, version: str, kind: str) -> Type:
    """KeyError if there is no such kind."""
    return _definition(definitions.definition_name(group, version, kind))


def custom_type(kind: str, schema: Object) -> Type:
    """Of the openAPIV3Schema of a definition's version."""
    found = schema_type(schema, resource=True, name=kind)
    if found is None or found.fields is None:
        return DYN
    return Type("object", (), kind, {**found.fields, "metadata": _definition(definitions.OBJECT_META)})


def _struct(type_name: str, /, **fields: Type) -> Type:
    return Type("object", (), f"kubernetes.{type_name}", fields)


def request_type() -> Type:
    """Of the variable `request`."""
    gvk = _struct("GroupVersionKind", group=STRING, version=STRING, kind=STRING)
    gvr = _struct("GroupVersionResource", group=STRING, version=STRING, resource=STRING)
    user = _struct("UserInfo", username=STRING, uid=STRING, groups=list_of(STRING), extra=map_of(STRING, list_of(STRING)))
    kinds = {"kind": gvk, "requestKind": gvk, "resource": gvr, "requestResource": gvr}
    texts = dict.fromkeys(("subResource", "requestSubResource", "name", "namespace", "operation", "uid"), STRING)
    return _struct("AdmissionRequest", **kinds, **texts, userInfo=user, dryRun=BOOL, options=DYN)
