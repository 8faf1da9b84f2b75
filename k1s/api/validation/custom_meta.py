"""What is true of custom resources beyond their schema: embedded resources, the paths of scale.

embedded_faults, has_embedded, scale_faults. Called by: the apiserver's custom resources, schema_defaults.
Source: apiextensions-apiserver/pkg/apiserver/schema/objectmeta, pkg/registry/customresource/validator.go.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import FieldError, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.object_meta import annotation_map, finalizer_list, label_map
from k1s.api.validation.rules import Errors
from k1s.api.validation.structural import EMBEDDED

_MAX_INT32 = 2**31 - 1


def has_embedded(schema: Object) -> bool:
    """Whether a resource is embedded anywhere in a schema, so that objects need not be searched in vain."""
    if schema.get(EMBEDDED):
        return True
    children = list((schema.get("properties") or {}).values())
    children += [schema.get("items"), schema.get("additionalProperties")]
    return any(isinstance(child, dict) and has_embedded(child) for child in children)


def embedded_faults(value: Any, schema: Object, at: str = "") -> list[FieldError]:
    """What is wrong with the resources embedded in a value."""
    errs: Errors = []
    _walk(errs, at, value, schema)
    return errs


def _walk(errs: Errors, at: str, value: Any, schema: Object) -> None:
    if isinstance(value, dict):
        if schema.get(EMBEDDED):
            _resource(errs, at, value)
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, item in value.items():
            if key in properties:
                _walk(errs, f"{at}.{key}" if at else key, item, properties[key] or {})
            elif isinstance(more, dict):
                _walk(errs, f"{at}[{key}]", item, more)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            _walk(errs, f"{at}[{index}]", item, schema["items"])


def _resource(errs: Errors, at: str, value: Object) -> None:
    errs.extend(required(f"{at}.{key}") for key in ("apiVersion", "kind") if key not in value)
    for key in ("apiVersion", "kind"):
        text, where = value.get(key, "-"), f"{at}.{key}"
        if not isinstance(text, str):
            errs.append(invalid_value(where, text, "must be a string"))
        elif not text:
            errs.append(invalid_value(where, text, "must not be empty"))
    version = value.get("apiVersion")
    if isinstance(version, str) and version.count("/") > 1:
        errs.append(invalid_value(f"{at}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
    kind = value.get("kind")
    if isinstance(kind, str) and kind:
        said = names.dns1035_label(kind.lower())
        if said:
            text = "may have mixed case, but should otherwise match: " + ",".join(said)
            errs.append(invalid_value(f"{at}.kind", kind, text))
    if isinstance(value.get("metadata"), dict):
        _meta(errs, f"{at}.metadata", value["metadata"])


def _meta(errs: Errors, at: str, meta: Object) -> None:
    for key, prefix in (("generateName", True), ("name", False)):
        text = meta.get(key)
        if isinstance(text, str) and text:
            errs.extend(invalid_value(f"{at}.{key}", text, said) for said in names.is_path_segment(text, prefix))
    namespace = meta.get("namespace")
    if isinstance(namespace, str) and namespace:
        errs.extend(invalid_value(f"{at}.namespace", namespace, said) for said in names.dns1123_label(namespace))
    label_map(errs, f"{at}.labels", meta.get("labels"))
    annotation_map(errs, f"{at}.annotations", meta.get("annotations"))
    finalizer_list(errs, f"{at}.finalizers", meta.get("finalizers"), builtin=False)


def scale_faults(obj: Object, scale: Object, *, spec: bool = True) -> list[FieldError]:
    """What is wrong with the values that a definition's subresources.scale points at. `spec`: also those of the spec."""
    errs: Errors = []
    for key in ("specReplicasPath", "statusReplicasPath") if spec else ("statusReplicasPath",):
        _replicas(errs, obj, scale.get(key) or "")
    path = scale.get("labelSelectorPath")
    if path:
        _at(errs, obj, path, str, "string", "")
    return errs


def _replicas(errs: Errors, obj: Object, path: str) -> None:
    found = _at(errs, obj, path, int, "int64", 0)
    if found is None:
        return
    if found < 0:
        errs.append(invalid_value(path, found, "should be a non-negative integer"))
    elif found > _MAX_INT32:
        errs.append(invalid_value(path, found, f"should be less than or equal to {_MAX_INT32}"))


_GO = {bool: "bool", int: "int64", float: "float64", str: "string", list: "[]interface {}", dict: "map[string]interface {}"}


def _at(errs: Errors, obj: Object, path: str, kind: type, go: str, zero: Any) -> Any:
    value: Any = obj
    parts = path.lstrip(".").split(".")
    for index, part in enumerate(parts):
        if value is None:
            return None
        if not isinstance(value, dict):
            done = ".".join(parts[:index])
            text = f".{done} accessor error: {_said(value)} is of the type {_go(value)}, expected map[string]interface{{}}"
            errs.append(invalid_value(path, zero, text))
            return None
        value = value.get(part)
    if value is None or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    text = f".{'.'.join(parts)} accessor error: {_said(value)} is of the type {_go(value)}, expected {go}"
    errs.append(invalid_value(path, zero, text))
    return None


def _go(value: Any) -> str:
    return _GO.get(type(value), "<nil>")


def _said(value: Any) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
