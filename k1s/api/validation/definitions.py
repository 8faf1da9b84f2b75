"""CustomResourceDefinitions: names, versions, their schemas, subresources, columns, conversion.

Called by: table.py. Never does: schemas themselves (structural.py, schema_nodes.py, schema_defaults.py).
What all versions say alike stands at the top of the spec in upstream's internal type, and so it does in the fields of faults:
spec.validation.openAPIV3Schema for a definition of one version.
Source: apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go.
"""

from __future__ import annotations

from typing import Any

from k1s.api import names
from k1s.api.errors import duplicate, forbidden_field, invalid_value, required, too_many
from k1s.api.meta import Object
from k1s.api.validation.api_approval import approval_faults
from k1s.api.validation.definition_conversion import conversion as _conversion
from k1s.api.validation.field_path import PathError, resolved
from k1s.api.validation.rule_check import Budget
from k1s.api.validation.rules import Errors, immutable, one_of, same
from k1s.api.validation.schema_defaults import schema_defaults
from k1s.api.validation.schema_nodes import schema_nodes
from k1s.api.validation.structural import structural

_COLUMN_TYPES = "boolean,date,integer,number,string"
_COLUMN_FORMATS = "byte,date,date-time,double,float,int32,int64,password"
_MAX_SELECTABLE = 8
_SELECTABLE = ("string", "boolean", "integer")
# With a status subresource, the root of a schema may say no more than this: the status has a schema of its own then.
_ROOT_FIELDS = (
    *("Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum", "MaxLength"),
    *("MinLength", "Pattern", "MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required", "Items", "Properties"),
    *("ExternalDocs", "Example", "XPreserveUnknownFields", "XValidations"),
)
_ROOT_KEYS = {
    *(name[0].lower() + name[1:] for name in _ROOT_FIELDS if not name.startswith("X")),
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
}


def _joined(errs: Errors, field: str, value: str, prefix: str = "") -> None:
    said = names.dns1035_label(value.lower() if prefix else value)
    if said:
        errs.append(invalid_value(field, value, prefix + ",".join(said)))


def definition_names(errs: Errors, at: str, given: Object) -> None:
    """The forms of names, of which any may be absent."""
    for key in ("plural", "singular"):
        if given.get(key):
            _joined(errs, f"{at}.{key}", given[key])
    for key in ("kind", "listKind"):
        if given.get(key):
            _joined(errs, f"{at}.{key}", given[key], "may have mixed case, but should otherwise match: ")
    for index, value in enumerate(given.get("shortNames") or ()):
        _joined(errs, f"{at}.shortNames[{index}]", value)
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        errs.append(invalid_value(f"{at}.listKind", given["listKind"], "kind and listKind may not be the same"))
    for index, value in enumerate(given.get("categories") or ()):
        _joined(errs, f"{at}.categories[{index}]", value)


def _column(errs: Errors, at: str, column: Object) -> None:
    if not column.get("name"):
        errs.append(required(f"{at}.name"))
    kind, text = column.get("type"), f"must be one of {_COLUMN_TYPES}"
    if not kind:
        errs.append(required(f"{at}.type", text))
    elif kind not in _COLUMN_TYPES.split(","):
        errs.append(invalid_value(f"{at}.type", kind, text))
    if column.get("format") and column["format"] not in _COLUMN_FORMATS.split(","):
        errs.append(invalid_value(f"{at}.format", column["format"], f"must be one of {_COLUMN_FORMATS}"))
    if not column.get("jsonPath"):
        errs.append(required(f"{at}.JSONPath"))
    else:
        _simple_path(errs, f"{at}.JSONPath", column["jsonPath"])


def _simple_path(errs: Errors, at: str, path: str) -> bool:
    if not path.startswith("."):
        errs.append(invalid_value(at, path, "must be a simple json path starting with ."))
        return False
    return True


def _subresources(errs: Errors, at: str, subresources: Object) -> None:
    scale = subresources.get("scale")
    if scale is None:
        return
    for key, root in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        path, where = scale.get(key), f"{at}.scale.{key}"
        if not path:
            errs.append(required(where))
        elif _simple_path(errs, where, path) and not path.startswith(root):
            errs.append(invalid_value(where, path, f"should be a json path under {root.rstrip('.')}"))
    path, where = scale.get("labelSelectorPath"), f"{at}.scale.labelSelectorPath"
    if path and _simple_path(errs, where, path) and not path.startswith((".spec.", ".status.")):
        errs.append(invalid_value(where, path, "should be a json path under either .spec or .status"))


def _schema(errs: Errors, at: str, validation: Object, *, status: bool, cheap: bool) -> None:
    """spec.validation, or the schema of a version."""
    schema = validation.get("openAPIV3Schema")
    if schema is None:
        return
    at = f"{at}.openAPIV3Schema"
    if status:
        _root_for_status(errs, at, schema)
    if schema.get("nullable"):
        errs.append(forbidden_field(f"{at}.nullable", "nullable cannot be true at the root"))
    found = structural(at, schema) or schema_defaults(at, schema)
    errs.extend(found)
    budget = None if found else Budget(cheap)
    errs.extend(schema_nodes(at, schema, budget))
    if budget is not None:
        errs.extend(budget.verdict(at))


def _root_for_status(errs: Errors, at: str, schema: Object) -> None:
    for key, value in schema.items():
        if value in (None, "", False, [], {}):
            continue
        if key == "type" and value != "object":
            text = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
            errs.append(invalid_value(f"{at}.type", value, text))
            return
        if key not in _ROOT_KEYS:
            allowed = f"only [{' '.join(_ROOT_FIELDS)}] fields are allowed"
            text = f"{allowed} at the root of the schema if the status subresource is enabled"
            errs.append(invalid_value(at, schema, text))
            return


def _selectable(errs: Errors, at: str, fields: list[Object], schema: Object, *, many: bool) -> None:
    seen: set[tuple[str, ...]] = set()
    for index, field in enumerate(fields):
        where, text = f"{at}[{index}].jsonPath", field.get("jsonPath") or ""
        if not text:
            errs.append(required(where))
            continue
        try:
            path, found = resolved(text, schema, keys=False)
        except PathError as error:
            errs.append(invalid_value(where, text, f"is an invalid path: {error}"))
            continue
        if path[:1] == ("metadata",):
            errs.append(invalid_value(where, text, "must not point to fields in metadata"))
        if found.get("type") not in _SELECTABLE:
            said = "must point to a field of type string, boolean or integer."
            said += " Enum string fields and strings with formats are allowed."
            errs.append(invalid_value(where, text, said))
        if path in seen:
            errs.append(duplicate(where, text))
        seen.add(path)
    if len(seen) > _MAX_SELECTABLE and not many:
        errs.append(too_many(at, len(seen), _MAX_SELECTABLE))


def _deprecation(errs: Errors, at: str, version: Object) -> None:
    text = version.get("deprecationWarning")
    if text is None:
        return
    said = []
    if not version.get("deprecated"):
        said = ["can only be set for deprecated versions"]
    else:
        if len(text.encode()) > 256:
            said.append("must be <= 256 characters long")
        if not text:
            said.append("must not be an empty string")
        odd = next((i for i, c in enumerate(text) if not c.isprintable()), -1)
        if odd >= 0:
            said.append(f"must only contain printable UTF-8 characters; non-printable character found at index {odd}")
    errs.extend(invalid_value(f"{at}.deprecationWarning", text, words) for words in said)


def _alike(versions: list[Object], key: str) -> bool:
    return all(same(version.get(key), versions[0].get(key)) for version in versions)


def _versions(errs: Errors, spec: Object, old: Object) -> None:
    versions = spec.get("versions") or []
    before = {version.get("name"): version for version in old.get("versions") or ()}
    alike = {key: _alike(versions, key) for key in ("schema", "subresources", "additionalPrinterColumns", "selectableFields")}
    for index, version in enumerate(versions):
        if (version.get("schema") or {}).get("openAPIV3Schema") is None:
            errs.append(required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required"))
    seen: set[Any] = set()
    for index, version in enumerate(versions):
        at, name = f"spec.versions[{index}]", version.get("name") or ""
        _joined(errs, f"{at}.name", name)
        seen.add(name)
        _deprecation(errs, at, version)
        earlier = before.get(name) or {}
        for key, shared in alike.items():
            if not shared:
                _part(errs, f"{at}.{key}", key, version, earlier)
    if len(seen) < len(versions):
        errs.append(invalid_value("spec.versions", versions, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        errs.append(invalid_value("spec.versions", versions, "must have exactly one version marked as storage version"))
    for key, shared in alike.items():
        if shared and versions:
            top = "validation" if key == "schema" else key
            _part(errs, f"spec.{top}", key, versions[0], before.get(versions[0].get("name")) or {})


def _part(errs: Errors, at: str, key: str, version: Object, earlier: Object) -> None:
    value = version.get(key)
    if not value:
        return
    if key == "schema":
        status = (version.get("subresources") or {}).get("status") is not None
        # What was accepted before may stay as expensive as it is.
        _schema(errs, at, value, status=status, cheap=bool(earlier) and same(value, earlier.get(key)))
    elif key == "subresources":
        _subresources(errs, at, value)
    elif key == "additionalPrinterColumns":
        for index, column in enumerate(value):
            _column(errs, f"{at}[{index}]", column)
    else:
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        many = len(earlier.get(key) or ()) > _MAX_SELECTABLE and same(value, earlier.get(key))
        _selectable(errs, at, value, schema, many=many)


def custom_resource_definition(errs: Errors, obj: Object) -> None:
    _definition(errs, obj, {})


def _definition(errs: Errors, obj: Object, old: Object) -> None:
    spec = obj.get("spec") or {}
    group, given = spec.get("group") or "", spec.get("names") or {}
    name = (obj.get("metadata") or {}).get("name") or ""
    if not old and name != f"{given.get('plural') or ''}.{group}":
        errs.append(invalid_value("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if not group:
        errs.append(required("spec.group"))
    elif names.dns1123_subdomain(group):
        errs.append(invalid_value("spec.group", group, ",".join(names.dns1123_subdomain(group))))
    elif "." not in group:
        errs.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    one_of(errs, "spec.scope", spec.get("scope"), ("Cluster", "Namespaced"), needed=True)
    preserves = bool(spec.get("preserveUnknownFields"))
    _versions(errs, spec, old.get("spec") or {})
    for key in ("plural", "singular", "kind", "listKind"):
        if not given.get(key):
            errs.append(required(f"spec.names.{key}"))
    definition_names(errs, "spec.names", given)
    _conversion(errs, spec.get("conversion"), preserves=preserves, established=established(old))
    definition_names(errs, "status.acceptedNames", (obj.get("status") or {}).get("acceptedNames") or {})
    _stored(errs, obj)
    errs.extend(approval_faults(obj, old or None))
    if preserves and not (old.get("spec") or {}).get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        errs.append(invalid_value("spec.preserveUnknownFields", True, text))


def _stored(errs: Errors, obj: Object) -> None:
    at, stored = "status.storedVersions", (obj.get("status") or {}).get("storedVersions") or []
    if not stored:
        errs.append(invalid_value(at, stored, "must have at least one stored version"))
        return
    versions = (obj.get("spec") or {}).get("versions") or ()
    present = {version.get("name") for version in versions}
    for version in versions:
        if version.get("storage") and version.get("name") not in stored:
            errs.append(invalid_value(at, stored, f"must have the storage version {version.get('name')}"))
    for index, name in enumerate(stored):
        if name not in present:
            text = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until"
                f" a storage migration ensures no data remains persisted in {name} and removes {name} from"
                " status.storedVersions"
            )
            errs.append(invalid_value(f"{at}[{index}]", name, text))


def custom_resource_definition_update(errs: Errors, obj: Object, old: Object) -> None:
    _definition(errs, obj, old)
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    if established(old):
        immutable(errs, "spec.scope", spec.get("scope"), before.get("scope"))
        kind, was = (spec.get("names") or {}).get("kind"), (before.get("names") or {}).get("kind")
        immutable(errs, "spec.names.kind", kind, was)
    immutable(errs, "spec.group", spec.get("group"), before.get("group"))
    plural, was = (spec.get("names") or {}).get("plural"), (before.get("names") or {}).get("plural")
    immutable(errs, "spec.names.plural", plural, was)


def custom_resource_definition_status(errs: Errors, obj: Object, old: Object) -> None:
    definition_names(errs, "status.acceptedNames", (obj.get("status") or {}).get("acceptedNames") or {})


def established(obj: Object) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)
