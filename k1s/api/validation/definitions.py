"""CustomResourceDefinitions: names, versions, that every version has a schema.

Called by: table.py. Never does: the schema itself (structural.py), CEL rules in it.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required
from k1s.api.meta import Object
from k1s.api.validation.extension import client_config
from k1s.api.validation.rules import Errors, immutable, one_of, strings
from k1s.api.validation.structural import structural


def _names(errs: Errors, spec: Object) -> None:
    given = spec.get("names") or {}
    for key in ("plural", "singular", "kind", "listKind"):
        value = given.get(key) or ""
        if not value:
            errs.append(required(f"spec.names.{key}"))
        else:
            strings(errs, f"spec.names.{key}", value.lower(), names.dns1035_label)
    for key in ("shortNames", "categories"):
        for index, value in enumerate(given.get(key) or ()):
            strings(errs, f"spec.names.{key}[{index}]", value, names.dns1035_label)
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        errs.append(invalid_value("spec.names.listKind", given["listKind"], "kind and listKind may not be the same"))


def _column(errs: Errors, at: str, column: Object) -> None:
    for key in ("name", "type", "jsonPath"):
        if not column.get(key):
            errs.append(required(f"{at}.{key}"))
    if column.get("type"):
        one_of(errs, f"{at}.type", column["type"], ("boolean", "date", "integer", "number", "string"))
    path = column.get("jsonPath")
    if path and not path.startswith("."):
        errs.append(invalid_value(f"{at}.jsonPath", path, "must be a simple json path starting with ."))


def _version(errs: Errors, at: str, version: Object, spec: Object) -> None:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if schema is None:
        if not spec.get("preserveUnknownFields"):
            errs.append(required(f"{at}.schema.openAPIV3Schema", "schemas are required"))
    else:
        _schema(errs, f"{at}.schema.openAPIV3Schema", schema)
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        _column(errs, f"{at}.additionalPrinterColumns[{index}]", column)
    scale = (version.get("subresources") or {}).get("scale")
    if scale is not None:
        for key, root in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
            path = scale.get(key)
            if not path:
                errs.append(required(f"{at}.subresources.scale.{key}"))
            elif not path.startswith(root):
                text = f"should be a json path under {root.rstrip('.')}"
                errs.append(invalid_value(f"{at}.subresources.scale.{key}", path, text))


def _schema(errs: Errors, at: str, schema: Object) -> None:
    """A structural schema that leaves metadata alone."""
    structural(errs, at, schema)
    metadata = (schema.get("properties") or {}).get("metadata") or {}
    for key in (*metadata, *(metadata.get("properties") or {})):
        if key not in ("type", "properties", "description", "name", "generateName"):
            text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            errs.append(forbidden_field(f"{at}.properties[metadata]", text))


def _versions(errs: Errors, spec: Object) -> None:
    versions = spec.get("versions") or []
    if not versions:
        errs.append(required("spec.versions", "must have at least one version"))
    seen: set[Any] = set()
    stored = 0
    for index, version in enumerate(versions):
        at = f"spec.versions[{index}]"
        name = version.get("name") or ""
        strings(errs, f"{at}.name", name, names.dns1035_label)
        if name in seen:
            errs.append(duplicate(f"{at}.name", name))
        seen.add(name)
        stored += bool(version.get("storage"))
        _version(errs, at, version, spec)
    if stored != 1:
        text = "must have exactly one version marked as storage version"
        errs.append(invalid_value("spec.versions", [v.get("name") for v in versions], text))


def _conversion(errs: Errors, conversion: Object | None) -> None:
    if not conversion:
        return
    one_of(errs, "spec.conversion.strategy", conversion.get("strategy"), ("None", "Webhook"), needed=True)
    webhook, at = conversion.get("webhook"), "spec.conversion.webhook"
    if conversion.get("strategy") != "Webhook":
        if webhook is not None:
            text = "should not be set when strategy is not set to Webhook"
            errs.append(invalid_value(at, "", text))
        return
    if (webhook or {}).get("clientConfig") is None:
        errs.append(required(f"{at}.clientConfig", "required when strategy is set to Webhook"))
        return
    client_config(errs, f"{at}.clientConfig", (webhook or {})["clientConfig"])
    versions = (webhook or {}).get("conversionReviewVersions")
    if not versions:
        errs.append(required(f"{at}.conversionReviewVersions"))
    elif not {"v1", "v1beta1"} & set(versions):
        errs.append(invalid_value(f"{at}.conversionReviewVersions", versions, "must include at least one of v1, v1beta1"))


def custom_resource_definition(errs: Errors, obj: Object) -> None:
    spec = obj.get("spec") or {}
    group, plural = spec.get("group") or "", (spec.get("names") or {}).get("plural") or ""
    name = (obj.get("metadata") or {}).get("name") or ""
    if name != f"{plural}.{group}":
        errs.append(invalid_value("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if not group:
        errs.append(required("spec.group"))
    else:
        strings(errs, "spec.group", group, names.dns1123_subdomain)
        if "." not in group:
            errs.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    one_of(errs, "spec.scope", spec.get("scope"), ("Cluster", "Namespaced"), needed=True)
    if spec.get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        errs.append(invalid_value("spec.preserveUnknownFields", True, text))
    _names(errs, spec)
    _versions(errs, spec)
    _conversion(errs, spec.get("conversion"))


def custom_resource_definition_update(errs: Errors, obj: Object, old: Object) -> None:
    custom_resource_definition(errs, obj)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    established = any(c.get("type") == "Established" and c.get("status") == "True" for c in _conditions(old))
    if established:
        immutable(errs, "spec.scope", spec.get("scope"), before.get("scope"))
        kind, was = (spec.get("names") or {}).get("kind"), (before.get("names") or {}).get("kind")
        immutable(errs, "spec.names.kind", kind, was)
    immutable(errs, "spec.group", spec.get("group"), before.get("group"))
    plural, was = (spec.get("names") or {}).get("plural"), (before.get("names") or {}).get("plural")
    immutable(errs, "spec.names.plural", plural, was)
    stored = (old.get("status") or {}).get("storedVersions") or []
    present = {v.get("name") for v in spec.get("versions") or ()}
    for index, version in enumerate(stored):
        if version not in present:
            text = (
                f"missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until"
                f" a storage migration ensures no data remains persisted in {version} and removes {version} from"
                " status.storedVersions"
            )
            errs.append(invalid_value(f"status.storedVersions[{index}]", version, text))


def _conditions(obj: Object) -> list[Object]:
    return (obj.get("status") or {}).get("conditions") or []
